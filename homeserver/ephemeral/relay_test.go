package ephemeral

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hansa/matrix"
)

// wire carries messages between the nodes of a test, unless it is cut.
type wire struct {
	nodes []*end
	cut   bool
	count int
}

type end struct {
	w    *wire
	hear map[string]func([]byte)
}

// Tell implements Relay. It is called while the teller's lock is held, so others hear in a goroutine.
func (e *end) Tell(topic string, message []byte) {
	e.w.count++
	if e.w.cut {
		return
	}
	for _, o := range e.w.nodes {
		if o != e {
			go o.hear[topic](message)
		}
	}
}

// Hear implements Relay.
func (e *end) Hear(topic string, fn func([]byte)) { e.hear[topic] = fn }

func nodesOn(t *testing.T, names ...string) (*wire, []*Service) {
	w := &wire{}
	var out []*Service
	for _, name := range names {
		e := &end{w: w, hear: map[string]func([]byte){}}
		w.nodes = append(w.nodes, e)
		out = append(out, started(t, Deps{Relay: e, Node: name}))
	}
	return w, out
}

func TestRelay_Typing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, n := nodesOn(t, "a", "b")
		a, b := n[0], n[1]
		before, news := b.Version(), b.Changed()
		a.startTyping(roomA, anna, 10*time.Second)
		synctest.Wait()
		if !isClosed(news) || !slices.Equal(b.Typing(roomA), []matrix.UserID{anna}) || len(b.TypingSince(before)) != 1 {
			t.Errorf("the other node shows %v", b.Typing(roomA))
		}
		pass(8 * time.Second)
		a.startTyping(roomA, anna, 10*time.Second) // goes on
		pass(8 * time.Second)
		synctest.Wait()
		if !slices.Equal(b.Typing(roomA), []matrix.UserID{anna}) {
			t.Error("going on typing was not heard of")
		}
		b.StopTyping(roomA, anna) // as when the stop comes to the other node
		synctest.Wait()
		if len(a.Typing(roomA)) != 0 || len(b.Typing(roomA)) != 0 {
			t.Errorf("stopped on one node, on the other %v", a.Typing(roomA))
		}
		a.startTyping(roomA, anna, 5*time.Second)
		synctest.Wait()
		pass(6 * time.Second) // the message about the end never comes
		synctest.Wait()
		if len(b.Typing(roomA)) != 0 {
			t.Error("typing that was heard of does not end by itself")
		}
	})
}

func TestRelay_Presence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := nodesOn(t, "a", "b")
		a, b := n[0], n[1]
		state := func(s *Service) string { return string(s.Presence(anna)) }
		is := func(s *Service, want string) {
			t.Helper()
			if got := state(s); !strings.Contains(got, `"presence":"`+want+`"`) {
				t.Errorf("presence %s, want %s", got, want)
			}
		}
		a.touch(anna, "PHONE", "", 30*time.Second)
		pass(coalesce)
		synctest.Wait()
		is(b, Online)
		a.setPresence(anna, "PHONE", Unavailable, "at lunch")
		pass(2 * coalesce)
		synctest.Wait()
		if is(b, Unavailable); !strings.Contains(state(b), `"status_msg":"at lunch"`) {
			t.Errorf("the status is %s", state(b))
		}
		b.touch(anna, "LAPTOP", Online, 30*time.Second) // the most present device counts, wherever it is
		pass(2 * coalesce)
		synctest.Wait()
		is(a, Online)
		b.touch(anna, "LAPTOP", Offline, 0)
		a.touch(anna, "PHONE", Offline, 0)
		pass(2 * coalesce)
		synctest.Wait()
		is(a, Offline)
		is(b, Offline)
		// Somebody who stays is told of again and again; a node that is gone is not believed for ever.
		for range 10 {
			a.touch(bert, "PHONE", "", 30*time.Second)
			pass(30 * time.Second)
		}
		synctest.Wait()
		if got := string(b.Presence(bert)); !strings.Contains(got, Online) && !strings.Contains(got, Unavailable) {
			t.Errorf("bert, who stays, is %s on the other node", got)
		}
		before := w.count
		w.cut = true
		pass(heardFor + 2*presenceSweep)
		synctest.Wait()
		if got := string(b.Presence(bert)); !strings.Contains(got, `"presence":"offline"`) {
			t.Errorf("bert, of whom nothing is heard, is %s", got)
		}
		if w.count-before > 10 {
			t.Errorf("%d messages about one user", w.count-before)
		}
	})
}

// A reader who comes from a node whose clock is ahead hears of what happens next.
func TestRelay_VersionsOfOtherNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{})
		ahead := s.Version() + (5 * time.Minute).Milliseconds()
		if len(s.TypingSince(ahead)) != 0 {
			t.Error("something is new")
		}
		s.startTyping(roomA, anna, time.Minute)
		if got := s.TypingSince(ahead); len(got) != 1 {
			t.Errorf("rooms with news %v", got)
		}
		s.TypingSince(1 << 62) // a token that somebody made up
		if most := time.Now().Add(maxAhead).UnixMilli() + 10; s.Version() > most {
			t.Errorf("version %d is taken from a token", s.Version())
		}
	})
}

// What no node of this version can have told changes nothing.
func TestRelay_BadMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{Node: "a"})
		for _, m := range []string{"", "x", "[]", `{"room":1}`, `{"users":[{"user":"@x:y","state":"dancing"}]}`, `{"node":"b","users":[{"state":""}]}`} {
			s.heardTyping([]byte(m))
			s.heardPresence([]byte(m))
		}
		if len(s.presence.people) != 0 || len(s.typing.rooms) != 0 {
			t.Errorf("%d people and %d rooms of messages that make no sense", len(s.presence.people), len(s.typing.rooms))
		}
	})
}
