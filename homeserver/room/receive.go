package room

import (
	"context"
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/serveracl"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/statemap"
)

// Incoming is an event from another server.
type Incoming struct {
	RoomID matrix.RoomID
	// JSON is the PDU as it was received.
	JSON []byte
	// Outlier marks an event that was fetched as auth event or state: it gets no place in the timeline and is judged by
	// its auth events alone.
	Outlier bool
	// StateBefore is the state before the event where its parents are unknown and stay so: stored events, one a key.
	StateBefore []matrix.EventID
}

// Received says what became of an incoming event.
type Received struct {
	EventID matrix.EventID
	// Known is true where the event was stored before.
	Known bool
	// Flags tell how it was judged; none means that clients see it.
	Flags storage.Flags
	// Reason says why it was rejected, soft-failed or withheld.
	Reason string
	Pos    int64
}

// MissingError names events that must be stored before an incoming one can be judged.
type MissingError struct {
	Auth, Parents []matrix.EventID
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("room: %d auth events and %d parents are missing", len(e.Auth), len(e.Parents))
}

// ErrDropped is wrapped where an incoming event is malformed or not signed by whom it must be: it is not stored at all.
var ErrDropped = errors.New("room: event dropped")

// ErrUndecided is returned where policy could not answer; the sender must try again.
var ErrUndecided = errors.New("room: policy could not decide")

// Receive takes in an event of another server: the checks of the specification in their order, policy the last. An event that is
// rejected, fails softly or is withheld is stored and no error.
//
// spec: server-server-api#checks-performed-on-receipt-of-a-pdu
func (s *Service) Receive(ctx context.Context, in Incoming) (Received, error) {
	for try := 0; ; try++ {
		l, err := s.live(ctx, in.RoomID)
		if err != nil {
			return Received{}, unavailable(err)
		}
		r, stale, err := s.tryReceive(ctx, l, in)
		if stale || errors.Is(err, storage.ErrConflict) {
			s.drop(l)
		}
		if try < maxTries && errors.Is(err, storage.ErrConflict) {
			continue
		}
		return r, err
	}
}

// tryReceive makes one attempt. stale is true where the room in memory no longer tells the truth.
func (s *Service) tryReceive(ctx context.Context, l *live, in Incoming) (r Received, stale bool, err error) {
	// 1. The event is valid; 3. an event whose content hash is wrong goes on redacted.
	e, err := event.Parse(l.room.Version, in.JSON)
	if err != nil {
		return Received{}, false, fmt.Errorf("%w: %w", ErrDropped, err)
	}
	if e.RoomID != in.RoomID {
		return Received{}, false, fmt.Errorf("%w: it belongs to room %s", ErrDropped, e.RoomID)
	}
	// 2. It carries the signatures it needs.
	if err := s.verify(ctx, e); err != nil {
		return Received{EventID: e.ID}, false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return Received{}, false, storage.ErrConflict
	}
	j := &judgement{s: s, ctx: ctx, l: l, in: in, e: e}
	if known, err := j.load(); err != nil || known != nil {
		return j.known(known), false, err
	}
	if err := j.check(); err != nil {
		return Received{EventID: e.ID}, false, err
	}
	return j.append()
}

// verify checks the signatures that the event must carry.
//
// spec: server-server-api#validating-hashes-and-signatures-on-received-events
func (s *Service) verify(ctx context.Context, e *event.Event) error {
	for _, server := range signing.RequiredServers(e) {
		valid := false
		for id := range signing.Signatures(e.Signatures, server) {
			if id == signing.PolicyServerKeyID {
				continue
			}
			key, err := s.publicKey(ctx, server, id, e.OriginServerTS)
			if err != nil {
				continue // an unknown key proves nothing
			}
			if err := signing.VerifyEvent(e, server, id, key); err != nil {
				return fmt.Errorf("%w: signature of %s: %w", ErrDropped, server, err)
			}
			valid = true
		}
		if !valid {
			return fmt.Errorf("%w: no valid signature of %s", ErrDropped, server)
		}
	}
	return nil
}

func (s *Service) publicKey(ctx context.Context, server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
	if k, ok := s.Keys[server]; ok && k.ID == id {
		return k.Public(), nil
	}
	if s.Keyring == nil {
		return signing.PublicKey{}, fmt.Errorf("no key %s of %s", id, server)
	}
	return s.Keyring.PublicKey(ctx, server, id, at)
}

