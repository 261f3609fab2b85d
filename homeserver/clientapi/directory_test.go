package clientapi_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hansa/homeserver/account"
)

// Nobody takes or moves the alias of somebody else, and the canonical alias of a room leads to it.
func TestC191_AliasHijack(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob, eve, gina := h.user("anna", acme), h.user("bob", acme), h.user("eve", acme), h.user("gina", globex)
		hall, den := anna.create(`{"preset":"public_chat"}`), eve.create(`{"preset":"public_chat"}`)
		anna.ok("PUT", "/directory/room/%s", map[string]any{"room_id": hall}, "#admins:acme.example")
		put := func(g *guest, alias, room string) answer {
			return g.do("PUT", "/directory/room/%s", map[string]any{"room_id": room}, alias)
		}
		want(t, "taken", put(eve, "#admins:acme.example", den), 409, "M_UNKNOWN")
		want(t, "delete", eve.do("DELETE", "/directory/room/%s", nil, "#admins:acme.example"), 403, "M_FORBIDDEN")
		bob.ok("POST", "/join/%s", nil, hall)
		want(t, "delete as a plain member", bob.do("DELETE", "/directory/room/%s", nil, "#admins:acme.example"), 403, "M_FORBIDDEN")
		want(t, "delete from another tenant", gina.do("DELETE", "/directory/room/%s", nil, "#admins:acme.example"), 404, "M_NOT_FOUND")
		want(t, "alias of another tenant", put(eve, "#x:globex.example", den), 400, "M_INVALID_PARAM")
		want(t, "alias for a room one is not in", put(bob, "#x:acme.example", den), 403, "M_FORBIDDEN")
		want(t, "no alias", put(eve, "admins", den), 400, "M_INVALID_PARAM")
		want(t, "no room", eve.do("PUT", "/directory/room/%s", `{}`, "#y:acme.example"), 400, "M_MISSING_PARAM")

		canonical := func(g *guest, room string, content any) answer {
			return g.do("PUT", "/rooms/%s/state/m.room.canonical_alias", content, room)
		}
		for _, content := range []map[string]any{{"alias": "#admins:acme.example"}, {"alt_aliases": []string{"#admins:acme.example"}}, {"alias": "#none:acme.example"}, {"alias": "#x:far.example"}} {
			want(t, fmt.Sprint(content), canonical(eve, den, content), 400, "M_BAD_ALIAS")
		}
		want(t, "no alias at all", canonical(eve, den, `{"alias":"x"}`), 400, "M_INVALID_PARAM")
		want(t, "alias is a number", canonical(eve, den, `{"alias":7}`), 400, "M_BAD_JSON")
		want(t, "by a plain member", canonical(bob, hall, `{"alias":"#admins:acme.example"}`), 403, "M_FORBIDDEN")
		if a := canonical(anna, hall, `{"alias":"#admins:acme.example"}`); a.status != 200 {
			t.Fatalf("canonical alias: %s", a)
		}
		if a := anna.ok("GET", "/directory/room/%s", nil, "#admins:acme.example"); a.body["room_id"] != hall {
			t.Errorf("the alias leads to %v", a.body["room_id"])
		}
		if a := anna.ok("GET", "/rooms/%s/aliases", nil, hall); a.raw != `{"aliases":["#admins:acme.example"]}` {
			t.Errorf("aliases %s", a)
		}
		// An alias that is gone may stay where it is named; it cannot come back.
		anna.ok("PUT", "/directory/room/%s", map[string]any{"room_id": hall}, "#second:acme.example")
		canonical(anna, hall, `{"alias":"#admins:acme.example","alt_aliases":["#second:acme.example"]}`)
		anna.ok("DELETE", "/directory/room/%s", nil, "#admins:acme.example")
		if c := anna.stateOf(hall, "m.room.canonical_alias", "").body; c["alias"] != nil || fmt.Sprint(c["alt_aliases"]) != "[#second:acme.example]" {
			t.Errorf("canonical alias %v", c)
		}
		want(t, "gone", anna.do("GET", "/directory/room/%s", nil, "#admins:acme.example"), 404, "M_NOT_FOUND")
		want(t, "gone twice", anna.do("DELETE", "/directory/room/%s", nil, "#admins:acme.example"), 404, "M_NOT_FOUND")
		if a := put(eve, "#admins:acme.example", den); a.status != 200 {
			t.Errorf("a free alias: %s", a)
		}
	})
}

