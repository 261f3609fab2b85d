package room

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/event"
)

// The bounds of finding what an event lacks.
const (
	// maxMissingCalls is how often get_missing_events is asked for one event, and maxMissing how many events are looked for that way, before
	// the state is fetched instead.
	maxMissingCalls = 10
	maxMissing      = 200
	// missingPage is how many events one call may bring, missingBytes how many bytes all calls for one event.
	missingPage  = MaxServedMissing
	missingBytes = 16 << 20
	// maxFloors is how many of the events that were found may have parents that were not: each needs the state before it.
	maxFloors = 3
	// maxState is how many events a state or an auth chain may have that another server tells.
	maxState = 250_000
	// maxSingles is how many events are asked for one by one, singlesAtOnce how many at the same time.
	maxSingles    = 200
	singlesAtOnce = 4
	// outlierChunk is how many outliers are stored in one commit.
	outlierChunk = 500
)

// source is a server that is asked for what an event lacks, for one request.
type source struct {
	s        *Service
	as, from matrix.ServerName
	room     matrix.RoomID
	l        *live
	// held are events that wait for what authorises them.
	held []*event.Event
}

// spend takes requests from the budgets of the server and the room.
func (src *source) spend(cost float64) error {
	if now := src.s.Now(); !src.s.budget.take(src.from, src.room, cost, now) {
		return matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "Too much had to be fetched for events of this server or room.")
	}
	return nil
}

// parents finds the parents of an event and takes them in; where there are too many of them, the state before it.
//
// spec: server-server-api#retrieving-events
func (src *source) parents(ctx context.Context, a *arrival, missing []matrix.EventID) error {
	found, err := src.missingEvents(ctx, a.e, missing)
	if err != nil {
		return err
	}
	list := make([]*arrival, 0, len(found))
	for _, e := range found {
		list = append(list, &arrival{e: e})
	}
	list = inOrder(list)
	floors, err := src.floors(ctx, list, found)
	if err != nil {
		return err
	}
	if len(floors) > maxFloors {
		list, floors = nil, nil // too wide a gap: history can be fetched later
	}
	for _, f := range floors {
		if f.stateBefore, err = src.stateAt(ctx, f.e.ID); err != nil {
			list = nil
			break
		}
	}
	for len(list) > 0 {
		src.s.take(ctx, src.room, list)
		i := slices.IndexFunc(list, func(b *arrival) bool { m := (*MissingError)(nil); return errors.As(b.err, &m) && len(m.Auth) > 0 })
		if i < 0 {
			break
		}
		m := (*MissingError)(nil)
		errors.As(list[i].err, &m)
		if err := src.authEvents(ctx, list[i], m.Auth); err != nil {
			break
		}
		list = list[i:]
		for _, b := range list {
			b.err = nil
		}
	}
	still, err := src.s.unknown(ctx, a.e.PrevEvents, false)
	if err != nil || len(still) == 0 {
		return err
	}
	a.stateBefore, err = src.stateAt(ctx, a.e.ID)
	return err
}

