package clientsync

import (
	"context"

	"github.com/go-json-experiment/json"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/pushrule"
	"hansa/storage"
)

// unreadMax is up to how many unread events of a room are counted.
const unreadMax = 500

// unread is the number of notifications in a room since the reader has read it, or a thread of it.
type unread struct {
	upto int64 // events up to here are counted
	read int64 // the reader has read up to here
	main tally
	// threads are counted apart, by root.
	threads map[matrix.EventID]*tally
}

type tally struct {
	read              int64
	notify, highlight int
}

func (u *unread) total() tally {
	t := u.main
	for _, th := range u.threads {
		t.notify += th.notify
		t.highlight += th.highlight
	}
	return t
}

// counter evaluates a reader's push rules over events of one room.
type counter struct {
	user  matrix.UserID
	rules *pushrule.Evaluator
	room  *pushrule.RoomContext
}

// add counts events that are newer than what was counted.
func (c *counter) add(u *unread, events []*item) {
	for _, it := range events {
		if it.Pos <= u.upto {
			continue
		}
		u.upto = it.Pos
		root := threadRoot(it)
		if it.Sender == c.user { // who writes has read
			if root == "" {
				u.read, u.main = it.Pos, tally{}
			} else {
				delete(u.threads, root)
			}
			continue
		}
		t := &u.main
		if root != "" {
			if t = u.threads[root]; t == nil {
				t = &tally{}
				if u.threads == nil {
					u.threads = map[matrix.EventID]*tally{}
				}
				u.threads[root] = t
			}
		}
		if it.Pos <= u.read || it.Pos <= t.read {
			continue
		}
		r := it.evaluate(c.rules, c.room)
		if r.Notify {
			t.notify++
			if r.Highlight {
				t.highlight++
			}
		}
	}
}

func threadRoot(it *item) matrix.EventID {
	v, ok := event.ContentField(it.Event.Event, "m.relates_to")
	if !ok {
		return ""
	}
	var rel struct {
		Type string         `json:"rel_type"`
		ID   matrix.EventID `json:"event_id"`
	}
	if json.Unmarshal(v, &rel) != nil || rel.Type != "m.thread" {
		return ""
	}
	return rel.ID
}

// apply moves the marks of what was read.
func (u *unread) apply(r *storage.Receipt) {
	switch r.ThreadID {
	case "":
		u.read = max(u.read, r.EventPos)
	case "main":
		u.main.read = max(u.main.read, r.EventPos)
	default:
		if u.threads == nil {
			u.threads = map[matrix.EventID]*tally{}
		}
		id := matrix.EventID(r.ThreadID)
		if u.threads[id] == nil {
			u.threads[id] = &tally{}
		}
		u.threads[id].read = max(u.threads[id].read, r.EventPos)
	}
}

func isRead(r *storage.Receipt) bool { return r.Type == "m.read" || r.Type == "m.read.private" }

// countUnread brings the counts of all rooms in n up to date. Rooms whose counts are not in memory are counted from the database, all
// with the same two queries.
func (s *Service) countUnread(ctx context.Context, q *Request, b *inbox, n *news) error {
	rules, err := s.rules(ctx, b)
	if err != nil {
		return err
	}
	var cold []matrix.RoomID
	for _, id := range n.order {
		r := n.rooms[id]
		if r.membership != "join" || !r.recount && len(r.timeline) == 0 && !ownReceipt(r, q.User) {
			continue
		}
		b.mu.Lock()
		u := b.counts[id]
		b.mu.Unlock()
		if u == nil || r.limited || r.recount || ownReceipt(r, q.User) {
			cold = append(cold, id)
			continue
		}
		if err := s.count(ctx, q, b, rules, id, u, r.timeline); err != nil {
			return err
		}
		r.notify = u
	}
	if len(cold) == 0 {
		return nil
	}
	return s.countCold(ctx, q, b, n, rules, cold)
}

func ownReceipt(r *roomNews, user matrix.UserID) bool {
	for i := range r.receipts {
		if r.receipts[i].UserID == user && isRead(&r.receipts[i]) {
			return true
		}
	}
	return false
}

func (s *Service) rules(ctx context.Context, b *inbox) (*pushrule.Evaluator, error) {
	b.mu.Lock()
	rules := b.push
	b.mu.Unlock()
	if rules != nil {
		return rules, nil
	}
	rules, err := s.Push.Evaluator(ctx, b.user)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.push = rules
	b.mu.Unlock()
	return rules, nil
}

func (s *Service) count(ctx context.Context, q *Request, b *inbox, rules *pushrule.Evaluator, id matrix.RoomID, u *unread, list []*item) error {
	c := counter{user: q.User, rules: rules}
	err := s.Rooms.Look(ctx, id, func(v room.View) {
		r := v.Rules()
		c.room = &pushrule.RoomContext{MemberCount: v.Joined(),
			PowerLevel:        func(user matrix.UserID) int64 { return int64(r.UserLevel(user)) },
			NotificationLevel: func(key string) int64 { return int64(r.PowerLevels().Notification(key)) },
			DisplayName:       func(matrix.UserID) string { return "" }}
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.add(u, list)
	return nil
}

// countCold counts rooms from what the database has.
func (s *Service) countCold(ctx context.Context, q *Request, b *inbox, n *news, rules *pushrule.Evaluator, cold []matrix.RoomID) error {
	var events map[matrix.RoomID][]*storage.Event
	var receipts []storage.Receipt
	err := s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if receipts, err = tx.LoadOwnReceipts(q.User); err != nil {
			return err
		}
		events, err = tx.LoadUnread(cold, q.User, unreadMax)
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range cold {
		u := &unread{}
		for i := range receipts {
			if receipts[i].RoomID == id && isRead(&receipts[i]) {
				u.apply(&receipts[i])
			}
		}
		if err := s.count(ctx, q, b, rules, id, u, newItems(events[id])); err != nil {
			return err
		}
		u.upto = max(u.upto, n.upto)
		b.mu.Lock()
		b.counts[id] = u
		b.mu.Unlock()
		n.rooms[id].notify = u
	}
	return nil
}