// A look-up that is refused has the answer of one that finds nothing.
func TestAliases_RefusedIsNotFound(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		server := string(b.id.Server())
		b.create(map[string]any{"room_alias_name": "secret", "preset": "public_chat"})
		there, missing := c.anna.do("GET", "/directory/room/%s", nil, "#secret:"+server), c.anna.do("GET", "/directory/room/%s", nil, "#none:"+server)
		want(t, "resolve", there, 404, "M_NOT_FOUND")
		if there.raw != missing.raw {
			t.Errorf("%s for one that exists, %s for one that does not", there, missing)
		}
		there, missing = c.anna.do("POST", "/join/%s", nil, "#secret:"+server), c.anna.do("POST", "/join/%s", nil, "#none:"+server)
		if there.raw != missing.raw || there.status != 404 {
			t.Errorf("join: %s for one that exists, %s for one that does not", there, missing)
		}
	})
}

func TestAliases_OfAPartner(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, gina := h.user("anna", acme), h.user("gina", globex)
		id := gina.create(`{"room_alias_name":"x","preset":"public_chat"}`)
		if a := anna.ok("GET", "/directory/room/%s", nil, "#x:globex.example"); a.body["room_id"] != id || fmt.Sprint(a.body["servers"]) != "[globex.example]" {
			t.Errorf("alias %s", a)
		}
		if a := anna.ok("POST", "/join/%s", nil, "#x:globex.example"); a.body["room_id"] != id {
			t.Errorf("join %s", a)
		}
	})
}

// listed returns the names in a page of a room list.
func listed(a answer) (names []string) {
	chunk, _ := a.body["chunk"].([]any)
	for _, c := range chunk {
		name, _ := c.(map[string]any)["name"].(string)
		names = append(names, name)
	}
	return names
}

func TestPublicRooms(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		var ids []string
		for i, kind := range []string{"", "m.space", "", "x.other", ""} {
			body := map[string]any{"name": fmt.Sprintf("Room %d", i), "topic": "about " + fmt.Sprint(i*111), "visibility": "public", "creation_content": map[string]any{}}
			if kind != "" {
				body["creation_content"] = map[string]any{"type": kind}
			}
			ids = append(ids, anna.create(body))
		}
		bob.ok("POST", "/join/%s", nil, ids[2])
		first := bob.ok("GET", "/publicRooms?limit=2", nil)
		if got := listed(first); len(got) != 2 || got[0] != "Room 2" || first.body["prev_batch"] != nil {
			t.Fatalf("first page %s", first)
		}
		var all []string
		page, back := first, ""
		for {
			all = append(all, listed(page)...)
			next, ok := page.body["next_batch"].(string)
			if !ok {
				break
			}
			page = bob.ok("GET", "/publicRooms?limit=2&since="+url.QueryEscape(next), nil)
			if back == "" {
				back, _ = page.body["prev_batch"].(string)
			}
		}
		sorted := slices.Sorted(slices.Values(all))
		if strings.Join(sorted, ",") != "Room 0,Room 1,Room 2,Room 3,Room 4" {
			t.Errorf("all pages have %v", all)
		}
		if got := bob.ok("GET", "/publicRooms?limit=2&since="+url.QueryEscape(back), nil); strings.Join(listed(got), ",") != strings.Join(listed(first), ",") || got.body["prev_batch"] != nil {
			t.Errorf("back at the first page: %s", got)
		}
		if got := listed(bob.ok("POST", "/publicRooms", `{"filter":{"generic_search_term":"ROOM 3"}}`)); strings.Join(got, ",") != "Room 3" {
			t.Errorf("search by name: %v", got)
		}
		if got := listed(bob.ok("POST", "/publicRooms", `{"filter":{"generic_search_term":"444"}}`)); strings.Join(got, ",") != "Room 4" {
			t.Errorf("search by topic: %v", got)
		}
		if got := listed(bob.ok("POST", "/publicRooms", `{"filter":{"room_types":["m.space",null]}}`)); len(got) != 4 {
			t.Errorf("search by type: %v", got)
		}
		one := bob.ok("POST", "/publicRooms", `{"filter":{"generic_search_term":"Room 2"}}`).body["chunk"].([]any)[0].(map[string]any)
		if one["num_joined_members"] != 2.0 || one["join_rule"] != "public" || one["world_readable"] != false || one["guest_can_join"] != false || one["topic"] != "about 222" {
			t.Errorf("entry %v", one)
		}
		want(t, "bad token", bob.do("GET", "/publicRooms?since=x", nil), 400, "M_INVALID_PARAM")
		want(t, "bad limit", bob.do("GET", "/publicRooms?limit=x", nil), 400, "M_INVALID_PARAM")

		want(t, "hide without power", bob.do("PUT", "/directory/list/room/%s", `{"visibility":"private"}`, ids[2]), 403, "M_FORBIDDEN")
		want(t, "bad visibility", anna.do("PUT", "/directory/list/room/%s", `{"visibility":"x"}`, ids[2]), 400, "M_INVALID_PARAM")
		anna.ok("PUT", "/directory/list/room/%s", `{"visibility":"private"}`, ids[2])
		if v := anna.ok("GET", "/directory/list/room/%s", nil, ids[2]).body["visibility"]; v != "private" {
			t.Errorf("visibility %v", v)
		}
		if got := listed(bob.ok("GET", "/publicRooms", nil)); slices.Contains(got, "Room 2") || len(got) != 4 {
			t.Errorf("list %v", got)
		}
		anna.ok("PUT", "/directory/list/room/%s", `{}`, ids[2])
		if v := bob.ok("GET", "/directory/list/room/%s", nil, ids[2]).body["visibility"]; v != "public" {
			t.Errorf("visibility %v", v)
		}
	})
}

