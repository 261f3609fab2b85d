package membership

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
	"hansa/storage"
)

// Remote is what membership asks of other servers; as is the tenant that asks, to the server that is asked. It is declared here because
// federation stands above. An implementation asks the door before it resolves or dials anything.
type Remote interface {
	MakeJoin(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error)
	SendJoin(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) (*federation.JoinAnswer, error)
	MakeLeave(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID) (*federation.Template, error)
	SendLeave(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) error
	MakeKnock(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error)
	SendKnock(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) (*federation.KnockAnswer, error)
	Invite(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, id matrix.EventID, invite federation.Invite) ([]byte, error)
}

// Gate tells whether a tenant may have to do with a server: nil, or a *matrix.Error. It is declared here because the door stands above.
type Gate interface {
	Outbound(ctx context.Context, as, to matrix.ServerName) error
}

const (
	// maxWays is how many servers are asked for one room.
	maxWays = 20
	// asking is how long one server has for an answer before the next one is asked, entering how long entering a room may take once a
	// server has let the user in, parting how long a user waits for other servers to hear that an invitation is refused.
	asking, entering, parting = 20 * time.Second, 3 * time.Minute, 10 * time.Second
)

// errUnusable is wrapped where another server answers with something that must not be signed or entered.
var errUnusable = errors.New("membership: unusable answer")

// isIn tells whether a user of ours is in a room. A room that is unknown has nobody in it.
func (s *Service) isIn(ctx context.Context, id matrix.RoomID) (in bool, err error) {
	err = s.Rooms.Look(ctx, id, func(v room.View) { in, _ = s.inside(v) })
	if errors.Is(err, room.ErrUnknownRoom) {
		return false, nil
	}
	return in, err
}

// isTrue tells whether what is known of a room here is how it is: somebody of ours is in it, or nobody of any server is, so that no other
// server can have changed it.
func (s *Service) isTrue(v room.View) bool {
	ours, theirs := s.inside(v)
	return ours || !theirs
}

// inside tells whether users of ours are in a room; theirs is only right where there are none of them.
func (s *Service) inside(v room.View) (ours, theirs bool) {
	for u, m := range v.Members() {
		if m == auth.Join {
			if s.Rooms.IsLocal(u.Server()) {
				return true, theirs
			}
			theirs = true
		}
	}
	return false, theirs
}

// way is how a user of ours may reach a room that this deployment is not in, and what is known of it.
type way struct {
	// asked is the user's invitation or knock, nil without one.
	asked   *storage.RemoteMember
	servers []matrix.ServerName
	// known is what is known of the room; nothing of it is certain.
	known hearsay
	// version is that of a room that is known here from former days, nil without one.
	version *matrix.RoomVersion
}

// wayTo finds the servers through which a room can be reached: that of whoever invited the user, those that the client names, those
// that were in the room when it was last seen, and that of the room ID.
func (s *Service) wayTo(ctx context.Context, c Caller, id matrix.RoomID, via []matrix.ServerName) (*way, error) {
	w := &way{known: hearsay{federate: true}}
	var m storage.RemoteMember
	var ok bool
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { m, ok, err = tx.FindRemoteMember(id, c.UserID); return err })
	if err != nil {
		return nil, err
	}
	if ok {
		w.asked = &m
		w.known = hear(m.Version, m.Stripped)
		w.known.person(m.Sender)
		w.add(s, m.Via, m.Sender.Server())
	}
	for _, name := range c.Residents {
		w.known.server(name)
	}
	w.add(s, via...)
	w.add(s, c.Residents...)
	err = s.Rooms.Look(ctx, id, func(v room.View) {
		w.version = v.Version()
		var seen []matrix.ServerName
		for u, membership := range v.Members() {
			if name := u.Server(); membership == auth.Join && !slices.Contains(seen, name) && len(seen) < maxWays {
				seen = append(seen, name)
			}
		}
		slices.Sort(seen)
		w.add(s, seen...)
	})
	if err != nil && !errors.Is(err, room.ErrUnknownRoom) {
		return nil, err
	}
	w.add(s, id.Server())
	return w, nil
}

