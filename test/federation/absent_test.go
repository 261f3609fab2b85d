package federation_test

import (
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// A partner was away while more happened than anybody keeps for it: it gets the newest of each room, and finds the rest by itself. What came
// in between is in the history once, and both go on as before.
func TestF130_PartnerWasAway(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) { newAbsence(t, f, 5, 60).end() })
}

// BenchmarkPartnerAway is the same with 5,000 events in 50 rooms, or as many rooms as HANSA_AWAY_ROOMS says, with 100 each. It reports how long it takes until the server that was away has the newest
// of each room, what either side asks of the other for that, how far the heap of both together grows, and what reading all of the history
// takes afterwards.
func BenchmarkPartnerAway(b *testing.B) {
	rooms := 50
	if n, err := strconv.Atoi(os.Getenv("HANSA_AWAY_ROOMS")); err == nil {
		rooms = n
	}
	for _, db := range storagetest.Databases() {
		b.Run(db, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				f := hstest.NewFederation(b, 2, func(_ int, o *hstest.Options) { o.Database = db })
				a := newAbsence(b, f, rooms, 100)
				b.StartTimer()
				a.end()
			}
		})
	}
}

// absence is the time after a server was away while people went on talking in rooms.
type absence struct {
	t         testing.TB
	here, far *hstest.User // far was away
	rooms     []string
	messages  int // in each
}

func newAbsence(t testing.TB, f *hstest.Federation, rooms, messages int) *absence {
	one, two := f.Servers[0], f.Servers[1]
	a := &absence{t: t, here: one.User("anna"), far: two.User("bob"), messages: messages}
	for range rooms {
		room := a.here.CreateRoom(object{"preset": "public_chat", "initial_state": []any{object{"type": "m.room.history_visibility", "state_key": "",
			"content": object{"history_visibility": "shared"}}}})
		a.far.Must("POST", via(room, one), object{})
		a.here.Until("bob's coming", membership(room, a.far.ID, "join"))
		a.rooms = append(a.rooms, room)
	}
	two.Stop()
	for i := range messages {
		for _, room := range a.rooms {
			a.here.Send(room, fmt.Sprintf("word %d.", i))
		}
	}
	one.Restart() // what waits does not live in memory alone
	a.here = a.here.On(one)
	two.Restart()
	a.far = a.far.On(two)
	return a
}

// end lets the server that was away catch up, and looks at what it has then.
func (a *absence) end() {
	heap, begin := watchHeap(), time.Now()
	a.far.Send(a.rooms[0], "here I am") // which makes the other server try again at once
	missing := map[string]bool{}
	for _, room := range a.rooms {
		missing[room] = true
	}
	newest := fmt.Sprintf("word %d.", a.messages-1)
	a.far.Until("the newest words", func(s hstest.Answer) bool {
		for room := range missing {
			if has(room, newest)(s) {
				delete(missing, room)
			}
		}
		return len(missing) == 0
	})
	took, asked, sent := time.Since(begin), requests(a.t, a.far.S), requests(a.t, a.here.S)
	for _, room := range a.rooms {
		a.whole(room)
		a.here.Send(room, "as before")
		a.far.Until("anna's words", has(room, "as before"))
	}
	a.here.Until("bob's words", has(a.rooms[0], "here I am"))
	grown := heap()
	if b, ok := a.t.(*testing.B); ok {
		b.ReportMetric(float64(took.Milliseconds()), "caught-up-ms")
		b.ReportMetric(asked, "asked")
		b.ReportMetric(sent, "sent")
		b.ReportMetric(requests(a.t, a.far.S)-asked, "asked-for-history")
		b.ReportMetric(grown, "peak-MiB")
	}
}

// whole reads all of a room's history.
func (a *absence) whole(room string) {
	var history strings.Builder
	from := ""
	for range a.messages/2 + 40 {
		s := a.far.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=20"+from, nil)
		history.Write(s.Raw)
		end := s.String("end")
		if end == "" {
			break
		}
		from = "&from=" + url.QueryEscape(end)
	}
	for i := range a.messages {
		if n := strings.Count(history.String(), fmt.Sprintf(`"word %d."`, i)); n != 1 {
			a.t.Errorf("word %d is in the history %d times, want once", i, n)
		}
	}
}

// requests is how many requests a server has made of others since it started.
func requests(t testing.TB, s *hstest.Server) (n float64) {
	all, err := s.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "hansa_fedclient_request_seconds" {
			for _, m := range f.GetMetric() {
				n += float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return n
}
