package policy

import (
	"context"
	"sync"
	"time"
)

const (
	// repeatWindow is for how long the repetitions of a refusal are counted before one record says how many there were.
	repeatWindow = time.Minute
	// repeatMost bounds the different refusals that are counted one by one; what is beyond is counted together.
	repeatMost = 1000
)

// repeats counts refusals that other servers can provoke as often as they like. The first refusal of a kind is recorded like any
// other before it is answered. Those that follow within a minute have the same answer with the same decision id, are counted,
// and end in one more record that says how often (Record.Repeated): nothing is dropped, and a server that knocks 10,000 times
// costs two records. Where more different servers are refused than anybody could tell apart (names in requests may be
// forged), the rest share one record with the subject `*`. What a killed process had counted in its last minute is lost with it; the first record is not.
type repeats struct {
	mu sync.Mutex
	m  map[repeatKey]*repeated // guarded by mu
}

type repeatKey struct {
	point                          Point
	tenant, subject, room, reasons string
}

// repeated is one kind of refusal since its first record.
type repeated struct {
	record Record
	since  time.Time
	last   time.Time
	count  int64
	saved  bool // the first record is safe
}

// countsRepeats says whether refusals at a point are provoked from outside without an account.
func countsRepeats(p Point) bool {
	return p == FederationInbound || p == FederationOutbound || p == EventServe
}

// recordOnce records a refusal, or counts it where it repeats one that was recorded within the last minute.
func (e *Engine) recordOnce(ctx context.Context, d Decision, f *frame) Decision {
	if e.opts.Recorder == nil {
		return d
	}
	r, err := e.newRecord(d, f)
	if err != nil {
		return e.unrecorded(d, err)
	}
	now := e.opts.Now()
	key := repeatKey{d.Point, r.Tenant, r.Subject, r.Room, d.String()}
	if f.in.Server != nil && r.Point == FederationOutbound {
		key.subject += " " + f.in.Server.Name
	}
	first, ended := e.repeats.note(key, r, now)
	if first == nil {
		return e.known(d, key)
	}
	records := []Record{first.record}
	if ended != nil {
		records = append(records, e.summary(ended)...)
	}
	if err := e.save(ctx, records); err != nil {
		return e.unrecorded(d, err)
	}
	e.repeats.mu.Lock()
	first.saved = true
	e.repeats.mu.Unlock()
	d.ID = first.record.ID
	return d
}

// known gives a repetition the id under which the refusal is found in the log.
func (e *Engine) known(d Decision, key repeatKey) Decision {
	e.repeats.mu.Lock()
	defer e.repeats.mu.Unlock()
	for _, k := range []repeatKey{key, {point: key.point, tenant: key.tenant}} {
		if known := e.repeats.m[k]; known != nil {
			d.ID = known.record.ID
			break
		}
	}
	return d
}

// note counts a refusal. It returns the entry where this one is its first, and the entry whose minute was over.
func (r *repeats) note(key repeatKey, rec Record, now time.Time) (first, ended *repeated) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[repeatKey]*repeated{}
	}
	old := r.m[key]
	if old == nil && len(r.m) >= repeatMost {
		key = repeatKey{point: key.point, tenant: key.tenant}
		rec.Subject = "*"
		old = r.m[key]
	}
	if old != nil && now.Sub(old.since) < repeatWindow {
		old.count++
		old.last = now
		return nil, nil
	}
	first = &repeated{record: rec, since: now, last: now}
	r.m[key] = first
	return first, old
}

// due takes out the entries whose minute is over; all of them at the end.
func (r *repeats) due(now time.Time, all bool) map[repeatKey]*repeated {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[repeatKey]*repeated{}
	for k, v := range r.m {
		if all || now.Sub(v.since) >= repeatWindow {
			out[k] = v
			delete(r.m, k)
		}
	}
	return out
}

// summary is what is still to be recorded of an entry.
func (e *Engine) summary(v *repeated) []Record {
	var out []Record
	if !v.saved {
		out = append(out, v.record)
	}
	if v.count > 0 {
		r := v.record
		r.ID, r.Time, r.Repeated = e.newID(), v.last.UTC(), v.count
		out = append(out, r)
	}
	return out
}

// flushRepeats records how often refusals were repeated. What cannot be recorded now is counted on.
func (e *Engine) flushRepeats(ctx context.Context, all bool) {
	if e.opts.Recorder == nil {
		return
	}
	due := e.repeats.due(e.opts.Now(), all)
	var records []Record
	for _, v := range due {
		records = append(records, e.summary(v)...)
	}
	if len(records) == 0 {
		return
	}
	if err := e.save(ctx, records); err != nil {
		e.opts.Log.WithField("err", err).Error("policy: repeated refusals could not be recorded yet")
		e.repeats.putBack(due)
	}
}

func (r *repeats) putBack(due map[repeatKey]*repeated) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, v := range due {
		if now := r.m[k]; now != nil {
			v.count += 1 + now.count
			v.last = now.last
		}
		r.m[k] = v
	}
}
