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

// page returns the messages that wait for a device after a position, as a sync would.
func (d *device) page(after int64, limit int) (list []storage.ToDevice) {
	d.w.t.Helper()
	d.w.must(d.w.DB.Read(d.w.ctx, func(tx *storage.Tx) (err error) {
		list, err = tx.LoadToDevice(d.UserID, d.DeviceID, after, 1<<60, limit)
		return err
	}))
	return list
}

// ack acknowledges the messages up to a position, as a sync would.
func (d *device) ack(upto int64) {
	d.w.t.Helper()
	d.w.update(func(tx *storage.Tx) error {
		_, err := tx.DeleteToDevice(d.UserID, d.DeviceID, upto)
		return err
	})
}

// inbox returns what waits for a device up to now.
func (d *device) inbox(after int64) []string {
	d.w.t.Helper()
	var out []string
	for _, m := range d.page(after, 1000) {
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
		a, b := w.device(anna, "A"), w.device(bert, "B")
		const messages = 250
		for i := range messages {
			w.must(w.SendToDevice(w.ctx, b.Caller, "m.test", fmt.Sprint("t", i), Messages{anna: {"A": content(i)}}))
		}
		var got []string
		var since int64
		for {
			a.ack(since)
			lost := a.page(since, 100)
			// The response is lost and the server restarts; the client asks again from the same place.
			w.restart()
			a.ack(since)
			list := a.page(since, 100)
			if !slices.EqualFunc(lost, list, func(x, y storage.ToDevice) bool { return x.Pos == y.Pos }) {
				w.t.Fatalf("%d messages, then %d", len(lost), len(list))
			}
			if len(list) == 0 {
				break
			}
			for _, m := range list {
				got = append(got, string(m.Content))
			}
			since = list[len(list)-1].Pos
		}
		if len(got) != messages {
			w.t.Fatalf("%d messages arrived, want %d", len(got), messages)
		}
		for i, c := range got {
			if c != fmt.Sprintf(`{"n":%d}`, i) {
				w.t.Fatalf("message %d is %s", i, c)
			}
		}
		if list := a.page(0, 1); len(list) != 0 {
			w.t.Error("acknowledged messages are still there")
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
		total := 0
		for _, m := range a.page(0, 1000) {
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
		if total != senders*each {
			w.t.Errorf("%d messages arrived, want %d", total, senders*each)
		}
	})
}
