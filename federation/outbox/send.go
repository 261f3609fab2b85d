package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/federation/fedclient"
	"hansa/homeserver/stream"
	"hansa/storage"
)

// attempt sends one transaction to a server, and decides what comes next.
func (s *session) attempt(ctx context.Context, d *destination) {
	began := time.Now()
	var t *transaction
	err := stream.Guard(func() (err error) {
		if t, err = s.deliver(ctx, d); t != nil && err != nil && s.quarantine(ctx, d, t, err) {
			err = nil
		}
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[d.charged]--
	s.poll()
	switch {
	case d.forgotten:
	case err == nil:
		if t.tried() {
			s.succeeded(d, t, time.Since(began))
		} else {
			s.done(d, t)
		}
	case ctx.Err() != nil && d.admitted != parting: // the session ends
		return
	case ctx.Err() != nil, errors.Is(err, errOutdated): // what may not be sent any more was on its way, or about to be
	case d.sending == nil || errors.Is(err, errUndecided) || errors.Is(err, storage.ErrUnavailable): // it was not sent
		d.state, d.cancel, d.sending = idle, nil, nil
		s.later(d, s.o.pause(1), false)
		s.o.log.WithError(err).WithFields(map[string]any{"tenant": d.as, "destination": d.to}).Warn("a transaction could not be made; trying again")
		return
	default:
		s.failed(d, t, err)
		return
	}
	s.settle(d)
}

// tried tells whether the transaction was sent at all.
func (t *transaction) tried() bool { return len(t.parts)+len(t.rest) > 0 }

// errUndecided is the failure of a transaction about which policy could not say anything.
var errUndecided = errors.New("policy cannot decide at present")

// errOutdated is the failure of a transaction in which there is what may not be sent any more.
var errOutdated = errors.New("what was to be sent may not be sent any more")

// deliver makes a transaction and sends it. The transaction is nil where none could be made.
func (s *session) deliver(ctx context.Context, d *destination) (*transaction, error) {
	a := s.admit(ctx, d)
	switch a {
	case closed:
		return nil, errForgotten
	case unknown:
		return nil, errUndecided
	}
	t, err := s.next(ctx, d, a == parting)
	if err != nil {
		return nil, err
	}
	if err := s.begin(ctx, d, t); err != nil || !t.tried() {
		return t, err
	}
	timer := time.AfterFunc(s.o.tune.slowAfter, func() { s.slowDown(d, t) })
	defer timer.Stop()
	ctx, cancel := context.WithTimeout(ctx, s.o.tune.timeout)
	defer cancel()
	body, err := t.body(d.as, s.o.Now().UnixMilli())
	if err != nil {
		return t, err
	}
	id := t.id()
	if len(t.parts) == 0 {
		id = fmt.Sprintf("e%d-%d", s.o.Now().UnixMilli(), s.o.metrics.serial.Add(1))
	}
	send := s.o.Client.Send
	if t.parting {
		send = s.o.Client.SendParting
	}
	bad, err := send(ctx, d.as, d.to, id, body)
	if err != nil {
		return t, err
	}
	s.o.metrics.sent(body, len(bad))
	if len(bad) > 0 {
		s.o.log.WithFields(map[string]any{"tenant": d.as, "destination": d.to, "pos": t.to}).Debugf("the server did not take %d of %d events", len(bad), len(body.PDUs))
	}
	return t, nil
}

// begin stores that a transaction is under way, before it is.
func (s *session) begin(ctx context.Context, d *destination, t *transaction) error {
	s.mu.Lock()
	switch {
	case d.forgotten || ctx.Err() != nil:
		s.mu.Unlock()
		return errForgotten
	case d.admitted == parting && !t.parting: // the door has closed since the transaction was made
		s.mu.Unlock()
		return errOutdated
	}
	if !t.parting {
		s.company(d, t)
	}
	d.sending = t
	if len(t.parts) == 0 {
		s.mu.Unlock()
		return nil
	}
	d.ours = !d.behind && (d.ours || d.row.Sending == 0)
	before := d.row
	d.row.Pos, d.row.Sending, d.row.Newest = t.from, t.to, t.newest
	if d.row == before && d.row == d.stored {
		s.mu.Unlock() // sent before
		return nil
	}
	wait := make(chan error, 1)
	d.saves = append(d.saves, wait)
	s.mark(d)
	s.mu.Unlock()
	select {
	case s.flush <- struct{}{}:
	default:
	}
	select {
	case err := <-wait:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// company adds ephemeral EDUs to a transaction, as many as there is room for; what is said of presence takes the room of one. The caller
// holds mu.
func (s *session) company(d *destination, t *transaction) {
	var push [][]byte
	room, i := federation.MaxEDUs-maxQueuedEDUs-maxReceiptEDUs-1, 0
	for ; i < len(d.ephemeral) && room > 0; i++ {
		if e := d.ephemeral[i]; e.Type != federation.EDUPresence {
			t.rest = append(t.rest, e)
			room--
		} else if p, ok := pushed(e.Content); ok {
			push = append(push, p)
		}
	}
	d.ephemeral, d.keys = d.ephemeral[i:], d.keys[i:]
	if len(push) > 0 {
		content := slices.Concat([]byte(`{"push":[`), bytes.Join(push, []byte(",")), []byte(`]}`))
		t.rest = append(t.rest, federation.EDU{Type: federation.EDUPresence, Content: content})
	}
}

// pushed are the items of an EDU of presence, without brackets; ok is false where there are none.
func pushed(content jsontext.Value) (items []byte, ok bool) {
	var p struct {
		Push []jsontext.Value `json:"push"`
	}
	if json.Unmarshal(content, &p) != nil || len(p.Push) == 0 {
		return nil, false
	}
	list := make([][]byte, len(p.Push))
	for i, v := range p.Push {
		list[i] = v
	}
	return bytes.Join(list, []byte(",")), true
}

// done takes note that a server has a transaction. The caller holds mu.
func (s *session) done(d *destination, t *transaction) {
	d.row.Pos, d.row.Sending, d.row.Newest = max(d.row.Pos, t.to), 0, false
	d.ours = false
	n := 0
	for n < len(d.queue) && d.queue[n].pos <= t.to {
		n++
	}
	d.queue = d.queue[n:]
	if len(d.queue) == 0 {
		d.queue = nil
	} else if !d.behind {
		d.since = d.queue[0].at
	}
	for i := range t.parts {
		if t.parts[i].edu != nil {
			d.drop = t.to
		}
	}
	if d.behind {
		for len(d.scan) > 0 && d.scan[0] <= t.to {
			d.scan = d.scan[1:]
		}
		switch {
		case t.end && d.tail:
			d.behind, d.scanning, d.scan = false, false, nil
			d.row.Pos = max(d.row.Pos, d.scanned)
		case t.end, len(d.scan) == 0 && d.more:
			d.scanning = false
		}
	}
	if !d.behind && len(d.queue) == 0 {
		d.row.Behind = false
	}
	if d.row != d.stored || d.drop > 0 {
		s.mark(d)
	}
}

// succeeded takes note that a server has answered. The caller holds mu.
func (s *session) succeeded(d *destination, t *transaction, took time.Duration) {
	d.row.Failures, d.row.RetryTS, d.row.FailedTS, d.row.LastError = 0, 0, 0, ""
	d.same, d.refusal = 0, ""
	if d.limit *= 2; d.limit >= federation.MaxPDUs+federation.MaxEDUs {
		d.limit = 0
	}
	d.pool = fast
	if took > s.o.tune.slowAfter {
		d.pool = slow
	}
	s.done(d, t)
	s.o.metrics.transactions.WithLabelValues("ok").Inc()
	s.o.metrics.seconds.Observe(took.Seconds())
}

// failed takes note that a transaction did not arrive, and lets the server rest. The caller holds mu.
func (s *session) failed(d *destination, t *transaction, err error) {
	now := s.o.Now()
	d.row.Failures++
	if d.row.FailedTS == 0 {
		d.row.FailedTS = now.UnixMilli()
	}
	d.row.LastError = short(err)
	wait := s.o.pause(d.row.Failures)
	var refusal *fedclient.Error
	if errors.As(err, &refusal) {
		wait = max(wait, min(refusal.RetryAfter, s.o.tune.pauseLast))
		if s.search(d, t, refusal) {
			wait = s.o.pause(1)
		}
	}
	d.row.RetryTS = now.Add(wait).UnixMilli()
	if wait > s.o.tune.behindAfter || now.UnixMilli()-d.row.FailedTS > s.o.tune.behindAfter.Milliseconds() {
		d.row.Behind = true // the cursor does not wait; if this node stops, the rest is looked up
	}
	d.pool, d.sending, d.cancel, d.ephemeral, d.keys = dead, nil, nil, nil, nil
	s.mark(d)
	s.later(d, wait, false)
	s.o.metrics.transactions.WithLabelValues("failed").Inc()
	s.o.metrics.retries.Inc()
	s.o.log.WithError(err).WithFields(map[string]any{"tenant": d.as, "destination": d.to, "pos": d.row.Pos, "duration": wait.String()}).
		Info("a transaction did not arrive; it is tried again")
}

// blames tells whether an answer may be about what was sent, and not about who sent it or how the server is.
func blames(e *fedclient.Error) bool {
	switch e.Status {
	case 401, 403, 404, 405, 407, 408, 421, 425, 429:
		return false
	}
	return e.Status >= 400 && e.Status < 500
}

// wording is what makes two refusals the same: messages may hold times and numbers.
func wording(e *fedclient.Error) string { return fmt.Sprintf("%d %s", e.Status, e.Code) }

// search halves what is sent to a server that has refused it in the same words again and again. It reports whether it looks for the item
// that is the cause. The caller holds mu.
func (s *session) search(d *destination, t *transaction, e *fedclient.Error) bool {
	if !blames(e) || len(t.parts) == 0 {
		d.same, d.refusal = 0, ""
		return false
	}
	if r := wording(e); r != d.refusal {
		d.same, d.refusal = 0, r
	}
	d.same++
	if len(t.parts) > 1 && (d.same >= s.o.tune.refusals || d.limit > 0) {
		d.limit, d.same = (len(t.parts)+1)/2, 0
	}
	return d.limit > 0
}

// quarantine puts the only item of a transaction aside that the server has refused again and again, if it takes another transaction. It
// reports whether it did.
func (s *session) quarantine(ctx context.Context, d *destination, t *transaction, cause error) bool {
	var refusal *fedclient.Error
	if !errors.As(cause, &refusal) || !blames(refusal) || len(t.parts) != 1 {
		return false
	}
	s.mu.Lock()
	again := d.refusal == wording(refusal) && d.same >= s.o.tune.refusals-1
	s.mu.Unlock()
	if !again {
		return false
	}
	now := s.o.Now().UnixMilli()
	probe := federation.Transaction{Origin: d.as, OriginServerTS: now, PDUs: []jsontext.Value{}}
	if _, err := s.o.Client.Send(ctx, d.as, d.to, fmt.Sprintf("p%d-%d", now, s.o.metrics.serial.Add(1)), probe); err != nil {
		return false // it takes nothing at all
	}
	p := &t.parts[0]
	q := storage.Quarantined{Tenant: d.as, Destination: d.to, Pos: p.pos, Item: p.name(), Status: refusal.Status, Message: short(refusal)}
	if p.edu != nil {
		q.Content = p.edu.Content
	}
	if err := s.update(ctx, func(tx *storage.Tx) error { return tx.PutQuarantined(q) }); err != nil {
		return false
	}
	s.mu.Lock()
	d.limit = 0
	s.mu.Unlock()
	s.o.metrics.quarantined.Inc()
	s.o.log.WithError(cause).WithFields(map[string]any{"tenant": d.as, "destination": d.to, "pos": p.pos, "event_id": q.Item}).
		Warn("a server refuses an item over and over; it is put aside")
	return true
}

// short is what is kept of an error.
func short(err error) string {
	text := strings.ToValidUTF8(err.Error(), "?")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "")
	}
	return text
}
