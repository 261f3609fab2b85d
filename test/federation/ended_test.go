package federation_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa/config"
	"hansa/federation/agreement"
	"hansa/policy"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// rows are the tables of a server's database in which some row holds a text, with one such row.
func rows(t *testing.T, s *hstest.Server, text string) map[string]string {
	t.Helper()
	driver, url, list := "pgx", s.Config.Database, `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, url, list = "sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(10000)", `SELECT name FROM sqlite_master WHERE type = 'table'`
	}
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }() // it was only read
	each := func(q string, fn func(values []any)) {
		r, err := db.Query(q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		defer func() { _ = r.Close() }() // it was only read
		names, err := r.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for r.Next() {
			values := make([]any, len(names))
			into := make([]any, len(names))
			for i := range values {
				into[i] = &values[i]
			}
			if err := r.Scan(into...); err != nil {
				t.Fatal(err)
			}
			fn(values)
		}
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
	}
	var tables []string
	each(list, func(v []any) { tables = append(tables, fmt.Sprintf("%s", v[0])) })
	out := map[string]string{}
	for _, table := range tables {
		each("SELECT * FROM "+table, func(values []any) {
			row := ""
			for _, v := range values {
				if b, ok := v.([]byte); ok {
					v = string(b)
				}
				row += fmt.Sprint(v, " ")
			}
			if strings.Contains(row, text) {
				out[table] = row
			}
		})
	}
	return out
}

// kept are the tables that may name a former partner: the rooms that were shared with it and what happened there, with the keys that show who sent
// it, what was agreed, what was decided and when, and up to where it was told of all that (but not what waits to be told).
func kept() []string {
	return []string{"events", "event_auth", "rooms", "current_state", "memberships", "receipts", "server_keys", "server_key_answers", "agreements", "decisions", "notices",
		"device_list_changes", "outbox_rooms", "outbox_destinations", "state_nodes"}
}

// ends are the ways in which a partner ceases to be one.
func ends() map[string]func(t *testing.T, s *hstest.Server) {
	return map[string]func(t *testing.T, s *hstest.Server){
		"ended":     func(t *testing.T, s *hstest.Server) { partner(t, s, "end", "two.example") },
		"suspended": func(t *testing.T, s *hstest.Server) { partner(t, s, "suspend", "two.example") },
		"expired": func(t *testing.T, s *hstest.Server) {
			by := agreement.Actor{Party: &policy.Party{Kind: "operator", ID: "operator"}}
			if _, err := s.Agreements.Approve(context.Background(), by, "one.example", "two.example", agreement.Terms{ValidUntil: time.Now().Add(3 * time.Second)}); err != nil {
				t.Fatal(err)
			}
		},
		"denied": func(t *testing.T, s *hstest.Server) {
			s.WritePolicy("one.example/domains.yaml", "domains: {deny: [two.example]}\n")
		},
	}
}

// When a partner is none any more, its people are taken out of the rooms where ours have the power, and it is told so; then nothing of what was
// kept of it for convenience is there: copies of media, devices and keys, profiles, presence, what it said of its rooms, and what waited to be sent to it.
func TestR357_NothingOfAnEndedPartnerStays(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		for name, end := range ends() {
			t.Run(database+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := hstest.NewFederation(t, 2, func(i int, o *hstest.Options) {
					if o.Database = database; i == 0 {
						o.Change = func(c *config.Config) { c.Federation.DefaultPartners = []string{} }
					}
				})
				one, two := f.Servers[0], f.Servers[1]
				partner(t, one, "approve", "two.example")
				anna, bob := one.User("anna"), two.User("bob")
				keys(t, bob)
				bob.Must("PUT", "/profile/"+hstest.Esc(string(bob.ID))+"/displayname", object{"displayname": "Canary Bob"})
				bob.Must("PUT", "/profile/"+hstest.Esc(string(bob.ID))+"/org.example.field", object{"org.example.field": "canary field"})
				var picture bytes.Buffer
				if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 90, 90))); err != nil {
					t.Fatal(err)
				}
				content := "two.example/" + upload(t, bob, "image/png", picture.Bytes())

				ours := anna.CreateRoom(object{"preset": "public_chat"})
				bob.Must("POST", via(ours, one), object{})
				theirs := bob.CreateRoom(object{"preset": "public_chat"})
				anna.Must("POST", via(theirs, two), object{})
				far := bob.CreateRoom(object{"preset": "public_chat", "name": "canary room"})
				space := anna.CreateRoom(object{"preset": "public_chat", "creation_content": object{"type": "m.space"}})
				anna.Must("PUT", "/rooms/"+hstest.Esc(space)+"/state/m.space.child/"+hstest.Esc(far), object{"via": []string{"two.example"}})
				bob.Send(ours, "bob speaks")
				anna.Until("bob's words", has(ours, "bob speaks"))
				bob.Must("PUT", "/presence/"+hstest.Esc(string(bob.ID))+"/status", object{"presence": "online", "status_msg": "canary status"})
				// What anna sees of bob and of bob's server, each with something that it shows only then.
				see := map[string]func() (shows bool, a hstest.Answer){
					"profile": func() (bool, hstest.Answer) {
						a := anna.Try("GET", profilePath(bob.ID, "org.example.field"), nil)
						return strings.Contains(string(a.Raw), "canary"), a
					},
					"presence": func() (bool, hstest.Answer) {
						a := anna.Try("GET", "/presence/"+hstest.Esc(string(bob.ID))+"/status", nil)
						return strings.Contains(string(a.Raw), "canary"), a
					},
					"space": func() (bool, hstest.Answer) {
						a := anna.Try("GET", "/_matrix/client/v1/rooms/"+hstest.Esc(space)+"/hierarchy", nil)
						return strings.Contains(string(a.Raw), "canary"), a
					},
					"media": func() (bool, hstest.Answer) {
						a := anna.Try("GET", "/_matrix/client/v1/media/download/"+content, nil)
						return a.Status == 200, a
					},
					"thumbnail": func() (bool, hstest.Answer) {
						a := anna.Try("GET", "/_matrix/client/v1/media/thumbnail/"+content+"?width=32&height=32&method=scale&timeout_ms=20000", nil)
						return a.Status == 200, a
					},
					"keys": func() (bool, hstest.Answer) {
						a := anna.Try("POST", "/keys/query", object{"device_keys": object{string(bob.ID): []string{}}})
						return a.Get("device_keys", string(bob.ID), bob.DeviceID) != nil, a
					},
				}
				for what, fn := range see {
					hstest.Await(t, what+" of a partner", func() bool { ok, _ := fn(); return ok })
				}
				caches := []string{"media", "remote_media", "media_thumbnails", "remote_device_lists", "remote_devices"}
				found := rows(t, one, "two.example")
				for _, table := range caches {
					if found[table] == "" {
						t.Errorf("nothing is in %s while the partner is one", table)
					}
				}

				bob.Sync(0) // a first sync does not tell of rooms that were left before
				end(t, one)
				if name != "denied" { // by name: then nothing goes there at all
					bob.Until("being removed from the room of the others", func(a hstest.Answer) bool { return a.Get("rooms", "leave", ours) != nil })
				}
				hstest.Await(t, "the room to be closed to the former partner", func() bool {
					a := anna.Try("GET", "/rooms/"+hstest.Esc(ours)+"/state/m.room.server_acl/", nil)
					return a.Status == 200 && strings.Contains(string(a.Raw), "two.example")
				})
				denied(t, say(anna, theirs, "to a former partner"), "our message into the former partner's room")
				two.Stop()
				left := map[string]string{}
				for until := time.Now().Add(time.Minute); ; {
					clear(left)
					for table, row := range rows(t, one, "two.example") {
						if !slices.Contains(kept(), table) {
							left[table] = row
						}
					}
					if len(left) == 0 {
						break
					}
					if time.Now().After(until) {
						t.Errorf("of the former partner is left: %.1000s", fmt.Sprint(left))
						break
					}
					anna.Sync(time.Second)
				}
				var copies []string
				_ = filepath.WalkDir(filepath.Join(one.Dir, "media"), func(path string, d fs.DirEntry, err error) error {
					if err == nil && d.Type().IsRegular() && strings.Contains(path, "two.example") {
						copies = append(copies, path)
					}
					return nil
				})
				if len(copies) > 0 {
					t.Errorf("files of the former partner: %v", copies)
				}
				// Who becomes a partner again begins anew: nothing is shown of what was known before, as long as the server is not asked.
				if name == "denied" {
					one.WritePolicy("one.example/domains.yaml", "domains: {deny: []}\n")
					one.ReloadPolicy()
				} else {
					partner(t, one, "approve", "two.example")
				}
				for what, fn := range see {
					if ok, a := fn(); ok {
						t.Errorf("%s of a former partner is still known: %d %.300s", what, a.Status, a.Raw)
					}
				}
			})
		}
	}
}

// What waits for a partner that is away when it ceases to be one is not there any more, and does not go out when the server is back.
func TestR357_NothingWaitsForAnEndedPartner(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		one, two := f.Servers[0], f.Servers[1]
		partner(t, one, "approve", "two.example")
		anna, bob := one.User("anna"), two.User("bob")
		room := anna.CreateRoom(object{"preset": "public_chat"})
		bob.Must("POST", via(room, one), object{})
		bob.Send(room, "here")
		anna.Until("bob's words", has(room, "here"))
		two.Stop()
		anna.Send(room, "canary message")
		anna.Must("PUT", "/sendToDevice/org.example.r357/t", object{"messages": object{string(bob.ID): object{bob.DeviceID: object{"text": "canary to the device"}}}})
		if rows(t, one, "canary to the device")["outbox_edus"] == "" {
			t.Error("nothing waits for the partner")
		}
		partner(t, one, "end", "two.example")
		hstest.Await(t, "what waits to be forgotten", func() bool { return rows(t, one, "two.example")["outbox_edus"] == "" })
		two.Restart()
		bob = bob.On(two)
		seen := ""
		bob.Must("PUT", "/sendToDevice/org.example.r357/self", object{"messages": object{string(bob.ID): object{bob.DeviceID: object{"text": "own"}}}})
		bob.Until("bob's own message", func(a hstest.Answer) bool { seen += string(a.Raw); return strings.Contains(seen, `"own"`) })
		seen += string(bob.Sync(3 * time.Second).Raw)
		if strings.Contains(seen, "canary") {
			t.Errorf("it was sent to a former partner: %.500s", seen)
		}
	})
}
