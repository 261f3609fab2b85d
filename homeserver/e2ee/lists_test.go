package e2ee

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
	"hansa/storage/storagetest"
)

// room writes memberships of a room into the log, without asking anybody.
type testRoom struct {
	w    *world
	room *storage.Room
	n    int64
	last map[matrix.UserID]matrix.EventID // everybody's newest membership
}

func (w *world) room(id matrix.RoomID) *testRoom {
	v, _ := matrix.FindRoomVersion("11")
	return &testRoom{w: w, room: &storage.Room{ID: id, Version: v, Tenant: "acme.example"}}
}

func (r *testRoom) member(user matrix.UserID, membership string) {
	r.w.t.Helper()
	r.n++
	key := string(user)
	e, err := event.Build(r.room.Version, event.Draft{RoomID: r.room.ID, Type: "m.room.member", StateKey: &key, Sender: user,
		Content: fmt.Appendf(nil, `{"membership":%q}`, membership), PrevEvents: r.room.Head.Extremities, Depth: r.n, OriginServerTS: r.n})
	r.w.must(err)
	if r.last == nil {
		r.last = map[matrix.UserID]matrix.EventID{}
	}
	a := &storage.Append{Room: r.room, Events: []storage.NewEvent{{Event: e, Replaces: r.last[user]}}, State: []statemap.Change{{Key: e.Key(), ID: e.ID}},
		Head: storage.Head{Name: string(e.ID), Extremities: []matrix.EventID{e.ID}, Depth: r.n}}
	r.w.must(r.w.DB.Append(r.w.ctx, a))
	r.room, r.last[user] = a.Room, e.ID
}

func TestKeyChanges_WhoSharesARoom(t *testing.T) {
	each(t, func(w *world) {
		a, b, c := w.device(anna, "A"), w.device(bert, "B"), w.device(cleo, "C")
		r := w.room("!r:acme.example")
		r.member(anna, "join")
		r.member(bert, "join")
		check := func(from int64, changed, left []matrix.UserID) {
			w.t.Helper()
			got, err := w.KeyChanges(w.ctx, anna, from)
			if w.must(err); !slices.Equal(got.Changed, changed) || !slices.Equal(got.Left, left) {
				w.t.Errorf("changes = %v, want changed %v, left %v", got, changed, left)
			}
		}
		none := []matrix.UserID{}
		check(0, []matrix.UserID{bert}, none)
		from := w.position()
		check(from, none, none)
		b.ready(1)
		c.ready(1)
		a.ready(1)
		check(from, []matrix.UserID{anna, bert}, none) // cleo shares no room
		from = w.position()
		r.member(cleo, "join")
		check(from, []matrix.UserID{cleo}, none)
		from = w.position()
		r.member(bert, "leave")
		check(from, none, []matrix.UserID{bert})
		from = w.position()
		r.member(anna, "leave")
		check(from, none, []matrix.UserID{cleo})
		w.wall.deny(anna, cleo)
		check(from, none, []matrix.UserID{cleo}) // one of the two may reach the other
		w.wall.deny(cleo, anna)
		check(from, none, none)
	})
}

// TestKeyChanges_Newcomer lets somebody come into a room when others have left it: of those nothing is told.
func TestKeyChanges_Newcomer(t *testing.T) {
	each(t, func(w *world) {
		r := w.room("!r:acme.example")
		r.member(cleo, "join")
		r.member(bert, "join")
		from := w.position()
		left := func(viewer matrix.UserID, want ...matrix.UserID) {
			w.t.Helper()
			got, err := w.KeyChanges(w.ctx, viewer, from)
			if w.must(err); !slices.Equal(got.Left, want) && len(got.Left)+len(want) > 0 {
				w.t.Errorf("%s is told that %v left, want %v", viewer, got.Left, want)
			}
		}
		r.member(bert, "leave")
		r.member(anna, "join")
		left(anna)
		left(cleo, bert)
		r.member(bert, "ban") // of whom the newcomer never met
		left(anna)
		left(cleo, bert)
		r.member(anna, "join") // another name
		r.member(cleo, "join")
		left(anna)
		left(cleo, bert)
		r.member(bert, "leave")
		r.member(bert, "join")
		r.member(bert, "leave")
		r.member(anna, "join")
		left(anna, bert)
		r.member(anna, "leave")
		r.member(bert, "join")
		r.member(bert, "leave")
		r.member(anna, "join")
		left(anna) // bert came back and went while anna was away
	})
}

// TestCounts_OtherNode lets one node claim and another one count.
func TestCounts_OtherNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storagetest.URL(t, "postgres"))
	other := &world{t: t, ctx: w.ctx, wall: w.wall, url: w.url, peers: w.peers, outbox: w.outbox}
	other.open()
	w.device(anna, "A").ready(5)
	b := other.device(bert, "B")
	wait := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		for _, n := range []*world{w, other} {
			if err := n.Stream.Wait(ctx, n.position()-1); err != nil {
				t.Fatal(err)
			}
		}
	}
	for left := 5; left > 0; left-- {
		wait()
		for _, n := range []*world{w, other} {
			if counts, _, err := n.Counts(n.ctx, anna, "A"); err != nil || counts["signed_curve25519"] != left {
				t.Errorf("counts = %v, %v; want %d", counts, err, left)
			}
		}
		_, err := other.ClaimKeys(w.ctx, b.Caller, one(anna, "A"))
		w.must(err)
	}
}
