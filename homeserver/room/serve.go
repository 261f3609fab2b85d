package room

import (
	"context"
	"errors"
	"net/http"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/serveracl"
	"hansa/policy"
	"hansa/storage"
)

// errNotInRoom is the answer to a server that reads from a room that none of its users is in, or that does not exist, or that the
// tenant it asks has nobody in: there is one answer, so that nothing is learnt from it.
func errNotInRoom() *matrix.Error { return matrix.Forbidden("Your server is not in this room.") }

// errNoEvent is the answer where an event is not known, not of the room, or not to be shown.
func errNoEvent() *matrix.Error { return matrix.NotFound("There is no such event here.") }

// InRoom tells whether a user of a server is joined to a room. A room that does not exist has nobody in it.
func (s *Service) InRoom(ctx context.Context, id matrix.RoomID, server matrix.ServerName) (bool, error) {
	l, err := s.live(ctx, id)
	if errors.Is(err, ErrUnknownRoom) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hasJoined(server), nil
}

// hasJoined tells whether a user of a server is joined. The caller holds l.mu.
func (l *live) hasJoined(server matrix.ServerName) bool {
	for user, m := range l.members {
		if m.membership == auth.Join && user.Server() == server {
			return true
		}
	}
	return false
}

// ACLAllows tells whether a room's server ACL lets a server take part. A room that does not exist has none.
//
// spec: server-server-api#server-access-control-lists-acls
func (s *Service) ACLAllows(ctx context.Context, id matrix.RoomID, server matrix.ServerName) (bool, error) {
	l, err := s.live(ctx, id)
	if errors.Is(err, ErrUnknownRoom) {
		return true, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.aclAllows(server), nil
}

// aclAllows applies the server ACL, compiling it once. The caller holds l.mu.
func (l *live) aclAllows(server matrix.ServerName) bool {
	e := l.event(typeServerACL)
	if e == nil {
		return true
	}
	if l.aclOf != e {
		l.aclOf, l.acl = e, serveracl.Parse(e.Content)
	}
	return l.acl.Allowed(server)
}

// reading is one request of another server to read from a room.
type reading struct {
	s       *Service
	ctx     context.Context // of the request
	id      matrix.RoomID
	version *matrix.RoomVersion
	create  matrix.EventID
	server  matrix.ServerName
	// users are those of the reading server who have or had a membership.
	users []matrix.UserID
}

// read lets a server read from a room: it must have somebody in it, as must the tenant that it asks, the room's ACL must allow it, and so
// must the policy of each tenant that takes part. Nothing is said before that about whether the room exists.
func (s *Service) read(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID) (*reading, error) {
	l, err := s.live(ctx, id)
	if errors.Is(err, ErrUnknownRoom) {
		return nil, errNotInRoom()
	}
	if err != nil {
		return nil, unavailable(err)
	}
	r, facts, audience, err := s.reader(ctx, l, as, server)
	if err != nil {
		return nil, unavailable(err)
	}
	for _, tenant := range facts.Tenants {
		d := s.Policy.Decide(ctx, &policy.Input{Point: policy.EventServe, Time: s.Now(), Tenant: policy.Tenant{Name: tenant}, Subject: policy.ServerParty(string(server), false),
			Server: &policy.Server{Name: string(server)}, Room: facts, Audience: audience, Request: &policy.Request{Via: "federation"}})
		if e := d.Error(); e != nil {
			return nil, e
		}
	}
	return r, nil
}

func (s *Service) reader(ctx context.Context, l *live, as, server matrix.ServerName) (*reading, *policy.Room, *policy.Audience, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.hasJoined(server) || !l.hasJoined(as) || !l.aclAllows(server) {
		return nil, nil, nil, errNotInRoom()
	}
	if err := s.gather(ctx, l); err != nil {
		return nil, nil, nil, err
	}
	r := &reading{s: s, ctx: ctx, id: l.id, version: l.room.Version, create: l.rules.Create().ID, server: server}
	for user := range l.members {
		if user.Server() == server {
			r.users = append(r.users, user)
		}
	}
	facts := *l.policyRoom(s)
	facts.Membership = auth.Join
	return r, &facts, l.crowd.audience, nil
}

// EventFor returns one event as a server may have it. The answer is the same for an event that is unknown and one of a room that the
// server has no part in.
//
// spec: server-server-api#get_matrixfederationv1eventeventid
func (s *Service) EventFor(ctx context.Context, as, server matrix.ServerName, id matrix.EventID) ([]byte, error) {
	var e *storage.Event
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { e, err = tx.LoadEvent(id); return err })
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errNoEvent()
	}
	if err != nil {
		return nil, unavailable(err)
	}
	r, err := s.read(ctx, as, server, e.RoomID)
	if err != nil {
		var me *matrix.Error
		if errors.As(err, &me) && me.Status == http.StatusForbidden && me.Message == errNotInRoom().Message {
			return nil, errNoEvent()
		}
		return nil, err
	}
	if e.Flags&storage.Rejected != 0 || e.Flags&storage.Outlier != 0 && e.StateKey == nil {
		return nil, errNoEvent()
	}
	shown, err := r.show([]*storage.Event{e}, true)
	if err != nil {
		return nil, err
	}
	return shown[0], nil
}

// find loads the event that a request names and that must be of the room, with a place in its graph.
func (r *reading) find(id matrix.EventID) (*storage.Event, error) {
	var e *storage.Event
	err := r.s.DB.Read(r.ctx, func(tx *storage.Tx) (err error) { e, err = tx.LoadEvent(id); return err })
	if errors.Is(err, storage.ErrNotFound) || err == nil && (e.RoomID != r.id || e.Flags&storage.Outlier != 0) {
		return nil, errNoEvent()
	}
	return e, unavailable(err)
}

// load reads events of the room in batches; what is not stored is left out.
func (r *reading) load(ids []matrix.EventID) ([]*storage.Event, error) {
	out := make([]*storage.Event, 0, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), serveBatch)
		var found map[matrix.EventID]*storage.Event
		err := r.s.DB.Read(r.ctx, func(tx *storage.Tx) (err error) { found, err = tx.LoadEvents(ids[:n]); return err })
		if err != nil {
			return nil, unavailable(err)
		}
		for _, id := range ids[:n] {
			if e := found[id]; e != nil && e.RoomID == r.id {
				out = append(out, e)
			}
		}
		ids = ids[n:]
	}
	return out, nil
}

// serveBatch is how many events one query reads for another server.
const serveBatch = 1000

// show returns events in the form of the federation API, signed, and those that the server may not read in full redacted: their ID and
// signatures stay valid, so that the graph has no hole. What policy withholds is always redacted, as is what people who are erased have sent before
// the server came. history chooses whether the history
// visibility is asked; the state of a room is not a part of its history.
func (r *reading) show(events []*storage.Event, history bool) ([][]byte, error) {
	signed, err := r.s.Sign(r.ctx, events)
	if err != nil {
		return nil, err
	}
	var seen map[matrix.EventID]bool
	if history {
		if seen, err = r.visible(events); err != nil {
			return nil, unavailable(err)
		}
	}
	erased, err := r.erased(events)
	if err != nil {
		return nil, unavailable(err)
	}
	out := make([][]byte, len(signed))
	for i, e := range signed {
		ev := e.Event
		if e.Flags&storage.Withheld != 0 || history && !seen[e.ID] || erased[e.ID] {
			if ev, err = event.Redact(ev); err != nil {
				return nil, err
			}
		}
		out[i] = event.Federation(ev)
	}
	return out, nil
}
