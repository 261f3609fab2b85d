package ephemeral

import (
	"fmt"
	"sync"
	"testing"

	"hansa/matrix"
	"hansa/storage"
)

func ptr(s string) *string { return &s }

// receipts returns what is stored of a user, as "type thread event".
func (k *kit) receipts(user matrix.UserID) map[string]matrix.EventID {
	k.t.Helper()
	out := map[string]matrix.EventID{}
	err := k.db.View(k.t.Context(), func(tx *storage.Tx) error {
		list, err := tx.LoadOwnReceipts(user)
		for _, r := range list {
			out[r.Type+" "+r.ThreadID] = r.EventID
		}
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return out
}

func (k *kit) fullyRead(user matrix.UserID, id matrix.RoomID) string {
	k.t.Helper()
	var content []byte
	err := k.db.View(k.t.Context(), func(tx *storage.Tx) error {
		d, err := tx.LoadAccountDatum(user, id, FullyRead)
		content = d.Content
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return string(content)
}

// changes counts the log's positions and the commits that fn makes.
func (k *kit) changes(fn func()) (positions, commits int64) {
	k.t.Helper()
	at := func() (pos int64) {
		if err := k.db.Read(k.t.Context(), func(tx *storage.Tx) (err error) {
			pos, err = tx.Position()
			return err
		}); err != nil {
			k.t.Fatal(err)
		}
		return pos
	}
	pos, stats := at(), k.db.Stats()
	fn()
	return at() - pos, k.db.Stats().Commits - stats.Commits
}

func TestPut_MovesForwardOnly(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		ctx := t.Context()
		id := k.room(anna)
		k.member(id, bert, "join")
		var said []matrix.EventID
		for range 3 {
			said = append(said, k.say(id, anna, ""))
		}
		put := func(marks ...Mark) error { return k.Put(ctx, k.by(bert), id, marks...) }
		all := func(e matrix.EventID) []Mark {
			return []Mark{{Type: FullyRead, Event: e}, {Type: Read, Event: e}, {Type: ReadPrivate, Event: e}, {Type: Read, Event: e, Thread: ptr("main")}}
		}
		check := func(e matrix.EventID) {
			t.Helper()
			got := k.receipts(bert)
			for _, key := range []string{"m.read ", "m.read.private ", "m.read main"} {
				if got[key] != e {
					t.Errorf("%s is at %s, want %s", key, got[key], e)
				}
			}
			if got, want := k.fullyRead(bert, id), fmt.Sprintf(`{"event_id":%q}`, e); got != want {
				t.Errorf("marker %s, want %s", got, want)
			}
		}
		pos, commits := k.changes(func() { wantCode(t, "first", put(all(said[1])...), "") })
		if pos != 4 || commits != 1 {
			t.Errorf("%d positions in %d commits, want 4 in 1", pos, commits)
		}
		check(said[1])
		for _, e := range []matrix.EventID{said[1], said[0]} {
			if pos, commits := k.changes(func() { wantCode(t, "again", put(all(e)...), "") }); pos != 0 || commits != 0 {
				t.Errorf("a receipt that moves nothing took %d positions and %d commits", pos, commits)
			}
		}
		check(said[1])
		wantCode(t, "onward", put(all(said[2])...), "")
		check(said[2])
		if pos, _ := k.changes(func() { wantCode(t, "nothing", put(), "") }); pos != 0 {
			t.Error("an empty request moved something")
		}
	})
}

// Requests that come at once leave the furthest mark.
func TestPut_AtOnce(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		id := k.room(anna)
		var said []matrix.EventID
		for range 8 {
			said = append(said, k.say(id, anna, ""))
		}
		var wg sync.WaitGroup
		for _, e := range said {
			wg.Go(func() {
				wantCode(t, "put", k.Put(t.Context(), k.by(anna), id, Mark{Type: Read, Event: e}, Mark{Type: FullyRead, Event: e}), "")
			})
		}
		wg.Wait()
		if got := k.receipts(anna)["m.read "]; got != said[7] {
			t.Errorf("receipt at %s, want %s", got, said[7])
		}
		if got, want := k.fullyRead(anna, id), fmt.Sprintf(`{"event_id":%q}`, said[7]); got != want {
			t.Errorf("marker %s, want %s", got, want)
		}
	})
}

