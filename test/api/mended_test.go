package api

import (
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// rewrite runs a statement in the database past the server.
func rewrite(t *testing.T, s *hstest.Server, q string, args ...any) {
	t.Helper()
	r, err := storagetest.Raw(t, s.Config.Database).Exec(q, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.RowsAffected(); n == 0 || err != nil {
		t.Fatalf("%s: %d rows, %v", q, n, err)
	}
}

// Who is in a room can change without an event that says so: state resolution goes back to an older one, or an audit finds that the database was
// wrong. Whoever is online gets what is said from then on if they are in the room, and nothing of it if they are not.
func TestSync_MembershipChangesWithoutAnEvent(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben, carl := s.User("anna"), s.User("ben"), s.User("carl")
		room, lobby := anna.CreateRoom(map[string]any{"preset": "public_chat"}), anna.CreateRoom(map[string]any{"preset": "public_chat"})
		for _, u := range []*hstest.User{ben, carl} {
			u.Join(room)
			u.Join(lobby)
		}
		anna.Must("POST", "/_matrix/client/v3/rooms/"+hstest.Esc(room)+"/ban", map[string]any{"user_id": ben.ID})
		s.Stop()
		of := ` WHERE user_id = $1 AND room_num = (SELECT room_num FROM rooms WHERE room_id = $2)`
		rewrite(t, s, `UPDATE memberships SET membership = 'join'`+of, ben.ID, room)
		rewrite(t, s, `UPDATE memberships SET membership = 'leave'`+of, carl.ID, room)
		s.Restart()
		for u, in := range map[*hstest.User]bool{ben: true, carl: false} { // now they are online
			if a := u.Sync(0); (a.Get("rooms", "join", room) != nil) != in {
				t.Fatalf("as the database has it %s is in the room: %t: %s", u.ID, in, a.Raw)
			}
		}
		found, err := s.Rooms.AuditState(t.Context(), matrix.RoomID(room))
		if err != nil || len(found.Keys) != 2 {
			t.Fatalf("the audit finds %v, %v", found, err)
		}
		for i, text := range []string{"secret", "more"} {
			anna.Send(room, text)
			anna.Send(lobby, "done")
			for u, in := range map[*hstest.User]bool{ben: false, carl: true} {
				got, left := "", false
				u.Until("what was said in the lobby", func(a hstest.Answer) bool {
					got += bodies(a.Timeline(room))
					left = left || a.Get("rooms", "leave", room) != nil
					return bodies(a.Timeline(lobby)) != ""
				})
				if want := map[bool]string{true: text}[in]; !strings.HasSuffix(got, want) || !in && got != "" {
					t.Errorf("%s got %q, want %q", u.ID, got, want)
				}
				if want := !in && i == 0; left != want {
					t.Errorf("%s is told to have left: %t, want %t", u.ID, left, want)
				}
			}
		}
	})
}
