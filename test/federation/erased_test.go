package federation_test

import (
	"fmt"
	"strings"
	"testing"

	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// Servers that were not in the room when somebody sent something who is erased now get it redacted, however they ask: by itself, in history, as missing,
// in the state. Those that were there get all of it, and so do all what others have sent.
func TestF121_ErasedUserForServers(t *testing.T) {
	t.Parallel()
	for _, db := range storagetest.Databases() {
		for _, version := range []string{"6", "11", "12"} {
			t.Run(db+"/"+version, func(t *testing.T) {
				t.Parallel()
				f := hstest.NewFederation(t, 1, func(_ int, o *hstest.Options) {
					o.Database = db
					o.Policy = map[string]string{"one.example/rooms.yaml": "rooms: {history_visibility: [shared], partner_history: [shared]}\n"}
				})
				one := f.Servers[0]
				anna, ben := one.User("anna"), one.User("ben")
				anna.Must("PUT", "/profile/"+hstest.Esc(string(anna.ID))+"/displayname", object{"displayname": "Canary name"})
				room := ben.CreateRoom(object{"preset": "public_chat", "room_version": version})
				anna.Join(room)
				first := anna.Send(room, "Canary one")
				early := enter(t, f.Outsider(hstest.Outside), "ole", room, version)
				second := anna.Send(room, "Canary two")
				ben.Send(room, "Ben's message")
				end := object{"erase": true}
				end["auth"] = object{"type": "m.login.password", "session": anna.Try("POST", "/account/deactivate", end).String("session"),
					"identifier": object{"type": "m.id.user", "user": string(anna.ID)}, "password": hstest.Password}
				anna.Must("POST", "/account/deactivate", end)
				ben.Until("anna's leaving", membership(room, anna.ID, "leave"))
				late := enter(t, f.Outsider(hstest.Stranger), "eva", room, version)
				last := ben.Send(room, "The end")
				ask := func(g *guest) map[string]hstest.Answer {
					const fed = "/_matrix/federation/v1/"
					get := func(path string) hstest.Answer { return g.o.Do("GET", "one.example", fed+path, nil) }
					return map[string]hstest.Answer{
						"event one": get("event/" + hstest.Esc(first)), "event two": get("event/" + hstest.Esc(second)),
						"backfill": get("backfill/" + hstest.Esc(room) + "?limit=100&v=" + hstest.Esc(last)),
						"missing": g.o.Do("POST", "one.example", fed+"get_missing_events/"+hstest.Esc(room), object{"latest_events": []string{last},
							"earliest_events": []string{}, "limit": 50, "min_depth": 0}),
						"state": get("state/" + hstest.Esc(room) + "?event_id=" + hstest.Esc(second)),
					}
				}
				check := func(g *guest, want map[string]string) {
					t.Helper()
					for what, a := range ask(g) {
						text := string(a.Raw)
						if a.Status != 200 {
							t.Errorf("%s, %s: %d %s", g.id, what, a.Status, text)
						}
						var got []string
						for _, word := range []string{"Canary one", "Canary two", "Canary name"} {
							if strings.Contains(text, word) {
								got = append(got, word)
							}
						}
						if fmt.Sprint(got) != want[what] {
							t.Errorf("%s, %s: %v is there, want %v", g.id, what, got, want[what])
						}
						if (what == "backfill" || what == "missing") && !strings.Contains(text, "Ben's message") {
							t.Errorf("%s, %s: what others have sent is not there: %s", g.id, what, text)
						}
						if what == "backfill" && version == "6" && strings.Count(text, `"m.room.message"`) != 4 {
							t.Errorf("%s: %d messages", g.id, strings.Count(text, `"m.room.message"`))
						}
					}
				}
				none := "[]"
				check(late, map[string]string{"event one": none, "event two": none, "backfill": none, "missing": none, "state": none})
				check(early, map[string]string{"event one": none, "event two": "[Canary two]", "backfill": "[Canary two]", "missing": "[Canary two]", "state": none})
			})
		}
	}
}