// missingEvents asks for the events between the room's extremities and an event. What it returns is verified, and each is a parent of
// the event or of another one that was found.
func (src *source) missingEvents(ctx context.Context, e *event.Event, missing []matrix.EventID) (map[matrix.EventID]*event.Event, error) {
	found := map[matrix.EventID]*event.Event{}
	wanted := make(map[matrix.EventID]bool, len(missing))
	for _, id := range missing {
		wanted[id] = true
	}
	latest, size := []matrix.EventID{e.ID}, 0
	for range maxMissingCalls {
		if err := src.spend(1); err != nil {
			return nil, err
		}
		src.l.mu.Lock()
		earliest := slices.Clone(src.l.room.Head.Extremities)
		src.l.mu.Unlock()
		raw, err := src.s.Remote.MissingEvents(ctx, src.as, src.from, src.room, earliest, latest, missingPage, 0)
		if err != nil {
			src.s.log.WithError(err).WithField("room_id", src.room).WithField("origin", src.from).Debug("missing events could not be fetched")
			break
		}
		if len(raw) > missingPage {
			raw = raw[:missingPage]
		}
		events, errs := src.s.parseAll(ctx, src.from, src.l.version, src.room, raw, event.ParseOptions{})
		fresh := map[matrix.EventID]*event.Event{}
		for i, f := range events {
			if errs[i] == nil {
				fresh[f.ID] = f
			}
			size += len(raw[i])
		}
		latest = latest[:0]
		// The newest first: what one of them names is wanted, too. The list is short.
		for again := true; again; {
			again = false
			for id, f := range fresh {
				if !wanted[id] {
					continue
				}
				delete(fresh, id)
				delete(wanted, id)
				found[id] = f
				again = true
				latest = append(latest, id)
				lacking, err := src.s.unknown(ctx, f.PrevEvents, false)
				if err != nil {
					return nil, err
				}
				for _, p := range lacking {
					if found[p] == nil {
						wanted[p] = true
					}
				}
			}
		}
		latest = slices.DeleteFunc(latest, func(id matrix.EventID) bool {
			return !slices.ContainsFunc(found[id].PrevEvents, func(p matrix.EventID) bool { return wanted[p] })
		})
		if len(wanted) == 0 || len(latest) == 0 || size > missingBytes || len(found) >= maxMissing {
			break
		}
		latest = latest[:min(len(latest), event.MaxPrevEvents)]
	}
	return found, nil
}

// floors are those events of a list that have parents that are neither stored nor in the list.
func (src *source) floors(ctx context.Context, list []*arrival, found map[matrix.EventID]*event.Event) ([]*arrival, error) {
	var out []*arrival
	for _, a := range list {
		lacking, err := src.s.unknown(ctx, a.e.PrevEvents, false)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(lacking, func(id matrix.EventID) bool { return found[id] == nil }) {
			out = append(out, a)
		}
	}
	return out, nil
}

// authEvents finds auth events that an event lacks and stores them as outliers.
func (src *source) authEvents(ctx context.Context, a *arrival, missing []matrix.EventID) error {
	if len(missing) > event.MaxAuthEvents {
		return fmt.Errorf("%w: %d auth events are missing", ErrDropped, len(missing))
	}
	if err := src.spend(1); err != nil {
		return err
	}
	raw, err := src.s.Remote.EventAuth(ctx, src.as, src.from, src.room, a.e.ID)
	if err == nil {
		err = src.outliers(ctx, raw)
	}
	if err != nil {
		src.s.log.WithError(err).WithField("room_id", src.room).WithField("origin", src.from).Debug("the auth chain of an event could not be fetched")
	}
	missing, err = src.s.unknown(ctx, missing, true)
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := src.singles(ctx, missing); err != nil {
		return err
	}
	missing, err = src.s.unknown(ctx, missing, true)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: its auth event %s cannot be found", ErrDropped, missing[0])
	}
	return err
}

