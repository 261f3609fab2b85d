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
	_, state, chain, err = s.stateFor(ctx, as, server, id, at)
	return state, chain, err
}

// StateFor is StateIDsFor with the events themselves.
//
// spec: server-server-api#get_matrixfederationv1stateroomid
func (s *Service) StateFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, at matrix.EventID) (state, chain [][]byte, err error) {
	r, stateIDs, chainIDs, err := s.stateFor(ctx, as, server, id, at)
	if err != nil {
		return nil, nil, err
	}
	if state, err = r.showAll(stateIDs); err != nil {
		return nil, nil, err
	}
	chain, err = r.showAll(chainIDs)
	return state, chain, err
}

func (s *Service) stateFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, at matrix.EventID) (r *reading, state, chain []matrix.EventID, err error) {
	if r, err = s.read(ctx, as, server, id); err != nil {
		return nil, nil, nil, err
	}
	e, err := r.find(at)
	if err != nil {
		return nil, nil, nil, err
	}
	if state, err = r.stateBefore(e); err != nil {
		return nil, nil, nil, err
	}
	chain, err = r.authChain(state)
	return r, state, chain, err
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
	return r.showAll(slices.Compact(all))
}

// authChain lists the events that authorise others, directly or not, without those that nothing else names. The create event authorises all
// of them, also in rooms where no event says so.
func (r *reading) authChain(of []matrix.EventID) ([]matrix.EventID, error) {
	seen := map[matrix.EventID]bool{}
	if r.create != "" && len(of) > 0 {
		seen[r.create] = true
	}
	asked := make(map[matrix.EventID]bool, len(of))
	todo := of
	for len(todo) > 0 {
		n := min(len(todo), serveBatch)
		var nodes map[matrix.EventID]storage.AuthNode
		err := r.s.DB.Read(r.ctx, func(tx *storage.Tx) (err error) { nodes, err = tx.LoadAuthNodes(todo[:n]); return err })
		if err != nil {
			return nil, unavailable(err)
		}
		for _, id := range todo[:n] {
			asked[id] = true
		}
		todo = todo[n:]
		for _, node := range nodes {
			for _, id := range node.AuthEvents {
				if !seen[id] {
					seen[id] = true
					if !asked[id] {
						todo = append(todo, id)
					}
				}
			}
		}
		if len(seen) > maxServedChain {
			return nil, fmt.Errorf("auth chain in %s: more than %d events", r.id, maxServedChain)
		}
	}
	out := make([]matrix.EventID, 0, len(seen))
	for id := range seen {
		out = append(out, id)
	}
	slices.Sort(out)
	return out, nil
}

// showAll returns events of the state and of auth chains: what is known of a room's rules is not a part of its history.
func (r *reading) showAll(ids []matrix.EventID) ([][]byte, error) {
	out := make([][]byte, 0, len(ids))
	for some := range slices.Chunk(ids, serveBatch) {
		events, err := r.load(some)
		if err != nil {
			return nil, err
		}
		shown, err := r.show(events, false)
		if err != nil {
			return nil, err
		}
		out = append(out, shown...)
	}
	return out, nil
}
