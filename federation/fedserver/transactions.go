package fedserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

const (
	// transactionLimit is the largest transaction: 50 events and 100 EDUs of 64 KiB each, and what is around them.
	transactionLimit = 12 << 20
	// transactionTimeout is how long the work on one transaction may take, whether or not the other server still waits for the answer.
	transactionTimeout = 5 * time.Minute
	// roomsAtOnce is how many rooms of one transaction are worked on at the same time.
	roomsAtOnce = 4
	// maxTransactions is how many answers are kept for servers that ask again.
	maxTransactions = 10000
)

func (a *API) transactionRoutes() []route {
	if a.Ingest == nil {
		return nil
	}
	return []route{{method: "PUT", path: "/_matrix/federation/v1/send/{txnId}", point: policy.EventReceive, fn: a.send, limit: transactionLimit, free: true}}
}

// send takes in a transaction. A transaction that came before has the answer that it had then. Its work goes on when the other server
// hangs up: it would ask for the same again.
//
// spec: server-server-api#put_matrixfederationv1sendtxnid
// spec: server-server-api#transactions
func (a *API) send(w http.ResponseWriter, q *request) error {
	var body struct {
		PDUs []jsontext.Value `json:"pdus"`
		EDUs []jsontext.Value `json:"edus"`
	}
	if err := q.decode(&body); err != nil {
		return err
	}
	if len(body.PDUs) > federation.MaxPDUs || len(body.EDUs) > federation.MaxEDUs {
		return matrix.InvalidParam("A transaction has at most %d events and %d EDUs.", federation.MaxPDUs, federation.MaxEDUs)
	}
	key := txnKey{q.as, q.origin, q.PathValue("txnId"), sha256.Sum256(q.body)}
	answer, err := a.txns.do(q.Context(), key, func() ([]byte, error) {
		// Whoever waits for the same transaction waits for this work.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(q.Context()), transactionTimeout)
		defer cancel()
		leave, err := a.gate.enter(ctx, q.origin)
		if err != nil {
			return nil, err
		}
		defer leave()
		t := &transaction{a: a, ctx: ctx, as: q.as, origin: q.origin, results: map[matrix.EventID]federation.PDUResult{}}
		return t.run(body.PDUs, body.EDUs)
	})
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, answer)
}

// transaction is one transaction under way.
type transaction struct {
	a          *API
	ctx        context.Context // of the work, see send
	as, origin matrix.ServerName

	mu      sync.Mutex
	results map[matrix.EventID]federation.PDUResult // guarded by mu
	again   error                                   // guarded by mu: why the other server has to send all of it again
}

// run takes in the events, each room's in their order, and then the EDUs: what is sent to a device may belong to a room that the
// events are about.
func (t *transaction) run(pdus, edus []jsontext.Value) ([]byte, error) {
	var rooms []matrix.RoomID
	byRoom := map[matrix.RoomID][][]byte{}
	for _, p := range pdus {
		var head struct {
			RoomID jsontext.Value `json:"room_id"`
		}
		var name string
		if p.Kind() != '{' || json.Unmarshal(p, &head) != nil || json.Unmarshal(head.RoomID, &name) != nil {
			t.fail(t.guess(nil, p), "It is no event with a room ID.")
			continue
		}
		id, err := matrix.ParseRoomID(name)
		if err != nil {
			t.fail(t.guess(nil, p), "Its room ID is malformed.")
			continue
		}
		if byRoom[id] == nil {
			rooms = append(rooms, id)
		}
		byRoom[id] = append(byRoom[id], p)
	}
	var g errgroup.Group
	g.SetLimit(roomsAtOnce)
	for _, id := range rooms {
		g.Go(func() error {
			if err := stream.Guard(func() error { t.room(id, byRoom[id]); return nil }); err != nil {
				t.sendAgain(err) // a bug: the others are dealt with, and these come again
			}
			return nil
		})
	}
	_ = g.Wait() // each result is in t
	if t.again == nil {
		t.edus(edus)
	}
	if t.again != nil {
		return nil, t.again
	}
	return json.Marshal(federation.TransactionAnswer{PDUs: t.results}, json.Deterministic(true))
}

