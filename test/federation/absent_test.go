package federation_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// A partner was away while more happened than anybody keeps for it: it gets the newest of each room, and finds the rest by itself. What came
// in between is in the history once, and both go on as before.
func TestF130_PartnerWasAway(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		const rooms, messages = 5, 60
		one, two := f.Servers[0], f.Servers[1]
		anna, bob := one.User("anna"), two.User("bob")
		var list []string
		for range rooms {
			room := anna.CreateRoom(object{"preset": "public_chat"})
			bob.Must("POST", via(room, one), object{})
			anna.Until("bob's coming", membership(room, bob.ID, "join"))
			list = append(list, room)
		}
		two.Stop()
		for i := range messages {
			for _, room := range list {
				anna.Send(room, fmt.Sprintf("word %d.", i))
			}
		}
		one.Restart() // what waits does not live in memory alone
		anna = anna.On(one)
		two.Restart()
		bob = bob.On(two)
		bob.Send(list[0], "here I am") // which makes the other server try again at once
		missing := map[string]bool{}
		for _, room := range list {
			missing[room] = true
		}
		bob.Until("the newest words", func(a hstest.Answer) bool {
			for room := range missing {
				if has(room, fmt.Sprintf("word %d.", messages-1))(a) {
					delete(missing, room)
				}
			}
			return len(missing) == 0
		})
		for _, room := range list {
			var history strings.Builder
			from := ""
			for range 40 {
				a := bob.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=20"+from, nil)
				history.Write(a.Raw)
				end := a.String("end")
				if end == "" {
					break
				}
				from = "&from=" + url.QueryEscape(end)
			}
			for i := range messages {
				if n := strings.Count(history.String(), fmt.Sprintf(`"word %d."`, i)); n != 1 {
					t.Errorf("word %d is in the history %d times, want once", i, n)
				}
			}
			anna.Send(room, "as before")
			bob.Until("anna's words", has(room, "as before"))
		}
		anna.Until("bob's words", has(list[0], "here I am"))
	})
}