func (w *way) add(s *Service, names ...matrix.ServerName) {
	for _, n := range names {
		if n != "" && !s.Rooms.IsLocal(n) && !slices.Contains(w.servers, n) && len(w.servers) < maxWays {
			w.servers = append(w.servers, n)
		}
	}
}

// decideAfar asks policy about a room that this deployment is not in, before anybody is asked about it. What is known of the room may
// be too little to refuse; it is judged again when more is known.
func (s *Service) decideAfar(ctx context.Context, c Caller, p policy.Point, w *way, id matrix.RoomID) error {
	facts, audience, err := s.hearsayFacts(ctx, &w.known, id, c.UserID.Server())
	if err != nil {
		return err
	}
	if w.asked != nil {
		facts.Membership = w.asked.Membership
	}
	if _, err := s.decide(ctx, c, policy.Input{Point: p, Room: facts, Audience: audience}); err != nil {
		return err
	}
	return s.approve(ctx, c.UserID.Server(), w.known.servers)
}

// approve is nil where a tenant may have to do with all of the servers.
func (s *Service) approve(ctx context.Context, as matrix.ServerName, servers []matrix.ServerName) error {
	for _, name := range servers {
		if s.Gate == nil || s.Rooms.IsLocal(name) {
			continue // tenants are judged user by user
		}
		if err := s.Gate.Outbound(ctx, as, name); err != nil {
			return err
		}
	}
	return nil
}

// outcome is what becomes of asking several servers: the answer that tells most.
type outcome struct {
	rank int
	err  error
}

func (o *outcome) add(rank int, err error) {
	if o.err == nil || rank > o.rank {
		o.rank, o.err = rank, err
	}
}

// note takes note of a server's failure to help, in the form in which the client is told, and reports whether to ask no other server.
//
// spec: server-server-api#restricted-rooms
func (o *outcome) note(s *Service, err error) (final bool) {
	var own *matrix.Error
	status, code, message, ok := s.peerError(err)
	switch {
	case errors.Is(err, errUnusable):
		o.add(1, matrix.Errorf(http.StatusBadGateway, matrix.CodeUnknown, "The other server's answer cannot be used."))
	case !ok && errors.As(err, &own): // the door
		o.add(3, own)
	case !ok:
		o.add(0, matrix.Errorf(http.StatusBadGateway, matrix.CodeUnknown, "No server that is in this room could be reached."))
	case code == matrix.CodeIncompatibleRoom:
		o.add(9, matrix.Errorf(http.StatusBadRequest, matrix.CodeIncompatibleRoom, "This server does not know the version of the room."))
		return true
	case code == matrix.CodeUnableToAuthoriseJoin || code == matrix.CodeUnableToGrantJoin:
		o.add(4, matrix.Errorf(http.StatusBadRequest, code, "%s", message))
	case status == http.StatusForbidden && code == matrix.CodeInviteBlocked:
		o.add(6, matrix.Errorf(status, code, "%s", message))
	case status == http.StatusForbidden:
		o.add(5, matrix.Forbidden("%s", message))
	case status == http.StatusNotFound:
		o.add(2, matrix.NotFound("The other server does not know this room."))
	default:
		o.add(1, matrix.Errorf(http.StatusBadGateway, matrix.CodeUnknown, "The other server could not help."))
	}
	return false
}

// peerError takes apart what another server answered; ok is false where it did not answer.
func (s *Service) peerError(err error) (status int, code, message string, ok bool) {
	if s.PeerError == nil {
		return 0, "", "", false
	}
	if status, code, message, ok = s.PeerError(err); !ok {
		return 0, "", "", false
	}
	const most = 300
	if len(message) > most || message == "" {
		message = "The other server refused."
	}
	return status, code, message, true
}

// turns let one caller at a time do something with a room.
type turns struct {
	mu   sync.Mutex
	held map[matrix.RoomID]chan struct{} // guarded by mu; closed when the turn ends
}

// take waits for the caller's turn. The caller calls release when done.
func (t *turns) take(ctx context.Context, id matrix.RoomID) (release func(), err error) {
	for {
		t.mu.Lock()
		other, busy := t.held[id]
		if !busy {
			done := make(chan struct{})
			t.held[id] = done
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.held, id)
				t.mu.Unlock()
				close(done)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
