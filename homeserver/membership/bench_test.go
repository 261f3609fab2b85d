package membership_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/test/hstest"
)

// BenchmarkJoinAfar joins a room of another server with 5,000 members. The bar is 5 s.
func BenchmarkJoinAfar(b *testing.B) {
	for _, database := range []string{"sqlite", "postgres"} {
		b.Run(database, func(b *testing.B) {
			_, s := newWire(b, database, 2)
			a := s[0].User("a")
			id := a.CreateRoom(map[string]any{"preset": "public_chat"})
			for i := range 5000 {
				key := fmt.Sprintf("@user%d:one.example", i)
				_, err := s[0].Rooms.Send(context.Background(), room.Draft{RoomID: matrix.RoomID(id), Sender: matrix.UserID(key), Type: "m.room.member", StateKey: &key,
					Content: jsontext.Value(`{"displayname":"Somebody","membership":"join"}`)})
				if err != nil {
					b.Fatal(err)
				}
			}
			joiner := s[1].User("b")
			b.ResetTimer()
			for range b.N {
				joiner.Must("POST", "/join/"+hstest.Esc(id)+"?via=one.example", map[string]any{})
				b.StopTimer()
				joiner.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
				b.StartTimer()
			}
		})
	}
}
