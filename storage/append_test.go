package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
	"hansa/storage/storagetest"
)

// chain builds events of one room on one another, as a room with one sender would.
type chain struct {
	room *storage.Room
	n    int
}

func newChain(id string) *chain {
	v, _ := matrix.FindRoomVersion("11")
	return &chain{room: &storage.Room{ID: matrix.RoomID(id), Version: v, Tenant: "acme.example"}}
}

func (c *chain) next(t testing.TB, typ string, stateKey *string, content string) *storage.Append {
	t.Helper()
	c.n++
	e, err := event.Build(c.room.Version, event.Draft{RoomID: c.room.ID, Type: typ, StateKey: stateKey, Sender: "@anna:acme.example",
		Content: []byte(content), PrevEvents: c.room.Head.Extremities, Depth: int64(c.n), OriginServerTS: int64(c.n)})
	if err != nil {
		t.Fatal(err)
	}
	a := &storage.Append{Room: c.room, Events: []storage.NewEvent{{Event: e}},
		Head: storage.Head{Name: string(e.ID), Extremities: []matrix.EventID{e.ID}, Depth: int64(c.n)}}
	if stateKey != nil {
		a.State = []statemap.Change{{Key: e.Key(), ID: e.ID}}
	}
	r := *c.room
	r.Head = a.Head
	c.room = &r
	return a
}

func ptr(s string) *string { return &s }

