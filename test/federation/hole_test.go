package federation_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/test/hstest"
)

// texts are the messages of a room that a user gets page by page, from a token on, in the order in which they come.
func texts(u *hstest.User, room, dir, from string, done func(list []string) bool) (list []string) {
	for range 200 {
		if from != "" {
			from = "&from=" + url.QueryEscape(from)
		}
		a := u.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?limit=40&dir="+dir+from, nil)
		chunk, _ := a.Get("chunk").([]any)
		for _, v := range chunk {
			e, _ := v.(object)
			if c, _ := e["content"].(object); e["type"] == "m.room.message" {
				list = append(list, fmt.Sprint(c["body"]))
			}
		}
		if from = a.String("end"); from == "" || done(list) {
			return list
		}
	}
	return list
}

// Of a long absence the newest messages come at once, and a hole is left in the history, which clients are told of. What belongs into it is
// fetched when somebody gets there, and has its place between what was before and what came after; where nobody has it now, history goes on
// beyond it, and it comes another time.
func TestHoles_AreFilledInPlace(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		const words = 450
		one, two := f.Servers[0], f.Servers[1]
		anna, bob := one.User("anna"), two.User("bob")
		room := anna.CreateRoom(object{"preset": "public_chat"})
		bob.Must("POST", via(room, one), object{})
		bob.Send(room, "before")
		anna.Until("bob's words", has(room, "before"))
		bob.Sync(0)
		two.Stop()
		want := []string{"before"}
		for i := range words {
			anna.Send(room, fmt.Sprintf("word %d", i))
			want = append(want, fmt.Sprintf("word %d", i))
		}
		one.Restart() // so that the newest word is the only one which is sent
		anna = anna.On(one)
		two.Restart()
		bob = bob.On(two)
		bob.Send(room, "after") // which makes the other server try again at once
		var token string        // of the hole
		bob.Until("the newest words", func(a hstest.Answer) bool {
			if a.Get("rooms", "join", room, "timeline", "limited") == true {
				token, _ = a.Get("rooms", "join", room, "timeline", "prev_batch").(string)
			}
			return has(room, want[words])(a)
		})
		if token == "" {
			t.Fatal("no answer has said that there was more between what was before and what came")
		}
		anna.Until("bob's words", has(room, "after"))

		// Nobody can be asked: history goes on where it is known again.
		one.Stop()
		reached := func(list []string) bool { return slices.Contains(list, "before") }
		if got := texts(bob, room, "b", "", reached); !reached(got) || len(got) > words/2+100 {
			t.Errorf("with a hole there are %d messages; what was before it is among them: %t", len(got), reached(got))
		}
		one.Restart()
		anna = anna.On(one)
		anna.Send(room, "again") // which tells that the server is there
		bob.Until("anna's words", has(room, "again"))

		back := texts(bob, room, "b", token, reached)
		slices.Reverse(back)
		back = slices.DeleteFunc(back, func(s string) bool { return s == "after" })
		if n := len(back); n > words || !slices.Equal(back, want[:n]) {
			t.Errorf("%d messages below the hole's end, are not what was said in its order; at %d", n, differ(back, want))
		}
		all := texts(bob, room, "f", "", func(list []string) bool { return slices.Contains(list, "again") })
		all = slices.DeleteFunc(all, func(s string) bool { return s == "after" || s == "again" })
		if !slices.Equal(all, want) {
			t.Errorf("%d messages from the beginning on, want %d in their order; at %d", len(all), len(want), differ(all, want))
		}
	})
}

// differ is where two lists differ.
func differ(a, b []string) int {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// What stands above a hole may be an event that policy withholds: nobody sees it, and history goes on below it.
func TestHoles_BelowWhatNobodySees(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		anna := one.User("anna")
		room := anna.CreateRoom(object{"preset": "public_chat"})
		var want []string
		for i := range 80 {
			want = append(want, fmt.Sprintf("word %d", i))
			anna.Send(room, want[i])
		}
		ctx := context.Background()
		var r *storage.Room
		if err := one.DB.Read(ctx, func(tx *storage.Tx) (err error) { r, err = tx.LoadRoom(matrix.RoomID(room)); return err }); err != nil {
			t.Fatal(err)
		}
		lost := matrix.EventID(fmt.Sprintf("$%043d", 1))
		e, err := event.Build(r.Version, event.Draft{RoomID: r.ID, Type: "m.room.message", Sender: "@mallory:far.example", Content: []byte(`{"body":"canary","msgtype":"m.text"}`),
			PrevEvents: []matrix.EventID{lost}, Depth: r.Head.Depth + 50, OriginServerTS: 1})
		if err != nil {
			t.Fatal(err)
		}
		head := r.Head
		head.Name = string(e.ID)
		if err := one.DB.Append(ctx, &storage.Append{Room: r, Head: head, Events: []storage.NewEvent{{Event: e, StateRoot: r.Head.StateRoot,
			Flags: storage.Withheld | storage.Gapped, Missing: []matrix.EventID{lost}, Ahead: 100}}}); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			want = append(want, fmt.Sprintf("later %d", i))
			anna.Send(room, want[80+i])
		}
		got := texts(anna, room, "b", "", func(list []string) bool { return slices.Contains(list, "word 0") })
		slices.Reverse(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d messages, want %d in their order; at %d: %q", len(got), len(want), differ(got, want), got[max(0, differ(got, want)-2):])
		}
	})
}
