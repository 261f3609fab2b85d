package ephemeral

import (
	"context"
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

// The types of receipts. FullyRead is no receipt but a marker in the account data of the room.
const (
	Read        = "m.read"
	ReadPrivate = "m.read.private"
	FullyRead   = "m.fully_read"
)

const (
	mainThread = "main"
	// maxHops is how many relations are followed to find the thread of an event.
	maxHops = 3
)

// Mark is how far a user has read. Thread is nil for the room as a whole, else "main" or the root of a thread.
type Mark struct {
	Type   string
	Event  matrix.EventID
	Thread *string
}

// ReceiptDeps is what Receipts needs.
type ReceiptDeps struct {
	DB      *storage.DB
	Policy  *policy.Engine
	Rooms   *room.Service
	Parties room.Parties
	// Presence hears of those who read.
	Presence *Service
	// Visible tells which events of a room a user may see by its history visibility.
	Visible func(tx *storage.Tx, user matrix.UserID, events []*storage.Event) (map[matrix.EventID]bool, error)
	Now     func() time.Time
}

// Receipts stores how far users have read.
type Receipts struct{ ReceiptDeps }

// NewReceipts returns Receipts that are ready to use.
func NewReceipts(d ReceiptDeps) *Receipts {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Receipts{d}
}

// Put moves receipts and markers of the caller in a room, all in one transaction. What would move backwards stays where it is.
//
// spec: client-server-api#post_matrixclientv3roomsroomidreceiptreceipttypeeventid
// spec: client-server-api#post_matrixclientv3roomsroomidread_markers
func (s *Receipts) Put(ctx context.Context, by Caller, id matrix.RoomID, marks ...Mark) error {
	for _, m := range marks {
		if err := m.check(); err != nil {
			return err
		}
	}
	facts, audience, err := s.Rooms.PolicyFacts(ctx, id, by.User)
	if err != nil {
		return err
	}
	if facts.Membership != auth.Join {
		return errNotJoined()
	}
	in := &policy.Input{Point: policy.ReceiptSend, Time: s.Now(), Tenant: policy.Tenant{Name: string(by.User.Server())}, Subject: by.Party,
		Room: facts, Audience: audience, Request: by.Request}
	if e := s.Policy.Decide(ctx, in).Error(); e != nil {
		return e
	}
	var moves []move
	err = s.DB.View(ctx, func(tx *storage.Tx) error {
		moves = moves[:0]
		for _, m := range marks {
			mv, err := s.find(ctx, tx, by, id, m)
			if err != nil {
				return err
			}
			if mv.event != nil {
				moves = append(moves, mv)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.Presence.Active(by.User)
	if len(moves) == 0 {
		return nil
	}
	ts := s.Now().UnixMilli()
	return s.DB.UpdateShared(ctx, func(tx *storage.Tx) error {
		for _, m := range moves {
			if err := m.store(tx, by.User, id, ts); err != nil {
				return err
			}
		}
		return nil
	})
}

// check refuses a mark that is wrong in itself.
func (m *Mark) check() error {
	switch m.Type {
	case Read, ReadPrivate:
	case FullyRead:
		if m.Thread != nil {
			return matrix.InvalidParam("A fully read marker has no thread_id.")
		}
	default:
		return matrix.InvalidParam("There is no receipt type %.64q.", m.Type)
	}
	if _, err := matrix.ParseEventID(string(m.Event)); err != nil {
		return matrix.InvalidParam("%.100q is not an event ID.", m.Event)
	}
	if m.Thread == nil || *m.Thread == mainThread {
		return nil
	}
	if *m.Thread == "" {
		return matrix.InvalidParam("The thread_id must be a string that is not empty.")
	}
	if _, err := matrix.ParseEventID(*m.Thread); err != nil {
		return matrix.InvalidParam("The thread_id must be main or the event ID of the thread's root.")
	}
	return nil
}

// move is a mark that goes forward.
type move struct {
	Mark
	event *storage.Event
}

func (m *move) thread() string {
	if m.Thread == nil {
		return ""
	}
	return *m.Thread
}

// find loads the event of a mark if the caller may mark it; the result has none where the mark is there already or further on.
func (s *Receipts) find(ctx context.Context, tx *storage.Tx, by Caller, id matrix.RoomID, m Mark) (move, error) {
	e, err := tx.LoadEvent(m.Event)
	if errors.Is(err, storage.ErrNotFound) {
		return move{}, errUnseen()
	}
	if err != nil {
		return move{}, err
	}
	if err := s.checkSeen(ctx, tx, by, id, e); err != nil {
		return move{}, err
	}
	mv := move{m, e}
	if m.Thread != nil {
		if err := checkThread(tx, e, *m.Thread); err != nil {
			return move{}, err
		}
	}
	var at int64
	var ok bool
	if m.Type == FullyRead {
		at, ok, err = markedAt(tx, by.User, id)
	} else {
		var r storage.Receipt
		r, ok, err = tx.FindReceipt(id, by.User, m.Type, mv.thread())
		at = r.EventPos
	}
	if err != nil || ok && at >= e.Pos {
		return move{}, err
	}
	return mv, nil
}

// errUnseen is the same for events that do not exist, that are somewhere else and that the caller may not see.
func errUnseen() error {
	return matrix.Forbidden("There is no such event in this room that you can see.")
}

// checkSeen refuses events that the caller cannot have read.
func (s *Receipts) checkSeen(ctx context.Context, tx *storage.Tx, by Caller, id matrix.RoomID, e *storage.Event) error {
	if e.RoomID != id || e.Flags.Hidden() {
		return errUnseen()
	}
	if e.Sender != by.User {
		sender, err := s.Parties.Party(ctx, e.Sender)
		if err != nil {
			return err
		}
		if !s.Policy.Contact(by.Party, sender) && !s.Policy.Contact(sender, by.Party) {
			return errUnseen()
		}
	}
	// Whoever has been joined since before the event sees it, whatever the room's history visibility.
	member, ok, err := tx.FindMember(id, by.User)
	if err != nil || ok && member.Membership == auth.Join && e.Pos >= member.Pos {
		return err
	}
	seen, err := s.Visible(tx, by.User, []*storage.Event{e})
	if err == nil && !seen[e.ID] {
		err = errUnseen()
	}
	return err
}

// relation is the m.relates_to of an event.
type relation struct {
	RelType string         `json:"rel_type"`
	EventID matrix.EventID `json:"event_id"`
}

func relationOf(e *storage.Event) relation {
	var r relation
	raw, ok := event.ContentField(e.Event, "m.relates_to")
	if ok && raw.Kind() == jsontext.KindBeginObject && json.Unmarshal(raw, &r) != nil {
		return relation{} // of a wrong type: as good as none
	}
	return r
}

// checkThread refuses a thread that the event has nothing to do with. Threads are found over at most three relations; a root belongs to
// the main timeline, and may be marked in its own thread as well.
//
// spec: client-server-api#threaded-read-receipts
func checkThread(tx *storage.Tx, e *storage.Event, thread string) error {
	in, met := mainThread, map[matrix.EventID]bool{e.ID: true}
	at := e
	for hop := 0; hop < maxHops; hop++ {
		r := relationOf(at)
		if r.EventID == "" {
			break
		}
		if r.RelType == "m.thread" {
			in = string(r.EventID)
			break
		}
		if met[r.EventID] {
			break
		}
		met[r.EventID] = true
		found, err := tx.LoadEvents([]matrix.EventID{r.EventID})
		if err != nil {
			return err
		}
		at = found[r.EventID]
		if at == nil || at.RoomID != e.RoomID {
			break
		}
	}
	if thread == in || in == mainThread && met[matrix.EventID(thread)] {
		return nil
	}
	return matrix.InvalidParam("The event does not belong to the thread in thread_id.")
}

// marker is the content of m.fully_read.
type marker struct {
	EventID matrix.EventID `json:"event_id"`
}

// markedAt finds the position of the event that a user has marked as fully read.
func markedAt(tx *storage.Tx, user matrix.UserID, id matrix.RoomID) (int64, bool, error) {
	d, err := tx.LoadAccountDatum(user, id, FullyRead)
	if errors.Is(err, storage.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return positionOf(tx, id, d.Content)
}

func positionOf(tx *storage.Tx, id matrix.RoomID, content []byte) (int64, bool, error) {
	var m marker
	if len(content) == 0 || json.Unmarshal(content, &m) != nil || m.EventID == "" {
		return 0, false, nil
	}
	found, err := tx.LoadEvents([]matrix.EventID{m.EventID})
	if e := found[m.EventID]; err == nil && e != nil && e.RoomID == id {
		return e.Pos, true, nil
	}
	return 0, false, err
}

func (m *move) store(tx *storage.Tx, user matrix.UserID, id matrix.RoomID, ts int64) error {
	if m.Type != FullyRead {
		_, err := tx.PutReceipt(storage.Receipt{RoomID: id, UserID: user, Type: m.Type, ThreadID: m.thread(), EventID: m.event.ID,
			EventPos: m.event.Pos, TS: ts})
		return err
	}
	return tx.ChangeAccountData(user, id, FullyRead, func(old []byte) ([]byte, error) {
		at, ok, err := positionOf(tx, id, old)
		if err != nil || ok && at >= m.event.Pos {
			return nil, err
		}
		return json.Marshal(marker{m.event.ID})
	})
}
