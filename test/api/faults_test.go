package api

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"hansa/test/hstest"
)

// Many requests at once, each of which reads while it reads: nobody waits for a connection that waits for another.
func TestD462_NestedReads(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		const people = 40
		anna := s.User("anna")
		type home struct {
			u    *hstest.User
			room string
		}
		var homes []home
		for i := range people {
			u := s.User(fmt.Sprint("u", i))
			h := home{u, anna.CreateRoom(map[string]any{"preset": "public_chat"})}
			u.Join(h.room)
			u.Send(h.room, "hello")
			homes = append(homes, h)
		}
		for range 3 {
			s.Restart() // all rooms and users are cold
			var wg sync.WaitGroup
			begin := time.Now()
			for _, h := range homes {
				for _, path := range []string{"/messages?dir=b", "/state", "/members"} {
					wg.Go(func() {
						if a := h.u.Try("GET", at(h.room)+path, nil); a.Status != 200 {
							t.Errorf("%s: %d %s", path, a.Status, a.Raw)
						}
					})
				}
			}
			wg.Wait()
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("%d cold requests took %v", 3*people, took)
			}
		}
	})
}
