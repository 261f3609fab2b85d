package room

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/serveracl"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/statemap"
)

// Types of state events that this package reads.
const (
	typeMember     = "m.room.member"
	typeEncryption = "m.room.encryption"
	typeHistory    = "m.room.history_visibility"
	typeRedaction  = "m.room.redaction"
	typeServerACL  = "m.room.server_acl"
)

// member is a user's current membership as a hot room keeps it.
type member struct {
	membership string
	event      matrix.EventID
	rank       int64
}

// stateEntry is one current state event other than a membership.
type stateEntry struct {
	event *event.Event
	rank  int64
}

// live is a room in memory. Everything below mu is guarded by it. It describes the head that the next event is built on, which may be
// ahead of the database by the events that are being committed.
type live struct {
	id      matrix.RoomID
	loaded  chan struct{}       // closed when the room can be used
	err     error               // of load; written before settled is
	version *matrix.RoomVersion // set by load
	gate    *gate               // of foreign events
	wanted  atomic.Int32        // how many sends of our own users wait for mu

	mu      sync.Mutex
	gone    bool // dropped from the cache: load the room again
	settled bool // set at the end of loading: see settle
	// missed are events that the log told of while the room was being read: what was read may be older. At most maxMissed.
	missed  []*storage.Event
	base    int64 // the position of the newest event when the room was loaded
	room    *storage.Room
	rules   *auth.Rules
	state   map[event.StateKey]stateEntry
	members map[matrix.UserID]member
	joined  int
	facts   *policy.Room // rebuilt when state changes; nil: to be made
	// crowd is who is joined or invited; nil until policy first asks. moved are the users whose presence changed since it was
	// brought up to date. epoch counts changes of members and facts.
	crowd  *crowd
	moved  map[matrix.UserID]struct{}
	epoch  int64
	direct bool
	recent map[matrix.EventID]struct{} // events that this process appended lately
	// acl is the compiled form of the server ACL aclOf.
	acl   *serveracl.ACL
	aclOf *event.Event
	last  *commit // the newest append; nil for none
	// flying are events on their way to the disk. ends are the states after those extremities that are known.
	flying map[matrix.EventID]*storage.Event
	ends   map[matrix.EventID]statemap.Hash
}

// maxMissed is how many events may be missed; where there are more the room is read again.
const maxMissed = 100

// lockFirst locks mu for somebody whom foreign events have to let pass.
func (l *live) lockFirst() {
	l.wanted.Add(1)
	l.mu.Lock()
	l.wanted.Add(-1)
}

func newLive(id matrix.RoomID) *live {
	return &live{id: id, loaded: make(chan struct{}), gate: &gate{held: make(chan struct{}, 1)}, state: map[event.StateKey]stateEntry{},
		members: map[matrix.UserID]member{}, moved: map[matrix.UserID]struct{}{},
		recent: map[matrix.EventID]struct{}{}, flying: map[matrix.EventID]*storage.Event{}, ends: map[matrix.EventID]statemap.Hash{}}
}

// load reads rooms from the database, with the same few queries for any number of them. The outcome of each is in its err.
func (s *Service) load(ctx context.Context, list []*live) {
	byID := make(map[matrix.RoomID]*live, len(list))
	ids := make([]matrix.RoomID, len(list))
	for i, l := range list {
		byID[l.id], ids[i] = l, l.id
		l.room, l.direct, l.facts, l.crowd = nil, false, nil, nil
		clear(l.flying)
		clear(l.ends)
	}
	err := s.DB.View(ctx, func(tx *storage.Tx) error {
		rooms, err := tx.LoadRooms(ids)
		if err != nil {
			return err
		}
		events, err := tx.LoadState(ids, false)
		if err != nil {
			return err
		}
		for _, r := range rooms {
			byID[r.ID].take(r, events[r.ID])
		}
		err = tx.EachMember(ids, func(m *storage.Member) {
			if l := byID[m.RoomID]; l.room != nil {
				l.members[m.UserID] = member{m.Membership, m.EventID, m.AuthRank}
				if m.Membership == auth.Join {
					l.joined++
				}
			}
		})
		if err != nil {
			return err
		}
		return loadDirect(tx, byID)
	})
	for _, l := range list {
		switch {
		case err != nil:
			l.err = fmt.Errorf("load room %s: %w", l.id, err)
		case l.room == nil:
			l.err = ErrUnknownRoom
		default:
			l.err = l.makeRules()
		}
	}
}

// take fills a room with what was read of it.
func (l *live) take(r *storage.Room, state []*storage.Event) {
	l.room, l.version, l.joined, l.base = r, r.Version, 0, r.Head.LastPos
	l.state, l.members = make(map[event.StateKey]stateEntry, len(state)), map[matrix.UserID]member{}
	l.recent, l.moved = map[matrix.EventID]struct{}{}, map[matrix.UserID]struct{}{}
	for _, e := range state {
		l.state[e.Key()] = stateEntry{e.Event, e.AuthRank}
	}
}

// hear takes note of an event in the log. It reports false where the room does not follow it and has to be loaded again.
func (l *live) hear(e *storage.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.settled {
		if len(l.missed) <= maxMissed {
			l.missed = append(l.missed, e)
		}
		return true
	}
	return l.err != nil || l.follows(e)
}

