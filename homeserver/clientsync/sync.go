package clientsync

import (
	"context"
	"errors"
	"time"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/filter"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/statemap"
)

// Types of events that this package reads.
const (
	typeMember  = "m.room.member"
	typeHistory = "m.room.history_visibility"
)

const (
	defaultTimeline = 10
	maxTimeline     = 1000
	toDeviceMax     = 100
	// MaxTimeout is the longest that a sync waits.
	MaxTimeout = 2 * time.Minute
)

// Request is one /sync.
type Request struct {
	User   matrix.UserID
	Device matrix.DeviceID
	Party  *policy.Party
	// Since is nil for a first sync.
	Since     *Token
	Timeout   time.Duration
	FullState bool
	Filter    *filter.Filter // nil: everything
	// StateAfter is the name under which the client wants the state at the end of the timeline, empty when it wants the state at its
	// start, as `state`.
	StateAfter string
	// Recheck is called before anything is told; an error (a token revoked meanwhile) ends the request.
	Recheck func(context.Context) error

	// reopened are rooms that were withheld and are open again.
	reopened map[matrix.RoomID]bool
	// closedAfar are withheld invitations into remote rooms that stay so.
	closedAfar []matrix.RoomID
}

// roomNews is what is new in one room for one reader.
type roomNews struct {
	id         matrix.RoomID
	membership string // the reader's, at the end
	timeline   []*item
	limited    bool
	prevBatch  int64
	// newly marks a room that the reader has joined since, and for which the whole state is told.
	newly bool
	// dropped are state events that a limited timeline left out, oldest first.
	dropped []*item
	state   []*storage.Event // at the start of the timeline, or at its end with state_after
	// crowd is how many memberships a room has that is too large to hold them: they are read as they are written, and not in state. root is
	// the state of the room that is told.
	crowd    int
	root     statemap.Hash
	stripped []*storage.Event // of an invitation or knock
	receipts []storage.Receipt
	data     []storage.AccountData
	typing   bool
	own      *item // the membership that ended the reader's stay
	recount  bool
	moved    bool // memberships changed
	summary  *summary
	notify   *unread
}

// news is everything that is new for one reader after one position.
type news struct {
	since, upto int64
	ephSince    int64
	ephUpto     int64
	first       bool
	rooms       map[matrix.RoomID]*roomNews
	order       []matrix.RoomID
	data        []storage.AccountData
	toDevice    []storage.ToDevice
	devices     map[matrix.UserID]bool
	left        map[matrix.UserID]bool
	presence    []matrix.UserID
}

func (n *news) room(id matrix.RoomID) *roomNews {
	r := n.rooms[id]
	if r == nil {
		r = &roomNews{id: id}
		n.rooms[id] = r
		n.order = append(n.order, id)
	}
	return r
}

// errSpecial says that the inbox is not enough and the database must be asked.
var errSpecial = errors.New("clientsync: ask the database")

