package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
	"hansa/storage/storagetest"
)

// What is kept about the auth graph grows with the events, however wildly they cite one another.
func TestA61_AuthIndexGrowsLinearly(t *testing.T) {
	t.Parallel()
	const step, steps = 500, 3
	// grow stores events that each cite earlier ones, near and far, and returns how large the database is after each step.
	grow := func(cites int, flags storage.Flags) (sizes []int64, bytes int64) {
		path := filepath.Join(t.TempDir(), "hansa.db")
		c := newChain("!a:acme.example")
		var ids []matrix.EventID
		for range steps {
			db, err := storage.Open(context.Background(), storage.Options{URL: "sqlite:" + path, Log: storagetest.Quiet()})
			if err != nil {
				t.Fatal(err)
			}
			for range step / 50 {
				a := &storage.Append{Room: c.room}
				for range 50 {
					d := event.Draft{RoomID: c.room.ID, Type: "m.room.member", StateKey: ptr(fmt.Sprintf("@u%06d:x.example", len(ids))), Sender: "@anna:acme.example",
						Content: []byte(`{"membership":"join"}`), PrevEvents: []matrix.EventID{"$x"}, Depth: int64(len(ids)), OriginServerTS: int64(len(ids))}
					for k := range cites {
						if at := len(ids) - 1 - (k*k*k*97+k)%max(len(ids), 1); at >= 0 {
							d.AuthEvents = append(d.AuthEvents, ids[at])
						}
					}
					e, err := event.Build(c.room.Version, d)
					if err != nil {
						t.Fatal(err)
					}
					ids = append(ids, e.ID)
					bytes += int64(len(e.JSON))
					a.Events = append(a.Events, storage.NewEvent{Event: e, Flags: flags, AuthRank: int64(len(ids))})
					a.State = append(a.State, statemap.Change{Key: e.Key(), ID: e.ID})
				}
				a.Head = storage.Head{Name: string(ids[len(ids)-1]), Extremities: ids[len(ids)-1:], Depth: int64(len(ids))}
				if err := db.Append(context.Background(), a); err != nil {
					t.Fatal(err)
				}
				c.room = a.Room
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, info.Size())
		}
		return sizes, bytes
	}
	plain, plainJSON := grow(0, 0)
	// An event that is authorised cites 7 others at most.
	linked, linkedJSON := grow(7, 0)
	index := (linked[steps-1] - plain[steps-1] - (linkedJSON - plainJSON)) / (step * steps)
	if index > 2048 {
		t.Errorf("7 links cost %d bytes an event, want less than 2048", index)
	}
	if first, last := linked[1]-linked[0], linked[steps-1]-linked[steps-2]; last > first+first/4 {
		t.Errorf("%d events take %d bytes more at first and %d later", step, first, last)
	}
	bare, bareJSON := grow(0, storage.Rejected)
	rejected, rejectedJSON := grow(10, storage.Rejected)
	if wasted := (rejected[steps-1] - bare[steps-1] - (rejectedJSON - bareJSON)) / (step * steps); wasted > 400 {
		t.Errorf("10 links of a rejected event cost %d bytes", wasted)
	}
	t.Logf("%d bytes an event; sizes %v and %v", index, plain, linked)
}

// Whoever follows the log passes no position by, however the transactions that took them overlap.
func TestD459_NoGapsForReaders(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		const writers, each = 8, 30
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					err := db.Update(ctx, func(tx *storage.Tx) error {
						if err := tx.Announce("test", fmt.Sprint(w, "-", i)); err != nil {
							return err
						}
						for range (w * i) % 5 { // some take longer from their position to their end
							if _, err := tx.Position(); err != nil {
								return err
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
					c := newChain(fmt.Sprintf("!r%d-%d:acme.example", w, i))
					if err := db.Append(ctx, c.next(t, "m.test", nil, `{}`)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		at, found, last := int64(0), 0, false
		for !last {
			select {
			case <-done:
				last = true // once more: all is there now
			default:
			}
			var upto int64
			var list []storage.Entry
			err := db.View(ctx, func(tx *storage.Tx) (err error) {
				if upto, err = tx.Position(); err == nil {
					list, err = tx.ReadLog(at, upto)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range list {
				if e.Pos != at+int64(i)+1 {
					t.Fatalf("after position %d comes %d", at+int64(i), e.Pos)
				}
			}
			if int64(len(list)) != upto-at {
				t.Fatalf("from %d to %d there are %d entries", at, upto, len(list))
			}
			at, found = upto, found+len(list)
		}
		if found != 2*writers*each {
			t.Errorf("%d entries were read, want %d", found, 2*writers*each)
		}
	})
}

// One bit that flipped in one event takes that event away, and nothing else.
func TestD474_FlippedBits(t *testing.T) {
	t.Parallel()
	db := storagetest.Open(t, storage.Options{URL: storagetest.URL(t, "sqlite")})
	ctx := context.Background()
	c := newChain("!a:acme.example")
	var ids []matrix.EventID
	for i := range 3 {
		a := c.next(t, "m.room.message", nil, fmt.Sprintf(`{"body":"message %d","msgtype":"m.text"}`, i))
		if err := db.Append(ctx, a); err != nil {
			t.Fatal(err)
		}
		c.room = a.Room
		ids = append(ids, a.Stored[0].ID)
	}
	load := func(id matrix.EventID) (e *storage.Event, err error) {
		err = db.Read(ctx, func(tx *storage.Tx) (err error) { e, err = tx.LoadEvent(id); return err })
		return e, err
	}
	write := func(json []byte) {
		t.Helper()
		if err := storage.Tamper(db, fmt.Sprintf(`UPDATE events SET json = x'%x' WHERE event_id = '%s'`, json, ids[1])); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := load(ids[1])
	if err != nil {
		t.Fatal(err)
	}
	sound := bytes.Clone(whole.JSON)
	for i := range len(sound) * 8 {
		if i%13 != 0 {
			continue // a sample
		}
		damaged := bytes.Clone(sound)
		damaged[i/8] ^= 1 << (i % 8)
		write(damaged)
		if e, err := load(ids[1]); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("bit %d flipped: %v, %s", i, err, e.JSON)
		}
	}
	for _, other := range []matrix.EventID{ids[0], ids[2]} {
		if _, err := load(other); err != nil {
			t.Errorf("another event: %v", err)
		}
	}
	err = db.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadPage("!a:acme.example", 1<<60, storage.Backward, 10)
		if len(list) != 2 {
			t.Errorf("a page has %d events, want the 2 that are sound", len(list))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	redacted, err := event.Redact(whole.Event)
	if err != nil {
		t.Fatal(err)
	}
	write(redacted.JSON)
	if e, err := load(ids[1]); err != nil || string(e.Content) != "{}" {
		t.Errorf("a redacted event: %v", err)
	}
	write(bytes.Replace(redacted.JSON, []byte(`"content":{}`), []byte(`"content":{"body":"put back"}`), 1))
	if e, err := load(ids[1]); err == nil {
		t.Errorf("content was put into a redacted event: %s", e.JSON)
	}
}
