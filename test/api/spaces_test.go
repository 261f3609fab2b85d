package api

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// space makes a space with rooms in it, in the order in which they are named.
func space(u *hstest.User, body object, rooms ...string) string {
	body["creation_content"] = object{"type": "m.space"}
	id := u.CreateRoom(body)
	for i, r := range rooms {
		child(u, id, r, object{"order": fmt.Sprintf("%03d", i)})
	}
	return id
}

// child puts a room into a space.
func child(u *hstest.User, space, room string, content object) {
	if content["via"] == nil {
		content["via"] = []string{string(u.ID.Server())}
	}
	u.Must("PUT", "/rooms/"+hstest.Esc(space)+"/state/m.space.child/"+hstest.Esc(room), content)
}

func treePath(id, query string) string {
	return "/_matrix/client/v1/rooms/" + hstest.Esc(id) + "/hierarchy" + query
}

// ids are the rooms of a page.
func ids(a hstest.Answer) []string {
	out := []string{}
	for _, r := range list(a, "rooms") {
		out = append(out, fmt.Sprint(r["room_id"]))
	}
	return out
}

// wholeTree goes through all pages.
func wholeTree(t *testing.T, u *hstest.User, id, query string) (all []string, pages int) {
	t.Helper()
	from := ""
	for {
		a := u.Must("GET", treePath(id, query+from), nil)
		all = append(all, ids(a)...)
		if pages++; pages > 1000 {
			t.Fatal("there is no end")
		}
		next := a.String("next_batch")
		if next == "" {
			return all, pages
		}
		from = "&from=" + url.QueryEscape(next)
	}
}

