package federation_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"hansa/config"
	"hansa/test/hstest"
)

func treePath(id, query string) string {
	return "/_matrix/client/v1/rooms/" + hstest.Esc(id) + "/hierarchy" + query
}

func roomsOf(a hstest.Answer) []string {
	out := []string{}
	list, _ := a.Get("rooms").([]any)
	for _, v := range list {
		r, _ := v.(map[string]any)
		out = append(out, fmt.Sprint(r["room_id"]))
	}
	return out
}

func child(u *hstest.User, space, room string, n int, via ...string) {
	if len(via) == 0 {
		via = []string{string(u.ID.Server())}
	}
	u.Must("PUT", "/rooms/"+hstest.Esc(space)+"/state/m.space.child/"+hstest.Esc(room), object{"via": via, "order": fmt.Sprintf("%03d", n)})
}

// A space tells of rooms on other servers, which are asked for them once, and of what their spaces tell in turn; what those may not be entered by the
// caller, or cannot be had, is left out.
func TestF139_HierarchyAcrossServers(t *testing.T) {
	t.Parallel()
	each(t, 3, func(t *testing.T, f *hstest.Federation) {
		one, two, three := f.Servers[0], f.Servers[1], f.Servers[2]
		anna, ben, cleo := one.User("anna"), two.User("ben"), three.User("cleo")
		space := func(u *hstest.User, body object) string {
			body["preset"], body["creation_content"] = "public_chat", object{"type": "m.space"}
			return u.CreateRoom(body)
		}
		top := space(ben, object{"name": "Top", "room_alias_name": "top"})
		open := ben.CreateRoom(object{"preset": "public_chat", "name": "Open"})
		secret := ben.CreateRoom(object{"name": "Secret"})
		closed := ben.CreateRoom(object{"name": "Closed", "room_version": "11", "initial_state": []any{object{"type": "m.room.join_rules",
			"content": object{"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": top}}}}}})
		mine := anna.CreateRoom(object{"name": "Mine"})
		below := space(ben, object{"name": "Below"})
		deep := ben.CreateRoom(object{"preset": "public_chat", "name": "Deep"})
		far := space(cleo, object{"name": "Far"})
		farther := cleo.CreateRoom(object{"preset": "public_chat", "name": "Farther"})
		child(cleo, far, farther, 0)
		child(cleo, far, top, 1, "two.example")
		child(ben, below, deep, 0)
		for i, id := range []string{open, secret, closed, below, mine} {
			child(ben, top, id, i)
		}
		child(ben, top, far, 9, "three.example")
		// By the ID of a room of which nothing is known nobody can be asked.
		if a := anna.Try("GET", treePath(top, ""), nil); a.Status != 403 {
			t.Errorf("a space that nobody here has heard of: %d %s", a.Status, a.Raw)
		}
		summary := func(id string) hstest.Answer {
			return anna.Try("GET", "/_matrix/client/v1/room_summary/"+hstest.Esc(id)+"?via=two.example", nil)
		}
		if a := summary(open); a.Status != 200 || a.String("name") != "Open" || a.String("room_version") != "12" || a.Get("num_joined_members") != 1.0 {
			t.Errorf("summary by way of another server: %d %s", a.Status, a.Raw)
		}
		if a := anna.Try("GET", "/_matrix/client/v1/room_summary/"+hstest.Esc("#top:two.example"), nil); a.Status != 200 || a.String("room_id") != top {
			t.Errorf("summary by alias: %d %s", a.Status, a.Raw)
		}
		for _, id := range []string{secret, "!nothing:two.example"} {
			if a := summary(id); a.Status != 404 || a.Code() != "M_NOT_FOUND" {
				t.Errorf("summary of %s: %d %s", id, a.Status, a.Raw)
			}
		}
		anna.Must("POST", via(top, two), object{})
		want := []string{top, open, closed, below, deep, mine, far, farther}
		for range 2 {
			a := anna.Must("GET", treePath(top, ""), nil)
			if got := roomsOf(a); !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
		if got := roomsOf(anna.Must("GET", treePath(top, "?limit=3"), nil)); !slices.Equal(got, want[:3]) {
			t.Errorf("the first page: %v", got)
		}
		// A server that is gone: what it has said is used for a while, and then what can be had without it.
		two.Stop()
		three.Stop()
		if got := roomsOf(anna.Must("GET", treePath(top, ""), nil)); !slices.Equal(got, want) {
			t.Errorf("what was said by servers that are gone: %v", got)
		}
		fresh := anna.CreateRoom(object{"creation_content": object{"type": "m.space"}})
		child(anna, fresh, "!absent:three.example", 0, "three.example")
		child(anna, fresh, mine, 1)
		if got := roomsOf(anna.Must("GET", treePath(fresh, ""), nil)); !slices.Equal(got, []string{fresh, mine}) {
			t.Errorf("with a room on a server that is gone: %v", got)
		}
	})
}

