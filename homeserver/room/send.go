package room

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/statemap"
)

// Draft is an event that one of our users wants in a room.
type Draft struct {
	RoomID   matrix.RoomID
	Sender   matrix.UserID
	Type     string
	StateKey *string
	// Content is a JSON object as it came from the client.
	Content jsontext.Value
	// Redacts is the target of an m.room.redaction.
	Redacts matrix.EventID
	// OriginServerTS is the time of the event, where an application service says it; nil for now.
	OriginServerTS *int64
	// DeviceID, TxnScope and TxnID make the request idempotent and let the sender's device recognise its event. Scope
	// is the endpoint's path without the transaction ID.
	DeviceID        matrix.DeviceID
	TxnScope, TxnID string
	// Subject is the sender with the device and network of the request; nil: what is known of the sender.
	Subject *policy.Party
	Request *policy.Request
	// Given is asked right before the event is built, on the state that it is built on; an error ends the call. It must not block.
	Given func(View) error
	// Also runs in the transaction that stores the event; it may run again.
	Also func(*storage.Tx) error

	target     *storage.Event // of a redaction
	annotation []byte         // see annotationHash
}

// Sent is an event that is durable.
type Sent struct {
	EventID matrix.EventID
	// Pos is its position in the log, 0 where the event was there before (a repeated request, state that did not change).
	Pos int64
}

const (
	maxTries = 12
	// maxPrev is how many extremities a new event joins together: all there are.
	maxPrev = maxEnds
)

// Send decides, authorises, builds and appends an event, and returns when it is durable. Errors: *matrix.Error for everything
// that the sender is to be told, ErrUnknownRoom, else a fault of the server.
func (s *Service) Send(ctx context.Context, d Draft) (Sent, error) {
	key := txnKey{d.Sender, d.DeviceID, d.TxnScope, d.TxnID}
	if d.TxnScope != "" {
		if id, ok := s.txns.find(key); ok {
			return Sent{EventID: id}, nil
		}
	}
	if err := s.prepare(ctx, &d); err != nil {
		if d.annotation != nil && d.TxnScope != "" { // perhaps it was this very request that made it
			if sent, eerr := s.earlier(ctx, key); eerr == nil {
				return sent, nil
			}
		}
		return Sent{}, unavailable(err)
	}
	for try := 0; try < maxTries; try++ {
		if try == overtaken {
			end, err := s.DB.Prefer(ctx)
			if err != nil {
				return Sent{}, unavailable(err)
			}
			defer end()
		}
		sent, again, err := s.trySend(ctx, &d)
		switch {
		case again && ctx.Err() == nil:
			continue
		case errors.Is(err, storage.ErrDuplicate) && d.TxnScope != "":
			return s.earlier(ctx, key)
		case err != nil:
			return Sent{}, unavailable(err)
		}
		if d.TxnScope != "" {
			s.txns.put(key, sent.EventID)
		}
		return sent, nil
	}
	return Sent{}, fmt.Errorf("%w: %w", ErrBusy, matrix.Errorf(http.StatusServiceUnavailable, matrix.CodeUnknown, "The room is too busy. Please try again.").With("retry_after_ms", 1000))
}

// earlier finds what the first request with a transaction ID sent.
func (s *Service) earlier(ctx context.Context, k txnKey) (Sent, error) {
	var result string
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		var ok bool
		if result, ok, err = tx.FindTxn(k.user, k.device, k.scope, k.txn); err == nil && !ok {
			err = storage.ErrNotFound
		}
		return err
	})
	if err != nil {
		return Sent{}, unavailable(fmt.Errorf("result of transaction: %w", err))
	}
	s.txns.put(k, matrix.EventID(result))
	return Sent{EventID: matrix.EventID(result)}, nil
}

// prepare checks a draft as far as the room does not matter.
func (s *Service) prepare(ctx context.Context, d *Draft) (err error) {
	if len(d.Content) == 0 {
		d.Content = jsontext.Value("{}")
	}
	// The event has the canonical form; policy and the rules read it from the same bytes.
	c, err := canonicaljson.Canonicalize(d.Content, true)
	if err != nil {
		return matrix.BadJSON("The content of the event is not canonical JSON: %v.", err)
	}
	if d.Content = c; c[0] != '{' {
		return matrix.BadJSON("The content of an event must be an object.")
	}
	if err := checkContent(d); err != nil {
		return err
	}
	if d.Type == typeRedaction && d.StateKey == nil {
		return s.prepareRedaction(ctx, d)
	}
	if d.annotation = annotationHash(d); d.annotation != nil {
		return s.checkAnnotation(ctx, d)
	}
	return nil
}

