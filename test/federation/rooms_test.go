package federation_test

import (
	"fmt"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// Two servers: somebody joins a public room of the other, in every room version, and both talk.
func TestJoinAndTalk(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		for _, v := range versions(t) {
			room := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": v, "name": "Room of version " + v})
			anna.Send(room, "before "+v)
			bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
			bob.Send(room, "from bob "+v)
			anna.Until("bob's words in version "+v, has(room, "from bob "+v))
			anna.Send(room, "from anna "+v)
			bob.Until("anna's words in version "+v, has(room, "from anna "+v))
			bob.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{})
			anna.Until("bob's leaving in version "+v, membership(room, bob.ID, "leave"))
		}
	})
}

// One server is away while the other goes on, and hears all of it when it is back; so does the one that was there.
func TestRestartInTheMiddle(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
		bob.Send(room, "here")
		anna.Until("bob's words", has(room, "here"))
		f.Servers[1].Stop()
		for i := range 30 {
			anna.Send(room, fmt.Sprint("while away ", i))
		}
		anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic/", map[string]any{"topic": "changed"})
		f.Servers[1].Restart()
		bob.Send(room, "back") // also tells that the server is there
		bob.Until("the last of what was said meanwhile", has(room, "while away 29"))
		a := bob.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=100", nil)
		for i := range 30 {
			if !strings.Contains(string(a.Raw), fmt.Sprintf(`"while away %d"`, i)) {
				t.Errorf("message %d is missing", i)
			}
		}
		anna.Until("bob's return", has(room, "back"))
		f.Servers[0].Restart()
		anna.Send(room, "after a restart")
		bob.Until("anna's words", has(room, "after a restart"))
	})
}

// Who comes later reads what was said before, as far as the room lets them, from the server that has it.
func TestHistoryBeforeTheJoin(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		for visibility, open := range map[string]bool{"shared": true, "joined": false} {
			room := anna.CreateRoom(map[string]any{"preset": "public_chat", "initial_state": []any{
				map[string]any{"type": "m.room.history_visibility", "state_key": "", "content": map[string]any{"history_visibility": visibility}}}})
			for i := range 30 {
				anna.Send(room, fmt.Sprint("early ", i))
			}
			bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
			found, from := false, ""
			for range 20 {
				a := bob.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=20"+from, nil)
				found = found || strings.Contains(string(a.Raw), `"early 0"`)
				end := a.String("end")
				if end == "" {
					break
				}
				from = "&from=" + hstest.Esc(end)
			}
			if found != open {
				t.Errorf("%s: the first message was read: %v", visibility, found)
			}
		}
	})
}

// History goes on from a server that has fetched it itself.
func TestHistoryAtSecondHand(t *testing.T) {
	t.Parallel()
	each(t, 3, func(t *testing.T, f *hstest.Federation) {
		anna, bob, carl := f.Servers[0].User("anna"), f.Servers[1].User("bob"), f.Servers[2].User("carl")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		for i := range 15 {
			anna.Send(room, fmt.Sprint("early ", i))
		}
		reads := func(u *hstest.User) bool {
			from := ""
			for range 10 {
				a := u.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=30"+from, nil)
				if strings.Contains(string(a.Raw), `"early 0"`) {
					return true
				}
				end := a.String("end")
				if end == "" {
					return false
				}
				from = "&from=" + hstest.Esc(end)
			}
			return false
		}
		bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
		if !reads(bob) {
			t.Fatal("bob does not read what was said before he came")
		}
		// Carl's server has met anna's, so that it can check what she signed.
		hall := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		carl.Must("POST", via(hall, f.Servers[0]), map[string]any{})
		f.Servers[0].Stop()
		carl.Must("POST", via(room, f.Servers[1]), map[string]any{})
		if !reads(carl) {
			t.Error("carl does not read what bob's server has fetched")
		}
	})
}
