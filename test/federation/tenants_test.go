package federation_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"hansa/config"
	"hansa/federation/agreement"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// household is what somebody has whom others may want to reach.
type household struct {
	u                                       *hstest.User
	server                                  string
	public, readable, knock, limited, space string // rooms
	alias, media                            string
}

func newHousehold(t *testing.T, u *hstest.User) *household {
	t.Helper()
	h := &household{u: u, server: string(u.ID.Server())}
	u.Must("PUT", "/profile/"+hstest.Esc(string(u.ID))+"/displayname", object{"displayname": "Canary " + u.ID.Localpart()})
	keys(t, u)
	h.alias = "#canary:" + h.server
	h.public = u.CreateRoom(object{"preset": "public_chat", "room_alias_name": "canary", "visibility": "public", "name": "canary room"})
	h.readable = u.CreateRoom(object{"preset": "public_chat", "initial_state": []any{object{"type": "m.room.history_visibility", "state_key": "",
		"content": object{"history_visibility": "world_readable"}}}})
	rule := func(content object) []any {
		return []any{object{"type": "m.room.join_rules", "state_key": "", "content": content}}
	}
	h.knock = u.CreateRoom(object{"initial_state": rule(object{"join_rule": "knock"})})
	h.space = u.CreateRoom(object{"preset": "public_chat", "creation_content": object{"type": "m.space"}})
	h.limited = u.CreateRoom(object{"initial_state": rule(object{"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": h.space}}})})
	h.media = h.server + "/" + upload(t, u, "image/png", []byte("canary"))
	u.Must("PUT", "/presence/"+hstest.Esc(string(u.ID))+"/status", object{"presence": "online", "status_msg": "canary status"})
	return h
}

// way is one way in which somebody reaches for what another one has: what is asked, and whether the answer gives it.
type way struct {
	name string
	// answer is the request's answer, gives tells whether the other is reached by it.
	try func(u *hstest.User, h *household) (a hstest.Answer, gives bool)
}

// ways are those by which a user may try to reach another one.
func ways() []way {
	ok := func(a hstest.Answer) (hstest.Answer, bool) { return a, a.Status == 200 }
	shows := func(a hstest.Answer) (hstest.Answer, bool) {
		return a, a.Status == 200 && strings.Contains(strings.ToLower(string(a.Raw)), "canary")
	}
	own := func(u *hstest.User) string {
		return "/rooms/" + hstest.Esc(u.CreateRoom(object{"preset": "private_chat"}))
	}
	room := func(id, rest string) string { return "/rooms/" + hstest.Esc(id) + rest }
	join := func(u *hstest.User, id, server string) (hstest.Answer, bool) {
		return ok(u.Try("POST", "/join/"+hstest.Esc(id)+"?via="+server, object{}))
	}
	return []way{
		{"invite", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return ok(u.Try("POST", own(u)+"/invite", object{"user_id": h.u.ID}))
		}},
		{"invite in createRoom", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return ok(u.Try("POST", "/createRoom", object{"invite": []any{h.u.ID}}))
		}},
		{"invite as state", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return ok(u.Try("PUT", own(u)+"/state/m.room.member/"+hstest.Esc(string(h.u.ID)), object{"membership": "invite"}))
		}},
		{"alias", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return ok(u.Try("GET", "/directory/room/"+hstest.Esc(h.alias), nil))
		}},
		{"list of rooms", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return shows(u.Try("GET", "/publicRooms?server="+h.server, nil))
		}},
		{"profile", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return shows(u.Try("GET", "/profile/"+hstest.Esc(string(h.u.ID)), nil))
		}},
		{"name", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return shows(u.Try("GET", profilePath(h.u.ID, "displayname"), nil))
		}},
		{"keys", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			a := u.Try("POST", "/keys/query", object{"device_keys": object{string(h.u.ID): []string{}}})
			return a, a.Get("device_keys", string(h.u.ID)) != nil
		}},
		{"one-time keys", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			a := u.Try("POST", "/keys/claim", object{"one_time_keys": object{string(h.u.ID): object{h.u.DeviceID: "signed_curve25519"}}})
			return a, a.Get("one_time_keys", string(h.u.ID)) != nil
		}},
		{"media", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return shows(u.Try("GET", "/_matrix/client/v1/media/download/"+h.media, nil))
		}},
		{"summary of a room", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return shows(u.Try("GET", "/_matrix/client/v1/room_summary/"+hstest.Esc(h.public)+"?via="+h.server, nil))
		}},
		{"child of a space", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			space := u.CreateRoom(object{"preset": "public_chat", "creation_content": object{"type": "m.space"}})
			if a := u.Try("PUT", room(space, "/state/m.space.child/"+hstest.Esc(h.public)), object{"via": []string{h.server}}); a.Status != 200 {
				return a, false
			}
			return shows(u.Try("GET", "/_matrix/client/v1/rooms/"+hstest.Esc(space)+"/hierarchy", nil))
		}},
		{"knock", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return ok(u.Try("POST", "/knock/"+hstest.Esc(h.knock)+"?via="+h.server, object{}))
		}},
		{"join by alias", func(u *hstest.User, h *household) (hstest.Answer, bool) { return join(u, h.alias, h.server) }},
		{"join", func(u *hstest.User, h *household) (hstest.Answer, bool) { return join(u, h.readable, h.server) }},
		{"join of a space", func(u *hstest.User, h *household) (hstest.Answer, bool) { return join(u, h.space, h.server) }},
		{"join through a space", func(u *hstest.User, h *household) (hstest.Answer, bool) { return join(u, h.limited, h.server) }},
		{"history", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return ok(u.Try("GET", room(h.readable, "/messages?dir=b"), nil))
		}},
		{"state", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return ok(u.Try("GET", room(h.readable, "/state"), nil))
		}},
		{"presence", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			return ok(u.Try("GET", "/presence/"+hstest.Esc(string(h.u.ID))+"/status", nil))
		}},
		{"message to a device", func(u *hstest.User, h *household) (hstest.Answer, bool) {
			text := fmt.Sprint("canary ", u.ID)
			a := u.Try("PUT", "/sendToDevice/org.example.r361/"+u.Txn(), object{"messages": object{string(h.u.ID): object{h.u.DeviceID: object{"text": text}}}})
			// A message into a room that both may share, or none: whatever comes to the device by then is all that comes.
			got := false
			for range 5 {
				got = got || strings.Contains(string(h.u.Sync(200*time.Millisecond).Raw), text)
			}
			return a, got
		}},
	}
}