// trySend makes one attempt. again is true where the room has moved on meanwhile.
func (s *Service) trySend(ctx context.Context, d *Draft) (sent Sent, again bool, err error) {
	l, err := s.live(ctx, d.RoomID)
	if err != nil {
		return Sent{}, false, err
	}
	q, err := s.question(ctx, l, d)
	if q == nil || err != nil {
		return Sent{}, err == nil, err
	}
	decision := s.judge(ctx, q)
	if !decision.Allow {
		return Sent{}, false, decision.Error()
	}
	if most := decision.Obligations.HistoryVisibility; opens(q.input) && ShowsMore(q.input.Room.HistoryVisibility, most) {
		err := s.hidePast(ctx, d.RoomID, most, d.Sender)
		return Sent{}, err == nil, err
	}
	f, err := s.launch(ctx, l, d, q, &decision)
	switch {
	case f == nil || err != nil:
		return Sent{}, err == nil, err
	case f.unchanged != "":
		// The event that says the same may still be on its way to the disk.
		return Sent{EventID: f.unchanged}, f.last.wait() != nil, nil
	}
	if err := f.wait(); err != nil {
		s.drop(l)
		f.last.end(err)
		return Sent{}, errors.Is(err, storage.ErrConflict), err
	}
	stored := f.append.Stored[0]
	f.last.moved = stored.ID != f.built
	f.last.end(nil)
	l.committed(f.append, f.built)
	s.graph.redacted(f.append.Redactions)
	s.graph.event(stored)
	return Sent{EventID: stored.ID, Pos: stored.Pos}, false, nil
}

// unlock ends a section in which a room was locked. What a panic has left half done is not built on.
func (s *Service) unlock(l *live, whole *bool) {
	l.gone = l.gone || !*whole
	l.mu.Unlock()
	if !*whole {
		s.drop(l)
	}
}

// question is what policy is asked about a draft; nil where the room has to be loaded again.
func (s *Service) question(ctx context.Context, l *live, d *Draft) (q *question, err error) {
	l.lockFirst()
	whole := false
	defer s.unlock(l, &whole)
	switch {
	case l.gone:
	case !(d.Type == typeMember && d.StateKey != nil) && l.members[d.Sender].membership != auth.Join:
		err = ErrUnknownRoom // who is not in a room does not learn from the answer that it exists
	default:
		q, err = s.ask(ctx, l, d)
	}
	whole = true
	return q, err
}

// flight is what becomes of a draft: an append on its way to the disk, or an event that says the same already.
type flight struct {
	append    *storage.Append
	built     matrix.EventID // the event's ID unless it is put behind another node's
	wait      func() error
	last      *commit
	unchanged matrix.EventID
}

// launch builds the event of a draft that was allowed and hands it to the writer; nil where it was judged on facts that are no longer true.
func (s *Service) launch(ctx context.Context, l *live, d *Draft, q *question, decision *policy.Decision) (f *flight, err error) {
	l.lockFirst()
	whole := false
	defer s.unlock(l, &whole)
	f, err = s.tryLaunch(ctx, l, d, q, decision)
	whole = true
	return f, err
}

// tryLaunch is launch inside the lock.
func (s *Service) tryLaunch(ctx context.Context, l *live, d *Draft, q *question, decision *policy.Decision) (*flight, error) {
	if l.gone || l.epoch != q.epoch || !s.Policy.Fresh(*decision) {
		return nil, nil
	}
	if d.Given != nil {
		if err := d.Given(View{l}); err != nil {
			return nil, err
		}
	}
	a, unchanged, err := s.build(ctx, l, d, decision)
	if err != nil {
		return nil, err
	}
	if unchanged != "" {
		return &flight{unchanged: unchanged, last: l.last}, nil
	}
	if again, err := s.askPolicyServer(ctx, l, d, a); again || err != nil {
		return nil, err
	}
	f := &flight{append: a, built: a.Events[0].Event.ID, last: &commit{done: make(chan struct{})}}
	l.last = f.last
	err = l.apply(a) // before the writer gets it: the next event is built on this one at once
	if err == nil {
		f.wait, err = s.DB.Pending(ctx, a)
	}
	if err != nil {
		f.wait = func() error { return err }
	}
	return f, nil
}

// commit is an append on its way to the disk.
type commit struct {
	done  chan struct{} // closed when it has ended
	err   error
	moved bool // the event was built anew, on a head of another node
}

func (c *commit) end(err error) {
	c.err = err
	close(c.done)
}

// wait returns how a commit ended; nil for none.
func (c *commit) wait() error {
	if c == nil {
		return nil
	}
	<-c.done
	return c.err
}

