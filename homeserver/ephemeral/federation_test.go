package ephemeral

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/signing"
)

const faye = matrix.UserID("@faye:far.example")

// abroadKit is a service whose EDUs for other servers are kept.
func abroadKit(t *testing.T) (*Service, func() []string) {
	var sent []string // Send is called with the service's lock held
	s := started(t, Deps{Rooms: &room.Service{Deps: room.Deps{Keys: map[matrix.ServerName]signing.Key{acme: {}}}},
		Send: func(as matrix.ServerName, id matrix.RoomID, user matrix.UserID, edu federation.EDU) {
			if !edu.Content.IsValid() {
				t.Errorf("content %q", edu.Content)
			}
			sent = append(sent, fmt.Sprintf("%s %s %s %s %s", as, id, user, edu.Type, edu.Content))
		}})
	return s, func() []string {
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		out := sent
		sent = nil
		return out
	}
}

func TestSendTyping_OfOwnUsersAndNotTooOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, sent := abroadKit(t)
		typing := func(on bool) string {
			return fmt.Sprintf(`%s %s %s m.typing {"room_id":"%s","typing":%v,"user_id":"%s"}`, acme, roomA, anna, roomA, on, anna)
		}
		expect := func(what string, want ...string) {
			t.Helper()
			if got := sent(); !slices.Equal(got, want) {
				t.Errorf("%s: sent %q, want %q", what, got, want)
			}
		}
		s.startTyping(roomA, anna, 20*time.Second)
		s.startTyping(roomA, faye, 20*time.Second)
		expect("begin", typing(true))
		for range 5 {
			pass(5 * time.Second)
			s.startTyping(roomA, anna, 20*time.Second)
		}
		expect("go on")
		pass(5 * time.Second)
		s.startTyping(roomA, anna, 20*time.Second)
		expect("after a while", typing(true))
		s.StopTyping(roomA, anna)
		expect("stop", typing(false))
		s.startTyping(roomA, anna, 2*time.Second)
		pass(3 * time.Second)
		expect("time is over", typing(true), typing(false))
	})
}

func TestSendPresence_ChangesAndNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, sent := abroadKit(t)
		s.setPresence(anna, "D", Online, `at "work"`)
		s.hearAbroad(faye, Online, "", 0)
		got := sent()
		if len(got) != 1 || !strings.Contains(got[0], `"presence":"online","status_msg":"at \"work\"","user_id":"@anna:acme.example"`) {
			t.Errorf("sent %q", got)
		}
		for range 30 { // stays
			s.touch(anna, "D", Online, time.Minute)
			s.Active(anna)
			pass(time.Minute)
		}
		if got := sent(); len(got) == 0 || len(got) > 8 {
			t.Errorf("sent %d", len(got))
		}
		pass(10 * time.Minute)
		if got := sent(); len(got) == 0 || !strings.Contains(got[len(got)-1], `"presence":"offline"`) {
			t.Errorf("sent %q", got)
		}
	})
}

func TestReceivePresence_IsBelievedForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, sent := abroadKit(t)
		push := func(content string) {
			if err := s.ReceivePresence(t.Context(), acme, "far.example", jsontext.Value(content)); err != nil {
				t.Error(err)
			}
		}
		push(`{"push":[{"user_id":"@faye:far.example","presence":"online","last_active_ago":600000,"status_msg":"hi","currently_active":true}]}`)
		if got := string(s.Presence(faye)); !strings.Contains(got, `"presence":"online"`) || !strings.Contains(got, `"last_active_ago":600000`) || !strings.Contains(got, `"hi"`) {
			t.Errorf("presence %s", got)
		}
		pass(farPresence + time.Minute)
		synctest.Wait()
		if got := string(s.Presence(faye)); got != "" && !strings.Contains(got, `"presence":"offline"`) {
			t.Errorf("presence %s", got)
		}
		for _, bad := range []string{`null`, `[]`, `{"push":{}}`, `{"push":[null,7,{},{"user_id":"@anna:acme.example","presence":"online"},{"user_id":"faye:far.example","presence":"online"}]}`,
			`{"push":[{"user_id":"@b:far.example","presence":"online","last_active_ago":-9223372036854775808},{"user_id":"@c:far.example","presence":"online","last_active_ago":9223372036854775807}]}`} {
			push(bad)
		}
		if s.Presence(anna) != nil {
			t.Error("somebody else's presence was believed")
		}
		if len(sent()) != 0 {
			t.Error("presence of another server's user was sent")
		}
	})
}