func TestC50_C186_ReceiptsByOutsiders(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		ctx := t.Context()
		id, other := k.room(anna), k.room(anna)
		said, elsewhere, unseen := k.say(id, anna, ""), k.say(other, anna, ""), k.say(id, anna, "")
		const never = matrix.EventID("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		if err := k.db.Update(ctx, func(tx *storage.Tx) error { return tx.SetFlags(unseen, storage.Withheld, 0) }); err != nil {
			t.Fatal(err)
		}
		put := func(user matrix.UserID, id matrix.RoomID, e matrix.EventID) error {
			for _, typ := range []string{ReadPrivate, FullyRead} {
				if err := k.Put(ctx, k.by(user), id, Mark{Type: typ, Event: e}); err == nil {
					t.Errorf("%s marks %s as %s", user, e, typ)
				}
			}
			return k.Put(ctx, k.by(user), id, Mark{Type: Read, Event: e})
		}
		wantCode(t, "never joined", put(bert, id, said), "403 M_FORBIDDEN")
		wantCode(t, "in no room", put(bert, "!nowhere:acme.example", said), "403 M_FORBIDDEN")
		k.mu.Lock()
		k.hidden[said] = true
		k.mu.Unlock()
		k.member(id, bert, "join")
		wantCode(t, "said before joining, history hidden", put(bert, id, said), "403 M_FORBIDDEN")
		wantCode(t, "in another room", put(bert, id, elsewhere), "403 M_FORBIDDEN")
		wantCode(t, "withheld", put(bert, id, unseen), "403 M_FORBIDDEN")
		wantCode(t, "never sent", put(bert, id, never), "403 M_FORBIDDEN")
		after := k.say(id, anna, "")
		k.mu.Lock()
		k.hidden[after] = true // is not asked: bert has been in the room since before
		k.mu.Unlock()
		wantCode(t, "said after joining", k.Put(ctx, k.by(bert), id, Mark{Type: Read, Event: after}), "")
		k.member(id, bert, "leave")
		wantCode(t, "left", put(bert, id, after), "403 M_FORBIDDEN")
		if n := len(k.receipts(bert)); n != 1 {
			t.Errorf("%d receipts stored, want 1", n)
		}
	})
}

