package clientsync_test

import (
	"fmt"
	"slices"
	"testing"

	"hansa/homeserver/clientsync"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// A page of a large room is as the room was when the rest of the answer was read, whoever has come, left or taken another name meanwhile.
func TestCrowd_IsOfOneMoment(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s := hstest.New(t, hstest.Options{Database: database})
			anna, ben, cleo, dora := s.User("anna"), s.User("ben"), s.User("cleo"), s.User("dora")
			id := anna.CreateRoom(map[string]any{"preset": "public_chat"})
			ben.Join(id)
			cleo.Join(id)
			var room *storage.Room
			var upto int64
			err := s.DB.View(t.Context(), func(tx *storage.Tx) (err error) {
				if upto, err = tx.Position(); err == nil {
					room, err = tx.LoadRoom(matrix.RoomID(id))
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			ben.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
			dora.Join(id)
			anna.Must("PUT", "/rooms/"+hstest.Esc(id)+"/state/m.room.member/"+hstest.Esc(string(anna.ID)), map[string]any{"membership": "join", "displayname": "Other"})
			for _, c := range []struct {
				after matrix.UserID
				users []matrix.UserID
				want  []string
			}{
				{"", []matrix.UserID{anna.ID, ben.ID, cleo.ID, dora.ID}, []string{"@anna:acme.example  join", "@ben:acme.example  join", "@cleo:acme.example  join"}},
				{cleo.ID, []matrix.UserID{dora.ID}, nil},
				{dora.ID, nil, nil},
			} {
				var users []matrix.UserID
				var got []string
				err := s.DB.View(t.Context(), func(tx *storage.Tx) (err error) {
					var events []*storage.Event
					users, events, err = clientsync.CrowdAfter(tx, room, c.after, upto)
					for _, e := range events {
						got = append(got, fmt.Sprint(*e.StateKey, " ", event.Member(e.Event).DisplayName, " ", event.Membership(e.Event)))
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				if !slices.Equal(users, c.users) || !slices.Equal(got, c.want) {
					t.Errorf("after %q: %v, %q; want %v, %q", c.after, users, got, c.users, c.want)
				}
			}
		})
	}
}
