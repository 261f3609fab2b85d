package directory

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
)

const (
	// farPatience is how long one request waits for other servers in all, maxAsks how many requests it makes of them, maxVia of how many
	// servers about one room, farAtOnce how many at the same time.
	farPatience = 15 * time.Second
	maxAsks     = 60
	maxVia      = 3
	farAtOnce   = 8
	// farLife is how long an answer is used. That there was none counts for farFailure, and for as long as it took to find that out a few times.
	farLife    = 2 * time.Minute
	farFailure = 5 * time.Second
	// maxFar is how many rooms are kept in all.
	maxFar = 20_000
)

// farSpace is what another server has said of a room and of those in it.
type farSpace struct {
	room     *Summary
	children map[matrix.RoomID]*Summary
	barred   map[matrix.RoomID]bool
}

// far asks other servers about a room that is not known here.
//
// spec: client-server-api#server-behaviour-19
// spec: server-server-api#get_matrixfederationv1hierarchyroomid
func (k *seeker) far(ctx context.Context, p place, suggested bool) (*found, error) {
	if k.c.Server != "" || k.s.Remote == nil || p.barred {
		return nil, nil
	}
	sum, said := p.given, (*farSpace)(nil)
	server := matrix.ServerName("")
	if sum == nil || sum.RoomType == typeSpace {
		for _, server = range k.helpers(ctx, p.via) {
			if said = k.ask(ctx, server, p.id, suggested); said != nil {
				break
			}
		}
		if said != nil {
			sum = said.room
		}
	}
	if said == nil && sum != nil {
		server = sum.from
	}
	if sum == nil {
		return nil, nil
	}
	if ok, err := k.mayEnter(ctx, sum, server); err != nil || !ok {
		return nil, err
	}
	shown := *sum // what is kept is for others, too
	shown.Children = []*Child{}
	f := &found{sum: &shown}
	if a, err := matrix.ParseRoomAlias(shown.CanonicalAlias); err == nil && !k.may(ctx, a.Server()) {
		shown.CanonicalAlias = ""
	}
	if shown.RoomType != typeSpace || sum.Children == nil {
		return f, nil
	}
	list := make([]*Child, len(sum.Children))
	for i, c := range sum.Children {
		one := *c
		one.Content.Via = slices.Clone(c.Content.Via)
		list[i] = &one
	}
	var err error
	if shown.Children, err = k.showFar(ctx, list); err != nil {
		return nil, err
	}
	for _, c := range shown.Children {
		below := place{id: c.RoomID, via: c.Content.Via, depth: p.depth + 1}
		if said != nil {
			below.given, below.barred = said.children[c.RoomID], said.barred[c.RoomID]
		}
		f.below = append(f.below, below)
	}
	return f, nil
}

// showFar leaves out of what another server says is in a space what comes from servers with which the tenant has nothing to do, and
// what is known better here.
func (k *seeker) showFar(ctx context.Context, list []*Child) ([]*Child, error) {
	list = slices.DeleteFunc(list, func(c *Child) bool { return !k.may(ctx, c.Sender.Server()) })
	ids := make([]matrix.RoomID, len(list))
	for i, c := range list {
		ids[i] = c.RoomID
	}
	here, err := k.s.here(ctx, ids)
	if err != nil {
		return nil, err
	}
	return k.show(ctx, list, here)
}

