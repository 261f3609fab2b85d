package outbox

import (
	"context"
	"strings"
	"time"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// maxEphemeral is the largest ephemeral EDU, maxWaiting how many of them wait for a server.
const (
	maxEphemeral = 65536
	maxWaiting   = 100
)

// target is something in the log and a server that it concerns.
type target struct {
	to   pair
	item item
	edu  bool
}

// handle finds out whom the entries of the log concern up to a position, and puts them into the queues.
func (s *session) handle(ctx context.Context, entries []storage.Entry, upto int64) error {
	if err := s.roster.warm(ctx, entries); err != nil {
		return err
	}
	now := s.o.Now()
	var list []target
	for i := range entries {
		var err error
		if list, err = s.targets(ctx, list, &entries[i], now); err != nil {
			return err
		}
	}
	list = s.let(ctx, list)
	if err := s.sign(ctx, list); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pos = upto
	for i := range list {
		s.hand(&list[i])
	}
	return nil
}

// targets adds whom an entry concerns.
func (s *session) targets(ctx context.Context, list []target, e *storage.Entry, now time.Time) ([]target, error) {
	switch e.Kind {
	case storage.KindEvent:
		servers, err := s.roster.meet(ctx, e.Event)
		if err != nil || len(servers) == 0 || e.Event.Flags.Hidden() {
			return list, err
		}
		origin := e.Event.Sender.Server()
		as := origin
		if s.o.Rooms.IsLocal(as) == (e.Event.Flags&storage.Relayed != 0) {
			return list, nil // another server sends it
		}
		if !s.o.Rooms.IsLocal(as) {
			as = s.roster.crowd(e.RoomID).tenant
		}
		p := &post{event: e.Event}
		for _, to := range servers {
			if to != origin {
				list = append(list, target{to: pair{as, to}, item: item{pos: e.Pos, at: now, post: p}})
			}
		}
	case storage.KindReceipt:
		as := e.Receipt.UserID.Server()
		if e.Receipt.Type != "m.read" || !s.o.Rooms.IsLocal(as) {
			return list, nil
		}
		for _, to := range s.roster.crowd(e.RoomID).at(e.Pos) {
			if !s.o.may(ctx, to, e.Receipt.UserID, federation.EDUReceipt) {
				continue
			}
			list = append(list, target{to: pair{as, to}, item: item{pos: e.Pos, at: now, receipt: e.Receipt}})
		}
	case storage.KindNotice:
		switch e.Name {
		case storage.NoticeState:
			return list, s.roster.recount(ctx, matrix.RoomID(e.Ref), e.Pos)
		case storage.NoticeOutbox:
			as, to, ok := strings.Cut(e.Ref, " ")
			if ok && s.o.Rooms.IsLocal(matrix.ServerName(as)) && !s.o.Rooms.IsLocal(matrix.ServerName(to)) {
				list = append(list, target{to: pair{matrix.ServerName(as), matrix.ServerName(to)}, item: item{pos: e.Pos, at: now}, edu: true})
			}
		}
	}
	return list, nil
}

// may tells whether a server may be told of a user.
func (o *Outbox) may(ctx context.Context, to matrix.ServerName, user matrix.UserID, typ string) bool {
	return o.May == nil || o.May(ctx, to, user, typ)
}

// let asks the door, and keeps what may be sent.
func (s *session) let(ctx context.Context, list []target) []target {
	answers := map[pair]admission{}
	kept := list[:0]
	for _, t := range list {
		a, known := answers[t.to]
		if !known {
			a = s.admission(ctx, t.to)
			answers[t.to] = a
		}
		switch {
		case a == open, a == unknown, a == parting && t.item.post != nil && t.item.post.parts(t.to):
			kept = append(kept, t)
		case t.edu:
			s.mu.Lock()
			s.gone = append(s.gone, storage.Destination{Tenant: t.to.as, Name: t.to.to, Pos: t.item.pos})
			s.mu.Unlock()
		}
	}
	return kept
}

// admission is what the door says of a server, or said a moment ago.
func (s *session) admission(ctx context.Context, p pair) admission {
	now := s.o.Now()
	s.mu.Lock()
	d, no := s.dests[p], s.refused[p]
	fresh := d != nil && now.Sub(d.asked) < s.o.tune.look && d.admitted != unknown
	var last admission
	if fresh {
		last = d.admitted
	}
	s.mu.Unlock()
	switch {
	case fresh:
		return last
	case !no.IsZero():
		return closed
	case d != nil:
		return s.admit(ctx, d)
	}
	a := s.o.ask(ctx, p)
	if a == closed {
		s.mu.Lock()
		s.refused[p] = now
		s.mu.Unlock()
	}
	return a
}

// sign makes the federation's form of the events, once for all servers.
func (s *session) sign(ctx context.Context, list []target) error {
	var posts []*post
	var events []*storage.Event
	for _, t := range list {
		if p := t.item.post; p != nil && (len(posts) == 0 || posts[len(posts)-1] != p) {
			posts, events = append(posts, p), append(events, p.event)
		}
	}
	if len(events) == 0 {
		return nil
	}
	signed, err := s.o.Rooms.Sign(ctx, events)
	if err != nil {
		return err
	}
	for i, p := range posts {
		p.event, p.pdu = signed[i], event.Federation(signed[i].Event)
	}
	return nil
}

// hand puts an item into the queue of a server. The caller holds mu.
func (s *session) hand(t *target) {
	d := s.dests[t.to]
	if d == nil {
		d = &destination{pair: t.to, row: storage.Destination{Tenant: t.to.as, Name: t.to.to}, place: -1}
		d.stored = d.row
		s.dests[t.to], s.tenants[t.to.as] = d, struct{}{}
	}
	s.add(d, t.item)
}

// ephemeral is an EDU that may get lost.
type ephemeral struct {
	as    matrix.ServerName
	about About
	edu   federation.EDU
}

// spread finds out whom ephemeral EDUs concern.
func (s *session) spread(ctx context.Context) error {
	type known struct {
		servers []matrix.ServerName
		at      time.Time
	}
	cache := map[About]known{}
	for {
		var e ephemeral
		select {
		case <-ctx.Done():
			return nil
		case e = <-s.ephemera:
		}
		key := e.about
		if key.Room != "" {
			key.User = ""
		}
		now := time.Now()
		k, ok := cache[key]
		if !ok || now.Sub(k.at) > ephemeralMemory {
			servers, err := s.concerned(ctx, key)
			if err != nil {
				continue // the database is away: typing can wait
			}
			if len(cache) >= maxRooms {
				clear(cache)
			}
			k = known{servers, now}
			cache[key] = k
		}
		for _, to := range k.servers {
			if s.o.May == nil || s.o.May(ctx, to, e.about.User, e.edu.Type) {
				s.whisper(ctx, pair{e.as, to}, e)
			}
		}
	}
}

// ephemeralMemory is how long it is remembered whom an ephemeral EDU concerns.
const ephemeralMemory = 2 * time.Second

// concerned lists the servers in a room, or those that share one with a user.
func (s *session) concerned(ctx context.Context, about About) (out []matrix.ServerName, err error) {
	err = s.o.DB.Read(ctx, func(tx *storage.Tx) error {
		if about.Room == "" {
			out, err = tx.LoadSharingDestinations(about.User)
			return err
		}
		rooms, err := tx.LoadOutboxRooms([]matrix.RoomID{about.Room}, 1<<62)
		if r := rooms[about.Room]; r != nil {
			for _, s := range r.Servers {
				out = append(out, s.Server)
			}
		}
		return err
	})
	return out, err
}

// whisper lets an ephemeral EDU wait for the next transaction to a server, unless that does not answer at present.
func (s *session) whisper(ctx context.Context, p pair, e ephemeral) {
	if s.admission(ctx, p) != open || !s.o.may(ctx, p.to, e.about.User, e.edu.Type) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dests[p]
	if d == nil {
		d = &destination{pair: p, row: storage.Destination{Tenant: p.as, Name: p.to, Pos: s.pos}, place: -1}
		d.stored = d.row
		s.dests[p], s.tenants[p.as] = d, struct{}{}
	}
	if d.row.Failures > 0 || d.behind {
		s.o.metrics.dropped.Inc()
		return
	}
	for i := range d.keys {
		if d.keys[i] == e.about && d.ephemeral[i].Type == e.edu.Type {
			d.ephemeral[i] = e.edu
			return
		}
	}
	if len(d.ephemeral) >= maxWaiting {
		s.o.metrics.dropped.Inc()
		return
	}
	if !d.pending() {
		d.since = s.o.Now()
	}
	d.ephemeral, d.keys = append(d.ephemeral, e.edu), append(d.keys, e.about)
	s.poke(d, true)
}