// judgement is the way of one incoming event through the checks. The room is locked.
type judgement struct {
	s       *Service
	ctx     context.Context
	l       *live
	in      Incoming
	e       *event.Event
	parents map[matrix.EventID]*storage.Event
	auth    map[matrix.EventID]*storage.Event
	before  statemap.Hash
	after   statemap.Hash
	nodes   []statemap.Node
	flags   storage.Flags
	reason  string
	why     policy.Decision
}

func (j *judgement) known(e *storage.Event) Received {
	if e == nil {
		return Received{EventID: j.e.ID}
	}
	return Received{EventID: e.ID, Known: true, Flags: e.Flags, Pos: e.Pos}
}

// load fetches what the checks read, or says what is missing.
func (j *judgement) load() (*storage.Event, error) {
	ids := append(append([]matrix.EventID{j.e.ID}, j.e.AuthEvents...), j.e.PrevEvents...)
	ids = append(ids, j.in.StateBefore...)
	var all map[matrix.EventID]*storage.Event
	err := j.s.DB.Read(j.ctx, func(tx *storage.Tx) (err error) { all, err = tx.LoadEvents(ids); return err })
	if err != nil {
		return nil, err
	}
	for _, id := range append([]matrix.EventID{j.e.ID}, j.e.PrevEvents...) {
		if e := all[id]; e != nil && e.RoomID != j.l.id {
			return nil, fmt.Errorf("%w: %s is an event of another room", ErrDropped, id)
		}
	}
	if e := all[j.e.ID]; e != nil && (j.in.Outlier || e.Flags&storage.Outlier == 0) {
		return e, nil
	}
	j.auth, j.parents = map[matrix.EventID]*storage.Event{}, map[matrix.EventID]*storage.Event{}
	missing := &MissingError{}
	for _, id := range j.e.AuthEvents {
		if e := all[id]; e != nil {
			j.auth[id] = e
		} else {
			missing.Auth = append(missing.Auth, id)
		}
	}
	for _, id := range j.e.PrevEvents {
		if e := all[id]; e != nil && e.Flags&storage.Outlier == 0 {
			j.parents[id] = e
		} else if !j.in.Outlier && j.in.StateBefore == nil {
			missing.Parents = append(missing.Parents, id)
		}
	}
	if len(missing.Auth)+len(missing.Parents) > 0 {
		return nil, missing
	}
	return nil, nil
}

func (j *judgement) reject(flag storage.Flags, err error) error {
	var d *auth.Denied
	if !errors.As(err, &d) {
		return err
	}
	j.flags |= flag
	if j.reason == "" {
		j.reason = d.Reason
	}
	return nil
}

// check runs checks 4 to 7.
func (j *judgement) check() error {
	// 4. Its auth events allow it.
	list := make([]*event.Event, 0, len(j.auth))
	byKey := map[event.StateKey]*event.Event{}
	for _, e := range j.auth {
		list = append(list, e.Event)
		if e.StateKey != nil {
			byKey[e.Key()] = e.Event
		}
	}
	err := auth.CheckAuthEvents(j.e, list, func(id matrix.EventID) bool { a := j.auth[id]; return a != nil && a.Flags&storage.Rejected != 0 })
	if err == nil {
		err = auth.Check(j.e, j.state(func(k event.StateKey) (*event.Event, error) { return byKey[k], nil }), j.signed)
	}
	if err = j.reject(storage.Rejected, err); err != nil {
		return err
	}
	if j.flags != 0 && j.e.Type == auth.TypeCreate {
		j.s.log.WithFields(logrus.Fields{"room_id": j.l.id, "event_id": j.e.ID}).Warn("a second create event came for a room; it was rejected")
	}
	if j.in.Outlier {
		j.flags |= storage.Outlier
		return nil
	}
	// 5. The state before it allows it.
	if err := j.stateBefore(); err != nil {
		return err
	}
	if j.flags&storage.Rejected == 0 {
		if err := j.reject(storage.Rejected, auth.Check(j.e, j.state(j.at(j.before)), j.signed)); err != nil {
			return err
		}
	}
	if err := j.stateAfter(); err != nil || j.flags&storage.Rejected != 0 {
		return err
	}
	// 6. The current state allows it, else it fails softly.
	if err := j.reject(storage.SoftFailed, j.l.rules.Check(j.e, &foreignFacts{j.l, j.signed})); err != nil {
		return err
	}
	if j.flags == 0 && !j.aclAllows() {
		j.flags, j.reason = storage.SoftFailed, "the room's server ACL denies the sender's server"
	}
	// 7. Policy: what it refuses is withheld.
	return j.decide()
}

