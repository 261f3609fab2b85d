package e2ee

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/storage"
)

const megolm = "m.megolm_backup.v1.curve25519-aes-sha2"

func session(verified bool, index, forwarded int64, data string) BackupKey {
	return BackupKey{&index, &forwarded, &verified, jsontext.Value(`{"ciphertext":"` + data + `"}`)}
}

func (w *world) backup(user matrix.UserID) string {
	w.t.Helper()
	v, err := w.CreateBackup(w.ctx, user, megolm, jsontext.Value(`{ "public_key": "x" }`))
	w.must(err)
	return v
}

func rooms(room, id string, k BackupKey) Rooms {
	return Rooms{room: {Sessions: map[string]BackupKey{id: k}}}
}

func TestBackup_Versions(t *testing.T) {
	each(t, func(w *world) {
		_, err := w.FindBackup(w.ctx, anna, "")
		w.refused(err, 404, matrix.CodeNotFound)
		one, two := w.backup(anna), w.backup(anna)
		w.backup(bert)
		if one == two {
			t.Fatalf("versions %s and %s", one, two)
		}
		b, err := w.FindBackup(w.ctx, anna, "")
		if w.must(err); b.Version != two || b.Algorithm != megolm || string(b.AuthData) != `{"public_key":"x"}` || b.Count != 0 {
			w.t.Errorf("current = %+v", b)
		}
		w.must(w.UpdateBackup(w.ctx, anna, one, "", megolm, jsontext.Value(`{"public_key":"y"}`)))
		b, err = w.FindBackup(w.ctx, anna, one)
		if w.must(err); string(b.AuthData) != `{"public_key":"y"}` {
			w.t.Errorf("one = %+v", b)
		}
		w.refused(w.UpdateBackup(w.ctx, anna, one, two, megolm, jsontext.Value(`{}`)), 400, matrix.CodeInvalidParam)
		w.refused(w.UpdateBackup(w.ctx, anna, one, one, "other", jsontext.Value(`{}`)), 400, matrix.CodeInvalidParam)
		w.refused(w.UpdateBackup(w.ctx, anna, one, one, megolm, nil), 400, matrix.CodeBadJSON)
		w.refused(w.UpdateBackup(w.ctx, anna, "77", "", megolm, jsontext.Value(`{}`)), 404, matrix.CodeNotFound)
		_, err = w.CreateBackup(w.ctx, anna, "", jsontext.Value(`{}`))
		w.refused(err, 400, matrix.CodeBadJSON)
		w.must(w.DeleteBackup(w.ctx, anna, two))
		w.must(w.DeleteBackup(w.ctx, anna, two))
		for _, v := range []string{"77", "x", "-1", "01", "+1", "99999999999999999999"} {
			w.refused(w.DeleteBackup(w.ctx, anna, v), 404, matrix.CodeNotFound)
		}
		_, err = w.FindBackup(w.ctx, anna, two)
		w.refused(err, 404, matrix.CodeNotFound)
		b, err = w.FindBackup(w.ctx, anna, "")
		if w.must(err); b.Version != one {
			w.t.Errorf("current = %+v after the newest was removed", b)
		}
		if three := w.backup(anna); three == two || three == one {
			w.t.Errorf("version %s was used again", three)
		}
	})
}

func TestBackup_BetterKeyStays(t *testing.T) {
	each(t, func(w *world) {
		v := w.backup(anna)
		put := func(k BackupKey) BackupState {
			w.t.Helper()
			st, err := w.PutSessions(w.ctx, anna, v, rooms("!r:x", "s", k))
			w.must(err)
			return st
		}
		steps := []struct {
			key   BackupKey
			stays string
		}{
			{session(false, 5, 5, "a"), "a"},
			{session(false, 6, 0, "b"), "a"},
			{session(false, 5, 5, "c"), "a"},
			{session(false, 5, 4, "d"), "d"},
			{session(false, 4, 9, "e"), "e"},
			{session(true, 9, 9, "f"), "f"},
			{session(false, 0, 0, "g"), "f"},
			{session(true, 8, 10, "h"), "h"},
		}
		last, before := "", ""
		for _, s := range steps {
			st := put(s.key)
			got, err := w.LoadSessions(w.ctx, anna, v, storage.BackupScope{RoomID: "!r:x", SessionID: "s"})
			if w.must(err); !strings.Contains(string(got), `"ciphertext":"`+s.stays+`"`) {
				w.t.Errorf("stored %s, want %s", got, s.stays)
			}
			if (st.ETag != before) != (s.stays != last) || st.Count != 1 {
				w.t.Errorf("state %+v after %q over %q, etag before %q", st, s.stays, last, before)
			}
			last, before = s.stays, st.ETag
		}
	})
}

