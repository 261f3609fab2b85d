package ephemeral

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hansa/matrix"
)

const roomA, roomB = matrix.RoomID("!a:acme.example"), matrix.RoomID("!b:acme.example")

// started runs a service on the clock of the bubble until the test ends.
func started(t *testing.T, d Deps) *Service {
	t.Helper()
	s := New(d)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	synctest.Wait()
	return s
}

// pass lets time pass in a bubble.
func pass(d time.Duration) { <-time.After(d) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestTyping_EndsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{})
		before, news := s.Version(), s.Changed()
		s.startTyping(roomA, anna, 4*time.Second)
		s.startTyping(roomA, bert, 2*time.Second)
		if !isClosed(news) || s.Version() <= before {
			t.Errorf("no news of typing: version %d after %d", s.Version(), before)
		}
		if got := s.Typing(roomA); !slices.Equal(got, []matrix.UserID{anna, bert}) {
			t.Errorf("typing %v", got)
		}
		if got := s.TypingSince(before); !slices.Equal(got, []matrix.RoomID{roomA}) {
			t.Errorf("rooms with news %v", got)
		}
		at, news := s.Version(), s.Changed()
		pass(2 * time.Second)
		synctest.Wait()
		if got := s.Typing(roomA); !isClosed(news) || !slices.Equal(got, []matrix.UserID{anna}) {
			t.Errorf("after bert's time typing %v", got)
		}
		if got := s.TypingSince(at); len(got) != 1 {
			t.Errorf("rooms with news %v", got)
		}
		news = s.Changed()
		pass(2 * time.Second)
		synctest.Wait()
		if got := s.Typing(roomA); !isClosed(news) || len(got) != 0 {
			t.Errorf("after anna's time typing %v", got)
		}
	})
}

func TestTyping_GoingOnIsNoNews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{})
		s.startTyping(roomA, anna, 10*time.Second)
		at, news := s.Version(), s.Changed()
		for range 5 {
			pass(8 * time.Second)
			s.startTyping(roomA, anna, 10*time.Second)
		}
		synctest.Wait()
		if isClosed(news) || s.Version() != at || len(s.TypingSince(at)) != 0 {
			t.Error("going on typing was told")
		}
		s.startTyping(roomA, anna, time.Second)
		pass(time.Second)
		synctest.Wait()
		if !isClosed(news) || len(s.Typing(roomA)) != 0 {
			t.Error("a shorter time was not kept")
		}
		news = s.Changed()
		s.StopTyping(roomA, anna)
		if isClosed(news) {
			t.Error("stopping twice was told")
		}
	})
}

func TestTyping_Versions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{})
		last := s.Version()
		if now := time.Now().UnixMilli(); last != now {
			t.Errorf("first version %d, want the moment %d", last, now)
		}
		for i := range 100 {
			s.startTyping(roomA, matrix.UserID(fmt.Sprintf("@%d:acme.example", i)), time.Minute)
			if v := s.Version(); v <= last {
				t.Fatalf("version %d after %d", v, last)
			}
			last = s.Version()
		}
		s.startTyping(roomB, anna, time.Minute)
		if got := s.TypingSince(last); !slices.Equal(got, []matrix.RoomID{roomB}) {
			t.Errorf("rooms with news %v", got)
		}
		if got := s.TypingSince(0); !slices.Equal(got, []matrix.RoomID{roomB, roomA}) {
			t.Errorf("all rooms %v", got)
		}
		again := New(Deps{})
		if again.Version() < time.Now().UnixMilli() {
			t.Errorf("a restarted node begins at %d", again.Version())
		}
	})
}

func TestTyping_Bounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{})
		for i := range maxTypists + 50 {
			s.startTyping(roomA, matrix.UserID(fmt.Sprintf("@%d:acme.example", i)), time.Minute)
		}
		if n := len(s.Typing(roomA)); n != maxTypists {
			t.Errorf("%d typists, want %d", n, maxTypists)
		}
		for i := range maxTypingRooms + 50 {
			id := matrix.RoomID(fmt.Sprintf("!%d:acme.example", i))
			s.startTyping(id, anna, time.Minute)
			s.StopTyping(id, anna)
		}
		if n := len(s.typing.rooms); n > maxTypingRooms {
			t.Errorf("%d rooms remembered, want at most %d", n, maxTypingRooms)
		}
		if n := len(s.Typing(roomA)); n != maxTypists {
			t.Errorf("the room in which people type was forgotten: %d typists", n)
		}
		pass(3 * quietFor)
		synctest.Wait()
		if n := len(s.typing.rooms); n != 0 {
			t.Errorf("%d rooms remembered after a long time", n)
		}
	})
}

// Only members who are joined are shown, and only for themselves.
func TestC173_F97_TypingSpoof(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		ctx := t.Context()
		id := k.room(anna)
		set := func(by, user matrix.UserID, room matrix.RoomID, d time.Duration) error {
			return k.SetTyping(ctx, k.by(by), room, user, true, d)
		}
		wantCode(t, "for another user", set(anna, bert, id, 0), "403 M_FORBIDDEN")
		wantCode(t, "never joined", set(bert, bert, id, 0), "403 M_FORBIDDEN")
		wantCode(t, "in no room", set(anna, anna, "!nowhere:acme.example", 0), "403 M_FORBIDDEN")
		wantCode(t, "negative time", set(anna, anna, id, -1), "400 M_INVALID_PARAM")
		k.member(id, bert, "join")
		wantCode(t, "joined", set(bert, bert, id, time.Hour), "")
		if got := k.Typing(id); !slices.Equal(got, []matrix.UserID{bert}) {
			t.Errorf("typing %v", got)
		}
		wantCode(t, "stop for another user", k.SetTyping(ctx, k.by(anna), id, bert, false, 0), "403 M_FORBIDDEN")
		wantCode(t, "stop", k.SetTyping(ctx, k.by(bert), id, bert, false, 0), "")
		if got := k.Typing(id); len(got) != 0 {
			t.Errorf("typing %v", got)
		}
		k.member(id, bert, "leave")
		wantCode(t, "left", set(bert, bert, id, 0), "403 M_FORBIDDEN")
	})
}
