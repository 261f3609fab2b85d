package room

import (
	"fmt"

	"context"
	"slices"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// maxServedChain is the longest auth chain that is walked for another server.
const maxServedChain = 250000

// StateIDsFor returns the room's state before an event, and the auth chain of that state, as identifiers.
//
// spec: server-server-api#get_matrixfederationv1state_idsroomid
func (s *Service) StateIDsFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, at matrix.EventID) (state, chain []matrix.EventID, err error) {
	r, state, err := s.stateFor(ctx, as, server, id, at)
	if err != nil {
		return nil, nil, err
	}
	chain, err = r.authChain(state)
	return state, chain, err
}

// StateFor is StateIDsFor with the events themselves.
//
// spec: server-server-api#get_matrixfederationv1stateroomid
func (s *Service) StateFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, at matrix.EventID) (state, chain [][]byte, err error) {
	r, ids, err := s.stateFor(ctx, as, server, id, at)
	if err != nil {
		return nil, nil, err
	}
	// The events of the state name those that authorise them, so that the index is asked for the rest only.
	walk := r.walk()
	if state, err = r.showAll(ids, walk.note); err != nil {
		return nil, nil, err
	}
	more, err := walk.all()
	if err != nil {
		return nil, nil, err
	}
	chain, err = r.showAll(more, nil)
	return state, chain, err
}

func (s *Service) stateFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, at matrix.EventID) (r *reading, state []matrix.EventID, err error) {
	if r, err = s.read(ctx, as, server, id); err != nil {
		return nil, nil, err
	}
	e, err := r.find(at)
	if err != nil {
		return nil, nil, err
	}
	state, err = r.stateBefore(e)
	return r, state, err
}

// stateBefore lists the state before an event: that after it, without what it set itself.
func (r *reading) stateBefore(e *storage.Event) ([]matrix.EventID, error) {
	if e.StateRoot == (statemap.Hash{}) {
		return nil, errNoEvent() // the state there is not known
	}
	var out []matrix.EventID
	err := statemap.Walk(r.s.loader(r.ctx), e.StateRoot, func(k event.StateKey, id matrix.EventID) {
		if id == e.ID {
			id = e.Replaces
		}
		if id != "" {
			out = append(out, id)
		}
	})
	slices.Sort(out)
	return out, unavailable(err)
}

// AuthFor returns the auth chain of an event.
//
// spec: server-server-api#get_matrixfederationv1event_authroomideventid
func (s *Service) AuthFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, of matrix.EventID) ([][]byte, error) {
	r, err := s.read(ctx, as, server, id)
	if err != nil {
		return nil, err
	}
	list, err := r.load([]matrix.EventID{of})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errNoEvent()
	}
	start := list[0].AuthEvents
	chain, err := r.authChain(start)
	if err != nil {
		return nil, err
	}
	all := slices.Concat(start, chain)
	slices.Sort(all)
	return r.showAll(slices.Compact(all), nil)
}

// authChain lists the events that authorise others, directly or not.
func (r *reading) authChain(of []matrix.EventID) ([]matrix.EventID, error) {
	w := r.walk()
	w.todo = slices.Clone(of)
	return w.all()
}

// authWalk goes down the auth chains of some events.
type authWalk struct {
	r           *reading
	asked, seen map[matrix.EventID]bool // whose auth events are known, and what is an auth event of another
	todo        []matrix.EventID
}

func (r *reading) walk() *authWalk {
	return &authWalk{r: r, asked: map[matrix.EventID]bool{}, seen: map[matrix.EventID]bool{}}
}

// note takes an event whose auth events are at hand.
func (w *authWalk) note(e *storage.Event) {
	w.asked[e.ID] = true
	w.cites(e.AuthEvents)
}

func (w *authWalk) cites(ids []matrix.EventID) {
	for _, id := range ids {
		if !w.seen[id] {
			w.seen[id] = true
			w.todo = append(w.todo, id)
		}
	}
}

// all lists the events that authorise the others, without those that nothing else names. The create event authorises all of them, also
// in rooms where no event says so.
func (w *authWalk) all() ([]matrix.EventID, error) {
	if w.r.create != "" && len(w.asked)+len(w.todo) > 0 {
		w.seen[w.r.create] = true
	}
	for len(w.todo) > 0 {
		todo := slices.DeleteFunc(w.todo, func(id matrix.EventID) bool { return w.asked[id] })
		w.todo = nil
		for some := range slices.Chunk(todo, serveBatch) {
			var nodes map[matrix.EventID]storage.AuthNode
			err := w.r.s.DB.Read(w.r.ctx, func(tx *storage.Tx) (err error) { nodes, err = tx.LoadAuthNodes(some); return err })
			if err != nil {
				return nil, unavailable(err)
			}
			for _, id := range some {
				w.asked[id] = true
			}
			for _, node := range nodes {
				w.cites(node.AuthEvents)
			}
			if len(w.seen) > maxServedChain {
				return nil, fmt.Errorf("auth chain in %s: more than %d events", w.r.id, maxServedChain)
			}
		}
	}
	out := make([]matrix.EventID, 0, len(w.seen))
	for id := range w.seen {
		out = append(out, id)
	}
	slices.Sort(out)
	return out, nil
}

// showAll returns events of the state and of auth chains: what is known of a room's rules is not a part of its history.
// Each is noted before it is shown; note may be nil.
func (r *reading) showAll(ids []matrix.EventID, note func(*storage.Event)) ([][]byte, error) {
	out := make([][]byte, 0, len(ids))
	for some := range slices.Chunk(ids, serveBatch) {
		events, err := r.load(some)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if note != nil {
				note(e)
			}
		}
		shown, err := r.show(events, false)
		if err != nil {
			return nil, err
		}
		out = append(out, shown...)
	}
	return out, nil
}