// Sync answers one /sync: at once when there is news, else when there is or the time is over. It returns the body.
//
// spec: client-server-api#get_matrixclientv3sync
func (s *Service) Sync(ctx context.Context, q Request) ([]byte, error) {
	b, err := s.hub.enter(ctx, q.User)
	if err != nil {
		return nil, err
	}
	defer func() { b.leave(s.Now()) }()
	d := b.device(q.Device)
	if err := s.acknowledge(ctx, &q, b, d); err != nil {
		return nil, err
	}
	if q.reopened, err = s.reopened(ctx, &q, b); err != nil {
		return nil, err
	}
	if q.Since == nil || q.FullState || q.Since.ToDevice > 0 || len(q.reopened) > 0 {
		return s.fromDatabase(ctx, &q, b, d)
	}
	deadline := s.Now().Add(min(q.Timeout, MaxTimeout))
	if q.Since.Pos > s.Stream.Position() { // the reader comes from another node, which is ahead
		if _, err := s.Stream.CatchUp(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.hub.reach(ctx, s.Stream.Position()); err != nil {
		return nil, err
	}
	for {
		s.pace(ctx, b, d, q.Since.Pos, deadline)
		upto := s.hub.position() // before the inbox is read: it has everything up to here
		list, more, ok := b.since(q.Since.Pos)
		// A position that is not here yet may be another node's, or committed a moment ago: the database knows.
		if !ok || q.Since.Pos > s.Stream.Position() {
			return s.fromDatabase(ctx, &q, b, d)
		}
		n, err := s.fromInbox(&q, b, list, upto)
		if errors.Is(err, errSpecial) {
			return s.fromDatabase(ctx, &q, b, d)
		}
		if err != nil {
			return nil, err
		}
		if q.Recheck != nil { // whoever hears of news has heard of a revocation before it
			if err := q.Recheck(ctx); err != nil {
				return nil, err
			}
		}
		wait := deadline.Sub(s.Now())
		if body, empty, err := s.assemble(ctx, &q, b, d, n); err != nil || !empty || wait <= 0 || s.stopping() {
			return body, err
		}
		if err := s.wait(ctx, more, wait); err != nil {
			return nil, err
		}
		if q.reopened, err = s.reopened(ctx, &q, b); err != nil {
			return nil, err
		}
		if len(q.reopened) > 0 {
			return s.fromDatabase(ctx, &q, b, d)
		}
	}
}

// wait returns when there may be news or the time is over.
func (s *Service) wait(ctx context.Context, more <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-more:
	case <-t.C:
	case <-s.stop:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (s *Service) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// pace keeps a device that is flooded from asking for every single event. Where there is nothing for it yet, it has no need to wait twice.
func (s *Service) pace(ctx context.Context, b *inbox, d *device, since int64, deadline time.Time) {
	b.mu.Lock()
	next, news := d.lastNews.Add(s.MinInterval), len(b.list) > 0 && b.list[len(b.list)-1].pos > since
	b.mu.Unlock()
	if !news || next.After(deadline) {
		return
	}
	if wait := next.Sub(s.Now()); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

// acknowledge deletes the to-device messages that the device has received: its token says so.
func (s *Service) acknowledge(ctx context.Context, q *Request, b *inbox, d *device) error {
	if q.Since == nil {
		return nil
	}
	b.mu.Lock()
	due := d.acked < 0 || d.given > d.acked && d.given <= q.Since.toDevice()
	b.mu.Unlock()
	if !due || q.Since.Pos > s.Stream.Position() {
		return nil
	}
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		_, err := tx.DeleteToDevice(q.User, q.Device, q.Since.toDevice())
		return err
	})
	if err == nil {
		b.mu.Lock()
		d.acked = max(d.acked, q.Since.toDevice())
		b.mu.Unlock()
	}
	return err
}

// fromInbox gathers the news out of memory. errSpecial: something happened that only the database can tell.
func (s *Service) fromInbox(q *Request, b *inbox, list []delivery, upto int64) (*news, error) {
	n := &news{since: q.Since.Pos, upto: max(q.Since.Pos, upto), rooms: map[matrix.RoomID]*roomNews{}, devices: map[matrix.UserID]bool{}, left: map[matrix.UserID]bool{}}
	n.ephSince, n.ephUpto = q.Since.Ephemeral, s.Ephemeral.Version()
	for i := range list {
		d := &list[i]
		n.upto = max(n.upto, d.pos)
		switch e := d.entry; e.Kind {
		case storage.KindEvent:
			if err := n.event(d); err != nil {
				return nil, err
			}
		case storage.KindReceipt:
			r := n.room(e.RoomID)
			r.receipts = append(r.receipts, *e.Receipt)
		case storage.KindAccountData:
			if e.RoomID == "" {
				n.data = append(n.data, *e.Data)
			} else {
				r := n.room(e.RoomID)
				r.data = append(r.data, *e.Data)
			}
		case storage.KindToDevice:
			if e.DeviceID == q.Device {
				n.toDevice = append(n.toDevice, *e.Message)
			}
		case storage.KindDeviceList:
			n.devices[e.UserID] = true
		case storage.KindNotice:
			return nil, errSpecial
		}
	}
	b.mu.Lock()
	for _, id := range n.order {
		n.rooms[id].membership = b.rooms[id]
	}
	for _, id := range s.Ephemeral.TypingSince(n.ephSince) {
		if b.rooms[id] == auth.Join {
			r := n.room(id)
			r.membership, r.typing = auth.Join, true
		}
	}
	b.mu.Unlock()
	n.presence = s.Ephemeral.PresenceSince(max(n.ephSince, 1))
	for _, r := range n.rooms {
		if r.membership == "" && len(r.timeline) == 0 { // room account data of a room that the reader is not in
			r.membership = auth.Leave
		}
	}
	if at := n.brim(q); at > 0 {
		for len(list) > 0 && list[len(list)-1].pos > at {
			list = list[:len(list)-1]
		}
		return s.fromInbox(q, b, list, at)
	}
	n.cut(q)
	return n, nil
}

// maxRounds is in how many responses a reader who is a little behind is told everything. Who asks for fewer events than minRound wants
// the newest, not all.
const maxRounds, minRound = 5, 10

// brim is the position where the first timeline is full, for a reader who is so little behind that a few responses tell everything:
// the rest then comes with the next one, and there is no gap. It is 0 where all fits, or where a gap is better.
func (n *news) brim(q *Request) (at int64) {
	limit := timelineLimit(q.Filter)
	if limit < minRound {
		return 0
	}
	for _, id := range n.order {
		list := filterTimeline(n.rooms[id].timeline, q.Filter, id)
		switch {
		case len(list) > maxRounds*limit:
			return 0
		case len(list) > limit && (at == 0 || list[limit-1].Pos < at):
			at = list[limit-1].Pos
		}
	}
	return at
}

// event sorts one event into its room.
func (n *news) event(d *delivery) error {
	r := n.room(d.item.RoomID)
	if d.own && (d.was != auth.Join || event.Membership(d.item.Event.Event) != auth.Join) {
		return errSpecial // joined, left, invited: the database knows what that means
	}
	r.timeline = append(r.timeline, d.item)
	if d.item.StateKey != nil && d.item.Type == typeMember {
		r.moved = true
		if !d.own {
			who := matrix.UserID(*d.item.StateKey)
			switch event.Membership(d.item.Event.Event) {
			case auth.Join:
				n.devices[who] = true
				delete(n.left, who)
			case auth.Leave, auth.Ban:
				n.left[who] = true
			}
		}
	}
	return nil
}

// cut limits the timelines, as the filter says, and where something is missing in them.
func (n *news) cut(q *Request) {
	limit := timelineLimit(q.Filter)
	for _, id := range n.order {
		r := n.rooms[id]
		if at := afterHole(r.timeline); at >= 0 {
			r.drop(at)
		}
		r.timeline = filterTimeline(r.timeline, q.Filter, id)
		if len(r.timeline) > limit {
			r.drop(len(r.timeline) - limit)
		}
		if len(r.timeline) > 0 {
			r.prevBatch = r.timeline[0].Pos - 1
		} else {
			r.prevBatch = n.since
		}
	}
}

// drop lets the timeline begin later.
func (r *roomNews) drop(at int) {
	for _, it := range r.timeline[:at] {
		if it.StateKey != nil {
			r.dropped = append(r.dropped, it)
		}
	}
	r.timeline, r.limited = r.timeline[at:], true
}

// afterHole is where a timeline goes on after the newest hole in it, -1 where it has none: a client that gets it as one piece would never ask for
// what is missing.
func afterHole(timeline []*item) int {
	for i := len(timeline) - 1; i >= 0; i-- {
		if timeline[i].Flags&storage.Gapped != 0 {
			return i
		}
	}
	return -1
}

func timelineLimit(f *filter.Filter) int {
	if f == nil || f.Room.Timeline == nil {
		return defaultTimeline
	}
	return min(f.Room.Timeline.LimitOr(defaultTimeline), maxTimeline)
}

func filterTimeline(list []*item, f *filter.Filter, room matrix.RoomID) []*item {
	if f == nil || f.Room.Timeline == nil {
		return list
	}
	if !f.Room.Timeline.Room(room) {
		return nil
	}
	out := list[:0:0]
	for _, it := range list {
		if f.Room.Timeline.Match(it.Type, string(it.Sender), it.hasURL) {
			out = append(out, it)
		}
	}
	return out
}
