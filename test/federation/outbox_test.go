package federation_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// crash makes a server go on with what is on the disk at this moment, as after kill -9: the files are copied while it runs, and what it does when
// it stops in order is thrown away.
func crash(t *testing.T, s *hstest.Server) {
	t.Helper()
	dir := t.TempDir()
	for _, end := range []string{"", "-wal"} { // the rest of what SQLite needs it makes anew
		data, err := os.ReadFile(filepath.Join(s.Config.DataDir, "hansa.db"+end))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "hansa.db"+end), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Stop()
	s.Config.DataDir, s.Config.Database = dir, "sqlite:"+filepath.Join(dir, "hansa.db")
	s.Restart()
}

// What other servers have to hear is in the transaction of the event, message or key itself: whoever got a 200 finds it delivered, once, though the
// server died right after it and the others were away.
func TestD478_OutboxIsInTheTransaction(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 2, nil)
	one, two := f.Servers[0], f.Servers[1]
	anna, bob := one.User("anna"), two.User("bob")
	room := anna.CreateRoom(object{"preset": "public_chat"})
	bob.Must("POST", via(room, one), object{})
	bob.Send(room, "here")
	anna.Until("bob's words", has(room, "here"))
	two.Stop()
	for round, text := range []string{"first", "second", "third"} {
		anna.Send(room, text)
		anna.Must("PUT", "/sendToDevice/org.example.d478/t"+text, object{"messages": object{string(bob.ID): object{bob.DeviceID: object{"text": "device " + text}}}})
		crash(t, one)
		anna = anna.On(one)
		if a := anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=50", nil); strings.Count(string(a.Raw), `"body":"`+text+`"`) != 1 {
			t.Fatalf("round %d: the message is not there once after the crash: %s", round, a.Raw)
		}
	}
	two.Restart()
	bob = bob.On(two)
	anna.Send(room, "last") // tells that the server is back
	told, seen := "", ""
	bob.Until("all that was said", func(a hstest.Answer) bool {
		told, seen = told+string(a.Raw), seen+string(a.Raw)
		return strings.Contains(seen, `"last"`) && strings.Contains(told, `"device third"`)
	})
	for _, text := range []string{"first", "second", "third"} {
		if n := strings.Count(seen, `"body":"`+text+`"`); n != 1 {
			t.Errorf("%s came %d times", text, n)
		}
		if n := strings.Count(told, `"device `+text+`"`); n != 1 {
			t.Errorf("the message to a device of the %s crash came %d times", text, n)
		}
	}
}

// A server answers what another one sends only when it is durable: events and messages to devices that it has answered 200 are there after a crash in
// the moment after.
func TestF105_KilledAfterTheAnswer(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 2, nil)
	one, two := f.Servers[0], f.Servers[1]
	anna, bob := one.User("anna"), two.User("bob")
	room := anna.CreateRoom(object{"preset": "public_chat"})
	bob.Must("POST", via(room, one), object{})
	for _, text := range []string{"first", "second", "third"} {
		bob.Send(room, text)
		bob.Must("PUT", "/sendToDevice/org.example.f105/t"+text, object{"messages": object{string(anna.ID): object{anna.DeviceID: object{"text": "device " + text}}}})
		anna.Until("the message", has(room, text))
		crash(t, one)
		anna = anna.On(one)
		bob.Send(room, "after "+text)
		anna.Until("what came after the crash", has(room, "after "+text))
		a := anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=100", nil)
		for _, want := range []string{text, "after " + text} {
			if n := strings.Count(string(a.Raw), `"body":"`+want+`"`); n != 1 {
				t.Errorf("%q is there %d times after the crash", want, n)
			}
		}
	}
}
