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
			} else if err != nil {
				s.log.WithError(err).WithField("room_id", r.ID).Error("the state of a room could not be audited")
			}
			if n--; !stream.Pause(ctx, auditRest) {
				return nil
			}
		}
	}
	return nil
}

// Audited returns how many times the state of a room was audited in this process, and how many of them it had to be mended.
func (s *Service) Audited() (audited, mended int64) { return s.audited.Load(), s.mended.Load() }

// AuditState makes the current state of a room anew out of the states after the ends of its graph, and compares what is stored: the state itself, what
// everything else reads of it, and who is a member. The states after the ends are taken as they are. It returns in which entries they differed. Those are right from then on, on all nodes; the
// log has an error that names the room. Policy has let in already what the state is made of, and is not asked. ErrUnknownRoom: there is no such room.
func (s *Service) AuditState(ctx context.Context, id matrix.RoomID) (wrong []event.StateKey, err error) {
	for try := 1; ; try++ {
		wrong, err = s.auditOnce(ctx, id)
		if try == auditTries || !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	s.audited.Add(1)
	if len(wrong) > 0 && err == nil {
		s.mended.Add(1)
		s.log.WithFields(logrus.Fields{"room_id": id, "entries": len(wrong), "keys": fmt.Sprintf("%q", wrong[:min(len(wrong), auditNamed)])}).
			Error("the state of a room was not what its events make it; it was set right")
	} else if len(wrong) > 0 {
		err = fmt.Errorf("%d wrong entries found: %w", len(wrong), err)
	}
	return wrong, err
}

// stateAudit is what is stored of a room's state, as one moment shows it.
type stateAudit struct {
	room    *storage.Room
	ends    map[matrix.EventID]*storage.Event
	rows    map[event.StateKey]matrix.EventID // more than auditEntries: they are not compared
	members []storage.Member
}

func (s *Service) auditOnce(ctx context.Context, id matrix.RoomID) ([]event.StateKey, error) {
	var a stateAudit
	if err := s.DB.View(ctx, func(tx *storage.Tx) error { return a.read(tx, id) }); err != nil {
		if errors.Is(err, storage.ErrNotFound) {
			err = ErrUnknownRoom
		}
		return nil, err
	}
	root, nodes, err := s.stateOf(ctx, &a)
	if err != nil {
		return nil, fmt.Errorf("room %s: %w", id, err)
	}
	right, err := s.differences(ctx, &a, root)
	if err != nil || len(right) == 0 && root == a.room.Head.StateRoot {
		return nil, err
	}
	wrong := slices.SortedFunc(maps.Keys(right), func(x, y event.StateKey) int {
		return cmp.Or(cmp.Compare(x.Type, y.Type), cmp.Compare(x.Key, y.Key))
	})
	n := &storage.Append{Room: a.room, Head: a.room.Head, Nodes: nodes, Also: func(tx *storage.Tx) error {
		return errors.Join(tx.Announce(storage.NoticeMended, string(id)), tx.Announce(storage.NoticeState, string(id)))
	}}
	n.Head.Name, n.Head.StateRoot = "mended-"+s.random(12), root
	for _, k := range wrong {
		n.State = append(n.State, statemap.Change{Key: k, ID: right[k]})
	}
	err = s.DB.Append(ctx, n)
	s.forget(id) // the head has moved, or somebody else has moved it
	return wrong, err
}

func (a *stateAudit) read(tx *storage.Tx, id matrix.RoomID) (err error) {
	if a.room, err = tx.LoadRoom(id); err != nil {
		return err
	}
	if a.ends, err = tx.LoadEvents(a.room.Head.Extremities); err != nil {
		return err
	}
	if a.rows, err = tx.LoadStateIDs(id, auditEntries+1); err != nil || len(a.rows) > auditEntries {
		return err
	}
	a.members, err = tx.LoadMembers(id)
	return err
}

// stateOf makes the state of a room out of the states after its extremities, whatever was made of them before.
func (s *Service) stateOf(ctx context.Context, a *stateAudit) (root statemap.Hash, nodes []statemap.Node, err error) {
	var distinct []statemap.Hash
	for _, id := range a.room.Head.Extremities {
		switch e := a.ends[id]; {
		case e == nil || e.StateRoot == statemap.Hash{}:
			return root, nil, fmt.Errorf("the state after its extremity %s is not known", id)
		case !slices.Contains(distinct, e.StateRoot):
			distinct = append(distinct, e.StateRoot)
		}
	}
	switch len(distinct) {
	case 0:
		return root, nil, errors.New("it has no extremities")
	case 1:
		return distinct[0], nil, nil
	}
	id, err := statemap.Get(s.loader(ctx), distinct[0], event.StateKey{Type: auth.TypeCreate})
	if err != nil {
		return root, nil, err
	}
	var create *storage.Event
	if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { create, err = tx.LoadEvent(id); return err }); err != nil {
		return root, nil, fmt.Errorf("its create event: %w", err)
	}
	return s.merge(ctx, create.Event, distinct, nil)
}

// differences are the entries in which what is stored is not the state of a root, with what they should be; empty for those that should not be there.
func (s *Service) differences(ctx context.Context, a *stateAudit, root statemap.Hash) (map[event.StateKey]matrix.EventID, error) {
	right := map[event.StateKey]matrix.EventID{}
	diff, err := statemap.Diff(s.loader(ctx), a.room.Head.StateRoot, root)
	for _, d := range diff {
		right[d.Key] = d.B
	}
	if err != nil || len(a.rows) > auditEntries {
		return right, err
	}
	members := make(map[event.StateKey]*storage.Member, len(a.members))
	for i := range a.members {
		m := &a.members[i]
		members[event.StateKey{Type: typeMember, Key: string(m.UserID)}] = m
	}
	var named []*storage.Member // whose event is the right one
	err = statemap.Walk(s.loader(ctx), root, func(k event.StateKey, id matrix.EventID) {
		m := members[k]
		if a.rows[k] != id || k.Type == typeMember && (m == nil || m.EventID != id) {
			right[k] = id
		} else if m != nil {
			named = append(named, m)
		}
		delete(a.rows, k)
		delete(members, k)
	})
	if err != nil {
		return nil, err
	}
	for k := range a.rows {
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
