package e2ee

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/storage"
)

func content(n int) jsontext.Value { return jsontext.Value(fmt.Sprintf(`{ "n" : %d }`, n)) }

// inbox returns what waits for a device up to now.
func (d *device) inbox(after int64) []string {
	d.w.t.Helper()
	list, _, err := d.w.LoadToDevice(d.w.ctx, d.UserID, d.DeviceID, after, d.w.position())
	d.w.must(err)
	var out []string
	for _, m := range list {
		out = append(out, fmt.Sprintf("%s %s %s", m.Sender, m.Type, m.Content))
	}
	return out
}

func TestSendToDevice_AddressesAndRepeats(t *testing.T) {
	each(t, func(w *world) {
		a1, a2, b := w.device(anna, "A1"), w.device(anna, "A2"), w.device(bert, "B")
		body := Messages{anna: {"*": content(1), "A2": content(2), "UNKNOWN": content(3)}, ghost: {"*": content(4)}, far: {"X": content(5)}}
		for range 3 {
			w.must(w.SendToDevice(w.ctx, b.Caller, "m.test", "t1", body))
		}
		if got := a1.inbox(0); !slices.Equal(got, []string{`@bert:acme.example m.test {"n":1}`}) {
			w.t.Errorf("A1 got %v", got)
		}
		if got := a2.inbox(0); !slices.Equal(got, []string{`@bert:acme.example m.test {"n":2}`}) {
			w.t.Errorf("A2 got %v", got)
		}
		// The transaction ID belongs to the device and the type, and outlives a restart.
		w.restart()
		w.must(w.SendToDevice(w.ctx, b.Caller, "m.test", "t1", body))
		w.must(w.SendToDevice(w.ctx, b.Caller, "m.other", "t1", Messages{anna: {"A1": content(6)}}))
		w.must(w.SendToDevice(w.ctx, w.device(bert, "B2").Caller, "m.test", "t1", Messages{anna: {"A1": content(7)}}))
		if got := a1.inbox(0); len(got) != 3 || !strings.Contains(got[1], "m.other") || !strings.Contains(got[2], ":7}") {
			w.t.Errorf("A1 got %v", got)
		}
	})
}

func TestSendToDevice_BadRequests(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.device(anna, "A"), w.device(bert, "B")
		for _, bad := range []string{"null", "7", `"x"`, "[]"} {
			err := w.SendToDevice(w.ctx, b.Caller, "m.test", "bad"+bad, Messages{anna: {"A": jsontext.Value(bad)}})
			w.refused(err, 400, matrix.CodeBadJSON)
		}
		big := jsontext.Value(`{"a":"` + strings.Repeat("x", maxMessage) + `"}`)
		w.refused(w.SendToDevice(w.ctx, b.Caller, "m.test", "big", Messages{anna: {"A": big}}), 413, matrix.CodeTooLarge)
		w.refused(w.SendToDevice(w.ctx, b.Caller, strings.Repeat("x", 256), "t", nil), 400, matrix.CodeInvalidParam)
		w.refused(w.SendToDevice(w.ctx, b.Caller, "m.test", strings.Repeat("x", 256), nil), 400, matrix.CodeInvalidParam)
		w.refused(w.SendToDevice(w.ctx, b.Caller, "m.test", "t", Messages{"anna": {"A": content(1)}}), 400, matrix.CodeInvalidParam)
		if got := a.inbox(0); len(got) != 0 {
			w.t.Errorf("something arrived: %v", got)
		}
	})
}

func TestP305_KeyRequestsOfDenied(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.device(anna, "A"), w.device(bert, "B")
		w.must(w.SendToDevice(w.ctx, b.Caller, "m.room_key", "before", Messages{anna: {"A": content(0)}}))
		w.wall.deny(bert, anna)
		for _, typ := range []string{"m.room_key_request", "m.forwarded_room_key", "m.room_key_bundle", "m.room.encrypted"} {
			w.must(w.SendToDevice(w.ctx, b.Caller, typ, "t", Messages{anna: {"*": content(1)}, bert: {"*": content(2)}}))
		}
		if got := a.inbox(0); len(got) != 0 {
			w.t.Errorf("anna got %v", got)
		}
		if got := b.inbox(0); len(got) != 4 {
			w.t.Errorf("bert got %v, want his own four", got)
		}
	})
}

func TestP329_OneDeniedOfMany(t *testing.T) {
	each(t, func(w *world) {
		a, b, c := w.device(anna, "A").ready(1), w.device(bert, "B"), w.device(cleo, "C").ready(1)
		many := query{anna: nil, cleo: nil}
		messages := Messages{anna: {"*": content(1)}, cleo: {"*": content(2)}}
		for i := range 98 {
			u := matrix.UserID(fmt.Sprintf("@user%d:acme.example", i))
			many[u], messages[u] = nil, map[matrix.DeviceID]jsontext.Value{"*": content(3)}
		}
		w.wall.deny(bert, anna)
		w.must(w.SendToDevice(w.ctx, b.Caller, "m.test", "t", messages))
		if got := a.inbox(0); len(got) != 0 {
			w.t.Errorf("anna got %v", got)
		}
		if got := c.inbox(0); len(got) != 1 {
			w.t.Errorf("cleo got %v", got)
		}
		keys, err := w.QueryKeys(w.ctx, b.Caller, many)
		if w.must(err); len(keys.DeviceKeys) != 1 || len(keys.DeviceKeys[cleo]) != 1 || len(keys.Failures) != 0 {
			w.t.Errorf("answer = %s", value(keys))
		}
	})
}