func TestF98_BadReceipts(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		ctx := t.Context()
		id := k.room(anna)
		root := k.say(id, anna, "")
		reply := k.say(id, anna, fmt.Sprintf(`{"rel_type":"m.thread","event_id":%q}`, root))
		reaction := k.say(id, anna, fmt.Sprintf(`{"rel_type":"m.annotation","event_id":%q,"key":"x"}`, reply))
		deep := k.say(id, anna, fmt.Sprintf(`{"rel_type":"m.annotation","event_id":%q,"key":"x"}`, reaction))
		deeper := k.say(id, anna, fmt.Sprintf(`{"rel_type":"m.annotation","event_id":%q,"key":"x"}`, deep))
		edit := k.say(id, anna, fmt.Sprintf(`{"rel_type":"m.replace","event_id":%q}`, root))
		plain := k.say(id, anna, "")
		wrong := k.say(id, anna, `{"rel_type":"m.thread","event_id":7}`)
		for _, tt := range []struct {
			what, typ string
			event     matrix.EventID
			thread    *string
			want      string
		}{
			{"unknown type", "m.seen", root, nil, "400 M_INVALID_PARAM"},
			{"no event ID", Read, "root", nil, "400 M_INVALID_PARAM"},
			{"empty thread", Read, root, ptr(""), "400 M_INVALID_PARAM"},
			{"thread that is no event", Read, root, ptr("other"), "400 M_INVALID_PARAM"},
			{"marker with a thread", FullyRead, root, ptr("main"), "400 M_INVALID_PARAM"},
			{"reply in the main timeline", Read, reply, ptr("main"), "400 M_INVALID_PARAM"},
			{"plain event in a thread", Read, plain, ptr(string(root)), "400 M_INVALID_PARAM"},
			{"reply in another thread", Read, reply, ptr(string(plain)), "400 M_INVALID_PARAM"},
			{"root in another thread", Read, root, ptr(string(plain)), "400 M_INVALID_PARAM"},
			{"far too indirect", Read, deeper, ptr(string(root)), "400 M_INVALID_PARAM"},
			{"malformed relation in a thread", Read, wrong, ptr(string(root)), "400 M_INVALID_PARAM"},
			{"root", Read, root, ptr("main"), ""},
			{"root in its thread", Read, root, ptr(string(root)), ""},
			{"reply", Read, reply, ptr(string(root)), ""},
			{"reaction to a reply", Read, reaction, ptr(string(root)), ""},
			{"reaction to that", Read, deep, ptr(string(root)), ""},
			{"edit of the root", Read, edit, ptr("main"), ""},
			{"edit of the root, in its thread", ReadPrivate, edit, ptr(string(root)), ""},
			{"plain event", Read, plain, ptr("main"), ""},
			{"malformed relation", Read, wrong, ptr("main"), ""},
			{"unthreaded", Read, reply, nil, ""},
		} {
			wantCode(t, tt.what, k.Put(ctx, k.by(anna), id, Mark{tt.typ, tt.event, tt.thread}), tt.want)
		}
		got := k.receipts(anna)
		if got["m.read "] != reply || got["m.read main"] != wrong || got["m.read "+string(root)] != deep {
			t.Errorf("receipts %v", got)
		}
		// A bad mark among good ones: nothing is stored.
		pos, _ := k.changes(func() {
			wantCode(t, "half", k.Put(ctx, k.by(anna), id, Mark{Type: FullyRead, Event: plain}, Mark{Type: Read, Event: "$nope"}), "403 M_FORBIDDEN")
		})
		if pos != 0 {
			t.Error("half of a bad request was stored")
		}
	})
}

// Somebody whom the reader may not know of is not there to be read: neither what he says nor the room with him in it.
func TestP303_ReceiptsAcrossWalls(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		ctx := t.Context()
		id := k.room(anna)
		k.policy(map[string]string{"acme.example/pools.yaml": "research: {users: [], contact: closed}\n"})
		k.member(id, carl, "join")
		mine, his := k.say(id, anna, ""), k.say(id, carl, "")
		wantCode(t, "before", k.Put(ctx, k.by(anna), id, Mark{Type: Read, Event: mine}), "")
		k.policy(pools())
		later := k.Put(ctx, k.by(anna), id, Mark{Type: Read, Event: mine})
		wantCode(t, "with carl inside", later, "403 M_FORBIDDEN")
		wantCode(t, "typing with carl inside", k.SetTyping(ctx, k.by(anna), id, anna, true, 0), "403 M_FORBIDDEN")
		wantCode(t, "carl's own", k.Put(ctx, k.by(carl), id, Mark{Type: Read, Event: mine}), "403 M_FORBIDDEN")
		if len(k.Typing(id)) != 0 {
			t.Error("typing is shown")
		}
		k.member(id, carl, "leave")
		wantCode(t, "what carl said, after he left", k.Put(ctx, k.by(anna), id, Mark{Type: Read, Event: his}), "403 M_FORBIDDEN")
		wantCode(t, "what anna says, after he left", k.Put(ctx, k.by(anna), id, Mark{Type: Read, Event: k.say(id, anna, "")}), "")
	})
}