// What one server tells another of a space: what the other could enter, and which rooms it could not; nothing of what the tenant that is asked has
// nobody in.
func TestF139_ServedHierarchy(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		o := f.Outsider(hstest.Outside)
		anna := one.User("anna")
		top := anna.CreateRoom(object{"preset": "public_chat", "creation_content": object{"type": "m.space"}})
		open, secret := anna.CreateRoom(object{"preset": "public_chat", "name": "Open"}), anna.CreateRoom(nil)
		internal := anna.CreateRoom(object{"preset": "public_chat", "creation_content": object{"m.federate": false}})
		acl := anna.CreateRoom(object{"preset": "public_chat", "initial_state": []any{object{"type": "m.room.server_acl", "content": object{"allow": []string{"*"}, "deny": []string{hstest.Outside}}}}})
		for i, id := range []string{open, secret, internal, acl, "!nothing:one.example"} {
			child(anna, top, id, i)
		}
		get := func(id, query string) hstest.Answer {
			return o.Do("GET", "one.example", "/_matrix/federation/v1/hierarchy/"+hstest.Esc(id)+query, nil)
		}
		a := get(top, "")
		children, _ := a.Get("children").([]any)
		if a.Status != 200 || a.String("room", "room_id") != top || len(children) != 1 || !strings.Contains(fmt.Sprint(children), open) ||
			fmt.Sprint(a.Get("inaccessible_children")) != fmt.Sprint([]string{secret, acl}) || strings.Contains(string(a.Raw), internal) {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
		if a := get(top, "?suggested_only=true"); a.Status != 200 || fmt.Sprint(a.Get("children")) != "[]" || fmt.Sprint(a.Get("room", "children_state")) != "[]" {
			t.Errorf("suggested: %d %s", a.Status, a.Raw)
		}
		nothing := get("!nothing:one.example", "")
		for _, id := range []string{secret, internal, acl, "!nothing:one.example"} {
			if a := get(id, ""); a.Status != 404 || a.Code() != "M_NOT_FOUND" || string(a.Raw) != string(nothing.Raw) {
				t.Errorf("%s: %d %s", id, a.Status, a.Raw)
			}
		}
		if a := get(top, "?suggested_only=x"); a.Status != 400 {
			t.Errorf("a wrong flag: %d %s", a.Status, a.Raw)
		}
	})
}

// A space of an ally that lists rooms of a server with which one's own has nothing to do: they are not told of, and the server is not asked, whoever names
// it.
func TestP293_P294_StrangersAreNotAsked(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 2, func(i int, o *hstest.Options) {
		if i == 0 {
			o.Change = func(c *config.Config) { c.Federation.DefaultPartners = []string{"two.example"} }
		}
	})
	one, two := f.Servers[0], f.Servers[1]
	stranger := f.Outsider(hstest.Stranger)
	anna, ben := one.User("anna"), two.User("ben")
	top := ben.CreateRoom(object{"preset": "public_chat", "creation_content": object{"type": "m.space"}, "room_version": "11"})
	open := ben.CreateRoom(object{"preset": "public_chat"})
	child(ben, top, open, 0, hstest.Stranger, "two.example")
	const hash = "!abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq"
	child(ben, top, "!x:"+hstest.Stranger, 1, hstest.Stranger, "two.example")
	child(ben, top, hash, 2, hstest.Stranger)
	for _, joined := range []bool{false, true} {
		if joined {
			anna.Must("POST", via(top, two), object{})
		}
		a := anna.Must("GET", treePath(top, ""), nil)
		if got := roomsOf(a); !slices.Equal(got, []string{top, open}) || strings.Contains(string(a.Raw), hstest.Stranger) || strings.Contains(string(a.Raw), hash) {
			t.Errorf("joined %v: %s", joined, a.Raw)
		}
	}
	for _, id := range []string{hash, "!x:" + hstest.Stranger, open} {
		a := anna.Try("GET", "/_matrix/client/v1/room_summary/"+hstest.Esc(id)+"?"+url.Values{"via": {hstest.Stranger}}.Encode(), nil)
		if a.Status != 403 || a.Code() != "M_FORBIDDEN" || a.String("org.hansa.decision_id") == "" {
			t.Errorf("summary of %s by way of a stranger: %d %s", id, a.Status, a.Raw)
		}
	}
	if a := anna.Try("GET", treePath("!x:"+hstest.Stranger, ""), nil); a.Status != 403 {
		t.Errorf("a space of a stranger: %d %s", a.Status, a.Raw)
	}
	if n := len(stranger.Requests); n != 0 {
		t.Errorf("%d requests were made of a stranger, the first %s", n, <-stranger.Requests)
	}
}
