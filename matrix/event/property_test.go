package event

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

func TestParse_AcceptsAnyBuiltEvent(t *testing.T) {
	t.Parallel()
	for _, id := range matrix.RoomVersions() {
		v := version(t, id)
		rapid.Check(t, func(rt *rapid.T) {
			d := draft(v)
			d.Type = rapid.SampledFrom([]string{"m.room.message", "m.room.member", "m.room.redaction", "m.room.power_levels", "🐈 \"\\"}).Draw(rt, "type")
			if rapid.Bool().Draw(rt, "state") {
				d.StateKey = str(strings.ReplaceAll(rapid.StringN(0, 50, 200).Draw(rt, "key"), "\x00", ""))
			}
			content := canonicaljson.AppendString([]byte(`{"z":[1,{"y":null}],`), "k"+rapid.String().Draw(rt, "k"))
			d.Content = append(canonicaljson.AppendString(append(content, ':'), rapid.String().Draw(rt, "v")), '}')
			d.Redacts = "$BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"
			d.Depth = rapid.Int64Range(0, v.MaxDepth).Draw(rt, "depth")
			e, err := Build(v, d)
			if err != nil {
				rt.Fatalf("Build: %v", err)
			}
			got, err := Parse(v, Federation(e))
			if err != nil {
				rt.Fatalf("Parse(%s): %v", Federation(e), err)
			}
			if diff := diff(e.WithSignatures(jsontext.Value("{}")), got); diff != "" {
				rt.Fatalf("parsed event differs: %s", diff)
			}
			redacted, err := Redact(got)
			if err != nil || v.EventIDHash && hashID(v, ReferenceHash(v, redacted.JSON)) != e.ID {
				rt.Fatalf("redaction changed the event ID: %v", err)
			}
			twice, err := Redact(redacted)
			if err != nil || diff(redacted, twice) != "" {
				rt.Fatalf("a second redaction changed the event: %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for i, id := range []string{"1", "3", "6", "11", "12"} {
		v := version(f, id)
		f.Add(i, Federation(build(f, v, draft(v))))
	}
	f.Add(4, []byte(`{"auth_events":[],"content":{},"depth":1,"origin_server_ts":1,"prev_events":[],"sender":"@:a","state_key":"","type":"m.room.create"}`))
	f.Fuzz(func(t *testing.T, version int, raw []byte) {
		versions := matrix.RoomVersions()
		v, _ := matrix.FindRoomVersion(versions[(version%12+12)%12])
		e, err := Parse(v, raw)
		if err != nil {
			if _, ok := errors.AsType[*matrix.Error](err); !ok {
				t.Fatalf("the error %v has the type %T", err, err)
			}
			return
		}
		wire := Federation(e)
		if got, err := canonicaljson.Canonicalize(wire, v.StrictCanonicalJSON); err != nil || string(got) != string(wire) {
			t.Fatalf("Federation is not canonical: %s, %v", wire, err)
		}
		again, err := Parse(v, wire)
		if err != nil || again.ID != e.ID || again.HashMismatch != e.HashMismatch && !e.HashMismatch {
			t.Fatalf("Parse(%s) = %+v, %v, want %+v", wire, again, err, e)
		}
		stored, err := ParseStored(v, e.JSON, e.ID, e.Signatures)
		if err != nil || stored.RoomID != e.RoomID || stored.Sender != e.Sender || stored.Type != e.Type {
			t.Fatalf("ParseStored(%s) = %+v, %v", e.JSON, stored, err)
		}
		client := append(AppendClient(nil, e, true), '}')
		if _, err := canonicaljson.Canonicalize(client, false); err != nil {
			t.Fatalf("the client format is no JSON: %s, %v", client, err)
		}
		if r, err := Redact(e); err != nil || v.EventIDHash && hashID(v, ReferenceHash(v, r.JSON)) != e.ID {
			t.Fatalf("Redact(%s): %v", e.JSON, err)
		}
		_ = Member(e)
	})
}

// FuzzParseStored checks that damaged rows are errors and nothing worse.
func FuzzParseStored(f *testing.F) {
	v := version(f, "11")
	f.Add([]byte(build(f, v, draft(v)).JSON))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		if e, err := ParseStored(v, raw, "$x", raw); err == nil {
			_ = Federation(e)
			_ = AppendClient(nil, e, true)
			_, _ = Redact(e)
			_ = Member(e)
		}
	})
}
