package room_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// tamper runs a statement in the database past all of the server, as a bug of another version or a damaged disk might.
func (k *kit) tamper(q string, args ...any) {
	k.t.Helper()
	if k.raw == nil { // one for all: PostgreSQL has only so many connections
		k.raw = storagetest.Raw(k.t, k.url)
	}
	r, err := k.raw.Exec(q, args...)
	k.must(err)
	if n, err := r.RowsAffected(); n == 0 || err != nil {
		k.t.Fatalf("%s: %d rows, %v", q, n, err)
	}
}

// audit audits a room and returns the entries that were wrong.
func (k *kit) audit(id matrix.RoomID) string {
	k.t.Helper()
	found, err := k.rooms.AuditState(k.ctx(), id)
	k.must(err)
	return told(found)
}

// told names what an audit has found.
func told(found room.Audit) string {
	out := []string{}
	for _, key := range found.Keys {
		out = append(out, key.Type+" "+key.Key)
	}
	for _, id := range found.Events {
		out = append(out, string(id))
	}
	return strings.Join(out, ", ")
}

func (k *kit) position() (pos int64) {
	k.t.Helper()
	k.must(k.db.Read(k.ctx(), func(tx *storage.Tx) (err error) { pos, err = tx.Position(); return err }))
	return pos
}

// Whatever of a room's state is wrong in the database is found and set right, on all nodes, and nothing is found where all is well.
func TestD482_StateIsAuditedAndMended(t *testing.T) {
	t.Parallel()
	anna, bob := user("anna"), user("bob")
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"3", "6", "12"} {
			id := k.create(version, "public", anna)
			k.must(k.state(id, anna, "m.room.topic", "", map[string]any{"topic": "one"}))
			k.must(k.member(id, bob, bob, auth.Join))
			early := k.head(id).StateRoot
			k.must(k.member(id, anna, bob, auth.Ban))
			fred, _ := k.fred(id, version)
			end := k.head(id)
			for _, name := range []string{"Fred", "Freddy"} { // of one parent: the room has two ends with two states
				d := k.draft(id, version, fred, "m.room.member", ptr(string(fred)), map[string]any{"membership": "join", "displayname": name})
				d.PrevEvents, d.Depth = end.Extremities, end.Depth+1
				if r, err := k.receive(k.far.pdu(t, version, d)); err != nil || r.Flags != 0 {
					t.Fatalf("version %s: %+v, %v", version, r, err)
				}
			}
			if n := len(k.head(id).Extremities); n != 2 {
				t.Fatalf("version %s: the room has %d ends, want 2", version, n)
			}
			k.restart()
			if wrong := k.audit(id); wrong != "" {
				t.Errorf("version %s: where all is well %s is wrong", version, wrong)
			}
			topic, ban := k.stateID(id, "m.room.topic", ""), k.stateID(id, "m.room.member", string(bob))
			of := `room_num = (SELECT room_num FROM rooms WHERE room_id = $1)`
			for _, tt := range []struct {
				q    string
				args []any
				want string
			}{
				{`UPDATE memberships SET membership = 'join' WHERE user_id = $2 AND ` + of, []any{bob}, "m.room.member @bob:acme.example"},
				{`DELETE FROM memberships WHERE user_id = $2 AND ` + of, []any{bob}, "m.room.member @bob:acme.example"},
				{`DELETE FROM current_state WHERE type = 'm.room.topic' AND ` + of, nil, "m.room.topic "},
				{`UPDATE current_state SET event_id = $2 WHERE type = 'm.room.topic' AND ` + of, []any{ban}, "m.room.topic "},
				{`UPDATE current_state SET type = 'm.room.wrong' WHERE type = 'm.room.topic' AND ` + of, nil, "m.room.topic , m.room.wrong "},
				{`UPDATE rooms SET state_root = $2 WHERE room_id = $1`, []any{early[:]}, "m.room.member @bob:acme.example, m.room.member " + string(fred)},
			} {
				before := k.position()
				k.tamper(tt.q, append([]any{string(id)}, texts(tt.args)...)...)
				k.restart()
				other := k.beside()
				other.membershipIn(id, bob) // is in its memory, as it is now
				if wrong := k.audit(id); wrong != tt.want {
					t.Errorf("version %s, %s: %q is wrong, want %q", version, tt.q, wrong, tt.want)
				}
				if wrong := k.audit(id); wrong != "" {
					t.Errorf("version %s, %s: %s is wrong after it was set right", version, tt.q, wrong)
				}
				if n := k.rooms.Audits(); n != (room.Audits{Right: 1, Mended: 1}) {
					t.Errorf("%+v, want one mended and one right", n)
				}
				if a, b := k.stateID(id, "m.room.topic", ""), k.stateID(id, "m.room.member", string(bob)); a != topic || b != ban {
					t.Errorf("version %s, %s: the topic is %s, want %s, bob is %s, want %s", version, tt.q, a, topic, b, ban)
				}
				other.refresh(before)
				for _, node := range []*kit{k, other} {
					if m := node.membershipIn(id, bob); m != auth.Ban {
						t.Errorf("version %s, %s: bob is %q, want ban", version, tt.q, m)
					}
					if _, err := node.say(id, bob, "I am in"); err == nil {
						t.Errorf("version %s, %s: who is banned can write", version, tt.q)
					}
					if _, err := node.say(id, anna, "on it goes"); err != nil {
						t.Errorf("version %s, %s: %v", version, tt.q, err)
					}
				}
			}
		}
		if _, err := k.rooms.AuditState(k.ctx(), "!none:acme.example"); !errors.Is(err, room.ErrUnknownRoom) {
			t.Errorf("a room that does not exist: %v", err)
		}
	})
}