func TestD473_ToDeviceAck(t *testing.T) {
	each(t, func(w *world) {
		w.device(anna, "A")
		b := w.device(bert, "B")
		const messages = 250
		for i := range messages {
			w.must(w.SendToDevice(w.ctx, b.Caller, "m.test", fmt.Sprint("t", i), Messages{anna: {"A": content(i)}}))
		}
		var got []string
		var since int64
		for step := 0; step < 10; step++ {
			w.must(w.AckToDevice(w.ctx, anna, "A", since))
			upto := w.position()
			first, through, err := w.LoadToDevice(w.ctx, anna, "A", since, upto)
			w.must(err)
			// The response is lost, the server restarts, the client asks again from the same place.
			w.restart()
			w.must(w.AckToDevice(w.ctx, anna, "A", since))
			again, through2, err := w.LoadToDevice(w.ctx, anna, "A", since, upto)
			w.must(err)
			if len(first) != len(again) || through != through2 || len(first) > 100 {
				w.t.Fatalf("%d messages up to %d, then %d up to %d", len(first), through, len(again), through2)
			}
			for _, m := range again {
				got = append(got, string(m.Content))
			}
			since = through
			if len(again) == 0 {
				break
			}
		}
		if len(got) != messages {
			w.t.Fatalf("%d messages arrived, want %d", len(got), messages)
		}
		for i, c := range got {
			if c != fmt.Sprintf(`{"n":%d}`, i) {
				w.t.Fatalf("message %d is %s", i, c)
			}
		}
		w.must(w.AckToDevice(w.ctx, anna, "A", since))
		w.must(w.DB.Read(w.ctx, func(tx *storage.Tx) error {
			first, _, err := tx.LoadToDeviceRange(anna, "A")
			if first != 0 {
				w.t.Error("acknowledged messages are still there")
			}
			return err
		}))
	})
}

func TestToDevice_IdleCostsNothing(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.device(anna, "A"), w.device(bert, "B")
		w.must(w.SendToDevice(w.ctx, b.Caller, "m.test", "t", Messages{anna: {"A": content(1)}}))
		pos := w.position()
		if got := a.inbox(0); len(got) != 1 {
			w.t.Fatalf("inbox = %v", got)
		}
		w.must(w.AckToDevice(w.ctx, anna, "A", pos))
		before := w.DB.Stats()
		for range 10 {
			w.must(w.AckToDevice(w.ctx, anna, "A", pos))
			if list, through, err := w.LoadToDevice(w.ctx, anna, "A", pos, pos+5); err != nil || len(list) != 0 || through != pos+5 {
				w.t.Errorf("messages = %v up to %d, %v", list, through, err)
			}
		}
		if after := w.DB.Stats(); after != before {
			w.t.Errorf("idling cost %+v, before %+v", after, before)
		}
		w.must(w.SendToDevice(w.ctx, b.Caller, "m.test", "t2", Messages{anna: {"A": content(2)}}))
		if got := a.inbox(pos); len(got) != 1 {
			w.t.Errorf("inbox = %v", got)
		}
	})
}

func TestSendToDevice_ManyAtATimeLoseNothing(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A")
		const senders, each = 8, 20
		var wg sync.WaitGroup
		for s := range senders {
			d := w.device(bert, matrix.DeviceID(fmt.Sprint("B", s)))
			wg.Go(func() {
				for i := range each {
					txn := fmt.Sprint(i)
					for range 2 { // every request is repeated
						if err := w.SendToDevice(w.ctx, d.Caller, "m.test", txn, Messages{anna: {"A": content(s*1000 + i)}}); err != nil {
							w.t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		next := make([]int, senders)
		var since int64
		total := 0
		for upto := w.position(); since < upto; {
			list, through, err := w.LoadToDevice(w.ctx, anna, "A", since, upto)
			w.must(err)
			for _, m := range list {
				var n int
				if _, err := fmt.Sscanf(string(m.Content), `{"n":%d}`, &n); err != nil {
					w.t.Fatal(err)
				}
				if n%1000 != next[n/1000] {
					w.t.Errorf("message %d arrived when %d was next", n, next[n/1000])
				}
				next[n/1000]++
				total++
			}
			w.must(w.AckToDevice(w.ctx, a.UserID, a.DeviceID, through))
			since = through
		}
		if total != senders*each {
			w.t.Errorf("%d messages arrived, want %d", total, senders*each)
		}
	})
}