// What policy hides in a list leaves no trace: not in the pages, not in their tokens.
func TestPublicRooms_HideWhatIsOutOfReach(t *testing.T) {
	eachHouse(t, pools(), func(t *testing.T, h *house) {
		c := newCast(h)
		for i := range 3 {
			c.vera.create(map[string]any{"name": fmt.Sprint("hidden ", i), "visibility": "public"})
			c.bob.create(map[string]any{"name": fmt.Sprint("open ", i), "visibility": "public"})
		}
		c.gina.create(map[string]any{"name": "globex", "visibility": "public"})
		page := c.anna.ok("GET", "/publicRooms?limit=2", nil)
		next, _ := page.body["next_batch"].(string)
		names := listed(page)
		page = c.anna.ok("GET", "/publicRooms?limit=2&since="+url.QueryEscape(next), nil)
		names = append(names, listed(page)...)
		if len(names) != 3 || strings.Contains(fmt.Sprint(names), "hidden") || page.body["next_batch"] != nil {
			t.Errorf("anna sees %v, and then %v", names, page.body["next_batch"])
		}
		refusedByPolicy(t, "list of a stranger", c.anna.do("GET", "/publicRooms?server=globex.example", nil))
		refusedByPolicy(t, "list of an unknown server", c.anna.do("GET", "/publicRooms?server=far.example", nil))
		want(t, "bad server", c.anna.do("GET", "/publicRooms?server=a%%20b", nil), 400, "M_INVALID_PARAM")
	})
}

func TestPublicRooms_OfAPartner(t *testing.T) {
	eachHouse(t, with(friends(), "globex.example/pools.yaml", "vault: {groups: [vault], contact: closed}\n"), func(t *testing.T, h *house) {
		anna, gina, gus := h.user("anna", acme), h.user("gina", globex), h.user("gus", globex, "vault")
		gina.create(`{"name":"open","visibility":"public"}`)
		gus.create(`{"name":"hidden","visibility":"public"}`)
		anna.create(`{"name":"own","visibility":"public"}`)
		if got := listed(anna.ok("GET", "/publicRooms?server=globex.example", nil)); strings.Join(got, ",") != "open" {
			t.Errorf("anna sees %v of globex", got)
		}
		if got := listed(anna.ok("GET", "/publicRooms", nil)); strings.Join(got, ",") != "own" {
			t.Errorf("anna sees %v of acme", got)
		}
	})
}

// found returns whom a search finds.
func found(g *guest, term string, limit int) (ids []string, limited any) {
	g.h.t.Helper()
	a := g.ok("POST", "/user_directory/search", map[string]any{"search_term": term, "limit": limit})
	for _, r := range a.body["results"].([]any) {
		ids = append(ids, strings.TrimPrefix(r.(map[string]any)["user_id"].(string), "@"))
	}
	return ids, a.body["limited"]
}

