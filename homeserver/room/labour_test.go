package room_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// watchedParties calls a function before somebody is looked up.
type watchedParties struct {
	*facts
	before func(matrix.UserID)
}

func (w *watchedParties) Party(ctx context.Context, user matrix.UserID) (*policy.Party, error) {
	w.before(user)
	return w.facts.Party(ctx, user)
}

// A message of our own that comes while another server's many events are judged goes before the rest of them, and nothing is lost or has to be
// judged anew.
func TestIngest_OwnUsersGoFirst(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			const events = 100
			k := newKit(t, database, partner())
			id := k.create("12", "public", user("anna"))
			k.fred(id, "12")
			d := k.hello(id, "12", fred)
			var raw [][]byte
			var last matrix.EventID
			for i := range events {
				d.Content, d.Type, d.StateKey = room.Object(map[string]any{"msgtype": "m.text", "body": fmt.Sprint(i)}), "m.room.message", nil
				e := k.far.pdu(t, "12", d)
				raw, last = append(raw, pdus(e)...), e.ID
				d.PrevEvents, d.Depth = []matrix.EventID{e.ID}, d.Depth+1
			}
			var mine room.Sent
			var err error
			sent := make(chan struct{})
			judged := 0
			k.rooms = room.New(room.Deps{DB: k.db, Stream: k.stream, Policy: k.engine, Keys: k.keys, Keyring: k.far, Log: storagetest.Quiet(),
				Parties: &watchedParties{k.facts, func(who matrix.UserID) {
					if who != fred {
						return
					}
					if judged++; judged == 2 {
						go func() {
							defer close(sent)
							mine, err = k.rooms.Send(k.ctx(), room.Draft{RoomID: id, Sender: user("anna"), Type: "m.room.message", Content: []byte(`{"msgtype":"m.text","body":"mine"}`)})
						}()
					}
					for range 2000 { // it begins to wait, or has been let in
						if judged < 2 || k.rooms.Waiting(id) > 0 {
							return
						}
						runtime.Gosched()
					}
				}}})
			k.noErrors(k.rooms.Ingest(k.ctx(), acme, "far.example", id, raw))
			<-sent
			k.must(err)
			k.must(k.db.View(k.ctx(), func(tx *storage.Tx) error {
				e, err := tx.LoadEvent(last)
				if err == nil && (e.Pos <= mine.Pos || e.Flags != 0) {
					t.Errorf("the last event of another server has the position %d and the flags %b, ours %d", e.Pos, e.Flags, mine.Pos)
				}
				return err
			}))
			if judged != events {
				t.Errorf("%d events were judged %d times", events, judged)
			}
		})
	}
}
