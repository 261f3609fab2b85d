package federation_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/test/hstest"
)

// lost makes messages whose parents nobody has.
func (g *guest) lost(n int) (pdus []json.RawMessage) {
	g.t.Helper()
	for i := range n {
		e := g.build(event.Draft{Type: "m.room.message", Content: fmt.Appendf(nil, `{"body":"lost %d","msgtype":"m.text"}`, i), Depth: g.last.Depth + 1000,
			AuthEvents: g.auth, PrevEvents: []matrix.EventID{matrix.EventID(fmt.Sprintf("$%043d", time.Now().UnixNano()))}})
		pdus = append(pdus, event.Federation(e))
	}
	return pdus
}

// counted is a server of which it is counted what it is asked.
type counted struct{ *hstest.Outsider }

// lookups are the requests for events and states that were made of it since the last call.
func (c counted) lookups() (n int) {
	for len(c.Requests) > 0 {
		r := <-c.Requests
		for _, what := range []string{"/get_missing_events/", "/state_ids/", "/state/", "/event/", "/event_auth/", "/backfill/"} {
			if strings.Contains(r, "/_matrix/federation/v1"+what) {
				n++
			}
		}
	}
	return n
}

// attack sends messages whose parents nobody has, whether the answer is that they are not taken or that they shall come later, and returns how many requests were made for them of the server that sent them.
func attack(t *testing.T, g *guest, c counted, events int) (asked int) {
	t.Helper()
	c.lookups()
	for events > 0 {
		n := min(events, 50)
		events -= n
		a := g.transaction(fmt.Sprint("lost", time.Now().UnixNano()), g.lost(n))
		if a.Status != 429 && (a.Status != 200 || strings.Count(string(a.Raw), `"error"`) != n) {
			t.Fatalf("%d events without parents: %d %.300s", n, a.Status, a.Raw)
		}
		asked += c.lookups()
	}
	return asked
}

// Whoever sends events whose parents nobody has makes the server ask for a while, in each room and in all rooms together, and then no more:
// the server has a budget of 2,000 requests at once and 20 a second for each server that sends, and one of 400 and 4 for each room. What it does not
// ask because one server has used up its own budget costs the room nothing, so that what others send into it finds its parents.
func TestF106_BudgetOfAServer(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		const (
			rooms                   = 8
			roomBurst, roomRate     = 400, 4
			serverBurst, serverRate = 2000, 20
		)
		anna := f.Servers[0].User("anna")
		hostile, honest := counted{f.Outsider(hstest.Outside)}, counted{f.Outsider(hstest.Stranger)}
		var guests []*guest
		for range rooms {
			room := anna.CreateRoom(object{"preset": "public_chat", "room_version": "11"})
			guests = append(guests, enter(t, hostile.Outsider, "fred", room, "11"))
		}
		last := enter(t, honest.Outsider, "gina", string(guests[rooms-1].room), "11")
		began := time.Now()
		// allowed is what a budget has given since the beginning, at most.
		allowed := func(burst, rate int) int { return burst + rate*(2+int(time.Since(began).Seconds())) }
		total := 0
		for i, g := range guests[:rooms-1] {
			n := attack(t, g, hostile, roomBurst*3/4)
			if total += n; n > allowed(roomBurst, roomRate) {
				t.Errorf("%d requests for events of room %d, want %d at most", n, i, allowed(roomBurst, roomRate))
			}
			if i < 4 && n < roomBurst {
				t.Errorf("only %d requests for events of room %d, which has a budget of %d", n, i, roomBurst)
			}
		}
		if total < serverBurst || total > allowed(serverBurst, serverRate) {
			t.Errorf("%d requests for events of one server, want from %d to %d", total, serverBurst, allowed(serverBurst, serverRate))
		}
		// The budget of the server is empty. The last room's is not, and the other server's neither.
		before := allowed(0, serverRate)
		if n := attack(t, guests[rooms-1], hostile, roomBurst); n > allowed(0, serverRate)-before+4*serverRate {
			t.Errorf("%d requests for events of a server whose budget is empty", n)
		}
		if n := attack(t, last, honest, 50); n < 50 {
			t.Errorf("only %d requests for events of another server in a room into which the first one has sent more than its budget allows", n)
		}
		anna.Send(string(last.room), "goes on")
		if a := anna.Sync(0); !has(string(last.room), "goes on")(a) {
			t.Error("the room does not go on")
		}
	})
}
