package chaos

import (
	"fmt"
	"sync"
	"testing"

	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// Whoever was away while their own name changed many times was in the room all the time, and is not told all of it again; whoever left
// in between was not.
func TestSync_ManyNamesWhileAway(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s := hstest.New(t, hstest.Options{Database: database})
			anna, ben := s.User("anna"), s.User("ben")
			for _, changes := range []int{1, 3, 30} {
				for _, leaves := range []bool{false, true} {
					room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
					ben.Join(room)
					anna.Send(room, "before")
					since := ben.Sync(0).String("next_batch")
					rename := func(n int) {
						ben.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.member/"+hstest.Esc(string(ben.ID)),
							map[string]any{"membership": "join", "displayname": fmt.Sprint("Ben ", n)})
					}
					for n := range changes {
						rename(n)
					}
					if leaves {
						ben.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{})
						ben.Join(room)
						rename(changes)
					}
					anna.Send(room, "after")
					s.Restart() // so that the database has to say it
					a := ben.Must("GET", "/sync?timeout=0&since="+since+"&filter="+hstest.Esc(`{"room":{"timeline":{"limit":100}}}`), nil)
					again := false
					for _, e := range a.Timeline(room) {
						again = again || e["type"] == "m.room.create"
					}
					if again != leaves {
						t.Errorf("after %d changes of the name, leaving %v: the whole room is told again: %v", changes, leaves, again)
					}
				}
			}
		})
	}
}

// A changed name is written into rooms without doubling the membership of somebody who has left and come back meanwhile.
func TestProfile_DoublesNoMembership(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna, ben := s.User("anna"), s.User("ben")
	room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
	ben.Join(room)
	var wait sync.WaitGroup
	wait.Go(func() {
		for n := range 25 {
			ben.Must("PUT", "/profile/"+hstest.Esc(string(ben.ID))+"/displayname", map[string]any{"displayname": fmt.Sprint("Ben ", n)})
		}
	})
	for range 25 {
		ben.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{})
		ben.Join(room)
	}
	wait.Wait()
	ben.Until("the last name", func(hstest.Answer) bool {
		return anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.member/"+hstest.Esc(string(ben.ID)), nil).String("displayname") == "Ben 24"
	})
	last := ""
	for _, e := range anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=f&limit=1000", nil).Get("chunk").([]any) {
		m := e.(map[string]any)
		if m["type"] != "m.room.member" || m["state_key"] != string(ben.ID) {
			continue
		}
		now := fmt.Sprint(m["content"])
		if now == last {
			t.Errorf("the membership %s is there twice in a row", now)
		}
		last = now
	}
}
