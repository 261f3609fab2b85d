// Package stream is the log as the living server sees it: the newest entries in memory, wake-ups, and followers.
//
// What a reader may rely on, and this is the one place where it is written:
//
//   - Entries come in the order of their positions, and that is the order of commits on every node. Whoever has read up to
//     position N has seen everything that will ever stand at or below N.
//   - A position may have no entry (its receipt or account datum was replaced by a newer one), so readers take the position
//     they have read up to from Read, not from the last entry.
//   - A wake-up is a hint. Losing one costs latency, never data: entries that this process committed are put here by the storage
//     layer in memory; those of other nodes are read from the database when a node says its position over NATS, or by a poll.
//   - A follower gets each entry at least once and is moved by its durable cursor; what it does must be idempotent. Of all nodes one
//     at a time runs it: the holder of its lease. A node that was paused may still be in the middle of a range when another takes
//     over; then its cursor is not saved any more, nor anything else that it writes behind Lease.Fence.
//
// Nobody is called back from a commit: readers pull with a cursor and wait.
//
// NATS carries wake-ups (a position, which is looked up in the database whatever it says) and what Tell sends: small messages that
// may be lost, such as who is typing, sealed with a secret that only the nodes of the cell have. So whoever can read and write there,
// or loses, repeats and reorders messages, learns and changes nothing but how soon nodes look. The subjects hold the name of the
// cell: several deployments can share one NATS. Without NATS nodes find out by themselves, some tenths of a second later.
//
// Locks: Stream.mu guards the ring, keeper.mu the leases, hearers.mu who listens; none of these is held while another is taken; Stream.looking comes before them.
package stream

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/storage"
)

const (
	// ringEntries is how many of the newest entries stay in memory.
	ringEntries = 6000
	// readMax is the largest range that one Read returns, in positions.
	readMax = 4096
)

