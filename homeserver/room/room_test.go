package room_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage/storagetest"
)

func status(err error) int {
	var me *matrix.Error
	if errors.As(err, &me) {
		return me.Status
	}
	if errors.Is(err, room.ErrUnknownRoom) {
		return 403 // what whoever may not know of the room is told
	}
	return 0
}

func TestCreate_WorksInEveryVersion(t *testing.T) {
	t.Parallel()
	k := newKit(t, "sqlite", nil)
	for _, v := range matrix.RoomVersions() {
		id := k.create(v, "public", user("anna"))
		k.must(k.member(id, user("ben"), user("ben"), "join"))
		sent, err := k.say(id, user("ben"), "hello")
		k.must(err)
		k.restart() // the room must be the same after a restart
		if _, err := k.say(id, user("anna"), "again"); err != nil {
			t.Errorf("version %s: send after a restart: %v", v, err)
		}
		list := k.timeline(id)
		if len(list) != 8 || list[6].ID != sent.EventID || list[7].PrevEvents[0] != sent.EventID {
			t.Errorf("version %s: timeline has %d events, the last but one %s; want 8 and %s", v, len(list), list[len(list)-2].ID, sent.EventID)
		}
		for _, e := range list {
			if again, err := event.Parse(e.Version, event.Federation(e.Event)); err != nil || again.ID != e.ID && e.Version.EventIDHash {
				t.Errorf("version %s: stored %s does not read back: %v", v, e.Type, err)
			}
		}
	}
}

func TestA50_NotAMember(t *testing.T) {
	t.Parallel()
	k := newKit(t, "sqlite", nil)
	id := k.create("12", "invite", user("anna"))
	k.must(k.member(id, user("anna"), user("invited"), "invite"))
	k.must(k.member(id, user("anna"), user("left"), "invite"))
	k.must(k.member(id, user("left"), user("left"), "leave"))
	k.must(k.member(id, user("anna"), user("banned"), "ban"))
	for _, who := range []string{"invited", "left", "banned", "never"} {
		if _, err := k.say(id, user(who), "x"); status(err) != 403 {
			t.Errorf("message of %s: %v, want 403", who, err)
		}
		if err := k.state(id, user(who), "m.room.topic", "", map[string]any{"topic": "x"}); status(err) != 403 {
			t.Errorf("state of %s: %v, want 403", who, err)
		}
	}
}

func TestSend_TransactionIsIdempotentAcrossRestart(t *testing.T) {
	t.Parallel()
	each(t, nil, func(t *testing.T, k *kit) {
		id := k.create("12", "public", user("anna"))
		d := room.Draft{RoomID: id, Sender: user("anna"), Type: "m.room.message", Content: room.Object(map[string]any{"msgtype": "m.text", "body": "x"}),
			DeviceID: "D", TxnScope: "/send/m.room.message", TxnID: "1"}
		first, err := k.rooms.Send(context.Background(), d)
		k.must(err)
		var wg sync.WaitGroup
		for i := 0; i < 8; i++ {
			if i == 4 {
				wg.Wait()
				k.restart()
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				if again, err := k.rooms.Send(context.Background(), d); err != nil || again.EventID != first.EventID {
					t.Errorf("repeat = %s, %v; want %s", again.EventID, err, first.EventID)
				}
			}()
		}
		wg.Wait()
		if n := len(k.timeline(id)); n != 6 {
			t.Errorf("%d events, want 6", n)
		}
	})
}

