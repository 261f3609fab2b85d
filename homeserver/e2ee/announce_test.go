package e2ee

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"hansa/federation"
	"hansa/matrix"
	"hansa/storage"
)

// announced is the number of the newest update of a user.
func (w *world) announced(user matrix.UserID) (id int64) {
	w.must(w.DB.Read(w.ctx, func(tx *storage.Tx) error {
		told, err := tx.LoadAnnouncedList(user)
		id = told.StreamID
		return err
	}))
	return id
}

// TestAnnouncer_TellsServersInTheRoom changes devices of a user and looks at what other servers hear.
func TestAnnouncer_TellsServersInTheRoom(t *testing.T) {
	each(t, func(w *world) {
		pos, follower := int64(0), w.Announcer()
		follow := func() []sent {
			w.t.Helper()
			entries, upto, err := w.Stream.Read(w.ctx, pos)
			w.must(err)
			w.must(follower.Handle(w.ctx, entries, upto))
			got := w.outbox.take()
			w.must(follower.Handle(w.ctx, entries, upto)) // the same range may come again
			for _, s := range w.outbox.take() {
				if s.update().StreamID != w.announced(anna) {
					w.t.Errorf("told twice: %s", s.content)
				}
			}
			pos = upto
			return got
		}
		w.device(anna, "A").ready(0)
		if got := follow(); len(got) != 0 {
			w.t.Errorf("told nobody who shares a room: %v", got)
		}
		r := w.room("!r:acme.example")
		r.member(anna, "join")
		r.member(far, "join")
		a2 := w.device(anna, "A2").ready(0)
		got := follow()
		if len(got) != 2 || got[0].to != elsewhere || got[0].as != acme || got[0].typ != federation.EDUDeviceList {
			w.t.Fatalf("told %d: %s", len(got), contents(got))
		}
		first, second := got[0].update(), got[1].update()
		if first.DeviceID != "A" || first.StreamID != 1 || len(first.PrevID) != 0 || second.DeviceID != "A2" || second.StreamID != 2 || !slices.Equal(second.PrevID, []int64{1}) ||
			second.Keys == nil || second.DisplayName != "Laptop A2" || !strings.Contains(string(second.Keys), "signatures") {
			w.t.Errorf("updates %+v, %+v", first, second)
		}
		if d, err := w.ServeDevices(w.ctx, acme, elsewhere, anna); err != nil || d.StreamID != 2 {
			w.t.Errorf("devices %+v, %v", d, err)
		}
		w.identity(a2, "anna")
		got = follow()
		if len(got) < 1 || got[len(got)-1].typ != federation.EDUSigningKey || strings.Contains(string(got[len(got)-1].content), "user_signing") {
			w.t.Errorf("told %d: %s", len(got), contents(got))
		}
		w.update(func(tx *storage.Tx) error { return w.DropDevices(tx, anna, []matrix.DeviceID{"A"}) })
		got = follow()
		if len(got) != 1 || !got[0].update().Deleted || got[0].update().DeviceID != "A" {
			w.t.Fatalf("told %d: %s", len(got), contents(got))
		}
		last := got[0].update().StreamID
		// Whom policy keeps away hears nothing.
		w.wall.mu.Lock()
		w.wall.denied[[2]string{string(elsewhere), string(anna)}] = true
		w.wall.mu.Unlock()
		w.device(anna, "A3").ready(0)
		if got := follow(); len(got) != 0 {
			w.t.Errorf("told %d: %s", len(got), contents(got))
		}
		w.wall.mu.Lock()
		clear(w.wall.denied)
		w.wall.mu.Unlock()
		// A server that comes into another room learns where the announcements are.
		r2 := w.room("!r2:acme.example")
		r2.member(anna, "join")
		r2.member(far2, "join")
		got = follow()
		if len(got) == 0 || got[0].to != elsewhere || got[0].update().StreamID != last+1 || !slices.Equal(got[0].update().PrevID, []int64{last}) {
			w.t.Errorf("told %d: %s", len(got), contents(got))
		}
	})
}

// TestAnnouncer_ForgetsLists forgets lists of users with whom nobody shares a room.
func TestAnnouncer_ForgetsLists(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A").ready(0)
		w.peers.put(far, 5, "F1")
		w.peers.put(far2, 5, "G")
		r, r2 := w.room("!r:acme.example"), w.room("!r2:acme.example")
		for _, one := range []*testRoom{r, r2} {
			one.member(anna, "join")
			one.member(far, "join")
		}
		r.member(far2, "join")
		w.query(a, far, far2)
		pos, follower := w.position(), w.Announcer()
		kept := func(want int) {
			w.t.Helper()
			entries, upto, err := w.Stream.Read(w.ctx, pos)
			w.must(err)
			w.must(follower.Handle(w.ctx, entries, upto))
			pos = w.position()
			w.must(w.DB.Read(w.ctx, func(tx *storage.Tx) error {
				lists, err := tx.LoadRemoteLists([]matrix.UserID{far, far2})
				devices, derr := tx.LoadRemoteDevices([]matrix.UserID{far, far2})
				if len(lists) != want || len(devices) != want {
					w.t.Errorf("%d lists and %d devices are kept, want %d", len(lists), len(devices), want)
				}
				return errors.Join(err, derr)
			}))
		}
		kept(2)
		r.member(anna, "leave")
		kept(1)
		// Agreements change: what is kept goes where nobody may reach the server.
		w.must(w.forgetStrangers(w.ctx))
		kept(1)
		w.wall.mu.Lock()
		w.wall.denied[[2]string{string(acme), string(elsewhere)}] = true
		w.wall.mu.Unlock()
		w.must(w.forgetStrangers(w.ctx))
		kept(0)
		w.query(a, far)
		kept(1)
		r2.member(far, "leave")
		kept(0)
	})
}

func contents(list []sent) (out []string) {
	for _, s := range list {
		out = append(out, string(s.content))
	}
	return out
}
