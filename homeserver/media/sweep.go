package media

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hansa/matrix"
	"hansa/storage"
)

const (
	removeEvery = time.Minute
	sweepEvery  = time.Hour
	sweepBatch  = 500
)

// DeleteUserMedia removes all that a user uploaded: nobody can fetch it once tx has committed, and the files go within minutes.
func (s *Service) DeleteUserMedia(tx *storage.Tx, user matrix.UserID) error {
	_, err := tx.DeleteUserMedia(user)
	return err
}

// Run removes files of media that was removed, promises that were not kept and files that belong to nothing, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var swept time.Time
	strangers := false // are to be forgotten
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-s.recheck:
			strangers = true
		}
		if strangers {
			err := s.forgetStrangers(ctx)
			if strangers = err != nil; strangers && ctx.Err() == nil {
				s.log.WithError(err).Warn("media of servers that are no partners is still there; trying again later")
			}
		}
		if err := s.removeFiles(ctx); err != nil && ctx.Err() == nil {
			s.log.WithError(err).Warn("removed media is still on the disk; trying again later")
		}
		if now := s.Now(); now.Sub(swept) >= sweepEvery || now.Before(swept) {
			swept = now
			if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.WithError(err).Warn("stray media was not removed; trying again later")
			}
		}
		t.Reset(removeEvery)
	}
}

// removeFiles removes the files of media that was removed.
func (s *Service) removeFiles(ctx context.Context) error {
	for {
		var list []storage.MediaFile
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
			list, err = tx.ListMediaRemovals(sweepBatch)
			return err
		})
		if err != nil || len(list) == 0 {
			return err
		}
		gone := map[matrix.ServerName][]string{}
		for _, f := range list {
			if err := s.store.remove(f.Tenant, f.File); err != nil {
				return err
			}
			gone[f.Tenant] = append(gone[f.Tenant], f.File)
		}
		err = s.DB.Update(ctx, func(tx *storage.Tx) error {
			for tenant, files := range gone {
				if err := tx.DropMediaRemovals(tenant, files); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(list) < sweepBatch {
			return err
		}
	}
}

// sweep removes promises that were not kept, thumbnails without media, drafts that were left and files without a row.
func (s *Service) sweep(ctx context.Context) error {
	now := s.Now()
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		// A promise is remembered a little longer than it holds, for the sake of requests that are under way.
		if _, err := tx.DropExpiredMedia(now.Add(-time.Hour).UnixMilli()); err != nil {
			return err
		}
		_, err := tx.DropStrayThumbnails()
		return err
	})
	if err != nil {
		return err
	}
	drafts, err := s.oldFiles(filepath.Join(s.store.root, "tmp"), now)
	if err != nil {
		return err
	}
	for _, name := range drafts {
		if err := os.Remove(filepath.Join(s.store.root, "tmp", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.metrics.orphans.Inc()
	}
	if err := s.forgetStrangers(ctx); err != nil {
		return err
	}
	others, err := s.store.servers()
	if err != nil {
		return err
	}
	for _, tenant := range slices.Concat(s.Tenants, others) {
		if err := s.sweepTenant(ctx, tenant, now); err != nil {
			return err
		}
	}
	return s.trim(ctx)
}

// sweepTenant removes the old files of a tenant that no row names. Where no row at all names a file, the database is probably
// not the one that belongs to the folder, and nothing is removed.
func (s *Service) sweepTenant(ctx context.Context, tenant matrix.ServerName, now time.Time) error {
	dirs, err := os.ReadDir(s.store.tenantDir(tenant))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known, orphans := 0, []string(nil)
	for _, dir := range dirs {
		if !dir.IsDir() || len(dir.Name()) != 2 {
			continue
		}
		names, err := s.oldFiles(filepath.Join(s.store.tenantDir(tenant), dir.Name()), now)
		if err != nil {
			return err
		}
		for len(names) > 0 {
			n := min(len(names), sweepBatch)
			stray, err := s.strays(ctx, tenant, names[:n])
			if err != nil {
				return err
			}
			known += n - len(stray)
			orphans, names = append(orphans, stray...), names[n:]
		}
	}
	log := s.log.WithField("tenant", tenant)
	if len(orphans) > 0 && known == 0 && len(orphans) > 10 {
		log.Error("no media file has a row in the database: wrong folder or wrong database? nothing was removed")
		return nil
	}
	for _, name := range orphans {
		if err := s.store.remove(tenant, name); err != nil {
			return err
		}
		s.metrics.orphans.Inc()
		log.Debug("a stray file was removed")
	}
	return nil
}

// strays returns which files no row names.
func (s *Service) strays(ctx context.Context, tenant matrix.ServerName, names []string) (out []string, err error) {
	ids := make([]string, len(names))
	for i, name := range names {
		ids[i], _, _ = strings.Cut(name, ".")
	}
	var known map[string]bool
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		known, err = tx.FindMediaFiles(tenant, ids)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !known[name] {
			out = append(out, name)
		}
	}
	return out, nil
}

// oldFiles returns the names of the files in a folder that were not touched for a day.
func (s *Service) oldFiles(dir string, now time.Time) (out []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return nil, err
		}
		if now.Sub(info.ModTime()) > youngFile {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
