package ephemeral

import (
	"container/heap"
	"container/list"
	"context"
	"slices"
	"time"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
)

const (
	// defaultTyping is how long somebody types who does not say, maxTyping the longest that is believed.
	defaultTyping = 30 * time.Second
	maxTyping     = 2 * time.Minute
	// maxTypists is how many users of one room are shown, maxTypingRooms in how many rooms anybody is.
	maxTypists     = 200
	maxTypingRooms = 20_000
	// quietFor is how long a room is remembered in which nobody types any more, for readers who come back.
	quietFor = 15 * time.Minute
)

// typing is who is typing. Service.mu guards it.
type typing struct {
	rooms map[matrix.RoomID]*typingRoom
	// recent has the rooms in the order of their changes, the newest first.
	recent *list.List
	due    deadlines
}

type typingRoom struct {
	id      matrix.RoomID
	typists []*typist // in the order in which they began
	version int64
	changed time.Time
	place   *list.Element
}

type typist struct {
	user  matrix.UserID
	room  *typingRoom
	until time.Time
	sent  time.Time // when other servers were told
	index int
}

// deadlines is a heap of typists, the first to end on top.
type deadlines []*typist

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].until.Before(d[j].until) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i]; d[i].index, d[j].index = i, j }

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	t, _ := x.(*typist)
	t.index = len(*d)
	*d = append(*d, t)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return t
}

func newTyping() typing {
	return typing{rooms: map[matrix.RoomID]*typingRoom{}, recent: list.New()}
}

// SetTyping says that a user is typing in a room for a while, or not any more. A timeout of 0 means 30 seconds. Users do so for
// themselves, in rooms that they are joined to.
//
// spec: client-server-api#put_matrixclientv3roomsroomidtypinguserid
func (s *Service) SetTyping(ctx context.Context, by Caller, room matrix.RoomID, user matrix.UserID, typing bool, timeout time.Duration) error {
	if user != by.User {
		return matrix.Forbidden("You can say only of yourself that you are typing.")
	}
	if timeout < 0 {
		return matrix.InvalidParam("The timeout must not be negative.")
	}
	facts, audience, err := s.Rooms.PolicyFacts(ctx, room, user)
	if err != nil {
		return err
	}
	if facts.Membership != auth.Join {
		return errNotJoined()
	}
	if !typing {
		s.StopTyping(room, user)
		return nil
	}
	in := s.input(policy.TypingSend, by)
	in.Room, in.Audience = facts, audience
	if e := s.Policy.Decide(ctx, in).Error(); e != nil {
		return e
	}
	if timeout == 0 {
		timeout = defaultTyping
	}
	s.startTyping(room, user, min(timeout, maxTyping))
	s.Active(user)
	return nil
}

// errNotJoined is the same for rooms that do not exist.
func errNotJoined() error { return matrix.Forbidden("You are not in this room.") }

func (s *Service) startTyping(id matrix.RoomID, user matrix.UserID, timeout time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.typist(id, user, timeout)
	s.tellTyping(id, user, timeout)
}

// typist enters or prolongs somebody who types. The caller holds s.mu.
func (s *Service) typist(id matrix.RoomID, user matrix.UserID, timeout time.Duration) {
	now := s.Now()
	r := s.typing.rooms[id]
	if r == nil {
		if len(s.typing.rooms) >= maxTypingRooms && !s.typing.forget() {
			return
		}
		r = &typingRoom{id: id}
		r.place = s.typing.recent.PushFront(r)
		s.typing.rooms[id] = r
	}
	if i := r.index(user); i >= 0 {
		t := r.typists[i]
		t.until = now.Add(timeout)
		if now.Sub(t.sent) >= repeatTyping {
			t.sent = now
			s.sendTyping(id, user, true)
		}
		heap.Fix(&s.typing.due, t.index)
		s.dueFirst(t)
		return
	}
	if len(r.typists) >= maxTypists {
		return
	}
	t := &typist{user: user, room: r, until: now.Add(timeout), sent: now}
	s.sendTyping(id, user, true)
	r.typists = append(r.typists, t)
	heap.Push(&s.typing.due, t)
	s.typingChanged(r, now)
	s.wake()
	s.dueFirst(t)
}