func texts(args []any) (out []any) {
	for _, a := range args {
		if b, ok := a.([]byte); ok {
			out = append(out, b)
		} else {
			out = append(out, fmt.Sprint(a))
		}
	}
	return out
}

// A sample begins anywhere, and goes on at the first room after the last; a room that is damaged beyond that does not keep the others from it.
func TestD482_Sample(t *testing.T) {
	t.Parallel()
	anna := user("anna")
	each(t, nil, func(t *testing.T, k *kit) {
		var ids []matrix.RoomID
		for range 4 {
			ids = append(ids, k.create("11", "public", anna))
			k.must(k.state(ids[len(ids)-1], anna, "m.room.topic", "", map[string]any{"topic": "one"}))
		}
		k.tamper(`DELETE FROM current_state WHERE type = 'm.room.topic'`)
		k.tamper(`UPDATE rooms SET extremities = '["$nothing"]' WHERE room_id = $1`, string(ids[1]))
		for i := 0; ; i++ {
			k.must(k.rooms.AuditSample(k.ctx(), 2))
			n := k.rooms.Audits()
			if n.Right+n.Mended+n.Failed < int64(i) {
				t.Fatalf("%+v in %d samples", n, i)
			}
			if n.Mended == 3 {
				break
			}
			if i > 300 {
				t.Fatalf("after %d samples %d rooms are mended, want 3", i, n.Mended)
			}
		}
		k.must(k.rooms.AuditSample(k.ctx(), 1000))
		if n := k.rooms.Audits(); n.Mended != 3 || n.Failed == 0 || n.Contradictory != 0 {
			t.Errorf("%+v, want 3 mended, and the one without an end failed", n)
		}
	})
}

func TestUntilHour(t *testing.T) {
	t.Parallel()
	for now, want := range map[string]time.Duration{"2026-03-01T01:59:00Z": time.Minute, "2026-03-01T02:00:00Z": 24 * time.Hour, "2026-12-31T23:30:00Z": 150 * time.Minute} {
		at, err := time.Parse(time.RFC3339, now)
		if err != nil {
			t.Fatal(err)
		}
		if d := room.UntilHour(at, 2); d != want {
			t.Errorf("at %s it is %v until two, want %v", now, d, want)
		}
	}
}