func (j *judgement) signed(server matrix.ServerName) bool {
	for id := range signing.Signatures(j.e.Signatures, server) {
		if id == signing.PolicyServerKeyID {
			continue
		}
		key, err := j.s.publicKey(j.ctx, server, id, j.e.OriginServerTS)
		if err == nil && signing.VerifyEvent(j.e, server, id, key) == nil {
			return true
		}
	}
	return false
}

// foreignFacts are the facts of the current state for somebody else's event.
type foreignFacts struct {
	*live
	signed func(matrix.ServerName) bool
}

// SignedBy implements auth.Facts.
func (f *foreignFacts) SignedBy(server matrix.ServerName) bool { return f.signed(server) }

// state adapts a look-up for package auth. The create event of room version 12 is never among auth events: the room ID names it.
func (j *judgement) state(find func(event.StateKey) (*event.Event, error)) auth.State {
	return func(typ, key string) *event.Event {
		if typ == auth.TypeCreate && key == "" {
			return j.l.rules.Create()
		}
		e, err := find(event.StateKey{Type: typ, Key: key})
		if err != nil {
			j.s.log.WithError(err).WithField("room_id", j.l.id).Error("state could not be read while an event was judged")
		}
		return e
	}
}

func (j *judgement) at(root statemap.Hash) func(event.StateKey) (*event.Event, error) {
	return func(k event.StateKey) (*event.Event, error) {
		id, err := statemap.Get(j.s.loader(j.ctx), root, k)
		if err != nil || id == "" {
			return nil, err
		}
		var e *storage.Event
		err = j.s.DB.Read(j.ctx, func(tx *storage.Tx) (err error) { e, err = tx.LoadEvent(id); return err })
		if err != nil {
			return nil, err
		}
		return e.Event, nil
	}
}

// stateBefore resolves the states after the parents.
func (j *judgement) stateBefore() error {
	if j.in.StateBefore != nil {
		return j.givenState()
	}
	var roots []statemap.Hash
	for _, id := range j.e.PrevEvents {
		roots = append(roots, j.parents[id].StateRoot)
	}
	if len(roots) == 0 {
		return fmt.Errorf("%w: it has no parents", ErrDropped)
	}
	root, nodes, err := j.s.resolve(j.ctx, j.l.rules.Create(), roots, nil)
	j.before, j.nodes = root, nodes
	return err
}

func (j *judgement) givenState() error {
	var events map[matrix.EventID]*storage.Event
	err := j.s.DB.Read(j.ctx, func(tx *storage.Tx) (err error) { events, err = tx.LoadEvents(j.in.StateBefore); return err })
	if err != nil {
		return err
	}
	var changes []statemap.Change
	for _, id := range j.in.StateBefore {
		e := events[id]
		if e == nil {
			return &MissingError{Auth: []matrix.EventID{id}}
		}
		if e.StateKey != nil && e.RoomID == j.l.id && e.Flags&storage.Rejected == 0 {
			changes = append(changes, statemap.Change{Key: e.Key(), ID: e.ID})
		}
	}
	j.before, j.nodes, err = statemap.Put(j.s.loader(j.ctx), statemap.Hash{}, changes)
	return err
}

func (j *judgement) stateAfter() error {
	j.after = j.before
	if j.e.StateKey != nil && j.flags&storage.Rejected == 0 {
		for _, n := range j.nodes {
			j.s.nodes.put(n.Hash, n.Data)
		}
		root, nodes, err := statemap.Put(j.s.loader(j.ctx), j.before, []statemap.Change{{Key: j.e.Key(), ID: j.e.ID}})
		if err != nil {
			return err
		}
		j.after, j.nodes = root, append(j.nodes, nodes...)
	}
	for _, n := range j.nodes {
		j.s.nodes.put(n.Hash, n.Data)
	}
	return nil
}

// aclAllows applies the room's server ACL to the sender's server. The ACL is compiled once.
//
// spec: client-server-api#server-access-control-lists-acls-for-rooms
func (j *judgement) aclAllows() bool {
	e := j.l.event(typeServerACL)
	if e == nil {
		return true
	}
	if j.l.aclOf != e {
		j.l.aclOf, j.l.acl = e, serveracl.Parse(e.Content)
	}
	return j.l.acl.Allowed(j.e.Sender.Server())
}