// room takes in the events of one room. The room's server ACL is asked about the server that sends them.
func (t *transaction) room(id matrix.RoomID, pdus [][]byte) {
	var version *matrix.RoomVersion
	err := t.a.Rooms.Look(t.ctx, id, func(v room.View) { version = v.Version() })
	if errors.Is(err, room.ErrUnknownRoom) {
		for _, p := range pdus {
			t.finish(t.guess(nil, p), id, t.outside(id, p))
		}
		return
	}
	allowed := false
	if err == nil {
		allowed, err = t.a.Rooms.ACLAllows(t.ctx, id, t.origin)
	}
	if err != nil {
		t.sendAgain(err)
		return
	}
	if !allowed {
		for _, p := range pdus {
			t.fail(t.guess(version, p), "The server ACL of the room does not let your server take part.")
		}
		return
	}
	for i, r := range t.a.Ingest(t.ctx, t.as, t.origin, id, pdus) {
		if me := (*matrix.Error)(nil); errors.As(r.Err, &me) && me.Status == http.StatusNotFound {
			r.Err = t.outside(id, pdus[i]) // nobody of ours is in the room any more
		}
		if r.EventID == "" {
			r.EventID = t.guess(version, pdus[i])
		}
		t.finish(r.EventID, id, r.Err)
	}
}

// outside takes in an event of a room that nobody here is in.
func (t *transaction) outside(id matrix.RoomID, pdu []byte) error {
	if t.a.Outside == nil {
		return matrix.NotFound("The room is not known here.")
	}
	return t.a.Outside(t.ctx, t.as, t.origin, id, pdu)
}

// finish notes what became of an event. What cannot be answered now must come again.
func (t *transaction) finish(id matrix.EventID, in matrix.RoomID, err error) {
	var me *matrix.Error
	switch {
	case err == nil:
		t.a.metrics.pdus.WithLabelValues("taken").Inc()
		t.mu.Lock()
		defer t.mu.Unlock()
		if _, ok := t.results[id]; !ok && id != "" {
			t.results[id] = federation.PDUResult{}
		}
	case mustComeAgain(err):
		t.sendAgain(err)
	case errors.As(err, &me):
		t.fail(id, me.Message)
	case errors.Is(err, room.ErrDropped):
		t.fail(id, clip(err.Error()))
	default:
		t.a.Log.WithFields(logrus.Fields{"room_id": in, "event_id": id, "origin": t.origin, "err": err}).Warn("an event could not be taken in")
		t.fail(id, "It could not be taken in.")
	}
}

