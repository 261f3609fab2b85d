package event

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hansa/matrix"
)

func version(t testing.TB, id string) *matrix.RoomVersion {
	t.Helper()
	v, ok := matrix.FindRoomVersion(id)
	if !ok {
		t.Fatalf("room version %s is unknown", id)
	}
	return v
}

func str(s string) *string { return &s }

// draft is a plain message for a room version.
func draft(v *matrix.RoomVersion) Draft {
	d := Draft{
		RoomID: "!r:a.example", Type: "m.room.message", Sender: "@u:a.example",
		Content:    jsontext.Value(`{"msgtype":"m.text","body":"hé \"quoted\" <b>"}`),
		PrevEvents: []matrix.EventID{"$p0:a.example"}, AuthEvents: []matrix.EventID{"$a0:a.example", "$a1:a.example"},
		Depth: 7, OriginServerTS: 1700000000000,
	}
	if v.EventIDHash {
		d.PrevEvents = []matrix.EventID{"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
		d.AuthEvents = []matrix.EventID{"$BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
	} else {
		d.EventID = "$own:a.example"
	}
	if v.RoomIDHash {
		d.RoomID = "!CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	}
	return d
}

func build(t testing.TB, v *matrix.RoomVersion, d Draft) *Event {
	t.Helper()
	e, err := Build(v, d)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	return e
}

func diff(a, b *Event) string {
	return cmp.Diff(a, b, cmpopts.IgnoreUnexported(Event{}), cmpopts.EquateEmpty())
}

func TestBuild_ParsesBack(t *testing.T) {
	t.Parallel()
	for _, id := range matrix.RoomVersions() {
		v := version(t, id)
		e := build(t, v, draft(v))
		got, err := Parse(v, Federation(e))
		if err != nil {
			t.Fatalf("version %s: Parse(%s): %v", id, Federation(e), err)
		}
		if got.Signatures = nil; got.HashMismatch {
			t.Errorf("version %s: the content hash does not match: %s", id, e.JSON)
		}
		if d := diff(e, got); d != "" {
			t.Errorf("version %s: parsed event differs: %s", id, d)
		}
		stored, err := ParseStored(v, e.JSON, e.ID, nil)
		if err != nil {
			t.Fatalf("version %s: ParseStored: %v", id, err)
		}
		if d := diff(e, stored); d != "" {
			t.Errorf("version %s: stored event differs: %s", id, d)
		}
		r, err := Redact(e)
		if err != nil {
			t.Fatalf("version %s: Redact: %v", id, err)
		}
		if v.EventIDHash && hashID(v, ReferenceHash(v, r.JSON)) != e.ID {
			t.Errorf("version %s: redaction changed the event ID", id)
		}
	}
}
