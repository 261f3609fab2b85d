package bridges

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// shared makes a room of a ghost that somebody of staff is in.
func shared(t testing.TB, s *hstest.Server, b *bridge, ghost string, staff *hstest.User, body map[string]any) string {
	t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	body["invite"] = []any{staff.ID}
	room := b.must(s, ghost, "POST", "/createRoom", body).String("room_id")
	staff.Join(room)
	return room
}

// B430: a bridge is told of what its users could read themselves, and of nothing else.
func TestB430_InterestedAndPermitted(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc, mail := newBridge(t, "irc"), newBridge(t, "mail")
		s := start(t, database, irc, mail)
		staff, lab := s.User("staff", "staff"), s.User("lab", "lab")
		person := s.User("irc_person", "staff") // a real person inside of the namespace
		gus, gil := s.User("@gus:globex.example"), s.User("@gil:globex.example")
		bob := irc.ghost(s, "bob")
		room := shared(t, s, irc, bob, staff, nil)

		alone := staff.CreateRoom(nil)
		staff.Send(alone, "CANARY alone")
		closed := lab.CreateRoom(nil)
		lab.Send(closed, "CANARY lab")
		hall := person.CreateRoom(map[string]any{"invite": []any{staff.ID}})
		person.Send(hall, "CANARY person")
		other := gus.CreateRoom(map[string]any{"invite": []any{gil.ID}})
		gus.Send(other, "CANARY tenant")
		before := staff.CreateRoom(map[string]any{"initial_state": []any{map[string]any{"type": "m.room.history_visibility", "content": map[string]any{"history_visibility": "joined"}}}})
		staff.Send(before, "CANARY before")
		staff.Must("POST", "/rooms/"+hstest.Esc(before)+"/invite", map[string]any{"user_id": bob})
		staff.Send(before, "CANARY while invited")
		irc.must(s, bob, "POST", "/join/"+hstest.Esc(before), map[string]any{})
		staff.Send(before, "after the join")
		staff.Send(room, "one")
		irc.hears("after the join")
		irc.hears("one")
		irc.must(s, bob, "POST", "/rooms/"+hstest.Esc(before)+"/leave", map[string]any{})
		staff.Send(before, "CANARY after the leave")

		// An alias of the bridge's makes a room its concern, without a ghost in it.
		square := irc.must(s, bob, "POST", "/createRoom", map[string]any{"room_alias_name": "irc_square", "preset": "public_chat"}).String("room_id")
		staff.Join(square)
		irc.must(s, bob, "POST", "/rooms/"+hstest.Esc(square)+"/leave", map[string]any{})
		staff.Send(square, "in the square")
		irc.hears("in the square")

		// Memberships of ghosts are told of, also where nothing else is.
		if !strings.Contains(irc.text(), `"state_key":"`+bob+`"`) {
			t.Error("the bridge has not heard of its ghost's memberships")
		}

		// What policy closes is silent from then on, and goes on where it is open again.
		s.WritePolicy("acme.example/bridges.yaml", "bridges:\n  irc: {points: "+everything+", contact: []}\n")
		s.ReloadPolicy()
		if a := staff.Try("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/"+staff.Txn(), map[string]any{"msgtype": "m.text", "body": "CANARY no contact"}); a.Status != 403 {
			staff.Send(alone, "CANARY no contact")
		}
		s.WritePolicy("acme.example/bridges.yaml", "bridges:\n  irc: {points: [bridge.act, event.send], contact: [staff]}\n")
		s.ReloadPolicy()
		staff.Send(room, "CANARY not to be read")
		after(t, s, irc)
		s.WritePolicy("acme.example/bridges.yaml", policies["acme.example/bridges.yaml"])
		s.ReloadPolicy()
		staff.Send(room, "two")
		irc.hears("two")
		if strings.Contains(irc.text(), "CANARY") {
			t.Errorf("told of what does not concern it:\n%s", irc.text())
		}
		if strings.Contains(mail.text(), "m.room") {
			t.Errorf("another bridge was told:\n%s", mail.text())
		}
		if irc.wrong+mail.wrong > 0 {
			t.Error("requests without the hs_token")
		}
	})
}

// gauge is the value of a metric of a bridge; missing counts as -1.
func gauge(t testing.TB, s *hstest.Server, name, bridge string) float64 {
	t.Helper()
	list, err := s.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == bridge {
					return m.GetGauge().GetValue()
				}
			}
		}
	}
	return -1
}

// after waits until the bridge was told of all there is.
func after(t testing.TB, s *hstest.Server, b *bridge) {
	t.Helper()
	until(t, "the bridge to be up to date", func() bool { return gauge(t, s, "hansa_appservices_behind_positions", b.id) == 0 })
}

// B430: what was hidden when it was sent stays hidden from a bridge that comes later, and what it was to have is not lost when its user has left.
func TestB430_ABridgeThatWasAway(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc := newBridge(t, "irc")
		s := start(t, database, irc)
		staff := s.User("staff", "staff")
		bob := irc.ghost(s, "bob")
		room := shared(t, s, irc, bob, staff, map[string]any{"initial_state": []any{map[string]any{"type": "m.room.history_visibility", "content": map[string]any{"history_visibility": "joined"}}}})
		staff.Send(room, "before")
		irc.hears("before")
		irc.behave(status(503))
		staff.Send(room, "while in")
		irc.must(s, bob, "POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{})
		staff.Send(room, "CANARY while out")
		staff.Must("POST", "/rooms/"+hstest.Esc(room)+"/invite", map[string]any{"user_id": bob})
		irc.must(s, bob, "POST", "/join/"+hstest.Esc(room), map[string]any{})
		staff.Send(room, "back")
		irc.behave(nil)
		irc.hears("back")
		if got, want := irc.bodies(), []string{"before", "while in", "back"}; !slices.Equal(got, want) {
			t.Errorf("told of %q, want %q", got, want)
		}
		if strings.Contains(irc.text(), "CANARY") {
			t.Error("told of what its user could not see")
		}
	})
}