// Tenants of one deployment are as strange to each other as servers far away: what is refused about a server without an agreement is refused about
// another tenant, with the same answer, and what an agreement opens it opens for both.
func TestR361_TenantsAreAsStrangeAsServers(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			f := hstest.NewFederation(t, 2, func(i int, o *hstest.Options) {
				rules := "rooms: {history_visibility: [shared, invited, joined, world_readable], partner_history: [shared, invited, joined, world_readable]}\n"
				o.Policy = map[string]string{"one.example/rooms.yaml": rules, "uno.example/rooms.yaml": rules, "two.example/rooms.yaml": rules}
				if o.Database = database; i == 0 {
					o.Tenants = []string{"one.example", "uno.example"}
					o.Change = func(c *config.Config) { c.Federation.DefaultPartners = []string{} }
				}
			})
			one, two := f.Servers[0], f.Servers[1]
			anna := one.User("anna")
			near, far := newHousehold(t, one.User("@uma:uno.example")), newHousehold(t, two.User("bob"))
			ours := newHousehold(t, anna)
			code := func(a hstest.Answer) string { return fmt.Sprint(a.Status, " ", a.Code()) }
			for _, w := range ways() {
				a, gives := w.try(anna, near)
				b, too := w.try(anna, far)
				if gives || too {
					t.Errorf("%s without an agreement: reached %v here, %v far away: %.200s, %.200s", w.name, gives, too, a.Raw, b.Raw)
				}
				if code(a) != code(b) {
					t.Errorf("%s without an agreement: %s here, %s far away", w.name, code(a), code(b))
				}
				if c, back := w.try(near.u, ours); back || code(c) != code(a) {
					t.Errorf("%s without an agreement, the other way: reached %v, %s, want %s", w.name, back, code(c), code(a))
				}
				if d, back := w.try(far.u, ours); back && w.name != "invite in createRoom" { // bob's own server makes the room, and the invitation goes nowhere
					t.Errorf("%s without an agreement, from far away: %s", w.name, code(d))
				}
			}
			if got := anna.Must("POST", "/user_directory/search", object{"search_term": "canary"}); strings.Contains(string(got.Raw), "uno.example") || strings.Contains(string(got.Raw), "two.example") {
				t.Errorf("found in the directory: %s", got.Raw)
			}

			if a := anna.Must("GET", "/sync?timeout=0", nil); a.Get("rooms", "invite") != nil {
				t.Errorf("anna is invited without an agreement: %s", a.Raw)
			}

			partner(t, one, "approve", "two.example")
			ctx := context.Background()
			by := func(tenant matrix.ServerName) agreement.Actor {
				return agreement.Actor{Party: &policy.Party{Kind: "operator", ID: "operator", Tenant: string(tenant), Local: true, Listed: true}}
			}
			if _, err := one.Agreements.Propose(ctx, by("one.example"), "one.example", "uno.example", agreement.Terms{}); err != nil {
				t.Fatal(err)
			}
			if a, gives := ways()[0].try(anna, near); gives {
				t.Errorf("an agreement that was proposed only opens the way: %s", a.Raw)
			}
			if _, err := one.Agreements.Approve(ctx, by("uno.example"), "uno.example", "one.example", agreement.Terms{}); err != nil {
				t.Fatal(err)
			}
			for _, w := range ways() {
				a, gives := w.try(anna, near)
				b, too := w.try(anna, far)
				if w.name == "presence" { // that of people far away is told when it changes
					far.u.Must("PUT", "/presence/"+hstest.Esc(string(far.u.ID))+"/status", object{"presence": "online", "status_msg": "news"})
				}
				if w.name == "presence" || w.name == "message to a device" { // both are on their way for a while
					hstest.Await(t, w.name+" with an agreement", func() bool {
						if !too {
							_, too = w.try(anna, far)
						}
						return too
					})
				}
				if !gives || !too {
					t.Errorf("%s with an agreement: reached %v here, %v far away: %.200s, %.200s", w.name, gives, too, a.Raw, b.Raw)
				}
			}
		})
	}
}
