package homeserver

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"hansa/matrix"
	"hansa/storage"
)

// positionFile is where a node writes down how far it has seen the log go; see storage.Watermark.
const positionFile = "position"

// rememberEvery is how often it does so.
const rememberEvery = time.Second

// remembered is how far the node had seen the log go when it last ran.
func (s *Server) remembered() (*storage.Watermark, error) {
	m, err := storage.ReadMark(filepath.Join(s.Config.DataDir, positionFile))
	return storage.NewWatermark(m), err
}

// remember writes it down while the server runs, and once more when it ends. When the database has gone back in time the server ends:
// everything that it has in memory may be of a past that has not been. The next start mends the database.
func (s *Server) remember(ctx context.Context) error {
	file := filepath.Join(s.Config.DataDir, positionFile)
	seen := s.DB.Seen()
	var written storage.Mark
	failing := false // has been said
	write := func() {
		m := seen.Mark()
		if m == written {
			return
		}
		if err := storage.WriteMark(file, m); err != nil {
			if !failing {
				s.log.WithError(err).Error("the position of the log cannot be written down; a database that goes back in time would not be noticed after a restart")
			}
			failing = true
			return
		}
		written, failing = m, false
	}
	defer write()
	t := time.NewTicker(rememberEvery)
	defer t.Stop()
	for {
		write()
		select {
		case <-ctx.Done():
			return nil
		case <-seen.WentBack():
			return storage.ErrWentBack
		case <-t.C:
		}
	}
}

// WentBack tells whether Run has ended with an error that a new Server mends: the database had gone back in time.
func WentBack(err error) bool { return errors.Is(err, storage.ErrWentBack) }

// Unavailable tells whether New has failed because the database did not answer.
func Unavailable(err error) bool { return errors.Is(err, storage.ErrUnavailable) }

// departures suspends what tenants have agreed with domains that were tenants here and are not any more. What another node hosts is still
// here: nodes get a new configuration one after the other.
func (s *Server) departures(ctx context.Context, hosted []matrix.ServerName) error {
	var gone []matrix.ServerName
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadLivingNodes()
		if err != nil {
			return err
		}
		all := slices.Clone(hosted)
		for _, n := range list {
			all = append(all, n.Tenants...)
		}
		gone, err = tx.Depart(all)
		return err
	})
	for _, name := range gone {
		s.log.WithField("tenant", name).Warn("this domain is not hosted any more; what others have agreed with it is suspended until they approve it again")
	}
	return err
}
