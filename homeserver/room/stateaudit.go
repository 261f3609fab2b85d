package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

const (
	// auditHour is when rooms are audited, by the clock of the machine.
	auditHour = 2
	// auditRooms is how many rooms are audited in a night, auditStep how many are listed at a time, auditRest what is waited after each.
	auditRooms = 1000
	auditStep  = 100
	auditRest  = 20 * time.Millisecond
	// maxAuditEvents is how many of a room's newest events are gone through, auditPage how many are read at a time, and auditMerges how many times
	// states that differ are made one; what would take more of that is taken as it is kept.
	maxAuditEvents, auditPage, auditMerges = 5000, 200, 300
	// auditEntries is up to how many entries of a state each is compared; of a larger one the tree is.
	auditEntries = 100_000
	// auditTries is how often it is tried anew to mend a room that is being written into.
	auditTries = 10
	// auditNamed is how many wrong entries the log names.
	auditNamed = 20
)

// AuditStates audits the state of a thousand rooms every night, from a random one on, until ctx ends. Of all nodes one does it.
func (s *Service) AuditStates(ctx context.Context) error {
	return s.Stream.Hold(ctx, "room.audit", func(ctx context.Context, _ *stream.Lease) error {
		for stream.Pause(ctx, untilHour(s.Now(), auditHour)) {
			if err := s.AuditSample(ctx, auditRooms); err != nil && ctx.Err() == nil {
				s.log.WithError(err).Warn("the state of rooms could not be audited; trying again tomorrow")
			}
		}
		return nil
	})
}

// untilHour is how long it is until the clock strikes.
func untilHour(now time.Time, hour int) time.Duration {
	next := time.Date(now.Year(), now.Month(), now.Day(), hour, 0, 0, 0, now.Location())
	if !next.After(now) {
		next = time.Date(now.Year(), now.Month(), now.Day()+1, hour, 0, 0, 0, now.Location())
	}
	return next.Sub(now)
}

// AuditSample audits the state of up to n rooms in the order of their making, from a random one on, and from the first on after the last. It
// returns the error of the database, with which it ends; rooms that cannot be audited are left out, with a line in the log.
func (s *Service) AuditSample(ctx context.Context, n int) error {
	var after int64
	if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { after, err = tx.Position(); return err }); err != nil {
		return err
	}
	after = rand.Int64N(after + 1) // no room is named by a number above the position
	for start, again := after, false; n > 0 && (!again || after < start); {
		var rooms []*storage.Room
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
			rooms, after, err = tx.LoadRoomsAfter(after, min(n, auditStep))
			return err
		})
		if err != nil {
			return err
		}
		if len(rooms) == 0 {
			if again {
				return nil
			}
			again, after = true, 0
		}
		for _, r := range rooms {
			if _, err := s.AuditState(ctx, r.ID); errors.Is(err, storage.ErrUnavailable) || ctx.Err() != nil {
				return err
			} else if err != nil && !errors.Is(err, ErrContradiction) {
				s.log.WithError(err).WithField("room_id", r.ID).Error("the state of a room could not be audited")
			}
			if n--; !stream.Pause(ctx, auditRest) {
				return nil
			}
		}
	}
	return nil
}

// Audits counts audits of the state of rooms in one process, by what they found.
type Audits struct {
	// Right are those that found nothing wrong, Mended those that set right what they found.
	Right, Mended int64
	// Contradictory are those that found what is kept to contradict itself, and could not tell what of it is right.
	Contradictory int64
	// Failed are those that could not be done.
	Failed int64
}

// Audits returns how many times the state of a room was audited in this process.
func (s *Service) Audits() Audits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.audits
}

// ErrContradiction is wrapped by the error of an audit that cannot tell which of the states that are kept is right.
var ErrContradiction = errors.New("what is kept of the room's state contradicts itself")

