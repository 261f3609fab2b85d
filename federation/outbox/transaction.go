package outbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

const (
	// maxQueuedEDUs is how many of the EDUs of a transaction are queued ones, maxReceiptEDUs how many hold receipts; the others are left
	// for typing and presence.
	maxQueuedEDUs  = 80
	maxReceiptEDUs = 10
	// maxReceipts is how many receipts a transaction has, maxBytes about how large it is.
	maxReceipts = 500
	maxBytes    = 4 << 20
)

// part is one item of a transaction: one of the three.
type part struct {
	pos     int64
	post    *post
	edu     *storage.QueuedEDU
	receipt *storage.Receipt
}

// name is what people are told that a part is.
func (p *part) name() string {
	switch {
	case p.post != nil:
		return string(p.post.event.ID)
	case p.edu != nil:
		return p.edu.Type
	}
	return federation.EDUReceipt
}

// transaction is what is sent in one request: all that concerns a server after one position and up to another.
type transaction struct {
	from, to int64
	// newest is true where of each room only the newest event is in it.
	newest  bool
	parting bool
	parts   []part
	// rest are ephemeral EDUs.
	rest []federation.EDU
	// end is true where a look-up of what a server missed ends with it.
	end bool
}

// id is the same for the same transaction, whoever makes it.
func (t *transaction) id() string {
	h := sha256.New()
	for i := range t.parts {
		p := &t.parts[i]
		_, _ = fmt.Fprintf(h, "%d %s\n", p.pos, p.name()) // a hash takes everything
	}
	kind := ""
	if t.newest {
		kind = "n"
	}
	return fmt.Sprintf("%d-%d%s-%s", t.from, t.to, kind, hex.EncodeToString(h.Sum(nil)[:6]))
}

// limiter counts what fits into a transaction.
type limiter struct {
	pdus, edus, receipts, bytes int
	threads                     map[[2]string]int
}

// take tells whether a part fits, and counts it.
func (l *limiter) take(p *part) bool {
	switch {
	case p.post != nil:
		if l.pdus == federation.MaxPDUs || l.bytes+len(p.post.pdu) > maxBytes && l.bytes > 0 {
			return false
		}
		l.pdus++
		l.bytes += len(p.post.pdu)
	case p.edu != nil:
		if l.edus == maxQueuedEDUs || l.bytes+len(p.edu.Content) > maxBytes && l.bytes > 0 {
			return false
		}
		l.edus++
		l.bytes += len(p.edu.Content)
	default:
		if l.threads == nil {
			l.threads = map[[2]string]int{}
		}
		k := [2]string{string(p.receipt.RoomID), string(p.receipt.UserID)}
		if l.receipts == maxReceipts || l.threads[k] == maxReceiptEDUs {
			return false
		}
		l.receipts++
		l.threads[k]++
	}
	return true
}

// cut keeps the parts that fit, in order, and at most limit of them unless it is 0. It reports false when some are left.
func (t *transaction) cut(limit int) bool {
	var l limiter
	for i := range t.parts {
		if limit > 0 && i == limit || !l.take(&t.parts[i]) {
			t.parts = t.parts[:i]
			t.to = t.parts[i-1].pos
			return false
		}
	}
	return true
}

// body is the transaction as it is sent.
func (t *transaction) body(as matrix.ServerName, now int64) (federation.Transaction, error) {
	out := federation.Transaction{Origin: as, OriginServerTS: now, PDUs: []jsontext.Value{}}
	var receipts []*storage.Receipt
	for i := range t.parts {
		switch p := &t.parts[i]; {
		case p.post != nil:
			out.PDUs = append(out.PDUs, p.post.pdu)
		case p.edu != nil:
			out.EDUs = append(out.EDUs, federation.EDU{Type: p.edu.Type, Content: p.edu.Content})
		default:
			receipts = append(receipts, p.receipt)
		}
	}
	list, err := receiptEDUs(receipts)
	if err != nil {
		return out, err
	}
	out.EDUs = append(append(out.EDUs, list...), t.rest...)
	out.EDUs = out.EDUs[:min(len(out.EDUs), federation.MaxEDUs)]
	return out, nil
}

// userReceipt is the receipt of one user.
type userReceipt struct {
	Data     receiptData      `json:"data"`
	EventIDs []matrix.EventID `json:"event_ids"`
}

type receiptData struct {
	TS       int64  `json:"ts"`
	ThreadID string `json:"thread_id,omitempty"`
}