// settle ends the loading of a room, when what it was read from may be older than what the log has told of meanwhile: somebody may have got the
// answer from another node that it is written. It reports false where that is so and the room has to be read again.
func (l *live) settle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	missed := l.missed
	l.missed = nil
	switch {
	case len(missed) == 0:
	case len(missed) > maxMissed || errors.Is(l.err, ErrUnknownRoom):
		return false
	case l.err == nil:
		for _, e := range missed {
			if !l.follows(e) {
				return false
			}
		}
	}
	l.settled = true
	return true
}

// loadDirect finds out which rooms of two are direct chats: the invitation says so.
func loadDirect(tx *storage.Tx, rooms map[matrix.RoomID]*live) error {
	var pairs []matrix.RoomID
	var users []matrix.UserID
	for id, l := range rooms {
		var two []matrix.UserID
		for user, m := range l.members {
			if isPresent(m.membership) {
				if two = append(two, user); len(two) > 2 {
					break
				}
			}
		}
		if len(two) == 2 {
			pairs, users = append(pairs, id), append(users, two...)
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	events, err := tx.LoadMemberEvents(pairs, users)
	for id, list := range events {
		for _, e := range list {
			rooms[id].direct = rooms[id].direct || event.Member(e.Event).IsDirect
		}
	}
	return err
}

func (l *live) makeRules() (err error) {
	l.rules, err = auth.NewRules(l.event(auth.TypeCreate), l.event("m.room.power_levels"), l.event("m.room.join_rules"))
	if err != nil {
		return fmt.Errorf("rules of %s: %w", l.id, err)
	}
	return nil
}

func (l *live) event(typ string) *event.Event { return l.state[event.StateKey{Type: typ}].event }

// Membership implements auth.Facts for the current state.
func (l *live) Membership(user matrix.UserID) string { return l.members[user].membership }

// ThirdPartyInvite implements auth.Facts.
func (l *live) ThirdPartyInvite(token string) *event.Event {
	return l.state[event.StateKey{Type: "m.room.third_party_invite", Key: token}].event
}

// currentID is the ID of the current state event of a key, empty when there is none.
func (l *live) currentID(k event.StateKey) matrix.EventID {
	if k.Type == typeMember {
		return l.members[matrix.UserID(k.Key)].event
	}
	if e := l.state[k].event; e != nil {
		return e.ID
	}
	return ""
}

func (l *live) rank(k event.StateKey) int64 {
	if k.Type == typeMember {
		return l.members[matrix.UserID(k.Key)].rank
	}
	return l.state[k].rank
}

// follows tells whether the room in memory is right after an event in the log: it knows it, or can take it over, as most messages of other
// nodes. Else the room has to be loaded again.
func (l *live) follows(e *storage.Event) bool {
	_, own := l.recent[e.ID]
	head := l.room.Head
	switch {
	case own || e.Pos > 0 && e.Pos <= l.base:
		return true
	case e.Type == typeRedaction || e.RedactedBy != "":
		return false // it may have changed the content of state
	case e.Pos > 0 && e.Pos <= head.LastPos:
		return true // what we have appended behind it had the same state
	case e.StateKey != nil || e.Flags != 0 || e.StateRoot != head.StateRoot:
		return false
	case len(l.flying) == 0: // else what flies is put behind it
		ends := []matrix.EventID{e.ID}
		for _, id := range head.Extremities {
			if !slices.Contains(e.PrevEvents, id) {
				ends = append(ends, id)
			}
		}
		l.moveHead(storage.Head{Name: string(e.ID), Extremities: ends, Depth: max(head.Depth, e.Depth), StateRoot: head.StateRoot}, e)
	}
	return true
}

func (l *live) remember(id matrix.EventID) {
	if len(l.recent) >= 1024 {
		clear(l.recent)
	}
	l.recent[id] = struct{}{}
}

// setState makes an event current, or removes an entry where e is nil.
func (l *live) setState(k event.StateKey, e *event.Event, rank int64) error {
	l.facts = nil
	l.epoch++
	if k.Type == typeMember {
		l.setMember(matrix.UserID(k.Key), e, rank)
		return nil
	}
	if e == nil {
		delete(l.state, k)
	} else {
		l.state[k] = stateEntry{e, rank}
	}
	switch k.Type {
	case auth.TypeCreate, "m.room.power_levels", "m.room.join_rules":
		if k.Key == "" {
			return l.makeRules()
		}
	}
	return nil
}

func (l *live) setMember(user matrix.UserID, e *event.Event, rank int64) {
	before := l.members[user].membership
	after := ""
	if e == nil {
		delete(l.members, user)
	} else {
		after = event.Membership(e)
		l.members[user] = member{after, e.ID, rank}
	}
	if before == auth.Join {
		l.joined--
	}
	if after == auth.Join {
		l.joined++
	}
	if isPresent(before) != isPresent(after) {
		l.moved[user] = struct{}{}
	}
}

// isPresent tells whether somebody of this membership counts as being in the room for the rule about who may meet whom.
func isPresent(membership string) bool { return membership == auth.Join || membership == auth.Invite }
