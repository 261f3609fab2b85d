package room

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

// Types of state events that this package reads.
const (
	typeMember     = "m.room.member"
	typeEncryption = "m.room.encryption"
	typeHistory    = "m.room.history_visibility"
	typeRedaction  = "m.room.redaction"
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
	id     matrix.RoomID
	loaded chan struct{} // closed when load has ended
	err    error         // of load

	mu      sync.Mutex
	gone    bool // dropped from the cache: load the room again
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
	last   *commit                     // the newest append; nil for none
}

// load reads a room from the database.
func (s *Service) load(ctx context.Context, l *live) error {
	err := s.DB.View(ctx, func(tx *storage.Tx) error {
		r, err := tx.LoadRoom(l.id)
		if err != nil {
			return err
		}
		rows, err := tx.LoadStateRows(l.id)
		if err != nil {
			return err
		}
		events, err := tx.LoadState([]matrix.RoomID{l.id}, false)
		if err != nil {
			return err
		}
		members, err := tx.LoadMembers(l.id)
		if err != nil {
			return err
		}
		l.room, l.state, l.members, l.joined = r, make(map[event.StateKey]stateEntry, len(rows)), make(map[matrix.UserID]member, len(members)), 0
		byID := map[matrix.EventID]*event.Event{}
		for _, e := range events[l.id] {
			byID[e.ID] = e.Event
		}
		for _, row := range rows {
			if e := byID[row.EventID]; e != nil {
				l.state[row.Key] = stateEntry{e, row.AuthRank}
			}
		}
		for _, m := range members {
			l.members[m.UserID] = member{m.Membership, m.EventID, m.AuthRank}
			if m.Membership == auth.Join {
				l.joined++
			}
		}
		return l.loadDirect(tx)
	})
	if errors.Is(err, storage.ErrNotFound) {
		return ErrUnknownRoom
	}
	if err != nil {
		return fmt.Errorf("load room %s: %w", l.id, err)
	}
	l.recent, l.moved = map[matrix.EventID]struct{}{}, map[matrix.UserID]struct{}{}
	return l.makeRules()
}

// loadDirect finds out whether a room of two is a direct chat: the invitation says so.
func (l *live) loadDirect(tx *storage.Tx) error {
	var users []matrix.UserID
	for user, m := range l.members {
		if isPresent(m.membership) {
			users = append(users, user)
		}
	}
	if len(users) != 2 {
		return nil
	}
	events, err := tx.LoadMemberEvents([]matrix.RoomID{l.id}, users)
	for _, e := range events[l.id] {
		l.direct = l.direct || event.Member(e.Event).IsDirect
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

// seen tells whether this process appended the event or loaded the room after it.
func (l *live) seen(e *storage.Event) bool {
	if _, ok := l.recent[e.ID]; ok {
		return true
	}
	return e.Pos <= l.room.Head.LastPos && e.Pos > 0
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
