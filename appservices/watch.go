package appservices

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// debounce is how long the files must be quiet before they are read, lookEvery how often they are looked at where the system tells nothing.
	debounce  = 100 * time.Millisecond
	lookEvery = 2 * time.Second
)

// Run watches the registration files and tells bridges of what concerns them, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() {
		_ = s.Stream.Keep(ctx, "bridge files", s.watch) // it has no errors
	})
	for {
		s.arrange(ctx, &all)
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
	}
}

// watch reads the files again when they change.
func (s *Service) watch(ctx context.Context) error {
	if s.Directory == "" {
		return nil
	}
	var events chan fsnotify.Event
	w, err := fsnotify.NewWatcher()
	if err == nil {
		events = w.Events
		defer func() { _ = w.Close() }() // nothing is lost with it
	} else {
		s.log.WithError(err).Warn("the directory of bridges cannot be watched; it is looked at now and then")
	}
	watching := false
	begin := func() {
		if w != nil && !watching {
			watching = w.Add(s.Directory) == nil // it may come later
		}
	}
	begin()
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	quiet.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	seen := ""
	if now := fingerprint(s.Directory); now != s.loadedFrom() {
		quiet.Reset(0) // written while the server started
	} else {
		seen = now
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			quiet.Reset(debounce)
		case <-look.C:
			begin()
			if fingerprint(s.Directory) != seen {
				quiet.Reset(debounce)
			}
		case <-quiet.C:
			if now := fingerprint(s.Directory); now != seen {
				seen = now
				_ = s.Reload(ctx) // logged and kept for Status by Reload
			}
		}
	}
}

func (s *Service) loadedFrom() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from
}

// fingerprint changes when a registration file is added, removed or written.
func fingerprint(dir string) string {
	names, err := files(dir)
	if err != nil {
		return err.Error()
	}
	h := fnv.New64a()
	for _, n := range names {
		if info, err := os.Stat(n); err == nil {
			fmt.Fprintf(h, "%s\x00%d\x00%d\n", n, info.Size(), info.ModTime().UnixNano())
		}
	}
	return fmt.Sprint(len(names), " ", h.Sum64())
}