// stateAt fetches the state before an event and stores what is not known of it. It returns its events.
//
// spec: server-server-api#get_matrixfederationv1state_idsroomid
func (src *source) stateAt(ctx context.Context, at matrix.EventID) ([]matrix.EventID, error) {
	if err := src.spend(1); err != nil {
		return nil, err
	}
	state, chain, err := src.s.Remote.StateIDs(ctx, src.as, src.from, src.room, at)
	if err != nil {
		return nil, fmt.Errorf("the state before %s: %w", at, err)
	}
	if len(state) == 0 || len(state)+len(chain) > maxState {
		return nil, fmt.Errorf("%w: the state before it has %d events and %d in its auth chain", ErrDropped, len(state), len(chain))
	}
	lacking, err := src.s.unknown(ctx, append(slices.Clone(chain), state...), true)
	if err != nil {
		return nil, err
	}
	if len(lacking) > maxSingles/4 {
		if err := src.spend(stateCost); err != nil {
			return nil, err
		}
		events, auth, err := src.s.Remote.State(ctx, src.as, src.from, src.room, at)
		if err != nil {
			return nil, fmt.Errorf("the state before %s: %w", at, err)
		}
		if len(events)+len(auth) > maxState {
			return nil, fmt.Errorf("%w: the state before it has %d events", ErrDropped, len(events)+len(auth))
		}
		if err := src.outliers(ctx, append(auth, events...)); err != nil {
			return nil, err
		}
		if lacking, err = src.s.unknown(ctx, lacking, true); err != nil {
			return nil, err
		}
	}
	if err := src.singles(ctx, lacking); err != nil {
		return nil, err
	}
	gone, err := src.s.unknown(ctx, state, true)
	if err != nil {
		return nil, err
	}
	if len(gone) > len(state)/10 {
		return nil, fmt.Errorf("%w: of %d events of the state before it %d cannot be found", ErrDropped, len(state), len(gone))
	}
	if len(gone) == 0 {
		return state, nil
	}
	absent := make(map[matrix.EventID]bool, len(gone))
	for _, id := range gone {
		absent[id] = true
	}
	return slices.DeleteFunc(state, func(id matrix.EventID) bool { return absent[id] }), nil
}

// singles fetches events one by one, and what authorises them, and stores them as outliers.
func (src *source) singles(ctx context.Context, ids []matrix.EventID) error {
	have := map[matrix.EventID]bool{}
	for left := maxSingles; len(ids) > 0 && left > 0; {
		ids = ids[:min(len(ids), left)]
		left -= len(ids)
		raw := make([][]byte, len(ids))
		for _, id := range ids {
			have[id] = true
		}
		stream.Spread(len(ids), singlesAtOnce, func(i int) {
			if src.spend(1) == nil {
				raw[i], _ = src.s.Remote.Event(ctx, src.as, src.from, ids[i]) // what cannot be had stays missing
			}
		})
		raw = slices.DeleteFunc(raw, func(b []byte) bool { return b == nil })
		events, errs := src.s.parseAll(ctx, src.from, src.l.version, src.room, raw, event.ParseOptions{})
		var cited []matrix.EventID
		for i, e := range events {
			if errs[i] == nil {
				src.held = append(src.held, e)
				cited = append(cited, e.AuthEvents...)
			}
		}
		var err error
		if ids, err = src.s.unknown(ctx, cited, true); err != nil {
			return err
		}
		ids = slices.DeleteFunc(ids, func(id matrix.EventID) bool { return have[id] })
	}
	list := src.held
	src.held = nil
	return src.store(ctx, list)
}

// outliers verifies events that were fetched as auth events or state, and stores those that are right.
func (src *source) outliers(ctx context.Context, raw [][]byte) error {
	for chunk := range slices.Chunk(raw, 4*outlierChunk) {
		events, errs := src.s.parseAll(ctx, src.from, src.l.version, src.room, chunk, event.ParseOptions{})
		for i, e := range events {
			if errs[i] == nil {
				src.held = append(src.held, e)
			}
		}
	}
	list := src.held
	src.held = nil
	return src.store(ctx, list)
}

// store takes events in as outliers, each after those that authorise it. What lacks an auth event is left out.
func (src *source) store(ctx context.Context, events []*event.Event) error {
	list := make([]*arrival, 0, len(events))
	for _, e := range events {
		if e.StateKey != nil {
			list = append(list, &arrival{e: e, outlier: true})
		}
	}
	for chunk := range slices.Chunk(inOrder(list), outlierChunk) {
		src.s.take(ctx, src.room, chunk)
		for _, a := range chunk {
			m := (*MissingError)(nil)
			if a.err != nil && !errors.As(a.err, &m) && !errors.Is(a.err, ErrDropped) {
				return a.err
			}
		}
	}
	return nil
}