func TestBackup_ThreeLevels(t *testing.T) {
	each(t, func(w *world) {
		v := w.backup(anna)
		all := Rooms{}
		for r := range 3 {
			room := RoomBackup{map[string]BackupKey{}}
			for s := range 200 {
				room.Sessions[fmt.Sprintf("s/%d\"", s)] = session(true, 0, 0, "x")
			}
			all[fmt.Sprintf("!r%d:x", r)] = room
		}
		before := w.DB.Stats().Statements
		st, err := w.PutSessions(w.ctx, anna, v, all)
		if w.must(err); st.Count != 600 {
			w.t.Errorf("state = %+v", st)
		}
		if n := w.DB.Stats().Statements - before; n > 10 {
			w.t.Errorf("600 sessions took %d statements", n)
		}
		get := func(s storage.BackupScope, members int) {
			w.t.Helper()
			got, err := w.LoadSessions(w.ctx, anna, v, s)
			if w.must(err); !jsontext.Value(got).IsValid() || strings.Count(string(got), "session_data") != members {
				w.t.Errorf("%+v has %d sessions, want %d: %.100s", s, strings.Count(string(got), "session_data"), members, got)
			}
		}
		get(storage.BackupScope{}, 600)
		get(storage.BackupScope{RoomID: "!r1:x"}, 200)
		get(storage.BackupScope{RoomID: "!none:x"}, 0)
		get(storage.BackupScope{RoomID: "!r1:x", SessionID: `s/7"`}, 1)
		_, err = w.LoadSessions(w.ctx, anna, v, storage.BackupScope{RoomID: "!r1:x", SessionID: "none"})
		w.refused(err, 404, matrix.CodeNotFound)
		_, err = w.LoadSessions(w.ctx, bert, v, storage.BackupScope{})
		w.refused(err, 404, matrix.CodeNotFound)
		for _, step := range []struct {
			scope storage.BackupScope
			left  int64
		}{{storage.BackupScope{RoomID: "!r1:x", SessionID: `s/7"`}, 599}, {storage.BackupScope{RoomID: "!r1:x"}, 400}, {storage.BackupScope{}, 0}, {storage.BackupScope{}, 0}} {
			next, err := w.DeleteSessions(w.ctx, anna, v, step.scope)
			if w.must(err); next.Count != step.left || (next.ETag == st.ETag) != (next.Count == st.Count) {
				w.t.Errorf("%+v left %+v, before %+v", step.scope, next, st)
			}
			st = next
		}
	})
}

func TestBackup_OnlyTheNewestTakesKeys(t *testing.T) {
	each(t, func(w *world) {
		k := rooms("!r:x", "s", session(true, 0, 0, "x"))
		_, err := w.PutSessions(w.ctx, anna, "1", k)
		w.refused(err, 404, matrix.CodeNotFound)
		one := w.backup(anna)
		two := w.backup(anna)
		_, err = w.PutSessions(w.ctx, anna, one, k)
		if me := w.refused(err, 403, matrix.CodeWrongRoomKeysVersion); me.Extra["current_version"] != two {
			w.t.Errorf("current_version = %v, want %s", me.Extra["current_version"], two)
		}
		_, err = w.PutSessions(w.ctx, anna, two, k)
		w.must(err)
		w.must(w.DeleteBackup(w.ctx, anna, two))
		_, err = w.PutSessions(w.ctx, anna, two, k)
		w.refused(err, 403, matrix.CodeWrongRoomKeysVersion)
		_, err = w.PutSessions(w.ctx, anna, one, k)
		w.must(err)
	})
}

func TestBackup_BadKeys(t *testing.T) {
	each(t, func(w *world) {
		v := w.backup(anna)
		n := int64(-1)
		good := session(true, 0, 0, "x")
		negative, noIndex, noData, listData := good, good, good, good
		negative.ForwardedCount = &n
		noIndex.FirstMessageIndex = nil
		noData.SessionData = nil
		listData.SessionData = jsontext.Value("[]")
		for what, r := range map[string]Rooms{"negative": rooms("!r:x", "s", negative), "no index": rooms("!r:x", "s", noIndex),
			"no data": rooms("!r:x", "s", noData), "a list": rooms("!r:x", "s", listData), "no sessions": {"!r:x": {}},
			"no session ID": rooms("!r:x", "", good), "no room ID": rooms("", "s", good)} {
			r["!fine:x"] = RoomBackup{map[string]BackupKey{"s": good}}
			_, err := w.PutSessions(w.ctx, anna, v, r)
			if w.refused(err, 400, matrix.CodeBadJSON, matrix.CodeInvalidParam); err == nil {
				w.t.Errorf("%s was accepted", what)
			}
		}
		b, err := w.FindBackup(w.ctx, anna, v)
		if w.must(err); b.Count != 0 {
			w.t.Errorf("part of a refused request was stored: %+v", b)
		}
	})
}

func TestBackup_ManyAtATimeCountRight(t *testing.T) {
	each(t, func(w *world) {
		v := w.backup(anna)
		var wg sync.WaitGroup
		for g := range 6 {
			wg.Go(func() {
				for i := range 10 {
					// Half of the sessions are written by two goroutines.
					_, err := w.PutSessions(w.ctx, anna, v, rooms("!r:x", fmt.Sprint(g/2, "-", i), session(true, int64(10-g), 0, "x")))
					if err != nil {
						w.t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		b, err := w.FindBackup(w.ctx, anna, v)
		if w.must(err); b.Count != 30 {
			w.t.Errorf("count = %d, want 30", b.Count)
		}
	})
}