// A space tells of the rooms in it which the caller could enter, each once whatever ways lead to it and circles there are, in order, in pages,
// as deep as is wanted.
func TestF139_Hierarchy(t *testing.T) {
	t.Parallel()
	open := map[string]string{"acme.example/rooms.yaml": "rooms: {history_visibility: [shared, invited, joined, world_readable]}\n"}
	each(t, hstest.Options{Policy: open}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		state := func(typ string, content object) object {
			return object{"initial_state": []any{object{"type": typ, "content": content}}, "name": typ}
		}
		public := anna.CreateRoom(object{"preset": "public_chat", "name": "Open", "topic": "For everybody"})
		secret := anna.CreateRoom(object{"name": "Secret"})
		knock := anna.CreateRoom(state("m.room.join_rules", object{"join_rule": "knock"}))
		world := anna.CreateRoom(state("m.room.history_visibility", object{"history_visibility": "world_readable"}))
		invited := anna.CreateRoom(object{"invite": []string{string(ben.ID)}})
		banned := anna.CreateRoom(object{"preset": "public_chat"})
		anna.Must("POST", "/rooms/"+hstest.Esc(banned)+"/ban", object{"user_id": ben.ID})
		old := anna.CreateRoom(object{"room_version": "6", "initial_state": []any{object{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
		below := space(anna, object{"preset": "public_chat", "name": "Below"}, knock, public)
		top := space(anna, object{"preset": "public_chat", "name": "Top"}, below, public, secret, world, invited, banned, old, "!nothing:acme.example")
		closed := anna.CreateRoom(object{"room_version": "10", "initial_state": []any{object{"type": "m.room.join_rules",
			"content": object{"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": top}}}}}})
		child(anna, top, closed, object{"suggested": true})
		child(anna, below, top, object{}) // a circle
		gone := anna.CreateRoom(object{"preset": "public_chat"})
		child(anna, top, gone, object{"via": []string{}})

		want := []string{top, below, knock, public, world, invited}
		a := ben.Must("GET", treePath(top, ""), nil)
		if got := ids(a); !slices.Equal(got, want) || a.String("next_batch") != "" {
			t.Errorf("a stranger sees %v, want %v: %s", got, want, a.Raw)
		}
		rooms := list(a, "rooms")
		if r := rooms[3]; r["name"] != "Open" || r["topic"] != "For everybody" || r["join_rule"] != "public" || r["num_joined_members"] != 1.0 || r["room_version"] == nil ||
			fmt.Sprint(r["children_state"]) != "[]" {
			t.Errorf("what is told of a room: %v", r)
		}
		if n := len(list(hstest.Answer{JSON: rooms[0]}, "children_state")); n != 9 || rooms[0]["room_type"] != "m.space" {
			t.Errorf("the space names %d rooms, want 9: %v", n, rooms[0])
		}
		for _, c := range list(hstest.Answer{JSON: rooms[0]}, "children_state") {
			if c["type"] != "m.space.child" || c["sender"] != string(anna.ID) || c["origin_server_ts"] == nil || c["state_key"] == gone {
				t.Errorf("a room of the space: %v", c)
			}
		}
		for query, want := range map[string][]string{
			"?max_depth=0":         {top},
			"?max_depth=1":         {top, below, public, world, invited},
			"?suggested_only=true": {top},
		} {
			if got := ids(ben.Must("GET", treePath(top, query), nil)); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", query, got, want)
			}
		}
		ben.Join(top)
		if got := ids(ben.Must("GET", treePath(top, "?suggested_only=true"), nil)); !slices.Equal(got, []string{top, closed}) {
			t.Errorf("suggested to a member: %v", got)
		}
		want = append(want, closed)
		for _, limit := range []int{1, 2, 5, 7, 100} {
			got, pages := wholeTree(t, ben, top, fmt.Sprintf("?limit=%d", limit))
			if !slices.Equal(got, want) || pages != (len(want)+limit-1)/limit {
				t.Errorf("in pages of %d: %d pages with %v, want %v", limit, pages, got, want)
			}
		}
		// The same page again, and a page that somebody else has begun.
		next := ben.Must("GET", treePath(top, "?limit=2"), nil).String("next_batch")
		for _, u := range []*hstest.User{ben, ben, anna} {
			if got := ids(u.Must("GET", treePath(top, "?limit=2&from="+next), nil)); !slices.Equal(got, want[2:4]) {
				t.Errorf("%s, the second page: %v, want %v", u.ID, got, want[2:4])
			}
		}
		for _, query := range []string{"?limit=0", "?limit=-1", "?limit=x", "?max_depth=-1", "?suggested_only=maybe", "?from=x", "?limit=2&max_depth=3&from=" + next,
			"?suggested_only=true&from=" + next, "?from=" + next + "x"} {
			is(t, query, ben.Try("GET", treePath(top, query), nil), 400, "M_INVALID_PARAM")
		}
		is(t, "the page of another space", ben.Try("GET", treePath(below, "?from="+next), nil), 400, "M_INVALID_PARAM")
		// What cannot be seen and what is not there are the same.
		first := ben.Try("GET", treePath("!nothing:acme.example", ""), nil)
		is(t, "no room", first, 403, "M_FORBIDDEN")
		for _, id := range []string{secret, banned, old} {
			if a := ben.Try("GET", treePath(id, ""), nil); a.Status != 403 || string(a.Raw) != string(first.Raw) {
				t.Errorf("%s: %d %s", id, a.Status, a.Raw)
			}
		}
		anna.Must("POST", "/rooms/"+hstest.Esc(top)+"/ban", object{"user_id": ben.ID})
		next = url.QueryEscape(next)
		is(t, "the next page for somebody who was thrown out", ben.Try("GET", treePath(top, "?limit=2&from="+next), nil), 403, "M_FORBIDDEN")
	})
}

// A space with thousands of rooms and many levels is gone through in bounded time, and so are many at once.
func TestF139_O497_LargeHierarchy(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{Database: storagetest.Databases()[0]})
	anna, ben := s.User("anna"), s.User("ben")
	top := space(anna, object{"preset": "public_chat"})
	party, err := s.Accounts.Party(context.Background(), anna.ID)
	if err != nil {
		t.Fatal(err)
	}
	put := func(in, id string) {
		_, err := s.Rooms.Send(context.Background(), room.Draft{RoomID: matrix.RoomID(in), Sender: anna.ID, Type: "m.space.child", StateKey: &id,
			Content: []byte(`{"via":["acme.example"]}`), Subject: party})
		if err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	work := make(chan string)
	for range 32 {
		wg.Go(func() {
			for id := range work {
				put(top, id)
			}
		})
	}
	for i := range 3000 {
		work <- fmt.Sprintf("!x%d:acme.example", i)
	}
	close(work)
	wg.Wait()
	last := top
	for range 25 {
		next := space(anna, object{"preset": "public_chat"})
		child(anna, last, next, object{"order": "a"})
		last = next
	}
	for i := range 3 { // each level has the one before it as well
		child(anna, last, top, object{"order": fmt.Sprint(i)})
	}
	start := time.Now()
	all, _ := wholeTree(t, ben, top, "?limit=5")
	if len(all) != 21 { // the space and 20 levels
		t.Errorf("%d rooms", len(all))
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("five pages took %v", d)
	}
	for range 40 {
		wg.Go(func() {
			if a := ben.Try("GET", treePath(top, ""), nil); a.Status != 200 && a.Status != 429 {
				t.Errorf("one of many: %d %s", a.Status, a.Raw)
			}
		})
	}
	wg.Wait()
}

