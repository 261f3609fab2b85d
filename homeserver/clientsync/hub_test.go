package clientsync

import (
	"context"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// still is typing and presence that never change.
type still struct{ Ephemeral }

func (still) Changed() <-chan struct{} { return nil }

// What is written after a server was built, and before it begins to follow the log, reaches its caches: they may have been filled before it.
func TestHub_FollowsFromWhereCachesBegin(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			events, db, err := stream.Open(t.Context(), stream.Options{Storage: storage.Options{URL: storagetest.URL(t, database)}, Log: storagetest.Quiet()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			rules, err := policy.New(policy.Options{Bundles: []string{t.TempDir()}, Tenants: []string{"acme.example"}, Log: storagetest.Quiet(), SkipTests: true})
			if err != nil {
				t.Fatal(err)
			}
			forgotten := make(chan matrix.UserID, 1)
			s := New(Deps{DB: db, Stream: events, Policy: rules, Rooms: room.New(room.Deps{DB: db, Stream: events, Policy: rules, Log: storagetest.Quiet()}),
				Ephemeral: still{}, Forget: func(u matrix.UserID) { forgotten <- u }, Log: storagetest.Quiet()})
			if err := db.Update(t.Context(), func(tx *storage.Tx) error { return tx.Announce(storage.NoticeParty, "@anna:acme.example") }); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			select {
			case u := <-forgotten:
				if u != "@anna:acme.example" {
					t.Errorf("forgot %s", u)
				}
			case <-time.After(time.Minute):
				t.Error("what was written before Run has not reached the caches")
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
