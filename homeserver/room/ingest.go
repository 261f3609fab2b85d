package room

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/storage"
)

// Remote asks other servers for events of a room. as is the tenant in whose name it asks, from the server that it asks. It is declared
// here because federation stands above rooms. What it returns is unverified.
type Remote interface {
	Event(ctx context.Context, as, from matrix.ServerName, id matrix.EventID) ([]byte, error)
	MissingEvents(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, earliest, latest []matrix.EventID, limit int, minDepth int64) ([][]byte, error)
	StateIDs(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error)
	State(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, auth [][]byte, err error)
	EventAuth(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, id matrix.EventID) ([][]byte, error)
	Backfill(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, events []matrix.EventID, limit int) ([][]byte, error)
}

// completeTimeout is how long one request may take altogether to find what its events lack.
const completeTimeout = 45 * time.Second

// errNotHere is the answer for events of a room that the addressed tenant has nobody in: it says nothing of whether the room exists.
func errNotHere() error { return matrix.NotFound("The room is not known here.") }

// Ingest takes in PDUs of one room that a server has sent to a tenant. There is one result for each: nil where it was dealt with, which
// includes that it was rejected, failed softly or was withheld. Those that are right are durable when Ingest returns. What they lack is
// fetched from the server that sent them, within bounds; nothing is fetched for rooms in which nobody of ours is.
//
// spec: server-server-api#put_matrixfederationv1sendtxnid
// spec: server-server-api#checks-performed-on-receipt-of-a-pdu
func (s *Service) Ingest(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, pdus [][]byte) []error {
	results := s.Admit(ctx, as, origin, id, pdus)
	errs := make([]error, len(results))
	for i, r := range results {
		errs[i] = r.Err
	}
	return errs
}

// Admitted is what became of one PDU.
type Admitted struct {
	// EventID is empty where the PDU could not be read.
	EventID matrix.EventID
	// Err is as with Ingest.
	Err error
}

// Admit is Ingest that also tells the IDs of the events.
func (s *Service) Admit(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, pdus [][]byte) []Admitted {
	out := make([]Admitted, len(pdus))
	fail := func(err error) []Admitted {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	l, err := s.live(ctx, id)
	if errors.Is(err, ErrUnknownRoom) {
		return fail(errNotHere())
	}
	if err != nil {
		return fail(unavailable(err))
	}
	if !l.inhabited(s) {
		return fail(errNotHere())
	}
	if in, err := s.InRoom(ctx, id, as); err == nil && !in {
		as, _ = l.neighbours(s) // another tenant is, and only that one may ask for more
	}
	events, errs := s.parseSent(ctx, origin, l.version, id, pdus)
	var list []*arrival
	at := make(map[*arrival]int, len(pdus))
	byID := make(map[matrix.EventID]*arrival, len(pdus))
	same := map[int]*arrival{}
	for i, e := range events {
		if errs[i] != nil {
			continue
		}
		if first := byID[e.ID]; first != nil {
			same[i] = first
			continue
		}
		a := &arrival{e: e}
		list, at[a], byID[e.ID] = append(list, a), i, a
	}
	s.takeWhole(ctx, &source{s: s, as: as, from: origin, room: id, l: l}, inOrder(list))
	for a, i := range at {
		errs[i] = a.err
	}
	for i, a := range same {
		errs[i] = a.err
	}
	for i, err := range errs {
		if m := (*MissingError)(nil); errors.As(err, &m) {
			err = fmt.Errorf("%w: %w", ErrDropped, err)
		}
		if out[i].Err = err; events[i] != nil {
			out[i].EventID = events[i].ID
		}
	}
	return out
}

// inhabited tells whether a user of this deployment is joined to the room.
func (l *live) inhabited(s *Service) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hasLocal(s)
}

// hasLocal tells whether a user of this deployment is joined. The caller holds l.mu.
func (l *live) hasLocal(s *Service) bool {
	for user, m := range l.members {
		if m.membership == auth.Join && s.IsLocal(user.Server()) {
			return true
		}
	}
	return false
}

// inOrder sorts arrivals so that each comes after those that it cites, as far as they are in the list.
func inOrder(list []*arrival) []*arrival {
	byID := make(map[matrix.EventID]*arrival, len(list))
	for _, a := range list {
		byID[a.e.ID] = a
	}
	out := make([]*arrival, 0, len(list))
	type step struct {
		a    *arrival
		next int
	}
	entered := make(map[matrix.EventID]bool, len(list))
	for _, a := range list {
		if entered[a.e.ID] {
			continue
		}
		entered[a.e.ID] = true
		// A walk without recursion: the list may be one long chain.
		for stack := []step{{a: a}}; len(stack) > 0; {
			top := &stack[len(stack)-1]
			cited := len(top.a.e.PrevEvents) + len(top.a.e.AuthEvents)
			if top.next == cited {
				out = append(out, top.a)
				stack = stack[:len(stack)-1]
				continue
			}
			id := matrix.EventID("")
			if top.next < len(top.a.e.PrevEvents) {
				id = top.a.e.PrevEvents[top.next]
			} else {
				id = top.a.e.AuthEvents[top.next-len(top.a.e.PrevEvents)]
			}
			top.next++
			if b := byID[id]; b != nil && !entered[id] {
				entered[id] = true
				stack = append(stack, step{a: b})
			}
		}
	}
	return out
}

// takeWhole takes events in and finds what they lack.
func (s *Service) takeWhole(ctx context.Context, src *source, list []*arrival) {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	for len(list) > 0 {
		s.take(ctx, src.room, list)
		var lacking []*arrival
		for _, a := range list {
			if m := (*MissingError)(nil); errors.As(a.err, &m) {
				lacking = append(lacking, a)
			}
		}
		if len(lacking) == 0 || s.Remote == nil {
			return
		}
		// What the first one lacks may be what the others lack, too.
		first := lacking[0]
		if err := src.complete(ctx, first); err != nil {
			first.err = err
		}
		list = lacking[1:]
	}
}

// complete finds what one event lacks, and takes it in.
func (src *source) complete(ctx context.Context, a *arrival) error {
	for range 4 {
		m := (*MissingError)(nil)
		if !errors.As(a.err, &m) {
			return a.err
		}
		var err error
		if len(m.Parents) > 0 {
			err = src.parents(ctx, a, m.Parents)
		} else {
			err = src.authEvents(ctx, a, m.Auth)
		}
		if err != nil {
			return err
		}
		a.err = nil
		src.s.take(ctx, src.room, []*arrival{a})
	}
	return a.err
}

// unknown returns those of the events that are not stored. Without outliers those count as not stored that have no place in the timeline.
func (s *Service) unknown(ctx context.Context, ids []matrix.EventID, outliers bool) ([]matrix.EventID, error) {
	have := make(map[matrix.EventID]bool, len(ids))
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		for chunk := range slices.Chunk(ids, 2000) {
			flags, err := tx.FindEventFlags(chunk)
			if err != nil {
				return err
			}
			for id, f := range flags {
				have[id] = outliers || f&storage.Outlier == 0
			}
		}
		return nil
	})
	if err != nil {
		return nil, unavailable(err)
	}
	var out []matrix.EventID
	for _, id := range ids {
		if !have[id] {
			have[id] = true // once is enough
			out = append(out, id)
		}
	}
	return out, nil
}