// threePolicies connect acme with globex and globex with stern, which have rooms and people of their own.
func threePolicies() map[string]string {
	return map[string]string{
		"acme.example/partners.yaml":   `partners: {globex.example: {pools: "*", features: "*"}}` + "\n",
		"globex.example/partners.yaml": `partners: {acme.example: {pools: "*", features: "*"}, stern.example: {pools: "*", features: "*"}}` + "\n",
		"stern.example/partners.yaml":  `partners: {globex.example: {pools: "*", features: "*"}}` + "\n",
	}
}

// A space of an ally that lists rooms of an organisation with which one's own has nothing to do tells nothing of those rooms and that organisation,
// whatever version the rooms have.
func TestP293_HierarchyOfAnAlly(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Tenants: []string{"acme.example", "globex.example", "stern.example"}, Policy: threePolicies()}, func(t *testing.T, s *hstest.Server) {
		anna, gus, sue := s.User("anna"), s.User("@gus:globex.example"), s.User("@sue:stern.example")
		var theirs []string
		for _, version := range []string{"11", "12"} {
			theirs = append(theirs, sue.CreateRoom(object{"preset": "public_chat", "room_version": version, "name": "Canary"}))
		}
		own := gus.CreateRoom(object{"preset": "public_chat", "name": "Own"})
		top := space(gus, object{"preset": "public_chat"})
		child(gus, top, own, object{"via": []string{"stern.example", "globex.example"}, "org.example.note": "Canary stern.example"})
		for _, id := range theirs {
			child(gus, top, id, object{"via": []string{"stern.example", "globex.example"}})
		}
		for _, joined := range []bool{false, true} {
			if joined {
				anna.Join(top)
			}
			a := anna.Must("GET", treePath(top, ""), nil)
			if got := ids(a); !slices.Equal(got, []string{top, own}) {
				t.Errorf("joined %v: %v", joined, got)
			}
			for _, word := range append(theirs, "stern", "Canary") {
				if strings.Contains(string(a.Raw), word) {
					t.Errorf("joined %v: the answer holds %q: %s", joined, word, a.Raw)
				}
			}
		}
		if got := ids(gus.Must("GET", treePath(top, ""), nil)); !slices.Equal(got, append([]string{top, own}, theirs...)) {
			t.Errorf("the ally sees %v", got)
		}
		for _, id := range theirs {
			is(t, "a room of theirs", anna.Try("GET", treePath(id, ""), nil), 403, "M_FORBIDDEN")
		}
	})
}