func (j *judgement) decide() error {
	d := &Draft{RoomID: j.l.id, Sender: j.e.Sender, Type: j.e.Type, StateKey: j.e.StateKey, Content: j.e.Content}
	q, err := j.s.ask(j.ctx, j.l, d)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	for _, tenant := range q.input.Room.Tenants {
		in := *q.input
		in.Point, in.Tenant = policy.EventReceive, policy.Tenant{Name: tenant}
		in.Server = &policy.Server{Name: string(j.e.Sender.Server()), Local: j.s.IsLocal(j.e.Sender.Server())}
		j.why = j.s.Policy.Decide(j.ctx, &in)
		if j.why.Err != nil {
			return fmt.Errorf("%w: %w", ErrUndecided, j.why.Err)
		}
		if !j.why.Allow {
			j.flags |= storage.Withheld
			if j.reason == "" {
				j.reason = j.why.Error().Message
			}
			return nil
		}
	}
	return nil
}

// append stores the event with its verdict, and moves the room's head where it becomes part of it.
func (j *judgement) append() (r Received, stale bool, err error) {
	l, e := j.l, j.e
	r.EventID = e.ID
	n := storage.NewEvent{Event: e, Flags: j.flags, AuthRank: j.rank(), StateRoot: j.after, DecisionID: j.why.ID}
	if e.StateKey != nil && !j.in.Outlier {
		if n.Replaces, err = statemap.Get(j.s.loader(j.ctx), j.before, e.Key()); err != nil {
			return r, false, err
		}
	}
	a := &storage.Append{Room: l.room, Events: []storage.NewEvent{n}, Nodes: j.nodes, Head: l.room.Head}
	a.Head.Name = string(e.ID)
	if !j.flags.Hidden() {
		if err := j.join(a); err != nil {
			return r, false, err
		}
	}
	if err := j.awaited(a); err != nil {
		return r, false, err
	}
	// The room stays locked until the event is durable: whoever comes next must see the head that it leaves.
	if err := j.s.DB.Append(j.ctx, a); err != nil {
		return r, true, err
	}
	r.Flags, r.Reason, r.Pos = j.flags, j.reason, a.Stored[0].Pos
	for _, c := range a.State {
		stale = stale || c.ID != e.ID // resolution brought other events back: read the room again
	}
	if stale {
		return r, true, nil
	}
	room := a.Room
	if err := l.apply(a); err != nil {
		return r, true, err
	}
	l.room = room
	return r, false, nil
}

func (j *judgement) rank() (rank int64) {
	for _, a := range j.auth {
		rank = max(rank, a.AuthRank+1)
	}
	return rank
}

// join makes the event an extremity and resolves the current state anew.
func (j *judgement) join(a *storage.Append) error {
	l, e := j.l, j.e
	replaced := map[matrix.EventID]bool{}
	for _, id := range e.PrevEvents {
		replaced[id] = true
	}
	a.Head.Extremities = []matrix.EventID{e.ID}
	for _, id := range l.room.Head.Extremities {
		if !replaced[id] {
			a.Head.Extremities = append(a.Head.Extremities, id)
		}
	}
	a.Head.Depth = max(l.room.Head.Depth, e.Depth)
	a.Head.StateRoot = j.after
	if len(a.Head.Extremities) > 1 {
		if err := j.mergeHead(a); err != nil {
			return err
		}
	}
	diff, err := statemap.Diff(j.s.loader(j.ctx), l.room.Head.StateRoot, a.Head.StateRoot)
	if err != nil {
		return err
	}
	for _, d := range diff {
		a.State = append(a.State, statemap.Change{Key: d.Key, ID: d.B})
	}
	return j.redact(a)
}

// mergeHead resolves the states of all extremities.
func (j *judgement) mergeHead(a *storage.Append) error {
	roots := []statemap.Hash{j.after}
	var others map[matrix.EventID]*storage.Event
	err := j.s.DB.Read(j.ctx, func(tx *storage.Tx) (err error) { others, err = tx.LoadEvents(a.Head.Extremities[1:]); return err })
	if err != nil {
		return err
	}
	for _, id := range a.Head.Extremities[1:] {
		o := others[id]
		if o == nil {
			return fmt.Errorf("extremity %s of %s is not stored", id, j.l.id)
		}
		roots = append(roots, o.StateRoot)
	}
	// The event itself is not stored yet; state resolution must find it all the same.
	self := &storage.Event{Event: j.e, Flags: j.flags, AuthRank: j.rank()}
	root, nodes, err := j.s.resolve(j.ctx, j.l.rules.Create(), roots, self)
	a.Head.StateRoot = root
	a.Nodes = append(a.Nodes, nodes...)
	return err
}