func TestUserDirectory(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		h.user("bob", acme)
		h.user("robert", acme)
		gina := h.user("gina", globex)
		for _, c := range []struct {
			term, want string
			limit      int
			limited    bool
		}{
			{"bob", "bob:acme.example", 10, false}, {"OB", "bob:acme.example robert:acme.example", 10, false}, {"ob", "bob:acme.example", 1, true},
			{"gin", "gina:globex.example", 10, false}, {"@bob:acme.example", "bob:acme.example", 10, false}, {"@b", "bob:acme.example", 10, false},
			{"@ob", "", 10, false}, {"anna", "", 10, false}, {"%", "", 10, false}, {"_", "", 10, false}, {"", "", 10, false}, {"acme", "", 10, false},
			{"@gina:glo", "gina:globex.example", 10, false}, {"@gina:acme.example", "", 10, false}, {`\`, "", 10, false}, {"x\u0000", "", 10, false},
		} {
			got, limited := found(anna, c.term, c.limit)
			if strings.Join(got, " ") != c.want || limited != c.limited {
				t.Errorf("%q: %v, limited %v; want %q, %v", c.term, got, limited, c.want, c.limited)
			}
		}
		gina.ok("PUT", "/profile/%s/displayname", `{"displayname":"Ärger 100%_"}`, gina.id)
		for _, term := range []string{"ärg", "ÄRGER", "100%_"} {
			if got, _ := found(anna, term, 10); strings.Join(got, " ") != "gina:globex.example" {
				t.Errorf("%q: %v", term, got)
			}
		}
		want(t, "no term", anna.do("POST", "/user_directory/search", `{}`), 400, "M_MISSING_PARAM")
		want(t, "long term", anna.do("POST", "/user_directory/search", map[string]any{"search_term": strings.Repeat("x", 300)}), 400, "M_INVALID_PARAM")
		h.restart()
		if got, _ := found(anna, "bob", 10); len(got) != 1 {
			t.Errorf("after a restart: %v", got)
		}
	})
}

// Who is out of reach is filtered before the limit: a page is full, and limited tells of nobody who is hidden.
func TestUserDirectory_HidesWhoIsOutOfReach(t *testing.T) {
	eachHouse(t, pools(), func(t *testing.T, h *house) {
		c := newCast(h)
		for i := range 5 {
			h.user(fmt.Sprintf("x%d", i), acme, "vault")
			h.user(fmt.Sprintf("x%d", i), globex)
		}
		h.user("x9", acme)
		if got, limited := found(c.anna, "x", 2); strings.Join(got, " ") != "x9:acme.example" || limited != false {
			t.Errorf("anna finds %v, limited %v", got, limited)
		}
		if got, limited := found(c.vera, "x", 2); len(got) != 2 || limited != true {
			t.Errorf("vera finds %v, limited %v", got, limited)
		}
		if got, _ := found(c.gina, "x", 10); len(got) != 5 {
			t.Errorf("gina finds %v", got)
		}
	})
}

// The directory follows the rules and the facts about users.
func TestUserDirectory_FollowsPolicy(t *testing.T) {
	eachHouse(t, pools(), func(t *testing.T, h *house) {
		c := newCast(h)
		if got, _ := found(c.anna, "vera", 10); len(got) != 0 {
			t.Errorf("anna finds %v", got)
		}
		if err := os.WriteFile(filepath.Join(h.policy, "acme.example/pools.yaml"), []byte("vault: {groups: [vault], contact: open}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.engine.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got, _ := found(c.anna, "vera", 10); len(got) != 1 {
			t.Errorf("anna finds %v after the pool was opened", got)
		}
		if err := os.WriteFile(filepath.Join(h.policy, "acme.example/pools.yaml"), []byte("vault: {groups: [vault], contact: closed}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.engine.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got, _ := found(c.anna, "vera", 10); len(got) != 0 {
			t.Errorf("anna finds %v after the pool was closed", got)
		}
		if err := h.accounts.SetGroups(context.Background(), account.Operator("test"), c.vera.id, []string{}); err != nil {
			t.Fatal(err)
		}
		if got, _ := found(c.anna, "vera", 10); len(got) != 1 {
			t.Errorf("anna finds %v after vera left the pool", got)
		}
	})
}