// helpers are the servers that may be asked about a room: not the tenants of this deployment, which know what is known here.
func (k *seeker) helpers(ctx context.Context, via []matrix.ServerName) []matrix.ServerName {
	var out []matrix.ServerName
	for _, name := range via {
		if len(out) < maxVia && name != k.as && !k.s.Rooms.IsLocal(name) && k.may(ctx, name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// mayEnter tells whether the caller could enter or read a room by what another server says of it, and may hear of it by policy: the point
// room.alias about the server, as for everything that is looked up elsewhere, and directory.rooms about the room as it is said to be.
func (k *seeker) mayEnter(ctx context.Context, sum *Summary, server matrix.ServerName) (bool, error) {
	open := sum.WorldReadable
	switch sum.JoinRule {
	case "", auth.JoinRulePublic, auth.JoinRuleKnock, auth.JoinRuleKnockRestricted: // without one it is public
		open = true
	}
	if !open {
		invited, err := k.invitedBy(ctx, sum.RoomID)
		if err != nil {
			return false, err
		}
		if open = invited != ""; !open && sum.JoinRule == auth.JoinRuleRestricted {
			if open, err = k.allowedBy(ctx, sum.AllowedRooms); err != nil {
				return false, err
			}
		}
	}
	if !open {
		return false, nil
	}
	history := "shared"
	if sum.WorldReadable {
		history = "world_readable"
	}
	facts := &policy.Room{ID: string(sum.RoomID), Version: sum.Version, Type: sum.RoomType, Tenant: string(server), JoinRule: sum.JoinRule, HistoryVisibility: history,
		Encrypted: sum.Encryption != "", Federate: true, Members: sum.Joined, Pools: []string{}, Labels: []string{}, Servers: []string{string(server)}, Tenants: []string{}}
	for _, in := range []policy.Input{{Point: policy.RoomAlias}, {Point: policy.DirectoryRooms, Room: facts, Audience: policy.NewAudience()}} {
		in.Server = &policy.Server{Name: string(server)}
		d := k.s.decide(ctx, k.c, k.as, in)
		if d.Err != nil {
			return false, d.Error()
		}
		if !d.Allow {
			return false, nil
		}
	}
	return true, nil
}

// ask returns what a server says of a room, nil for nothing. It is kept for a while, for the tenant that has asked.
func (k *seeker) ask(ctx context.Context, server matrix.ServerName, id matrix.RoomID, suggested bool) *farSpace {
	key := farKey{k.as, server, id, suggested}
	if said, ok := k.s.far.find(key, k.s.Now()); ok {
		return said
	}
	left := k.until.Sub(k.s.Now())
	if k.asks++; k.asks > maxAsks || left <= 0 {
		return nil
	}
	return k.s.fetchSpace(ctx, key, min(left, remoteTimeout))
}

// ForgetFar forgets what other servers have said of their rooms.
func (s *Service) ForgetFar() { s.far.forget() }

// fetchSpace asks a server. The caller has asked whether the tenant may.
func (s *Service) fetchSpace(ctx context.Context, key farKey, patience time.Duration) *farSpace {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start, life, asked := s.Now(), farLife, s.far.asking()
	raw, err := s.Remote.Hierarchy(ctx, key.as, key.server, key.room, key.suggested)
	var said *farSpace
	if err == nil {
		said = readSpace(raw, key)
	} else {
		s.log.WithField("destination", key.server).WithError(err).Debug("a room is not described")
		if ctx.Err() != nil && patience < remoteTimeout {
			return nil // it had no time
		}
	}
	if said == nil {
		life = farFailure + 5*s.Now().Sub(start)
	}
	s.far.put(key, said, s.Now().Add(life), asked)
	return said
}

// prefetch asks about those of the next rooms that are not known here, several at the same time. Which servers may be asked is found out before.
func (k *seeker) prefetch(ctx context.Context, next []place, here map[matrix.RoomID]bool, q TreeQuery) {
	if k.c.Server != "" || k.s.Remote == nil {
		return
	}
	var todo []farKey
	for i, p := range next {
		if i >= q.Limit || k.asks >= maxAsks {
			break
		}
		if here[p.id] || !k.mayRoom(ctx, p.id) {
			continue
		}
		if names := k.helpers(ctx, p.via); len(names) > 0 {
			key := farKey{k.as, names[0], p.id, q.SuggestedOnly}
			if _, ok := k.s.far.find(key, k.s.Now()); !ok {
				todo = append(todo, key)
				k.asks++
			}
		}
	}
	left := k.until.Sub(k.s.Now())
	if len(todo) < 2 || left <= 0 {
		k.asks -= len(todo)
		return
	}
	stream.Spread(len(todo), farAtOnce, func(i int) { k.s.fetchSpace(ctx, todo[i], min(left, remoteTimeout)) })
}

// readSpace reads the answer of another server, nil where it is not about the room.
func readSpace(raw jsontext.Value, key farKey) *farSpace {
	var a federation.Hierarchy
	if json.Unmarshal(raw, &a) != nil {
		return nil
	}
	out := &farSpace{room: readSummary(a.Room, key.server), children: map[matrix.RoomID]*Summary{}, barred: map[matrix.RoomID]bool{}}
	if out.room == nil || out.room.RoomID != key.room {
		return nil
	}
	for _, r := range a.Children[:min(len(a.Children), maxChildren)] {
		if sum := readSummary(r, key.server); sum != nil {
			sum.Children = nil // of those in a space below nothing is known yet
			out.children[sum.RoomID] = sum
		}
	}
	for _, id := range a.InaccessibleChildren[:min(len(a.InaccessibleChildren), maxChildren)] {
		out.barred[id] = true
	}
	return out
}

// readSummary reads what another server says of a room, nil where it is not well formed.
func readSummary(raw jsontext.Value, from matrix.ServerName) *Summary {
	l := readListed(raw)
	if l == nil {
		return nil
	}
	var more struct {
		Allowed    []matrix.RoomID  `json:"allowed_room_ids"`
		Encryption string           `json:"encryption"`
		Version    string           `json:"room_version"`
		Children   []jsontext.Value `json:"children_state"`
	}
	if json.Unmarshal(raw, &more) != nil {
		return nil
	}
	sum := &Summary{Listed: *l, from: from, Encryption: short(more.Encryption), Version: short(more.Version)}
	for _, id := range more.Allowed[:min(len(more.Allowed), auth.MaxConditions)] {
		if _, err := matrix.ParseRoomID(string(id)); err == nil {
			sum.AllowedRooms = append(sum.AllowedRooms, id)
		}
	}
	if more.Children == nil {
		return sum
	}
	sum.Children = []*Child{}
	for _, r := range more.Children[:min(len(more.Children), maxChildren)] {
		var e struct {
			Type     string         `json:"type"`
			StateKey string         `json:"state_key"`
			Content  jsontext.Value `json:"content"`
			Sender   string         `json:"sender"`
			TS       int64          `json:"origin_server_ts"`
		}
		if json.Unmarshal(r, &e) != nil || e.Type != typeChild || e.Content.Kind() != '{' {
			continue
		}
		if _, err := matrix.ParseUserID(e.Sender); err != nil {
			continue
		}
		if c := readChild(e.StateKey, e.Content, matrix.UserID(e.Sender), e.TS); c != nil {
			sum.Children = append(sum.Children, c)
		}
	}
	slices.SortFunc(sum.Children, compareChildren)
	return sum
}

// short is a word of another server, empty where it is no word.
func short(s string) string {
	if len(s) > 64 {
		return ""
	}
	return s
}

// farKey says who has asked whom about which room.
type farKey struct {
	as, server matrix.ServerName
	room       matrix.RoomID
	suggested  bool
}

// farRooms keeps what other servers have said of their rooms.
type farRooms struct {
	mu     sync.Mutex // guards what follows
	kept   map[farKey]*list.Element
	used   *list.List // of *farEntry, the newest first
	size   int
	forgot uint64 // how often all was forgotten
}

type farEntry struct {
	key   farKey
	said  *farSpace
	until time.Time
}

func (e *farEntry) size() int {
	if e.said == nil {
		return 1
	}
	return 1 + len(e.said.children) + len(e.said.room.Children) + len(e.said.barred)
}

func newFarRooms() *farRooms { return &farRooms{kept: map[farKey]*list.Element{}, used: list.New()} }

// find returns what is kept. ok with nothing says that the server was asked in vain.
func (f *farRooms) find(key farKey, now time.Time) (said *farSpace, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.kept[key]
	if e == nil {
		return nil, false
	}
	entry := e.Value.(*farEntry)
	if !entry.until.After(now) {
		f.drop(e)
		return nil, false
	}
	f.used.MoveToFront(e)
	return entry.said, true
}

// asking is to be called before a server is asked, and handed to put.
func (f *farRooms) asking() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.forgot
}

// forget forgets everything, also what is being asked now.
func (f *farRooms) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.kept)
	f.used.Init()
	f.size = 0
	f.forgot++
}

// put keeps an answer, unless all was forgotten while the server was asked.
func (f *farRooms) put(key farKey, said *farSpace, until time.Time, asked uint64) {
	entry := &farEntry{key: key, said: said, until: until}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgot != asked {
		return
	}
	if e := f.kept[key]; e != nil {
		f.drop(e)
	}
	f.kept[key] = f.used.PushFront(entry)
	for f.size += entry.size(); f.size > maxFar; {
		f.drop(f.used.Back())
	}
}

// drop forgets an answer. The caller holds mu.
func (f *farRooms) drop(e *list.Element) {
	entry := f.used.Remove(e).(*farEntry)
	delete(f.kept, entry.key)
	f.size -= entry.size()
}
