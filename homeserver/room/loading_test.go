package room_test

import (
	"fmt"
	"sync"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/storage"
)

// beside is another node on the same database, with rooms in a memory of its own.
func (k *kit) beside() *kit {
	other := *k
	other.restart()
	return &other
}

// refresh tells the rooms of what the log says after a position.
func (k *kit) refresh(after int64) {
	k.t.Helper()
	var entries []storage.Entry
	k.must(k.db.View(k.ctx(), func(tx *storage.Tx) error {
		upto, err := tx.Position()
		if err == nil {
			entries, err = tx.ReadLog(after, upto)
		}
		return err
	}))
	k.rooms.Refresh(entries)
}

func (k *kit) membershipIn(id matrix.RoomID, u matrix.UserID) (m string) {
	k.t.Helper()
	k.must(k.rooms.Look(k.ctx(), id, func(v room.View) { m = v.Membership(u) }))
	return m
}

// What another node has written, and the log told of, while a room was being read, is known when the room can be used: whoever has got the answer that
// it is written may ask for it here.
func TestO506_WrittenWhileARoomIsRead(t *testing.T) {
	t.Parallel()
	anna, bob := user("anna"), user("bob")
	each(t, nil, func(t *testing.T, k *kit) {
		other := k.beside()
		id := other.create("11", "public", anna)
		k.must(k.rooms.LoadSlowly(k.ctx(), id, func() {
			k.must(other.member(id, bob, bob, auth.Join))
			k.refresh(0)
		}))
		if m := k.membershipIn(id, bob); m != auth.Join {
			t.Errorf("bob, who has joined on another node while the room was read, is %q here", m)
		}
		k.must(k.member(id, bob, bob, auth.Leave))

		k.restart()
		k.must(k.rooms.LoadSlowly(k.ctx(), id, func() {
			for i := range 150 { // more than is remembered of them
				_, err := other.say(id, anna, fmt.Sprint(i))
				k.must(err)
			}
			k.must(other.member(id, bob, bob, auth.Join))
			k.refresh(0)
		}))
		if m := k.membershipIn(id, bob); m != auth.Join {
			t.Errorf("bob, who has joined on another node behind many messages, is %q here", m)
		}

		k.restart()
		var sent room.Sent
		k.must(k.rooms.LoadSlowly(k.ctx(), id, func() {
			var err error
			sent, err = other.say(id, anna, "hello")
			k.must(err)
			k.refresh(0)
		}))
		if h := k.head(id); h.Name != string(sent.EventID) {
			t.Errorf("the head is %s, want the message that another node has sent meanwhile", h.Name)
		}
	})
}

// A room that is made on another node while it is looked for here is there for all who wait for it.
func TestO506_MadeWhileARoomIsRead(t *testing.T) {
	t.Parallel()
	anna := user("anna")
	each(t, nil, func(t *testing.T, k *kit) {
		v, _ := matrix.FindRoomVersion("10")
		other := k.beside()
		var once sync.Once
		made, found := make(chan struct{}), make(chan error, 1)
		draft := func(typ, key string, content map[string]any) room.NewDraft {
			return room.NewDraft{Draft: room.Draft{Type: typ, StateKey: &key, Content: room.Object(content)}, Decided: true}
		}
		_, err := other.rooms.Create(k.ctx(), room.NewRoom{Version: v, Creator: anna, Drafts: []room.NewDraft{
			draft("m.room.create", "", map[string]any{"room_version": "10", "creator": string(anna)}),
			draft("m.room.member", string(anna), map[string]any{"membership": "join"}),
		}, Also: func(_ *storage.Tx, id matrix.RoomID) error { // the room is not committed yet
			once.Do(func() {
				read := make(chan struct{})
				go func() {
					found <- k.rooms.LoadSlowly(k.ctx(), id, func() {
						close(read)
						<-made
						k.refresh(0)
					})
				}()
				<-read
			})
			return nil
		}})
		k.must(err)
		close(made)
		if err := <-found; err != nil {
			t.Errorf("a room that was made while it was looked for: %v", err)
		}
	})
}
