package room

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/statemap"
)

// judgement is the way of one incoming event through checks 4 to 7. The room is locked.
type judgement struct {
	*batch
	a *arrival
	e *event.Event
	// known is the event where it was stored as an outlier and gets its place now.
	known   *storage.Event
	auth    map[matrix.EventID]*storage.Event
	parents []*storage.Event // those that are stored and not in l.ends
	missing []matrix.EventID // parents that are not stored and stay so
	beyond  []matrix.EventID // what the event follows by way of events that nobody sees, and that is not stored
	rank    int64
	before  statemap.Hash
	after   statemap.Hash
	nodes   []statemap.Node
	flags   storage.Flags
	reason  string
	unread  error // of a look-up of state that could not return it
	why     policy.Decision
}

// refusal is the answer for an event that had to be let in whole.
func (j *judgement) refusal() error {
	if j.flags&storage.Withheld != 0 && !j.why.Allow && j.why.ID != "" {
		return j.why.Error()
	}
	return matrix.Errorf(http.StatusForbidden, matrix.CodeForbidden, "%s", j.reason)
}

// reject notes a verdict of the authorisation rules. Other errors are returned: what could not be read is no verdict.
func (j *judgement) reject(flag storage.Flags, err error) error {
	if j.unread != nil {
		return unavailable(j.unread)
	}
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

// judge runs checks 4 to 7.
//
// spec: server-server-api#checks-performed-on-receipt-of-a-pdu
func (j *judgement) judge() error {
	current := j.l.citesCurrent(j.e)
	if err := j.gather(current); err != nil {
		return err
	}
	// 4. Its auth events allow it. Where those are the current ones, that is asked below.
	if current {
		for _, k := range auth.NeededFor(j.e) {
			if j.l.currentID(k) != "" {
				j.rank = max(j.rank, j.l.rank(k)+1)
			}
		}
	} else if err := j.reject(storage.Rejected, j.checkOwn()); err != nil {
		return err
	}
	if j.a.outlier {
		if current {
			if err := j.reject(storage.Rejected, j.l.rules.Check(j.e, &foreignFacts{j.l, signedBy(j.e)})); err != nil {
				return err
			}
		}
		j.flags |= storage.Outlier
		return nil
	}
	// 5. The state before it allows it.
	if err := j.stateBefore(); err != nil {
		return err
	}
	j.keepNodes(j.nodes)
	now := j.before == j.l.room.Head.StateRoot
	verdict := error(nil)
	if current || now || !j.a.backfilled {
		verdict = j.l.rules.Check(j.e, &foreignFacts{j.l, signedBy(j.e)})
	}
	if current {
		if err := j.reject(storage.Rejected, verdict); err != nil {
			return err
		}
	}
	if j.flags&storage.Rejected == 0 && !now {
		if err := j.reject(storage.Rejected, auth.Check(j.e, j.state(j.at(j.before)), signedBy(j.e))); err != nil {
			return err
		}
	} else if now {
		if err := j.reject(storage.Rejected, verdict); err != nil {
			return err
		}
	}
	if err := j.stateAfter(); err != nil || j.flags&storage.Rejected != 0 {
		return err
	}
	if j.a.backfilled {
		j.flags |= storage.Backfilled
		return j.decide()
	}
	// 6. The current state allows it, else it fails softly.
	if err := j.reject(storage.SoftFailed, verdict); err != nil {
		return err
	}
	if j.flags == 0 && !j.l.aclAllows(j.e.Sender.Server()) {
		j.flags, j.reason = storage.SoftFailed, "the room's server ACL denies the sender's server"
	}
	if j.flags == 0 && !j.l.recommended(j.e) {
		j.flags, j.reason = storage.SoftFailed, "the room's policy server has not signed the event"
	}
	// 7. Policy: what it refuses is withheld.
	return j.decide()
}

// gather finds auth events and parents, or says which are missing. With skip set the auth events are those of the current state.
func (j *judgement) gather(skip bool) error {
	missing := &MissingError{}
	if !skip {
		j.auth = make(map[matrix.EventID]*storage.Event, len(j.e.AuthEvents))
		if err := j.findMany(j.e.AuthEvents); err != nil {
			return unavailable(err)
		}
		for _, id := range j.e.AuthEvents {
			a, err := j.find(id)
			switch {
			case err != nil:
				return unavailable(err)
			case a == nil:
				missing.Auth = append(missing.Auth, id)
			default:
				j.auth[id] = a
				j.rank = max(j.rank, a.AuthRank+1)
			}
		}
	}
	if !j.a.outlier {
		for _, id := range j.e.PrevEvents {
			if _, ok := j.l.ends[id]; ok {
				continue
			}
			p, err := j.find(id)
			switch {
			case err != nil:
				return unavailable(err)
			case p != nil && p.RoomID != j.l.id:
				return fmt.Errorf("%w: %s is an event of another room", ErrDropped, id)
			case p != nil && p.Flags&storage.Outlier == 0:
				j.parents = append(j.parents, p)
			case j.a.stateBefore != nil:
				j.missing = append(j.missing, id)
			default:
				missing.Parents = append(missing.Parents, id)
			}
		}
		if len(j.e.PrevEvents) == 0 && !(j.a.backfilled && j.e.ID == j.l.rules.Create().ID) {
			return fmt.Errorf("%w: it has no parents", ErrDropped)
		}
	}
	if len(missing.Auth)+len(missing.Parents) > 0 {
		return missing
	}
	return nil
}

// checkOwn checks the event against its own auth events.
func (j *judgement) checkOwn() error {
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
		err = auth.Check(j.e, j.state(func(k event.StateKey) (*event.Event, error) { return byKey[k], nil }), signedBy(j.e))
	}
	if err != nil && j.e.Type == auth.TypeCreate {
		j.s.log.WithFields(logrus.Fields{"room_id": j.l.id, "event_id": j.e.ID}).Warn("a second create event came for a room; it was rejected")
	}
	return err
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
			j.unread = fmt.Errorf("state of %s: %w", j.l.id, err)
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
		if c := j.l.state[k].event; c != nil && c.ID == id {
			return c, nil
		}
		e, err := j.find(id)
		if err == nil && e == nil {
			err = fmt.Errorf("state event %s is not stored", id)
		}
		if err != nil {
			return nil, err
		}
		return e.Event, nil
	}
}

