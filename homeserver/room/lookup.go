package room

import (
	"context"
	"slices"
	"sync"

	"hansa/matrix"
	"hansa/storage"
)

const (
	// lookupsAtOnce is how many look-ups run at the same time, lookupSize how many events one of them is about at most, unless one request has more.
	lookupsAtOnce = 2
	lookupSize    = 1000
)

// lookup is what is read of the database before foreign events are judged.
type lookup struct {
	// own are the events themselves, others those that they cite and that are not in memory.
	own, others []matrix.EventID
	done        chan struct{} // closed when the rest is there
	err         error
	found       map[matrix.EventID]*storage.Event
	// children are the stored events that named one of own as their parent, and flags those of the children.
	children map[matrix.EventID][]matrix.EventID
	flags    map[matrix.EventID]storage.Flags
	// redactions came before what they redact.
	redactions map[matrix.EventID][]matrix.EventID
}

// lookups makes one look-up of those of many rooms that come at the same time: whoever gets a place takes along what waits, so that many
// small transactions do not cost some queries each.
type lookups struct {
	places chan struct{}

	mu   sync.Mutex
	line []*lookup // guarded by mu
}

func newLookups() *lookups { return &lookups{places: make(chan struct{}, lookupsAtOnce)} }

// do fills a look-up, or lets another request do it.
func (ls *lookups) do(ctx context.Context, db *storage.DB, q *lookup) error {
	q.done = make(chan struct{})
	ls.mu.Lock()
	ls.line = append(ls.line, q)
	ls.mu.Unlock()
	for {
		select {
		case <-q.done:
			return q.err
		case ls.places <- struct{}{}:
			list := ls.next()
			if len(list) > 0 {
				fillLookups(ctx, db, list)
			}
			<-ls.places
			if len(list) == 0 { // somebody else is at it
				<-q.done
				return q.err
			}
		}
	}
}

func (ls *lookups) next() []*lookup {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	n, size := 0, 0
	for n < len(ls.line) && (n == 0 || size+len(ls.line[n].own)+len(ls.line[n].others) <= lookupSize) {
		size += len(ls.line[n].own) + len(ls.line[n].others)
		n++
	}
	out := slices.Clone(ls.line[:n])
	ls.line = slices.Delete(ls.line, 0, n)
	return out
}

// fillLookups answers several look-ups with the same queries. They share the answers, which nobody changes.
func fillLookups(ctx context.Context, db *storage.DB, list []*lookup) {
	var own, all []matrix.EventID
	for _, q := range list {
		own = append(own, q.own...)
		all = append(append(all, q.own...), q.others...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	var one lookup
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeTimeout) // the others wait for it, too
	defer cancel()
	err := db.Read(ctx, func(tx *storage.Tx) error {
		one = lookup{found: make(map[matrix.EventID]*storage.Event, len(all))}
		for chunk := range slices.Chunk(all, 1000) {
			found, err := tx.LoadEvents(chunk)
			if err != nil {
				return err
			}
			for id, e := range found {
				one.found[id] = e
			}
		}
		var err error
		if one.children, err = tx.FindChildren(own); err != nil {
			return err
		}
		var children []matrix.EventID
		for _, list := range one.children {
			children = append(children, list...)
		}
		if one.flags, err = tx.FindEventFlags(children); err != nil {
			return err
		}
		one.redactions, err = tx.FindPendingRedactions(own)
		return err
	})
	for _, q := range list {
		q.err, q.found, q.children, q.flags, q.redactions = err, one.found, one.children, one.flags, one.redactions
		close(q.done)
	}
}