// messages are n messages of which each is sent by a person.
func messages(u *hstest.User, room, prefix string, n int) []string {
	var out []string
	for i := range n {
		text := fmt.Sprintf("%s %d", prefix, i)
		u.Send(room, text)
		out = append(out, text)
	}
	return out
}

// retried checks that transactions with one ID are the same, and that in the order of their first attempts none overtakes another.
func retried(t testing.TB, b *bridge) (attempts int) {
	t.Helper()
	first := map[string]string{}
	open := ""
	for _, x := range b.all() {
		if strings.HasPrefix(x.id, "e-") {
			continue // typing, which is not tried again
		}
		if raw, known := first[x.id]; known && raw != x.raw {
			t.Errorf("transaction %s came with other content:\n%s\n%s", x.id, raw, x.raw)
		}
		first[x.id] = x.raw
		if open != "" && x.id != open {
			t.Errorf("transaction %s came before %s was confirmed", x.id, open)
		}
		attempts++
		if open = x.id; x.confirmed {
			open = ""
		}
	}
	return attempts
}

// B431: a bridge that is away, answers with errors, hangs, or whose confirmation is lost gets everything in order, once for each transaction ID,
// and holds up nobody.
func TestB431_DeliveryGuarantee(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc, mail := newBridge(t, "irc"), newBridge(t, "mail")
		s := start(t, database, irc, mail)
		staff := s.User("staff", "staff")
		bob, eve := irc.ghost(s, "bob"), mail.ghost(s, "eve")
		room, post := shared(t, s, irc, bob, staff, nil), shared(t, s, mail, eve, staff, nil)
		wanted := messages(staff, room, "well", 3)
		irc.hears("well 2")

		// Errors.
		irc.behave(status(500))
		wanted = append(wanted, messages(staff, room, "during errors", 120)...)
		staff.Send(post, "while irc errs")
		mail.hears("while irc errs")
		until(t, "some retries", func() bool { return gauge(t, s, "hansa_appservices_failing_seconds", "irc") > 0.3 })
		until(t, "100 positions behind", func() bool { return gauge(t, s, "hansa_appservices_behind_positions", "irc") >= 100 })
		// The server is started again in the middle of it.
		s.Restart()
		until(t, "more retries", func() bool { return gauge(t, s, "hansa_appservices_failing_seconds", "irc") >= 0 })
		irc.behave(nil)
		irc.hears("during errors 119")

		// A bridge that hangs holds up nobody.
		release := make(chan struct{})
		hangup := func(w http.ResponseWriter, _ *http.Request) bool {
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_ = conn.Close()
			}
			return true
		}
		irc.behave(func(w http.ResponseWriter, r *http.Request) bool {
			<-release
			return hangup(w, r)
		})
		wanted = append(wanted, messages(staff, room, "hanging", 2)...)
		staff.Send(post, "while irc hangs")
		mail.hears("while irc hangs")

		// It does what it was told, and the confirmation is lost: the connection breaks, again and again, and then the server stops.
		irc.behave(hangup)
		close(release)
		wanted = append(wanted, messages(staff, room, "lost", 2)...)
		until(t, "a transaction to be tried again", func() bool {
			list := irc.all()
			return len(list) > 1 && list[len(list)-1].id == list[len(list)-2].id && strings.Contains(list[len(list)-1].raw, "hanging 0")
		})
		s.Restart()
		irc.behave(nil)
		wanted = append(wanted, messages(staff, room, "at last", 2)...)
		irc.hears("at last 1")

		attempts := retried(t, irc)
		var got []string
		seen := map[string]bool{}
		for _, x := range irc.all() { // what it heard by transaction ID, confirmed or not: a bridge that keeps to the specification
			if seen[x.id] {
				continue
			}
			seen[x.id] = true
			for _, e := range x.events {
				if c, _ := e["content"].(map[string]any); e["type"] == "m.room.message" {
					got = append(got, fmt.Sprint(c["body"]))
				}
			}
		}
		if attempts < len(seen)+2 { // one during the errors and one whose confirmation was lost came again
			t.Errorf("%d attempts of %d transactions", attempts, len(seen))
		}
		if !slices.Equal(got, wanted) {
			t.Errorf("heard %q\nwant %q", got, wanted)
		}
	})
}

// B431: nobody listens for a while, over a restart of the server.
func TestB431_NobodyListens(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc := newBridgeAt(t, "irc", "127.77.4.31:0")
		s := start(t, database, irc)
		staff := s.User("staff", "staff")
		bob := irc.ghost(s, "bob")
		room := shared(t, s, irc, bob, staff, nil)
		staff.Send(room, "here")
		irc.hears("here")
		address := irc.http.Listener.Addr().String()
		irc.http.Close()
		wanted := append([]string{"here"}, messages(staff, room, "away", 30)...)
		until(t, "failures", func() bool { return gauge(t, s, "hansa_appservices_failing_seconds", "irc") > 0 })
		s.Restart()
		until(t, "failures after the restart", func() bool { return gauge(t, s, "hansa_appservices_failing_seconds", "irc") > 0 })
		irc.listen(address)
		irc.must(s, "", "POST", "/_matrix/client/v1/appservice/irc/ping", map[string]any{"transaction_id": "up"}) // and it is told at once
		irc.hears("away 29")
		if got := irc.bodies(); !slices.Equal(got, wanted) {
			t.Errorf("heard %q, want %q", got, wanted)
		}
		retried(t, irc)
	})
}