func TestAppend_OrdersAndReadsBack(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		c := newChain("!a:acme.example")
		var ids []matrix.EventID
		for i := 0; i < 5; i++ {
			typ, key := "m.room.message", (*string)(nil)
			if i == 0 {
				typ, key = "m.room.member", ptr("@anna:acme.example")
			}
			a := c.next(t, typ, key, fmt.Sprintf(`{"body":"%d","membership":"join"}`, i))
			if err := db.Append(ctx, a); err != nil {
				t.Fatal(err)
			}
			if got := a.Stored[0].Pos; got != int64(i+1) {
				t.Errorf("event %d has position %d, want %d", i, got, i+1)
			}
			c.room = a.Room
			ids = append(ids, a.Stored[0].ID)
		}
		err := db.View(ctx, func(tx *storage.Tx) error {
			room, err := tx.LoadRoom("!a:acme.example")
			if err != nil {
				return err
			}
			if room.Head.Name != string(ids[4]) || room.Head.LastPos != 5 || room.Head.StatePos != 1 {
				t.Errorf("head = %+v", room.Head)
			}
			list, err := tx.LoadPage(room.ID, 1<<60, storage.Backward, 3)
			if err != nil {
				return err
			}
			if len(list) != 3 || list[0].ID != ids[4] || list[2].ID != ids[2] {
				t.Errorf("page = %v", list)
			}
			lines, err := tx.LoadTimelines([]matrix.RoomID{room.ID}, 0, 5, 2)
			if err != nil {
				return err
			}
			if got := lines[room.ID]; len(got) != 3 || got[0].ID != ids[2] {
				t.Errorf("timeline of limit 2 has %d events, want the newest 3", len(got))
			}
			ms, err := tx.LoadMembers(room.ID)
			if err != nil {
				return err
			}
			if len(ms) != 1 || ms[0].Membership != "join" || ms[0].EventID != ids[0] {
				t.Errorf("members = %+v", ms)
			}
			entries, err := tx.ReadLog(0, 10)
			if len(entries) != 5 || entries[4].Event.ID != ids[4] {
				t.Errorf("log = %v", entries)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestAppend_RefusesAMovedHead(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		c := newChain("!a:acme.example")
		first := c.next(t, "m.test", nil, `{}`)
		if err := db.Append(ctx, first); err != nil {
			t.Fatal(err)
		}
		c.room = first.Room
		stale := *c
		if err := db.Append(ctx, c.next(t, "m.test", nil, `{"a":1}`)); err != nil {
			t.Fatal(err)
		}
		if err := db.Append(ctx, stale.next(t, "m.test", nil, `{"b":1}`)); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("append to a moved head: %v, want ErrConflict", err)
		}
	})
}

// Many rooms and senders at once: every position is used once, each room keeps its order, and what Publish announces is
// what ReadLog reads.
func TestAppend_GroupsCommitsWithoutLosingOrder(t *testing.T) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var heard []int64
			db := storagetest.Open(t, storage.Options{URL: storagetest.URL(t, name), Publish: func(first, last int64, es []storage.Entry) {
				mu.Lock()
				defer mu.Unlock()
				for _, e := range es {
					heard = append(heard, e.Pos)
				}
			}})
			ctx := context.Background()
			const rooms, each = 16, 50
			var wg sync.WaitGroup
			for r := 0; r < rooms; r++ {
				wg.Add(1)
				go func() {
					defer wg.Done()
					c := newChain(fmt.Sprintf("!r%d:acme.example", r))
					var waits []func() error
					for i := 0; i < each; i++ {
						wait, err := db.Pending(ctx, c.next(t, "m.test", nil, fmt.Sprintf(`{"n":%d}`, i)))
						if err != nil {
							t.Error(err)
							return
						}
						waits = append(waits, wait)
						if i == 0 { // the room must exist before its number is known
							if err := wait(); err != nil {
								t.Error(err)
								return
							}
							waits = nil
							_ = db.Read(ctx, func(tx *storage.Tx) error {
								room, err := tx.LoadRoom(c.room.ID)
								if err == nil {
									room.Head.Extremities = c.room.Head.Extremities
									c.room = room
								}
								return err
							})
						}
					}
					for _, w := range waits {
						if err := w(); err != nil {
							t.Error(err)
						}
					}
				}()
			}
			wg.Wait()
			slices.Sort(heard)
			if len(heard) != rooms*each || heard[0] != 1 || heard[len(heard)-1] != rooms*each {
				t.Fatalf("heard %d positions from %d to %d, want 1 to %d", len(heard), heard[0], heard[len(heard)-1], rooms*each)
			}
			s := db.Stats()
			if s.Commits > s.Events/2 {
				t.Errorf("%d events took %d commits: nothing was grouped", s.Events, s.Commits)
			}
			if s.Statements > 6*s.Commits {
				t.Errorf("%d statements in %d commits, want at most 6 each", s.Statements, s.Commits)
			}
			err := db.View(ctx, func(tx *storage.Tx) error {
				es, err := tx.ReadLog(0, rooms*each)
				seen := map[matrix.RoomID]int64{}
				for i, e := range es {
					if e.Pos != int64(i+1) || e.Event.Depth != seen[e.RoomID]+1 {
						t.Fatalf("entry %d: position %d, depth %d after %d", i, e.Pos, e.Event.Depth, seen[e.RoomID])
					}
					seen[e.RoomID] = e.Event.Depth
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAppend_TransactionIDIsStoredOnce(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		c := newChain("!a:acme.example")
		first := c.next(t, "m.test", nil, `{}`)
		first.Events[0].DeviceID, first.Events[0].TxnScope, first.Events[0].TxnID = "D", "/send", "t1\x00"
		if err := db.Append(ctx, first); err != nil {
			t.Fatal(err)
		}
		c.room = first.Room
		again := c.next(t, "m.test", nil, `{"x":1}`)
		again.Events[0].DeviceID, again.Events[0].TxnScope, again.Events[0].TxnID = "D", "/send", "t1\x00"
		if err := db.Append(ctx, again); !errors.Is(err, storage.ErrDuplicate) {
			t.Errorf("second append with the same transaction ID: %v, want ErrDuplicate", err)
		}
		err := db.Read(ctx, func(tx *storage.Tx) error {
			got, ok, err := tx.FindTxn("@anna:acme.example", "D", "/send", "t1\x00")
			if !ok || got != string(first.Events[0].Event.ID) {
				t.Errorf("FindTxn = %q, %v; want the first event", got, ok)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// One bad append fails alone; what shares its batch is stored.
func TestAppend_PoisonIsIsolated(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		var wg sync.WaitGroup
		errs := make([]error, 40)
		for i := range errs {
			wg.Add(1)
			a := newChain(fmt.Sprintf("!p%d:acme.example", i)).next(t, "m.test", nil, `{}`)
			if i%7 == 3 {
				a.Also = func(*storage.Tx) error { panic("poison") }
			}
			go func() { defer wg.Done(); errs[i] = db.Append(ctx, a) }()
		}
		wg.Wait()
		for i, err := range errs {
			if (err != nil) != (i%7 == 3) {
				t.Errorf("append %d: %v", i, err)
			}
		}
	})
}

func TestLog_OtherKindsReadBackAsPublished(t *testing.T) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			heard := map[int64]storage.Entry{}
			db := storagetest.Open(t, storage.Options{URL: storagetest.URL(t, name), Publish: func(_, _ int64, es []storage.Entry) {
				mu.Lock()
				defer mu.Unlock()
				for _, e := range es {
					heard[e.Pos] = e
				}
			}})
			ctx := context.Background()
			a := newChain("!a:acme.example").next(t, "m.test", nil, `{}`)
			if err := db.Append(ctx, a); err != nil {
				t.Fatal(err)
			}
			err := db.Update(ctx, func(tx *storage.Tx) error {
				if ok, err := tx.PutReceipt(storage.Receipt{RoomID: "!a:acme.example", UserID: "@b:x", Type: "m.read", EventID: a.Stored[0].ID, EventPos: 1, TS: 5}); err != nil || !ok {
					return fmt.Errorf("receipt: %v %w", ok, err)
				}
				if err := tx.PutAccountData(storage.AccountData{UserID: "@b:x", Type: "m.direct", Content: []byte(`{}`)}); err != nil {
					return err
				}
				if err := tx.PutToDevice([]storage.ToDevice{{UserID: "@b:x", DeviceID: "D", Sender: "@a:x", Type: "t", Content: []byte(`{"a":1}`)},
					{UserID: "@b:x", DeviceID: "D", Sender: "@a:x", Type: "t", Content: []byte(`{"a":2}`)}}); err != nil {
					return err
				}
				if err := tx.TouchDeviceList("@b:x"); err != nil {
					return err
				}
				return tx.Announce(storage.NoticeParty, "@b:x")
			})
			if err != nil {
				t.Fatal(err)
			}
			err = db.View(ctx, func(tx *storage.Tx) error {
				es, err := tx.ReadLog(1, 100)
				if len(es) != 6 {
					t.Fatalf("read %d entries, want 6", len(es))
				}
				for _, e := range es {
					h := heard[e.Pos]
					if h.Kind != e.Kind || h.UserID != e.UserID || h.RoomID != e.RoomID || h.Name != e.Name || h.Ref != e.Ref || h.DeviceID != e.DeviceID {
						t.Errorf("position %d: published %+v, read %+v", e.Pos, h, e)
					}
				}
				msgs, err2 := tx.LoadToDevice("@b:x", "D", 0, 100, 10)
				if err2 != nil || len(msgs) != 2 || string(msgs[1].Content) != `{"a":2}` {
					t.Errorf("to-device = %v, %v", msgs, err2)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(ctx, func(tx *storage.Tx) error { // an older receipt changes nothing
				ok, err := tx.PutReceipt(storage.Receipt{RoomID: "!a:acme.example", UserID: "@b:x", Type: "m.read", EventID: "$old", EventPos: 0})
				if ok {
					t.Error("a receipt moved backwards")
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestUpdate_FailsAlone(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		bad := errors.New("no")
		err := db.Update(ctx, func(tx *storage.Tx) error {
			if err := tx.Announce("x", "y"); err != nil {
				return err
			}
			return bad
		})
		if !errors.Is(err, bad) {
			t.Errorf("Update = %v, want the function's error", err)
		}
		err = db.Read(ctx, func(tx *storage.Tx) error {
			pos, err := tx.Position()
			if pos != 0 {
				t.Errorf("position is %d after a failed update, want 0", pos)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// The decision log is chained: a record that is changed or taken out shows.
func TestAD382_DecisionLogIsTamperEvident(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		var wg sync.WaitGroup
		for i := 0; i < 20; i++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				err := db.Update(ctx, func(tx *storage.Tx) error {
					return tx.AppendDecisions([]storage.Decision{{ID: fmt.Sprint("a", i), Tenant: "acme.example", Point: "room.invite", Detail: []byte(`{}`)},
						{ID: fmt.Sprint("b", i), Tenant: "acme.example", Point: "room.invite", Detail: []byte(`{"x":1}`)}})
				})
				if err != nil {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
		verify := func() (n int64, err error) {
			err = db.View(ctx, func(tx *storage.Tx) (err error) { n, err = tx.VerifyDecisions(); return err })
			return n, err
		}
		if n, err := verify(); n != 40 || err != nil {
			t.Fatalf("VerifyDecisions = %d, %v; want 40 sound records", n, err)
		}
		if err := storage.Tamper(db, `UPDATE decisions SET subject = 'x' WHERE seq = 17`); err != nil {
			t.Fatal(err)
		}
		var chain *storage.ChainError
		if _, err := verify(); !errors.As(err, &chain) || chain.Seq != 17 {
			t.Errorf("a changed record: %v, want record 17", err)
		}
		if err := storage.Tamper(db, `DELETE FROM decisions WHERE seq >= 17`); err != nil {
			t.Fatal(err)
		}
		if _, err := verify(); !errors.As(err, &chain) {
			t.Errorf("a log that was cut off: %v, want a ChainError", err)
		}
	})
}