// Options say how to open the stream and the database below it.
type Options struct {
	Storage storage.Options
	Log     *logrus.Entry
	// Poll is how often the database is asked for positions that other nodes have written; 0 means as often as it takes: see
	// patience. SQLite has no other nodes and is not polled.
	Poll time.Duration
	// NATS are the URLs of the servers that carry wake-ups between nodes, separated by commas; empty for none. See dialNATS.
	NATS string
	// LeaseTime is how long the leases of a node outlive it; 0 means 3 seconds.
	LeaseTime time.Duration
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Stream holds the newest part of the log. Its methods may be called from any goroutine.
type Stream struct {
	db      *storage.DB
	log     *logrus.Entry
	poll    time.Duration
	node    string
	keeper  *keeper
	keeping storage.Options // of the connection for leases
	bus     *bus            // nil without NATS
	hearers hearers
	metrics *metrics
	hint    chan struct{} // tells Run that another node has written

	begun   atomic.Int64 // counts the looks of CatchUp
	looking sync.Mutex   // held during a look
	looked  error        // of the last look; guarded by looking

	mu      sync.Mutex
	ring    []storage.Entry // in order; all entries with positions in (floor, pos]
	floor   int64
	pos     int64
	ahead   map[int64]batch // by first position: committed by this process or read, waiting for lower positions
	changed chan struct{}   // closed and replaced whenever pos grows
	gap     chan struct{}   // tells Run that something waits in ahead
}

type batch struct {
	last    int64
	entries []storage.Entry
}

// Open opens the database and the stream on top of it. Run must run while the server lives.
func Open(ctx context.Context, o Options) (*Stream, *storage.DB, error) {
	s := &Stream{log: o.Log.WithField("pkg", "stream"), poll: o.Poll, node: newNodeID(), ahead: map[int64]batch{}, changed: make(chan struct{}),
		gap: make(chan struct{}, 1), hint: make(chan struct{}, 1)}
	s.keeper = newKeeper(s, o.LeaseTime)
	o.Storage.Node = s.node
	if o.Storage.Seen == nil {
		o.Storage.Seen = storage.NewWatermark(storage.Mark{})
	}
	s.keeping = storage.Options{URL: o.Storage.URL, Log: o.Log, Now: o.Storage.Now, Readers: 3, Node: s.node, Seen: o.Storage.Seen}
	o.Storage.Publish = s.publish
	if o.Storage.Log == nil {
		o.Storage.Log = o.Log
	}
	s.mu.Lock() // nothing is published before the position is known
	defer s.mu.Unlock()
	db, err := storage.Open(ctx, o.Storage)
	if err != nil {
		return nil, nil, err
	}
	s.db = db
	err = db.Read(ctx, func(tx *storage.Tx) error {
		pos, err := tx.Position()
		s.pos, s.floor = pos, pos
		return err
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read the position of the log: %w", err), db.Close())
	}
	if s.metrics, err = newMetrics(o.Registerer, s); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	if o.NATS == "" || db.Name() == "sqlite" {
		return s, db, nil
	}
	var cell storage.Cell
	if err := db.Update(ctx, func(tx *storage.Tx) (err error) { cell, err = tx.LoadCell(); return err }); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read the name of the cell: %w", err), db.Close())
	}
	if s.bus, err = newBus(s, o.NATS, cell); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return s, db, nil
}

// Node is the name of this process among the nodes: a new one at each start.
func (s *Stream) Node() string { return s.node }

// publish takes what a transaction of this process has committed. Transactions may arrive out of order.
func (s *Stream) publish(first, last int64, entries []storage.Entry) {
	if s.bus != nil {
		s.bus.committed(last)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if last <= s.pos {
		return // read from the database in the meantime
	}
	if first > s.pos+1 {
		s.hold(first, last, entries)
		select {
		case s.gap <- struct{}{}:
		default:
		}
		return
	}
	s.append(last, entries)
	s.drain()
	s.wake()
}

// hold keeps what cannot be appended yet, unless it is part of what is kept already.
func (s *Stream) hold(first, last int64, entries []storage.Entry) {
	if s.ahead[first].last < last {
		s.ahead[first] = batch{last, entries}
	}
}

func (s *Stream) append(last int64, entries []storage.Entry) {
	for _, e := range entries {
		if e.Pos > s.pos {
			s.ring = append(s.ring, e)
		}
	}
	s.pos = last
	if len(s.ring) > 2*ringEntries {
		cut := len(s.ring) - ringEntries
		s.floor = s.ring[cut-1].Pos
		s.ring = append(make([]storage.Entry, 0, 2*ringEntries+1024), s.ring[cut:]...)
	}
}

// drain appends the batches that follow on what is there now.
func (s *Stream) drain() {
	for len(s.ahead) > 0 {
		found := false
		for first, b := range s.ahead {
			if first <= s.pos+1 {
				delete(s.ahead, first)
				if b.last > s.pos {
					s.append(b.last, b.entries)
				}
				found = true
			}
		}
		if !found {
			return
		}
	}
}

func (s *Stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Position is the newest position.
func (s *Stream) Position() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos
}

// Wait returns when there is something after the given position, or with the context's error.
func (s *Stream) Wait(ctx context.Context, after int64) error {
	for {
		s.mu.Lock()
		pos, changed := s.pos, s.changed
		s.mu.Unlock()
		if pos > after {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Read returns the entries after a position, and up to where that goes. The entries are shared: read them only. A range that
// is no longer in memory is read from the database, at most 4,096 positions at a time.
func (s *Stream) Read(ctx context.Context, after int64) (entries []storage.Entry, upto int64, err error) {
	s.mu.Lock()
	if after >= s.floor {
		entries, upto = s.tail(after), s.pos
		s.mu.Unlock()
		return entries, max(upto, after), nil
	}
	upto = min(s.pos, after+readMax)
	s.mu.Unlock()
	err = s.db.View(ctx, func(tx *storage.Tx) (err error) {
		entries, err = tx.ReadLog(after, upto)
		return err
	})
	return entries, upto, err
}

// tail is the part of the ring after a position.
func (s *Stream) tail(after int64) []storage.Entry {
	first := sort.Search(len(s.ring), func(i int) bool { return s.ring[i].Pos > after })
	return s.ring[first:len(s.ring):len(s.ring)]
}