// receiptEDUs makes as few EDUs of receipts as can be: one holds one receipt for each room and user.
//
// spec: server-server-api#receipts
func receiptEDUs(list []*storage.Receipt) ([]federation.EDU, error) {
	type room map[string]map[matrix.UserID]userReceipt
	var contents []map[matrix.RoomID]room
	newest := map[storage.Receipt]int{} // the last of each room, user and thread
	key := func(r *storage.Receipt) storage.Receipt {
		return storage.Receipt{RoomID: r.RoomID, UserID: r.UserID, Type: r.Type, ThreadID: r.ThreadID}
	}
	for i, r := range list {
		newest[key(r)] = i
	}
	for i, r := range list {
		if newest[key(r)] != i {
			continue
		}
		n := slices.IndexFunc(contents, func(c map[matrix.RoomID]room) bool {
			_, taken := c[r.RoomID][r.Type][r.UserID]
			return !taken
		})
		if n < 0 {
			n = len(contents)
			contents = append(contents, map[matrix.RoomID]room{})
		}
		c := contents[n]
		if c[r.RoomID] == nil {
			c[r.RoomID] = room{r.Type: {}}
		}
		c[r.RoomID][r.Type][r.UserID] = userReceipt{receiptData{r.TS, r.ThreadID}, []matrix.EventID{r.EventID}}
	}
	var out []federation.EDU
	for _, c := range contents {
		b, err := json.Marshal(c, json.Deterministic(true))
		if err != nil {
			return nil, err
		}
		out = append(out, federation.EDU{Type: federation.EDUReceipt, Content: b})
	}
	return out, nil
}

// next makes the next transaction for a server, nil where there is nothing to send.
func (s *session) next(ctx context.Context, d *destination, only bool) (*transaction, error) {
	s.mu.Lock()
	row, limit, edus := d.row, d.limit, false
	var t *transaction
	switch {
	case row.Sending > 0 && (!d.ours || d.behind):
		upto := s.pos
		if d.scanning {
			upto = d.scanned
		}
		s.mu.Unlock()
		t, err := s.recall(ctx, d.pair, row, upto)
		if err != nil {
			return nil, err
		}
		if len(t.parts) > 0 {
			t.cut(limit)
		}
		return t, nil
	case d.behind:
		s.mu.Unlock()
		return s.catchUp(ctx, d, limit)
	case len(d.queue) > 0:
		t = &transaction{from: max(row.Pos, d.queue[0].pos-1), parting: only}
		for _, it := range d.queue {
			if row.Sending > 0 && it.pos > row.Sending || len(t.parts) >= 4*federation.MaxEDUs {
				break
			}
			t.to = it.pos
			if it.post != nil || it.receipt != nil {
				t.parts = append(t.parts, part{pos: it.pos, post: it.post, receipt: it.receipt})
			} else {
				edus = true
			}
		}
		t.to = max(t.to, row.Sending)
	default:
		t = &transaction{from: row.Pos, to: row.Pos, parting: only}
	}
	s.mu.Unlock()
	if edus && !t.parting {
		if err := s.addQueued(ctx, d.pair, t); err != nil {
			return nil, err
		}
	}
	if len(t.parts) > 0 {
		t.cut(limit)
	}
	return t, nil
}

// addQueued adds the queued EDUs to a transaction that was made of the queue.
func (s *session) addQueued(ctx context.Context, p pair, t *transaction) error {
	var edus []storage.QueuedEDU
	err := s.o.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		edus, err = tx.LoadQueuedEDUs(p.as, p.to, t.from, t.to, maxQueuedEDUs+1)
		return err
	})
	if err != nil {
		return err
	}
	t.addEDUs(edus)
	return nil
}

// addEDUs puts queued EDUs among the parts, by position.
func (t *transaction) addEDUs(edus []storage.QueuedEDU) {
	for i := range edus {
		t.parts = append(t.parts, part{pos: edus[i].Pos, edu: &edus[i]})
	}
	slices.SortStableFunc(t.parts, func(a, b part) int { return int(a.pos - b.pos) })
}

