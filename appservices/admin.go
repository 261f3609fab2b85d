package appservices

import (
	"context"

	"hansa/matrix"
	"hansa/storage"
)

// Status is how a bridge is.
type Status struct {
	*Registration
	Suspended bool
	// Behind is how many positions of the log it has yet to be told of.
	Behind int64
	// Unconfirmed says that it was sent something and has not said that it has it.
	Unconfirmed bool
	// LastConfirmed is when it last took something, in ms since 1970, 0 for never.
	LastConfirmed int64
}

// List returns the bridges in the order of their IDs, and why the files that are there are not what is active.
func (s *Service) List(ctx context.Context) (list []Status, problem error, err error) {
	var rows []storage.Bridge
	if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { rows, err = tx.LoadBridges(); return err }); err != nil {
		return nil, nil, err
	}
	byID := map[string]storage.Bridge{}
	for _, b := range rows {
		byID[b.ID] = b
	}
	newest := s.Stream.Position()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.set.Load().list {
		row := byID[r.ID]
		st := Status{Registration: r, Suspended: row.Suspended, Unconfirmed: row.Sending > row.Pos, LastConfirmed: row.DeliveredTS}
		pos := row.Pos
		if rd := s.readers[r.ID]; rd != nil && rd.holds.Load() {
			pos = max(pos, rd.pos.Load()) // what is stored lags behind where there is nothing to tell
		}
		if r.base != nil {
			st.Behind = max(0, newest-pos)
		}
		list = append(list, st)
	}
	return list, s.problem, nil
}

// Suspend stops a bridge, or lets it go on. A bridge that is suspended can do nothing and is told of nothing; when it goes on it is told
// of what it missed, as far as it may then know of it.
func (s *Service) Suspend(ctx context.Context, id string, suspended bool) error {
	if s.set.Load().byID[id] == nil {
		return matrix.NotFound("There is no bridge %.100q.", id)
	}
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		ok, err := tx.SuspendBridge(id, suspended)
		if err == nil && !ok {
			err = matrix.NotFound("There is no bridge %.100q.", id)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.Refresh(ctx)
}
