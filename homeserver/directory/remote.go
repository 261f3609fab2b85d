package directory

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/policy"
)

// Remote asks other servers for aliases and lists. It is declared here because federation stands above this package. Every call is made
// in the name of a tenant, and refused without anything being resolved or dialled where policy does not let that tenant reach the server.
type Remote interface {
	// Alias returns the room of an alias and the servers that know of it.
	Alias(ctx context.Context, as, to matrix.ServerName, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error)
	// PublicRooms returns a page of published rooms.
	PublicRooms(ctx context.Context, as, to matrix.ServerName, q federation.PublicRoomsRequest) (*federation.PublicRoomsAnswer, error)
	// Hierarchy returns what is said of a room and of those in it, a federation.Hierarchy.
	Hierarchy(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, suggestedOnly bool) (jsontext.Value, error)
}

const (
	// remoteTimeout is how long a user waits for another server.
	remoteTimeout = 10 * time.Second
	// maxServers is how many servers of an answer are looked at, maxToken the longest token of another server.
	maxServers = 100
	maxToken   = 1024
	// maxText is the longest text in an entry of another server's list.
	maxText = 4096
)

// reach remembers which servers of an answer the caller's tenant may have to do with.
type reach struct {
	s     *Service
	as    matrix.ServerName
	known map[matrix.ServerName]bool
}

func (s *Service) reach(as matrix.ServerName) *reach {
	return &reach{s: s, as: as, known: map[matrix.ServerName]bool{as: true}}
}

func (r *reach) may(ctx context.Context, name matrix.ServerName) bool {
	ok, known := r.known[name]
	if !known {
		ok = len(r.known) <= maxServers && r.s.Reach != nil && r.s.Reach(ctx, r.as, name) == nil
		r.known[name] = ok
	}
	return ok
}

// resolveRemote asks the server of an alias. Of the servers that it names those remain with which the caller's tenant has to do.
//
// spec: server-server-api#get_matrixfederationv1querydirectory
func (s *Service) resolveRemote(ctx context.Context, c Caller, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	if s.Remote == nil {
		return "", nil, noAlias()
	}
	as, server := c.UserID.Server(), alias.Server()
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	id, servers, err := s.Remote.Alias(ctx, as, server, alias)
	if err != nil {
		s.log.WithField("destination", server).WithError(err).Debug("an alias was not resolved")
		return "", nil, noAlias() // whatever the reason
	}
	r := s.reach(as)
	out := []matrix.ServerName{}
	for _, name := range servers[:min(len(servers), maxServers)] {
		if !slices.Contains(out, name) && r.may(ctx, name) {
			out = append(out, name)
		}
	}
	if !slices.Contains(out, server) {
		out = append(out, server)
	}
	return id, out, nil
}

// listRemote asks another server for a page of its list. Rooms of servers with which the caller's tenant has nothing to do are left out.
//
// spec: server-server-api#post_matrixfederationv1publicrooms
func (s *Service) listRemote(ctx context.Context, c Caller, q Query) (*Page, error) {
	unreachable := matrix.Errorf(http.StatusBadGateway, matrix.CodeUnknown, "The list of %s cannot be had at present.", q.Server)
	if s.Remote == nil {
		return nil, unreachable
	}
	if len(q.Since) > maxToken {
		return nil, matrix.InvalidParam("This is no token of this list.")
	}
	if q.Limit <= 0 {
		q.Limit = listDefault
	}
	ask := federation.PublicRoomsRequest{Limit: min(q.Limit, listMax), Since: q.Since}
	if q.Term != "" || len(q.Types) > 0 {
		ask.Filter = &federation.PublicRoomsFilter{GenericSearchTerm: q.Term, RoomTypes: q.Types}
	}
	as := c.UserID.Server()
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	answer, err := s.Remote.PublicRooms(ctx, as, q.Server, ask)
	var denied *matrix.Error
	if errors.As(err, &denied) {
		return nil, denied
	}
	if err != nil {
		s.log.WithField("destination", q.Server).WithError(err).Debug("a list of rooms was not fetched")
		return nil, unreachable
	}
	r := s.reach(as)
	page := &Page{Chunk: []*Listed{}, NextBatch: token(answer.NextBatch), PrevBatch: token(answer.PrevBatch)}
	for _, raw := range answer.Chunk[:min(len(answer.Chunk), listMax)] {
		if l := readListed(raw); l != nil && (l.RoomID.Server() == "" || r.may(ctx, l.RoomID.Server())) {
			page.Chunk = append(page.Chunk, l)
		}
	}
	return page, nil
}

