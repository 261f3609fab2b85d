package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

const (
	// backfillPage is how many events are asked for at once, maxBackfillServers how many servers are tried.
	backfillPage       = 100
	maxBackfillServers = 6
	// backfillTimeout is how long one call may take.
	backfillTimeout = 10 * time.Second
)

// Backfill fetches history that is missing in a hole, or before everything that is known of a room (NoHole), from servers that are in the room,
// and stores it there. It reports whether there may be more. Nothing happens, and there is no more, where no parent of a known event is missing
// or nobody of ours is in the room. A page that no server has is no error.
//
// spec: server-server-api#backfilling-and-retrieving-missing-events
func (s *Service) Backfill(ctx context.Context, id matrix.RoomID, hole storage.Hole, limit int) (more bool, err error) {
	l, err := s.live(ctx, id)
	if err != nil {
		return false, unavailable(err)
	}
	if s.Remote == nil || !l.inhabited(s) {
		return false, nil
	}
	gaps, err := s.gaps(ctx, id, hole)
	if err != nil || len(gaps) == 0 {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, backfillTimeout)
	defer cancel()
	limit = min(max(limit, 1), backfillPage)
	as, servers := l.neighbours(s)
	var last error
	for _, from := range servers[:min(len(servers), maxBackfillServers)] {
		src := &source{s: s, as: as, from: from, room: id, l: l}
		n, err := src.backfill(ctx, hole, gaps, limit)
		if err != nil {
			last = err
			s.log.WithError(err).WithField("room_id", id).WithField("destination", from).Debug("history could not be fetched")
		}
		if n > 0 {
			left, err := s.gaps(ctx, id, hole)
			return len(left) > 0, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	var answer *matrix.Error
	if errors.As(last, &answer) && answer.Status >= 500 {
		return true, nil // another time
	}
	return false, nil
}

// gaps are the events that are missing in a hole: the parents of the newest events first.
func (s *Service) gaps(ctx context.Context, id matrix.RoomID, hole storage.Hole) (out []matrix.EventID, err error) {
	var gaps []storage.Gap
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { gaps, err = tx.LoadGaps(id, hole, event.MaxPrevEvents); return err })
	for _, g := range gaps {
		if !slices.Contains(out, g.Parent) {
			out = append(out, g.Parent)
		}
	}
	return out, unavailable(err)
}

// neighbours are a tenant of ours that is in the room and the other servers in it: the one that made the room, then those with the most power.
func (l *live) neighbours(s *Service) (as matrix.ServerName, servers []matrix.ServerName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	best := map[matrix.ServerName]auth.Level{}
	for user, m := range l.members {
		if m.membership != auth.Join {
			continue
		}
		server := user.Server()
		if s.IsLocal(server) {
			if as == "" || server < as {
				as = server
			}
			continue
		}
		level := l.rules.UserLevel(user)
		if have, ok := best[server]; !ok || level > have {
			best[server] = level
		}
	}
	for server := range best {
		servers = append(servers, server)
	}
	first := l.rules.Create().Sender.Server()
	slices.SortFunc(servers, func(a, b matrix.ServerName) int {
		switch {
		case a == first:
			return -1
		case b == first:
			return 1
		case best[a] != best[b]:
			return cmp.Compare(best[b], best[a])
		}
		return cmp.Compare(a, b)
	})
	return as, servers
}

// backfill fetches one page of history from a server and stores it. It returns how many events were new.
func (src *source) backfill(ctx context.Context, hole storage.Hole, todo []matrix.EventID, limit int) (int, error) {
	if err := src.spend(1); err != nil {
		return 0, err
	}
	raw, err := src.s.Remote.Backfill(ctx, src.as, src.from, src.room, todo, limit)
	if err != nil {
		return 0, err
	}
	if len(raw) > 2*backfillPage {
		raw = raw[:2*backfillPage]
	}
	events, errs := src.s.parseAll(ctx, src.from, src.l.version, src.room, raw, event.ParseOptions{AnyNumberOfParents: true})
	ids := make([]matrix.EventID, 0, len(events))
	for i, e := range events {
		if errs[i] == nil {
			ids = append(ids, e.ID)
		}
	}
	fresh, err := src.s.unknown(ctx, ids, false)
	if err != nil || len(fresh) == 0 {
		return 0, err
	}
	byID := map[matrix.EventID]*event.Event{}
	for i, e := range events {
		if errs[i] == nil && slices.Contains(fresh, e.ID) {
			byID[e.ID] = e
		}
	}
	// Only what leads back from the gaps is history of the room, and what lies beyond known events belongs elsewhere.
	found := map[matrix.EventID]bool{}
	for ; len(todo) > 0; todo = todo[1:] {
		if e := byID[todo[0]]; e != nil && !found[e.ID] {
			found[e.ID] = true
			todo = append(todo, e.PrevEvents...)
		}
	}
	var list []*arrival
	for _, e := range events {
		if e != nil && found[e.ID] {
			list = append(list, &arrival{e: e, backfilled: true, hole: hole})
			delete(found, e.ID)
		}
	}
	if len(list) == 0 {
		return 0, nil
	}
	return src.takeHistory(ctx, inOrder(list))
}

// takeHistory stores events from before, each with the state before it as it follows from those before it; of those that the page begins
// with it is fetched.
func (src *source) takeHistory(ctx context.Context, list []*arrival) (int, error) {
	within := make(map[matrix.EventID]bool, len(list))
	for _, a := range list {
		within[a.e.ID] = true
	}
	for _, a := range list {
		if a.e.Type == auth.TypeCreate {
			continue
		}
		lacking, err := src.s.unknown(ctx, a.e.PrevEvents, false)
		if err != nil {
			return 0, err
		}
		if slices.ContainsFunc(lacking, func(id matrix.EventID) bool { return !within[id] }) {
			if a.stateBefore, err = src.stateAt(ctx, a.e.ID); err != nil {
				return 0, err
			}
		}
	}
	// In one go, because that is what gives them positions in order: so nothing may be missing any more.
	for _, a := range list {
		lacking, err := src.s.unknown(ctx, a.e.AuthEvents, true)
		if err != nil {
			return 0, err
		}
		lacking = slices.DeleteFunc(lacking, func(id matrix.EventID) bool { return within[id] })
		if len(lacking) == 0 {
			continue
		}
		if err := src.authEvents(ctx, a, lacking); err != nil {
			src.s.log.WithError(err).WithField("event_id", a.e.ID).Debug("an event of the history lacks its auth events")
		}
	}
	src.s.take(ctx, src.room, list)
	n := 0
	var last error
	for _, a := range list {
		if a.err == nil {
			n++
		} else {
			last = a.err
		}
	}
	if n == 0 && last != nil {
		return 0, fmt.Errorf("history: %w", last)
	}
	return n, nil
}