// The summary of a room tells those of it who may know of it; to the others it is not there. Whoever names servers with which one's organisation has
// nothing to do is refused.
func TestP294_RoomSummary(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Tenants: []string{"acme.example", "globex.example", "stern.example"}, Policy: threePolicies()}, func(t *testing.T, s *hstest.Server) {
		anna, ben, gus, sue := s.User("anna"), s.User("ben"), s.User("@gus:globex.example"), s.User("@sue:stern.example")
		path := func(id string, via ...string) string {
			return "/_matrix/client/v1/room_summary/" + hstest.Esc(id) + "?" + url.Values{"via": via}.Encode()
		}
		open := anna.CreateRoom(object{"preset": "public_chat", "name": "Open", "room_alias_name": "open", "visibility": "public"})
		secret := anna.CreateRoom(object{"name": "Secret"})
		theirs := sue.CreateRoom(object{"preset": "public_chat", "room_alias_name": "theirs"})
		for _, u := range []*hstest.User{ben, gus} {
			a := u.Must("GET", path(open), nil)
			if a.String("name") != "Open" || a.String("room_id") != open || a.Get("membership") != nil || a.Get("children_state") != nil || a.String("join_rule") != "public" {
				t.Errorf("%s: %s", u.ID, a.Raw)
			}
		}
		if a := ben.Must("GET", path("#open:acme.example"), nil); a.String("room_id") != open || a.String("canonical_alias") != "#open:acme.example" {
			t.Errorf("by alias: %s", a.Raw)
		}
		if a := anna.Must("GET", path(secret), nil); a.String("name") != "Secret" || a.String("membership") != "join" {
			t.Errorf("a member: %s", a.Raw)
		}
		nothing := ben.Try("GET", path("!nothing:acme.example"), nil)
		hiddenAs := func(what string, a hstest.Answer) {
			t.Helper()
			if a.Status != 404 || a.Code() != "M_NOT_FOUND" || string(a.Raw) != string(nothing.Raw) {
				t.Errorf("%s: %d %s", what, a.Status, a.Raw)
			}
		}
		hiddenAs("nothing", nothing)
		hiddenAs("a secret room", ben.Try("GET", path(secret), nil))
		hiddenAs("a room of strangers", anna.Try("GET", path(theirs), nil))
		hiddenAs("a room of strangers by way of an ally", anna.Try("GET", path(theirs, "globex.example"), nil))
		is(t, "an alias of strangers", anna.Try("GET", path("#theirs:stern.example"), nil), 404, "M_NOT_FOUND")
		for _, id := range []string{theirs, "!nothing:stern.example", "!nothing:acme.example", open} {
			refused(t, "strangers named for "+id, anna.Try("GET", path(id, "stern.example"), nil))
		}
		is(t, "no room ID", anna.Try("GET", path("x"), nil), 400, "M_INVALID_PARAM")
		is(t, "no server", anna.Try("GET", path(open, "a b"), nil), 400, "M_INVALID_PARAM")
		is(t, "without a token", s.Do("GET", path(open), "", nil), 401, "M_MISSING_TOKEN")
	})
}

// A room that somebody has named and left is told of without the name to those who may not know of that person.
func TestP293_NamesByPeopleOutOfReach(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: campPolicy()}, func(t *testing.T, s *hstest.Server) {
		mara, sid, sue := s.User("mara", "marketing"), s.User("sid", "sales"), s.User("sue", "suppliers")
		id := mara.CreateRoom(object{"preset": "public_chat", "room_version": "11", "name": "Canary name", "topic": "Canary topic", "visibility": "public",
			"power_level_content_override": object{"users": object{string(mara.ID): 100, string(sid.ID): 100}}})
		sid.Join(id)
		top := space(sid, object{"preset": "public_chat"}, id)
		paths := []string{treePath(top, ""), treePath(id, ""), "/_matrix/client/v1/room_summary/" + hstest.Esc(id), "/publicRooms"}
		for _, path := range paths[1:] {
			if a := sue.Try("GET", path, nil); strings.Contains(string(a.Raw), id) {
				t.Errorf("with mara inside, %s: %s", path, a.Raw)
			}
		}
		mara.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", object{})
		for _, path := range paths {
			if a := sue.Must("GET", path, nil); strings.Contains(string(a.Raw), "Canary") || !strings.Contains(string(a.Raw), id) {
				t.Errorf("to sue, %s: %s", path, a.Raw)
			}
			if a := sid.Must("GET", path, nil); !strings.Contains(string(a.Raw), "Canary name") || !strings.Contains(string(a.Raw), "Canary topic") {
				t.Errorf("to sid, %s: %s", path, a.Raw)
			}
		}
		sid.Must("PUT", "/rooms/"+hstest.Esc(id)+"/state/m.room.name/", object{"name": "Sid's name"})
		for _, path := range paths {
			if a := sue.Must("GET", path, nil); !strings.Contains(string(a.Raw), "Sid's name") {
				t.Errorf("a name by somebody in reach, %s: %s", path, a.Raw)
			}
		}
	})
}