// mustComeAgain tells whether it is no fault of what was sent that it could not be dealt with.
func mustComeAgain(err error) bool {
	var me *matrix.Error
	if errors.As(err, &me) && (me.Status >= http.StatusInternalServerError || me.Status == http.StatusTooManyRequests) {
		return true
	}
	return errors.Is(err, room.ErrUndecided) || errors.Is(err, storage.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

func (t *transaction) sendAgain(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.again == nil {
		t.again = err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.again = matrix.Errorf(http.StatusServiceUnavailable, matrix.CodeUnknown, "This takes too long at present; try again later.").With("retry_after_ms", 10000)
	}
}

func (t *transaction) fail(id matrix.EventID, reason string) {
	t.a.metrics.pdus.WithLabelValues("refused").Inc()
	if id == "" {
		return // the answer has no place for what has no name
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.results[id] = federation.PDUResult{Error: reason}
}

// guess is the ID of an event for the answer, also of one that is malformed; without the room's version, by what most versions do.
func (t *transaction) guess(v *matrix.RoomVersion, pdu []byte) matrix.EventID {
	if v != nil {
		if e, err := event.Parse(v, pdu); err == nil {
			return e.ID
		}
	}
	var head struct {
		EventID jsontext.Value `json:"event_id"`
	}
	var name string
	if json.Unmarshal(pdu, &head) == nil && len(head.EventID) > 0 && json.Unmarshal(head.EventID, &name) == nil {
		if id, err := matrix.ParseEventID(name); err == nil {
			return id
		}
	}
	if v == nil {
		v, _ = matrix.FindRoomVersion(matrix.DefaultRoomVersion)
	}
	c, err := canonicaljson.Canonicalize(pdu, false)
	if err != nil || v == nil || c[0] != '{' {
		return ""
	}
	hash := event.ReferenceHash(v, c)
	return matrix.EventID("$" + base64.RawURLEncoding.EncodeToString(hash[:]))
}

// edus hands EDUs to those who receive them. One that nobody knows or that is malformed is dropped.
//
// spec: server-server-api#edus
func (t *transaction) edus(list []jsontext.Value) {
	for _, raw := range list {
		var edu struct {
			Type    jsontext.Value `json:"edu_type"`
			Content jsontext.Value `json:"content"`
		}
		var typ string
		result := "ignored"
		if raw.Kind() == '{' && json.Unmarshal(raw, &edu) == nil && json.Unmarshal(edu.Type, &typ) == nil && edu.Content.Kind() == '{' {
			if receive := t.a.EDUs[typ]; receive != nil {
				result = t.edu(typ, edu.Content, receive)
			}
		}
		t.a.metrics.edus.WithLabelValues(result).Inc()
		if t.again != nil {
			return
		}
	}
}

func (t *transaction) edu(typ string, content jsontext.Value, receive EDUHandler) string {
	content, err := t.underACL(typ, content)
	if err == nil && content == nil {
		return "ignored"
	}
	if err == nil {
		err = receive(t.ctx, t.as, t.origin, content)
	}
	switch {
	case err == nil:
		return "taken"
	case mustComeAgain(err):
		t.sendAgain(err)
	default:
		t.a.Log.WithFields(logrus.Fields{"origin": t.origin, "destination": t.as, "err": err}).Debug("an EDU was dropped")
	}
	return "dropped"
}

// underACL takes out of EDUs what is about rooms whose server ACL denies the sending server; nil where nothing is left.
//
// spec: server-server-api#server-access-control-lists-acls
func (t *transaction) underACL(typ string, content jsontext.Value) (jsontext.Value, error) {
	switch typ {
	case federation.EDUTyping:
		var c struct {
			RoomID matrix.RoomID `json:"room_id"`
		}
		if json.Unmarshal(content, &c) != nil {
			return nil, nil
		}
		ok, err := t.a.Rooms.ACLAllows(t.ctx, c.RoomID, t.origin)
		if err != nil || !ok {
			return nil, err
		}
	case federation.EDUReceipt:
		var rooms map[matrix.RoomID]jsontext.Value
		if json.Unmarshal(content, &rooms) != nil {
			return nil, nil
		}
		n := len(rooms)
		for id := range rooms {
			ok, err := t.a.Rooms.ACLAllows(t.ctx, id, t.origin)
			if err != nil {
				return nil, err
			}
			if !ok {
				delete(rooms, id)
			}
		}
		if len(rooms) == 0 {
			return nil, nil
		}
		if len(rooms) < n {
			return json.Marshal(rooms, json.Deterministic(true))
		}
	}
	return content, nil
}

// transactions remembers answers, so that a transaction that comes again changes nothing and is answered the same, and lets one that comes
// again while it is being worked on wait. The content counts too: a server that begins to count anew loses nothing. Answers
// are kept in memory alone, because everything that a transaction does can be done twice.
type transactions struct {
	mu         sync.Mutex // guards what follows
	max        int
	old, young map[txnKey]*txn
}

type txnKey struct {
	as, origin matrix.ServerName
	id         string
	hash       [sha256.Size]byte
}

// txn is one transaction; answer and err are set before done is closed.
type txn struct {
	done   chan struct{}
	answer []byte
	err    error
}

func newTransactions(n int) *transactions {
	return &transactions{max: n / 2, old: map[txnKey]*txn{}, young: map[txnKey]*txn{}}
}

// do runs fn once for a transaction, unless it failed before.
func (ts *transactions) do(ctx context.Context, key txnKey, fn func() ([]byte, error)) ([]byte, error) {
	ts.mu.Lock()
	t := ts.young[key]
	if t == nil {
		t = ts.old[key]
	}
	if t != nil {
		ts.mu.Unlock()
		select {
		case <-t.done:
			return t.answer, t.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	t = &txn{done: make(chan struct{}), err: matrix.Errorf(http.StatusInternalServerError, matrix.CodeUnknown, "Something went wrong in the server.")}
	if len(ts.young) >= ts.max {
		ts.old, ts.young = ts.young, make(map[txnKey]*txn, ts.max)
	}
	ts.young[key] = t
	ts.mu.Unlock()
	defer func() { // also after a panic
		if t.err != nil {
			ts.mu.Lock()
			delete(ts.young, key)
			delete(ts.old, key)
			ts.mu.Unlock()
		}
		close(t.done)
	}()
	t.answer, t.err = fn()
	return t.answer, t.err
}