// Many senders at once in one room: one line of events, none lost, none doubled, and a hot room costs no read.
func TestSend_HotRoomPipelines(t *testing.T) {
	t.Parallel()
	each(t, nil, func(t *testing.T, k *kit) {
		id := k.create("12", "public", user("anna"))
		const senders, each = 16, 25
		for s := 0; s < senders; s++ {
			k.must(k.member(id, user(fmt.Sprint("u", s)), user(fmt.Sprint("u", s)), "join"))
		}
		_, err := k.say(id, user("anna"), "warm")
		k.must(err)
		before := k.db.Stats()
		var wg sync.WaitGroup
		for s := 0; s < senders; s++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 0; i < each; i++ {
					if _, err := k.say(id, user(fmt.Sprint("u", s)), bodyOf(i)); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		wg.Wait()
		after := k.db.Stats()
		if n := after.Reads - before.Reads; n != 0 {
			t.Errorf("%d sends into a hot room read the database %d times, want 0", senders*each, n)
		}
		commits := after.Commits - before.Commits
		if s := after.Statements - before.Statements; s > 6*commits {
			t.Errorf("%d statements in %d commits, want at most 6 each", s, commits)
		}
		list := k.timeline(id)
		if want := 5 + senders + 1 + senders*each; len(list) != want {
			t.Fatalf("%d events, want %d", len(list), want)
		}
		for i := 1; i < len(list); i++ {
			if len(list[i].PrevEvents) != 1 || list[i].PrevEvents[0] != list[i-1].ID {
				t.Fatalf("event %d does not follow the one before it", i)
			}
		}
	})
}

// Two nodes write into one room at once: one line, nothing lost.
func TestSend_TwoNodesOneRoom(t *testing.T) {
	t.Parallel()
	k := newKit(t, "postgres", nil)
	id := k.create("12", "public", user("anna"))
	other := room.New(room.Deps{DB: k.db, Stream: k.stream, Policy: k.engine, Parties: k.facts, Keys: k.keys, Log: storagetest.Quiet()})
	var wg sync.WaitGroup
	for n, rooms := range []*room.Service{k.rooms, other} {
		for s := 0; s < 4; s++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 0; i < 10; i++ {
					_, err := rooms.Send(context.Background(), room.Draft{RoomID: id, Sender: user("anna"), Type: "m.room.message",
						Content: room.Object(map[string]any{"msgtype": "m.text", "body": fmt.Sprint(n, s, i)})})
					for status(err) == 503 {
						_, err = rooms.Send(context.Background(), room.Draft{RoomID: id, Sender: user("anna"), Type: "m.room.message",
							Content: room.Object(map[string]any{"msgtype": "m.text", "body": fmt.Sprint(n, s, i)})})
					}
					if err != nil {
						t.Error(err)
					}
				}
			}()
		}
	}
	wg.Wait()
	list := k.timeline(id)
	if len(list) != 5+80 {
		t.Fatalf("%d events, want 85", len(list))
	}
	for i := 1; i < len(list); i++ {
		if list[i].PrevEvents[0] != list[i-1].ID {
			t.Fatalf("event %d does not follow the one before it", i)
		}
	}
}

func TestRedaction_TakesContentAway(t *testing.T) {
	t.Parallel()
	each(t, nil, func(t *testing.T, k *kit) {
		id := k.create("11", "public", user("anna"))
		k.must(k.member(id, user("ben"), user("ben"), "join"))
		sent, err := k.say(id, user("ben"), "secret")
		k.must(err)
		k.must(k.state(id, user("anna"), "m.room.topic", "", map[string]any{"topic": "secret topic"}))
		redact := func(by matrix.UserID, target matrix.EventID) error {
			_, err := k.rooms.Send(context.Background(), room.Draft{RoomID: id, Sender: by, Type: "m.room.redaction", Redacts: target})
			return err
		}
		k.must(k.member(id, user("carl"), user("carl"), "join"))
		mine, err := k.say(id, user("anna"), "mine")
		k.must(err)
		if err := redact(user("carl"), mine.EventID); status(err) != 403 || k.event(mine.EventID).RedactedBy != "" {
			t.Errorf("redaction of somebody else's message without power: %v, want 403", err)
		}
		k.must(redact(user("anna"), mine.EventID))
		k.must(redact(user("ben"), sent.EventID))
		e := k.event(sent.EventID)
		if string(e.Content) != "{}" || e.RedactedBy == "" {
			t.Errorf("redacted content is %s by %q, want {}", e.Content, e.RedactedBy)
		}
		if err := redact(user("ben"), "$"+matrix.EventID(fmt.Sprintf("%043d", 1))); status(err) != 404 {
			t.Errorf("redaction of an unknown event: %v, want 404", err)
		}
	})
}

// Policy decides whichever way an event comes, and an audience that may not meet is refused.
func TestP275_JoinNextToSomebodyDenied(t *testing.T) {
	t.Parallel()
	files := map[string]string{"acme.example/pools.yaml": "research: {groups: [rnd], contact: closed}\ntrading: {groups: [trade], contact: closed}\n"}
	each(t, files, func(t *testing.T, k *kit) {
		k.facts.pools[user("rita")] = []string{"research"}
		k.facts.pools[user("tom")] = []string{"trading"}
		id := k.create("12", "public", user("rita"))
		if err := k.member(id, user("tom"), user("tom"), "join"); status(err) != 403 {
			t.Errorf("join next to a member of a closed pool: %v, want 403", err)
		}
		if err := k.member(id, user("rita"), user("tom"), "invite"); status(err) != 403 {
			t.Errorf("invite over the wall: %v, want 403", err)
		}
		if n := len(k.timeline(id)); n != 5 {
			t.Errorf("%d events, want 5: a refused act left something", n)
		}
	})
}

// A bug that panics while a room is locked ends the request, and nothing else.
func TestD481_PanicInARoom(t *testing.T) {
	t.Parallel()
	each(t, nil, func(t *testing.T, k *kit) {
		id := k.create("12", "public", user("anna"))
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_, _ = k.rooms.Send(t.Context(), room.Draft{RoomID: id, Type: "m.room.message", Sender: user("anna"), Content: room.Object(map[string]any{"msgtype": "m.text", "body": "x"}),
				Given: func(room.View) error { panic("a bug") }})
		}()
		if _, err := k.say(id, user("anna"), "after it"); err != nil {
			t.Errorf("the next message: %v", err)
		}
	})
}