// dueFirst makes Run look again when somebody is the next whose time is over. The caller holds s.mu.
func (s *Service) dueFirst(t *typist) {
	if s.typing.due[0] == t {
		s.soon()
	}
}

// StopTyping says that a user is not typing in a room any more, as when the user has left it.
func (s *Service) StopTyping(id matrix.RoomID, user matrix.UserID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopTypist(id, user) {
		s.tellTyping(id, user, 0)
	}
}

// stopTypist removes somebody who types; false when nobody does. The caller holds s.mu.
func (s *Service) stopTypist(id matrix.RoomID, user matrix.UserID) bool {
	r := s.typing.rooms[id]
	if r == nil {
		return false
	}
	i := r.index(user)
	if i < 0 {
		return false
	}
	heap.Remove(&s.typing.due, r.typists[i].index)
	r.typists = slices.Delete(r.typists, i, i+1)
	s.typingChanged(r, s.Now())
	s.wake()
	s.sendTyping(id, user, false)
	return true
}

func (s *Service) typingChanged(r *typingRoom, now time.Time) {
	r.version, r.changed = s.advance(now), now
	s.typing.recent.MoveToFront(r.place)
}

// sweepTyping ends what is over and says when the next ends. The caller holds s.mu.
func (s *Service) sweepTyping(now time.Time) time.Duration {
	ended := false
	for len(s.typing.due) > 0 && !s.typing.due[0].until.After(now) {
		t, _ := heap.Pop(&s.typing.due).(*typist)
		if i := t.room.index(t.user); i >= 0 {
			t.room.typists = slices.Delete(t.room.typists, i, i+1)
			s.sendTyping(t.room.id, t.user, false)
		}
		s.typingChanged(t.room, now)
		ended = true
	}
	if ended {
		s.wake()
	}
	for e := s.typing.recent.Back(); e != nil; {
		r, _ := e.Value.(*typingRoom)
		if now.Sub(r.changed) < quietFor {
			break
		}
		e = e.Prev()
		if len(r.typists) == 0 {
			s.typing.drop(r)
		}
	}
	if len(s.typing.due) > 0 {
		return s.typing.due[0].until.Sub(now)
	}
	return quietFor
}

func (r *typingRoom) index(user matrix.UserID) int {
	return slices.IndexFunc(r.typists, func(t *typist) bool { return t.user == user })
}

func (t *typing) drop(r *typingRoom) {
	t.recent.Remove(r.place)
	delete(t.rooms, r.id)
}

// forget makes place for a room by dropping the one that has been quiet for the longest time.
func (t *typing) forget() bool {
	for e := t.recent.Back(); e != nil; e = e.Prev() {
		if r, _ := e.Value.(*typingRoom); len(r.typists) == 0 {
			t.drop(r)
			return true
		}
	}
	return false
}

// Typing returns who is typing in a room, in the order in which they began.
func (s *Service) Typing(room matrix.RoomID) []matrix.UserID {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.typing.rooms[room]
	if r == nil || len(r.typists) == 0 {
		return nil
	}
	now := s.Now()
	out := make([]matrix.UserID, 0, len(r.typists))
	for _, t := range r.typists {
		if t.until.After(now) {
			out = append(out, t.user)
		}
	}
	return out
}

// TypingSince returns the rooms whose typing changed after a version.
func (s *Service) TypingSince(version int64) []matrix.RoomID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merge(version)
	var out []matrix.RoomID
	for e := s.typing.recent.Front(); e != nil; e = e.Next() {
		r, _ := e.Value.(*typingRoom)
		if r.version <= version {
			break
		}
		out = append(out, r.id)
	}
	return out
}