// recall makes the transaction again that was under way when this, or another node, stopped. Where it has the newest event of each room, those
// are left out that are no longer the newest up to a position: the newer ones come later.
func (s *session) recall(ctx context.Context, p pair, row storage.Destination, upto int64) (*transaction, error) {
	t := &transaction{from: row.Pos, to: row.Sending, newest: row.Newest}
	var events []*storage.Event
	var edus []storage.QueuedEDU
	var receipts []storage.Receipt
	err := s.o.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if row.Newest {
			positions, err := tx.LoadOutboxNewest(p.as, p.to, row.Pos, max(upto, row.Sending), federation.MaxPDUs)
			if err != nil {
				return err
			}
			positions = slices.DeleteFunc(positions, func(pos int64) bool { return pos > row.Sending })
			if events, err = tx.LoadEventsAt(positions); err != nil {
				return err
			}
		} else {
			if events, err = tx.LoadOutboxEvents(p.as, p.to, row.Pos, row.Sending, federation.MaxPDUs); err != nil {
				return err
			}
			if receipts, err = tx.LoadOutboxReceipts(p.as, p.to, row.Pos, row.Sending, maxReceipts); err != nil {
				return err
			}
		}
		edus, err = tx.LoadQueuedEDUs(p.as, p.to, row.Pos, row.Sending, maxQueuedEDUs)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := t.addEvents(ctx, s.o.Rooms, events); err != nil {
		return nil, err
	}
	for i := range receipts {
		t.parts = append(t.parts, part{pos: receipts[i].Pos, receipt: &receipts[i]})
	}
	t.addEDUs(edus)
	return t, nil
}

func (t *transaction) addEvents(ctx context.Context, rooms Rooms, events []*storage.Event) error {
	if len(events) == 0 {
		return nil
	}
	signed, err := rooms.Sign(ctx, events)
	if err != nil {
		return err
	}
	for _, e := range signed {
		t.parts = append(t.parts, part{pos: e.Pos, post: &post{e, event.Federation(e.Event)}})
	}
	return nil
}

// catchUp makes the next transaction for a server that is behind: the newest events of those of its rooms in which something happened,
// in the order of the log, so that whatever comes before the end of the transaction is in it or will be followed by something newer of
// its room.
func (s *session) catchUp(ctx context.Context, d *destination, limit int) (*transaction, error) {
	s.mu.Lock()
	row, look := d.row, !d.scanning
	if look {
		// From here on what comes is queued again, as far as there is room.
		d.scanning, d.tail, d.queue, d.scan, d.more = true, true, nil, nil, false
		d.scanned, d.scannedFrom = s.pos, row.Pos
	}
	scan, upto, from, more := d.scan, d.scanned, d.scannedFrom, d.more
	s.mu.Unlock()
	t := &transaction{from: row.Pos, to: upto, newest: true}
	var events []*storage.Event
	var edus []storage.QueuedEDU
	var receipts []storage.Receipt
	err := s.o.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if look {
			if scan, err = tx.LoadOutboxNewest(d.as, d.to, row.Pos, upto, s.o.tune.scan); err != nil {
				return err
			}
			more = len(scan) == s.o.tune.scan
		}
		if edus, err = tx.LoadQueuedEDUs(d.as, d.to, row.Pos, upto, maxQueuedEDUs); err != nil {
			return err
		}
		n := min(len(scan), federation.MaxPDUs)
		if events, err = tx.LoadEventsAt(scan[:n]); err != nil {
			return err
		}
		t.end = n == len(scan) && len(edus) < maxQueuedEDUs
		if n > 0 && (n < len(scan) || more) {
			t.to, t.end = scan[n-1], t.end && !more
		}
		if len(edus) == maxQueuedEDUs {
			t.to = min(t.to, edus[len(edus)-1].Pos)
		}
		if t.end {
			receipts, err = tx.LoadOutboxReceipts(d.as, d.to, from, upto, maxReceipts)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := t.addEvents(ctx, s.o.Rooms, events); err != nil {
		return nil, err
	}
	t.addEDUs(edus)
	t.parts = slices.DeleteFunc(t.parts, func(p part) bool { return p.pos > t.to })
	if len(t.parts) > 0 && !t.cut(limit) {
		t.end = false
	}
	if t.end { // receipts come last, whatever their positions
		t.addReceipts(receipts)
	}
	s.mu.Lock()
	d.scan, d.more = scan, more
	s.mu.Unlock()
	return t, nil
}

// addReceipts adds as many receipts as fit.
func (t *transaction) addReceipts(list []storage.Receipt) {
	var l limiter
	for i := range list {
		if p := (part{pos: list[i].Pos, receipt: &list[i]}); l.take(&p) {
			t.parts = append(t.parts, p)
		}
	}
}