// Audit is what an audit found wrong.
type Audit struct {
	// Keys are the entries of the current state, in order.
	Keys []event.StateKey
	// Events are those with another state kept after them than the graph makes: first those where that is certain, each kind in the order in which
	// they came.
	Events []matrix.EventID
}

// Right tells whether nothing was wrong.
func (a Audit) Right() bool { return len(a.Keys)+len(a.Events) == 0 }

// AuditState makes the states after the newest events of a room anew, out of the states after the events that they follow, and the current state out of
// those after the ends of the graph. It compares what is stored: the states, the current one, what everything else reads of that, and who is a member.
// What was found wrong is right from then on, on all nodes; the log has an error that names the room. Policy has let in already what
// the state is made of, and is not asked. The error wraps ErrContradiction where it cannot be told what is right; then nothing is changed.
// ErrUnknownRoom: there is no such room.
func (s *Service) AuditState(ctx context.Context, id matrix.RoomID) (found Audit, err error) {
	for try := 1; ; try++ {
		found, err = s.auditOnce(ctx, id)
		if try == auditTries || !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	s.countAudit(found, err)
	log := s.log.WithFields(logrus.Fields{"room_id": id, "entries": len(found.Keys), "events": len(found.Events),
		"keys": fmt.Sprintf("%q", found.Keys[:min(len(found.Keys), auditNamed)]), "event_ids": found.Events[:min(len(found.Events), auditNamed)]})
	switch {
	case errors.Is(err, ErrContradiction):
		log.Error("what is kept of the state of a room contradicts itself; nothing was changed")
	case err == nil && !found.Right():
		log.Error("the state of a room was not what its events make it; it was set right")
	case err != nil && !found.Right():
		err = fmt.Errorf("%d wrong entries and %d wrong states found: %w", len(found.Keys), len(found.Events), err)
	}
	return found, err
}

func (s *Service) countAudit(found Audit, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, ErrContradiction):
		s.audits.Contradictory++
	case err != nil:
		s.audits.Failed++
	case found.Right():
		s.audits.Right++
	default:
		s.audits.Mended++
	}
}

// stateAudit is what is stored of a room's state, as one moment shows it.
type stateAudit struct {
	room    *storage.Room
	upto    int64
	create  *event.Event
	ends    map[matrix.EventID]*storage.Event
	rows    map[event.StateKey]matrix.EventID // more than auditEntries: they are not compared
	members []storage.Member
}

func (s *Service) auditOnce(ctx context.Context, id matrix.RoomID) (found Audit, err error) {
	var a stateAudit
	if err := s.DB.View(ctx, func(tx *storage.Tx) error { return a.read(tx, id) }); err != nil {
		if errors.Is(err, storage.ErrNotFound) {
			err = ErrUnknownRoom
		}
		return found, err
	}
	t, err := s.retrace(ctx, &a)
	if err != nil {
		return found, fmt.Errorf("room %s: %w", id, err)
	}
	for _, e := range append(t.wrong, t.doubtful...) {
		found.Events = append(found.Events, e.id)
	}
	root, sure, err := t.current()
	if err != nil {
		return found, fmt.Errorf("room %s: %w", id, err)
	}
	right, err := s.differences(ctx, &a, root)
	if err != nil {
		return found, err
	}
	rows := len(right)
	diff, err := statemap.Diff(s.loader(ctx), a.room.Head.StateRoot, root)
	if err != nil {
		return found, err
	}
	for _, d := range diff {
		right[d.Key] = d.B
	}
	found.Keys = slices.SortedFunc(maps.Keys(right), func(x, y event.StateKey) int {
		return cmp.Or(cmp.Compare(x.Type, y.Type), cmp.Compare(x.Key, y.Key))
	})
	switch {
	case len(t.doubtful) > 0, len(diff) > 0 && !sure && (rows > 0 || len(a.rows) > auditEntries):
		return found, fmt.Errorf("room %s: %w", id, ErrContradiction)
	case found.Right():
		return found, nil
	}
	return found, s.mend(ctx, &a, t, root, right)
}

