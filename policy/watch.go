package policy

import (
	"context"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/open-policy-agent/opa/v1/version"
)

// debounce is how long the files must be quiet before a set is loaded.
const debounce = 100 * time.Millisecond

func opaVersion() string { return version.Version }

// Run watches the bundles and loads them when they change, until ctx ends. Besides being told by the system it looks at
// the files itself now and then, for file systems that tell nothing.
func (e *Engine) Run(ctx context.Context) error {
	events, errs, watch, closeWatch := e.watcher()
	defer closeWatch()
	watch()
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	quiet.Stop()
	poll := time.NewTicker(e.opts.Poll)
	defer poll.Stop()
	seen := fingerprint(e.opts.Bundles)
	if err := e.Reload(ctx); err != nil {
		e.opts.Log.WithField("err", err).Debug("policy: set refused at start of watching")
	}
	for {
		select {
		case <-ctx.Done():
			e.flushRepeats(ctx, true)
			return nil
		case <-events:
			quiet.Reset(debounce)
		case err := <-errs:
			e.opts.Log.WithField("err", err).Warn("policy: watching of files is disturbed; they are still looked at")
			quiet.Reset(debounce)
		case <-poll.C:
			e.snapshot(e.opts.Now())
			e.flushRepeats(ctx, false)
			if now := fingerprint(e.opts.Bundles); now != seen {
				quiet.Reset(debounce)
			}
		case <-quiet.C:
			seen = fingerprint(e.opts.Bundles)
			watch()
			_ = e.Reload(ctx) // logged, counted and kept for Status by Reload
		}
	}
}

// watcher starts to watch the folders of the bundles; watch adds folders that are new. Where the system cannot watch, the
// channels are silent and only polling remains.
func (e *Engine) watcher() (events <-chan fsnotify.Event, errs <-chan error, watch, stop func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		e.opts.Log.WithField("err", err).Warn("policy: files cannot be watched; they are looked at now and then")
		return nil, nil, func() {}, func() {}
	}
	watch = func() {
		for _, b := range e.opts.Bundles {
			for _, dir := range folders(b) {
				if err := w.Add(dir); err != nil {
					e.opts.Log.WithField("err", err).Warn("policy: a folder cannot be watched; it is looked at now and then")
				}
			}
		}
	}
	return w.Events, w.Errors, watch, func() { _ = w.Close() }
}

// folders lists the folders of a bundle; of a file, the one it lies in.
func folders(bundle string) []string {
	info, err := os.Stat(bundle)
	if err != nil {
		return nil
	}
	if !info.IsDir() {
		return []string{filepath.Dir(bundle)}
	}
	var out []string
	_ = filepath.WalkDir(bundle, func(p string, d fs.DirEntry, err error) error { // what cannot be read is not watched
		if err == nil && d.IsDir() && len(out) < 1000 {
			out = append(out, p)
		}
		return nil
	})
	return out
}

// fingerprint changes when a file of the bundles is added, removed or written.
func fingerprint(bundles []string) uint64 {
	h := fnv.New64a()
	for _, b := range bundles {
		_ = filepath.WalkDir(b, func(p string, d fs.DirEntry, err error) error { // what cannot be read has no part in it
			if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
				return nil
			}
			if info, err := os.Stat(p); err == nil {
				fmt.Fprintf(h, "%s\x00%d\x00%d\n", p, info.Size(), info.ModTime().UnixNano())
			}
			return nil
		})
	}
	return h.Sum64()
}