func token(s string) string {
	if len(s) > maxToken || !utf8.ValidString(s) {
		return ""
	}
	return s
}

// readListed reads an entry of another server's list, nil where it is not well formed.
func readListed(raw jsontext.Value) *Listed {
	l := &Listed{}
	if raw.Kind() != '{' || json.Unmarshal(raw, l) != nil {
		return nil
	}
	if _, err := matrix.ParseRoomID(string(l.RoomID)); err != nil || l.Joined < 0 {
		return nil
	}
	if l.CanonicalAlias != "" {
		if _, err := matrix.ParseRoomAlias(l.CanonicalAlias); err != nil {
			l.CanonicalAlias = ""
		}
	}
	for _, text := range []*string{&l.Name, &l.Topic, &l.AvatarURL, &l.JoinRule, &l.RoomType} {
		if len(*text) > maxText {
			*text = ""
		}
	}
	return l
}

// asServer is a server that asks a tenant.
func asServer(origin matrix.ServerName) Caller {
	return Caller{Server: origin, Subject: policy.ServerParty(string(origin), false), Request: &policy.Request{Via: "federation"}}
}

// ServeAlias tells another server which room an alias of the tenant that it asks leads to. What it may not find is not there.
//
// spec: server-server-api#get_matrixfederationv1querydirectory
func (s *Service) ServeAlias(ctx context.Context, as, origin matrix.ServerName, alias matrix.RoomAlias) (*federation.AliasAnswer, error) {
	if alias.Server() != as {
		return nil, noAlias()
	}
	c := asServer(origin)
	d := s.decide(ctx, c, as, policy.Input{Point: policy.RoomAlias})
	if d.Err != nil {
		return nil, d.Error()
	}
	if !d.Allow {
		return nil, noAlias()
	}
	a, err := s.loadAlias(ctx, alias)
	if err != nil {
		return nil, err
	}
	found, err := s.mayFind(ctx, c, as, a.RoomID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, noAlias()
	}
	return &federation.AliasAnswer{RoomID: a.RoomID, Servers: []matrix.ServerName{as}}, nil
}

// ServePublicRooms gives another server a page of the list of the tenant that it asks, without the rooms that it may not find.
//
// spec: server-server-api#get_matrixfederationv1publicrooms
// spec: server-server-api#published-room-directory
func (s *Service) ServePublicRooms(ctx context.Context, as, origin matrix.ServerName, q federation.PublicRoomsRequest) (*federation.PublicRoomsAnswer, error) {
	c := asServer(origin)
	if e := s.decide(ctx, c, as, policy.Input{Point: policy.RoomAlias}).Error(); e != nil {
		return nil, e
	}
	out := &federation.PublicRoomsAnswer{Chunk: []jsontext.Value{}}
	if q.ThirdPartyInstanceID != "" { // there is no such network
		return out, nil
	}
	want := Query{Limit: q.Limit, Since: q.Since}
	if q.Filter != nil {
		want.Term, want.Types = q.Filter.GenericSearchTerm, q.Filter.RoomTypes
	}
	page, err := s.list(ctx, c, as, want)
	if err != nil {
		return nil, err
	}
	for _, l := range page.Chunk {
		raw, err := json.Marshal(l)
		if err != nil {
			return nil, err
		}
		out.Chunk = append(out.Chunk, raw)
	}
	out.NextBatch, out.PrevBatch = page.NextBatch, page.PrevBatch
	return out, nil
}
