package api

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hansa/test/hstest"
)

// Many requests at once, each of which reads while it reads: nobody waits for a connection that waits for another.
func TestD462_NestedReads(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		const people = 40
		anna := s.User("anna")
		type home struct {
			u    *hstest.User
			room string
		}
		var homes []home
		for i := range people {
			u := s.User(fmt.Sprint("u", i))
			h := home{u, anna.CreateRoom(map[string]any{"preset": "public_chat"})}
			u.Join(h.room)
			u.Send(h.room, "hello")
			homes = append(homes, h)
		}
		best := time.Hour // the machine may be busy with something else now and then
		for range 3 {
			s.Restart() // all rooms and users are cold
			var wg sync.WaitGroup
			begin := time.Now()
			for _, h := range homes {
				for _, path := range []string{"/messages?dir=b", "/state", "/members"} {
					wg.Go(func() {
						if a := h.u.Try("GET", at(h.room)+path, nil); a.Status != 200 {
							t.Errorf("%s: %d %s", path, a.Status, a.Raw)
						}
					})
				}
			}
			wg.Wait()
			best = min(best, time.Since(begin))
		}
		if best > 15*time.Second {
			t.Errorf("%d cold requests took %v", 3*people, best)
		}
	})
}

// One row that cannot be read is one thing missing: people sync, rooms go on, the server starts.
func TestD475_PoisonRow(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	for i := range 5 {
		c.anna.Send(c.room, fmt.Sprint("message ", i))
	}
	last := c.anna.Send(c.room, "the last")
	c.anna.Must("PUT", at(c.room)+"/state/m.room.topic", map[string]any{"topic": "damaged later"})
	c.ben.Must("POST", at(c.room)+"/receipt/m.read/"+hstest.Esc(last), []byte(`{}`))
	me := "/user/" + hstest.Esc(string(c.ben.ID))
	c.ben.Must("PUT", me+"/account_data/com.example.x", []byte(`{"x":1}`))
	c.anna.Must("PUT", "/sendToDevice/com.example.x/1", map[string]any{"messages": map[string]any{string(c.ben.ID): map[string]any{"*": map[string]any{"x": 1}}}})
	c.ben.Must("PUT", "/profile/"+hstest.Esc(string(c.ben.ID))+"/com.example.x", []byte(`{"com.example.x":[1]}`))
	p := newPhone(t, c.ben)
	c.ben.Must("POST", "/keys/upload", []byte(`{"device_keys":`+p.deviceKeys()+`}`))
	for _, damage := range []string{
		`UPDATE events SET json = CAST('{"garb' AS BLOB) WHERE type = 'm.room.message' AND pos % 2 = 0`,
		`UPDATE events SET json = x'ff00fe' WHERE type = 'm.room.topic'`,
		`UPDATE events SET state_root = x'00' WHERE type = 'm.room.message'`,
		`UPDATE events SET signatures = CAST('garbage' AS BLOB)`,
		`UPDATE receipts SET event_id = 'x', ts = -1`,
		`UPDATE account_data SET content = CAST('{' AS BLOB)`,
		`UPDATE to_device SET content = x'ff'`,
		`UPDATE profiles SET value = CAST('{' AS BLOB)`,
	} {
		c.Stop()
		tamper(t, c.Dir, damage)
		c.Restart()
		for _, u := range []*hstest.User{c.anna, c.ben} {
			for _, path := range []string{"/sync?timeout=0", "/sync?timeout=0&full_state=true", at(c.room) + "/messages?dir=b&limit=50", at(c.room) + "/state", at(c.room) + "/members", at(c.room) + "/joined_members", "/joined_rooms"} {
				if a := u.Try("GET", path, nil); a.Status != 200 || len(a.JSON) == 0 && a.Raw[0] != '[' {
					t.Errorf("%s: %s: %d %.300s", damage, path, a.Status, a.Raw)
				}
			}
			survives(t, damage, u.Try("POST", "/keys/query", map[string]any{"device_keys": map[string]any{string(c.ben.ID): []string{}}}))
		}
		c.anna.Must("PUT", at(c.room)+"/send/m.room.message/"+hstest.Esc(damage), map[string]any{"msgtype": "m.text", "body": "on"})
	}
}

// tamper runs a statement on the SQLite file of a server that is not running.
func tamper(t testing.TB, dir, q string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "data", "hansa.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	r, err := db.Exec(q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	if n, _ := r.RowsAffected(); n == 0 { // SQLite always knows
		t.Errorf("%s: nothing was damaged", q)
	}
}
