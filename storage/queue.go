package storage

import "time"

const (
	// patientApart is the shortest time between two commits of what can wait, unless there are patientMost events of it.
	patientApart = 15 * time.Millisecond
	patientMost  = 128
	// gatherFor is how long a batch waits for company at most, where other nodes write, too.
	gatherFor = 500 * time.Microsecond
)

// queue is what waits for the writer, and belongs to its goroutine. Appends that can wait are written together, each patientApart or where
// nothing else has to be written: so what many servers send into many rooms is a commit now and then, and a commit is not what somebody
// who writes a message meets. Where other nodes write, too, nothing waits that long: one of them could move the room on each time.
type queue struct {
	db      *DB
	alone   bool   // no other node writes
	patient []*job // appends that can wait, in their order
	events  int    // in patient
	since   time.Time
	last    time.Time // when some were last taken
	taking  bool      // the batch that is being made has them
	// usual is about how large batches are that go on their way at a time like this, in what job.size counts.
	usual int
}

// next waits for something to be written and returns it; nil when the database is closed and nothing is left.
func (q *queue) next() []*job {
	q.taking = false
	for {
		batch := q.fill(nil)
		if late := len(q.patient) > 0 && time.Since(q.since) > 2*patientApart; len(batch) > 0 && !late {
			return batch
		}
		wait := patientApart - time.Since(q.last)
		if len(q.patient) > 0 && (len(batch) > 0 || wait <= 0 || q.events >= patientMost) {
			return append(q.take(), batch...)
		}
		var due <-chan time.Time
		if len(q.patient) > 0 {
			due = time.After(wait)
		}
		select {
		case j := <-q.db.jobs:
			if batch = q.add(nil, j); len(batch) > 0 {
				return batch
			}
		case <-due:
		case <-q.db.quit:
			return append(q.take(), q.fill(nil)...)
		}
	}
}

// gather waits until a batch that is to take its turn among those of other nodes is nearly as large as batches are at the moment, though not for
// long. A turn costs much the same whatever is written in it, and each node has only its part of all who write: so two nodes need hardly more
// turns than one would. A batch of one, where batches are of one, does not wait.
func (q *queue) gather(batch []*job) []*job {
	size, enough := sizeOf(batch), min(q.usual, maxBatch)*3/4
	if size >= enough {
		return batch
	}
	t := time.NewTimer(gatherFor)
	defer t.Stop()
	for size < enough {
		select {
		case j := <-q.db.jobs:
			batch, size = q.add(batch, j), size+j.size()
		case <-t.C:
			return batch
		}
	}
	return batch
}

// went notes how large a batch was.
func (q *queue) went(size int) { q.usual = max(size, (7*q.usual+size)/8) }

// fill adds what has come to a batch.
func (q *queue) fill(batch []*job) []*job {
	size := sizeOf(batch)
	for size+q.events < maxBatch {
		select {
		case j := <-q.db.jobs:
			n := len(batch)
			batch = q.add(batch, j)
			size += sizeOf(batch[n:])
		default:
			return batch
		}
	}
	return batch
}

// rest takes all that waits now, to be told that the database does not answer.
func (q *queue) rest() []*job {
	rest := q.take()
	for n := len(q.db.jobs); n > 0; n-- { // nobody else takes from it
		rest = append(rest, <-q.db.jobs)
	}
	return rest
}

// add adds a job to a batch, or to what can wait. What waits for the same room goes before it.
func (q *queue) add(batch []*job, j *job) []*job {
	switch {
	case j.ap == nil || q.taking:
		return append(batch, j)
	case j.ap.Patient && q.alone:
		if len(q.patient) == 0 {
			q.since = time.Now()
		}
		q.patient, q.events = append(q.patient, j), q.events+j.size()
		return batch
	}
	rest := q.patient[:0]
	for _, p := range q.patient {
		if p.ap.Room.ID == j.ap.Room.ID {
			batch, q.events = append(batch, p), q.events-p.size()
		} else {
			rest = append(rest, p)
		}
	}
	clear(q.patient[len(rest):])
	q.patient = rest
	return append(batch, j)
}

// take takes all that can wait.
func (q *queue) take() []*job {
	batch := q.patient
	q.patient, q.events, q.last, q.taking = nil, 0, time.Now(), true
	return batch
}