// mend stores what is right. It fails with storage.ErrConflict where the room has moved on.
func (s *Service) mend(ctx context.Context, a *stateAudit, t *retraced, root statemap.Hash, right map[event.StateKey]matrix.EventID) error {
	id := a.room.ID
	roots := make(map[matrix.EventID]statemap.Hash, len(t.wrong))
	for _, e := range t.wrong {
		roots[e.id] = e.made
	}
	n := &storage.Append{Room: a.room, Head: a.room.Head, Nodes: t.nodes, Also: func(tx *storage.Tx) error {
		err := errors.Join(tx.StoreStateRoots(roots), tx.Announce(storage.NoticeMended, string(id)))
		if len(right) > 0 {
			err = errors.Join(err, tx.Announce(storage.NoticeState, string(id)))
		}
		return err
	}}
	n.Head.Name, n.Head.StateRoot = "mended-"+s.random(12), root
	for k, event := range right {
		n.State = append(n.State, statemap.Change{Key: k, ID: event})
	}
	err := s.DB.Append(ctx, n)
	s.forget(id) // the head has moved, or somebody else has moved it
	return err
}

func (a *stateAudit) read(tx *storage.Tx, id matrix.RoomID) (err error) {
	if a.room, err = tx.LoadRoom(id); err != nil {
		return err
	}
	if a.upto, err = tx.Position(); err != nil {
		return err
	}
	create, err := tx.LoadStateEvent(id, event.StateKey{Type: auth.TypeCreate})
	if err != nil {
		return fmt.Errorf("its create event: %w", err)
	}
	a.create = create.Event
	if a.ends, err = tx.LoadEvents(a.room.Head.Extremities); err != nil {
		return err
	}
	if a.rows, err = tx.LoadStateIDs(id, auditEntries+1); err != nil || len(a.rows) > auditEntries {
		return err
	}
	a.members, err = tx.LoadMembers(id)
	return err
}

// differences are the entries in which what is read of the current state is not the state of a root, with what they should be; empty for those that
// should not be there.
func (s *Service) differences(ctx context.Context, a *stateAudit, root statemap.Hash) (map[event.StateKey]matrix.EventID, error) {
	right := map[event.StateKey]matrix.EventID{}
	if len(a.rows) > auditEntries {
		return right, nil
	}
	members := make(map[event.StateKey]*storage.Member, len(a.members))
	for i := range a.members {
		m := &a.members[i]
		members[event.StateKey{Type: typeMember, Key: string(m.UserID)}] = m
	}
	var named []*storage.Member // whose event is the right one
	beyond := maps.Clone(a.rows)
	err := statemap.Walk(s.loader(ctx), root, func(k event.StateKey, id matrix.EventID) {
		m := members[k]
		if a.rows[k] != id || k.Type == typeMember && (m == nil || m.EventID != id) {
			right[k] = id
		} else if m != nil {
			named = append(named, m)
		}
		delete(beyond, k)
		delete(members, k)
	})
	if err != nil {
		return nil, err
	}
	for k := range beyond {
		right[k] = ""
	}
	for k := range members {
		right[k] = ""
	}
	return right, s.compareMembers(ctx, named, right)
}

// compareMembers adds those members who are not what their event says.
func (s *Service) compareMembers(ctx context.Context, list []*storage.Member, right map[event.StateKey]matrix.EventID) error {
	for chunk := range slices.Chunk(list, memberStep) {
		ids := make([]matrix.EventID, len(chunk))
		for i, m := range chunk {
			ids[i] = m.EventID
		}
		var events map[matrix.EventID]*storage.Event
		if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { events, err = tx.LoadEvents(ids); return err }); err != nil {
			return err
		}
		for _, m := range chunk {
			if e := events[m.EventID]; e != nil && (event.Membership(e.Event) != m.Membership || e.Sender != m.Sender) {
				right[event.StateKey{Type: typeMember, Key: string(m.UserID)}] = m.EventID
			}
		}
	}
	return nil
}
