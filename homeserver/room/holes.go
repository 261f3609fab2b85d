package room

import (
	"fmt"
	"slices"

	"hansa/matrix"
	"hansa/storage"
)

// What an event follows and is not stored leaves a hole in the room's history, with places that are kept free for it: see backfill.go for how they
// are filled.

// minHole and maxHole are how many positions are kept free for what is missing at least and at most.
const minHole, maxHole = 256, 16384

// holeFor is how many positions are kept free before an event, for what lies between it and the room's head: as many as there are events if
// depths tell the truth, and as many again because some stand side by side.
func holeFor(head, depth int64) int64 { return min(max(depth-head, minHole/2), maxHole/2) * 2 }

// miss notes what the event follows and is not stored, and leaves room for it. It comes before the room moves on to the event.
func (j *judgement) miss(n *storage.NewEvent, joins bool) {
	b := j.batch
	if n.Missing = slices.Concat(j.missing, j.beyond); len(n.Missing) == 0 {
		return
	}
	n.Seen = b.gaps[n.Event.ID] // an event that is seen and comes after what is missing
	if joins || n.Seen == "" && j.a.backfilled {
		n.Seen = n.Event.ID
	}
	for _, p := range n.Missing {
		if b.gaps[p] == "" {
			b.gaps[p] = n.Seen
		}
	}
	if !j.a.backfilled {
		n.Flags |= storage.Gapped
		n.Ahead = holeFor(j.l.room.Head.Depth, n.Event.Depth)
	}
}

// miss notes what the join follows and is not known, so that history can be fetched from there.
func (a *adoption) miss(join *storage.NewEvent) error {
	missing, err := a.s.unknown(a.ctx, a.join.PrevEvents, false)
	if err != nil {
		return fmt.Errorf("parents of the join: %w", err)
	}
	beyond, err := a.beyond()
	if err != nil {
		return fmt.Errorf("what the join follows: %w", err)
	}
	join.Missing = append(missing, beyond...)
	return nil
}

// beyond is what the join follows by way of events that nobody sees, and that is not stored: what was missing below them was no part of the room's
// history before.
func (a *adoption) beyond() (missing []matrix.EventID, err error) {
	seen := map[matrix.EventID]bool{}
	for todo := a.join.PrevEvents; len(todo) > 0 && len(seen) < maxHiddenWalk; {
		var found map[matrix.EventID]*storage.Event
		if err := a.s.DB.Read(a.ctx, func(tx *storage.Tx) (err error) { found, err = tx.LoadEvents(todo); return err }); err != nil {
			return nil, err
		}
		var next []matrix.EventID
		for _, id := range todo {
			if seen[id] {
				continue
			}
			seen[id] = true
			p := found[id]
			if (p == nil || p.Flags&storage.Outlier != 0) && !slices.Contains(a.join.PrevEvents, id) {
				missing = append(missing, id)
			}
			if p != nil && p.Flags&(storage.Rejected|storage.SoftFailed|storage.Withheld) != 0 {
				next = append(next, p.PrevEvents...)
			}
		}
		todo = next
	}
	return missing, nil
}
