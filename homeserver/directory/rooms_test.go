package directory

import (
	"testing"

	"hansa/matrix"
	"hansa/storage"
)

func TestSince_Tokens(t *testing.T) {
	t.Parallel()
	for direction, dir := range map[string]storage.Direction{"n": storage.Forward, "p": storage.Backward} {
		for _, id := range []matrix.RoomID{"!a:x", "!a b :x", "!Az09-_Az09-_Az09-_Az09-_Az09-_Az09-_Az09-_A"} {
			at, got, err := parseSince(since(direction, &Listed{RoomID: id, sorted: 42}))
			if err != nil || got != dir || at.RoomID != id || at.Joined != 42 {
				t.Errorf("token of %s %s: %+v, %v, %v", direction, id, at, got, err)
			}
		}
	}
	if at, dir, err := parseSince(""); at != nil || dir != storage.Forward || err != nil {
		t.Errorf("no token: %v, %v, %v", at, dir, err)
	}
}

func FuzzSince(f *testing.F) {
	f.Add("")
	f.Add(since("n", &Listed{RoomID: "!a:x", sorted: 1}))
	f.Add("bjE")
	f.Fuzz(func(t *testing.T, s string) {
		at, _, err := parseSince(s)
		if err == nil && at != nil {
			if _, err := matrix.ParseRoomID(string(at.RoomID)); err != nil || at.Joined < 0 {
				t.Fatalf("token %q is %+v", s, at)
			}
		}
	})
}