// build makes the append of a draft on the room's head. Where the draft would not change the state it returns the ID of the event
// that says the same. The caller holds l.mu.
func (s *Service) build(ctx context.Context, l *live, d *Draft, decision *policy.Decision) (a *storage.Append, unchanged matrix.EventID, err error) {
	v := l.room.Version
	if d.StateKey != nil {
		if cur := l.state[event.StateKey{Type: d.Type, Key: *d.StateKey}].event; cur != nil && cur.Sender == d.Sender && string(cur.Content) == string(d.Content) {
			if err := l.mayRepeat(d); err != nil {
				return nil, "", err
			}
			return nil, cur.ID, nil
		}
	}
	draft, rank := l.draft(s, d)
	e, err := event.Build(v, draft)
	if err != nil {
		return nil, "", err
	}
	if err := l.rules.Check(e, &localFacts{l, s}); err != nil {
		return nil, "", denied(err)
	}
	e = s.signNow(e)
	n := storage.NewEvent{Event: e, AuthRank: rank, StateRoot: l.room.Head.StateRoot, DeviceID: d.DeviceID, TxnScope: d.TxnScope, TxnID: d.TxnID,
		DecisionID: decision.ID}
	a = &storage.Append{Room: l.room}
	a.Also = d.also(a)
	if e.StateKey != nil {
		n.Replaces = l.currentID(e.Key())
		a.State = []statemap.Change{{Key: e.Key(), ID: e.ID}}
		if n.StateRoot, a.Nodes, err = statemap.Put(s.loader(ctx), n.StateRoot, a.State); err != nil {
			return nil, "", fmt.Errorf("state of %s: %w", l.id, err)
		}
		for _, node := range a.Nodes {
			s.nodes.put(node.Hash, node.Data)
		}
	}
	if d.target != nil {
		if d.target.Sender != d.Sender && !l.rules.CanRedact(d.Sender) {
			return nil, "", matrix.Forbidden("You may redact only what you have sent.")
		}
		if a.Redactions, err = l.redactions(e, d.target.Event); err != nil {
			return nil, "", err
		}
	}
	a.Events = []storage.NewEvent{n}
	a.Head = headAfter(l.room.Head, e, n.StateRoot)
	if e.StateKey == nil && d.target == nil && l.event(typePolicyServer) == nil {
		a.Rebase = func(h storage.Head) error { return s.rebase(a, draft, h) }
	}
	return a, "", nil
}

// headAfter is the head after an event that is built on a head.
func headAfter(h storage.Head, e *event.Event, root statemap.Hash) storage.Head {
	return storage.Head{Name: string(e.ID), Depth: e.Depth, StateRoot: root, Extremities: append([]matrix.EventID{e.ID}, h.Extremities[len(e.PrevEvents):]...)}
}

// rebase builds a message anew on the head that another node has moved the room to. The state is the same, and with it all that the message
// was judged by.
func (s *Service) rebase(a *storage.Append, draft event.Draft, h storage.Head) error {
	s.place(&draft, a.Room.Version, h)
	e, err := event.Build(a.Room.Version, draft)
	if err != nil {
		return err
	}
	a.Events[0].Event = e
	a.Head = headAfter(h, e, h.StateRoot)
	return nil
}

// mayRepeat tells whether somebody may say what the room says already: the rules are asked as if it were new.
func (l *live) mayRepeat(d *Draft) error {
	if l.members[d.Sender].membership != auth.Join {
		return matrix.Forbidden("You are not in this room.")
	}
	if d.Type != typeMember && !l.rules.CanSend(d.Sender, d.Type, true) {
		return matrix.Forbidden("Your power level is too low to send %s.", d.Type)
	}
	return nil
}

// apply makes what is being committed the head that the next event is built on. The caller holds l.mu.
func (l *live) apply(a *storage.Append) error {
	byID := make(map[matrix.EventID]*storage.Event, len(a.Events))
	for i := range a.Events {
		n := &a.Events[i]
		e := &storage.Event{Event: n.Event, Flags: n.Flags, AuthRank: n.AuthRank, StateRoot: n.StateRoot, Replaces: n.Replaces}
		byID[e.ID], l.flying[e.ID] = e, e
		l.remember(e.ID)
	}
	if err := l.advance(a.Head, a.State, byID); err != nil {
		return err
	}
	return l.applyRedactions(a.Redactions)
}

// committed takes over what only the commit could tell. built is the ID that the one event of an append had before.
func (l *live) committed(a *storage.Append, built matrix.EventID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flying, built)
	for i := range a.Events {
		delete(l.flying, a.Events[i].Event.ID)
	}
	if e := a.Stored[0]; built != "" && e.ID != built {
		l.remember(e.ID)
		if l.room.Head.Name == string(built) { // nothing was built on it meanwhile that will be put elsewhere, too
			l.moveHead(a.Head, e)
		}
	}
	r := *l.room // the old one may be on its way to the disk with the next event
	r.Head.LastPos = max(r.Head.LastPos, a.Room.Head.LastPos)
	r.Head.StatePos = max(r.Head.StatePos, a.Room.Head.StatePos)
	l.room = &r
}

// localFacts are the facts of the current state for events of our own.
type localFacts struct {
	*live
	s *Service
}

// SignedBy implements auth.Facts: what a tenant of ours must sign, it signs (see signNow).
func (f *localFacts) SignedBy(server matrix.ServerName) bool { return f.s.IsLocal(server) }

// signNow signs an event that authorises by its signatures: a join that a resident server vouches for. All other
// events of ours are signed by a follower before anybody outside the process can read them.
func (s *Service) signNow(e *event.Event) *event.Event {
	server, ok := signing.AuthorisingServer(e)
	if !ok {
		return e
	}
	for _, name := range []matrix.ServerName{e.Sender.Server(), server} {
		if k, ok := s.Keys[name]; ok {
			e = signing.SignEvent(e, name, k)
		}
	}
	return e
}