// stateBefore resolves the states after the parents.
func (j *judgement) stateBefore() (err error) {
	if j.a.stateBefore != nil {
		return j.givenState()
	}
	roots := make([]statemap.Hash, 0, len(j.e.PrevEvents))
	for _, id := range j.e.PrevEvents {
		if root, ok := j.l.ends[id]; ok {
			roots = append(roots, root)
		}
	}
	for _, p := range j.parents {
		roots = append(roots, p.StateRoot)
	}
	if len(roots) == 0 { // the create event
		return nil
	}
	j.before, j.nodes, err = j.s.resolve(j.ctx, j.l.rules.Create(), roots, j.l.flying)
	return err
}

// givenState is the state before the event as its sender tells it: stored events that their own auth events allow.
func (j *judgement) givenState() (err error) {
	var changes []statemap.Change
	if err := j.findMany(j.a.stateBefore); err != nil {
		return unavailable(err)
	}
	for _, id := range j.a.stateBefore {
		e, err := j.find(id)
		switch {
		case err != nil:
			return unavailable(err)
		case e == nil:
			return &MissingError{Auth: []matrix.EventID{id}}
		case e.StateKey != nil && e.RoomID == j.l.id && e.Flags&storage.Rejected == 0:
			changes = append(changes, statemap.Change{Key: e.Key(), ID: e.ID})
		}
	}
	j.before, j.nodes, err = statemap.Put(j.s.loader(j.ctx), statemap.Hash{}, changes)
	return err
}

func (j *judgement) stateAfter() error {
	j.after = j.before
	if j.e.StateKey == nil || j.flags&storage.Rejected != 0 {
		return nil
	}
	root, nodes, err := statemap.Put(j.s.loader(j.ctx), j.before, []statemap.Change{{Key: j.e.Key(), ID: j.e.ID}})
	if err != nil {
		return err
	}
	j.keepNodes(nodes)
	j.after, j.nodes = root, append(j.nodes, nodes...)
	return nil
}

func (j *judgement) keepNodes(nodes []statemap.Node) {
	for _, n := range nodes {
		j.s.nodes.put(n.Hash, n.Data)
	}
}

// decide asks policy. What it refuses is withheld.
func (j *judgement) decide() (err error) {
	if j.why, err = j.s.judgeForeign(j.ctx, j.l, j.e); err != nil || j.why.Allow {
		return err
	}
	j.flags |= storage.Withheld
	if j.reason == "" {
		j.reason = j.why.Error().Message
	}
	return nil
}
