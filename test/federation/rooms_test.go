package federation_test

import (
	"testing"

	"hansa/test/hstest"
)

// Two servers: somebody joins a public room of the other, in every room version, and both talk.
func TestJoinAndTalk(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		for _, v := range versions(t) {
			room := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": v, "name": "Room of version " + v})
			anna.Send(room, "before "+v)
			bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
			bob.Send(room, "from bob "+v)
			anna.Until("bob's words in version "+v, has(room, "from bob "+v))
			anna.Send(room, "from anna "+v)
			bob.Until("anna's words in version "+v, has(room, "from anna "+v))
			bob.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{})
			anna.Until("bob's leaving in version "+v, membership(room, bob.ID, "leave"))
		}
	})
}
