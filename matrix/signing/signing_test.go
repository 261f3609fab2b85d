package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

func version(t testing.TB, id string) *matrix.RoomVersion {
	t.Helper()
	v, ok := matrix.FindRoomVersion(id)
	if !ok {
		t.Fatalf("room version %s is unknown", id)
	}
	return v
}

func testKey(t testing.TB, version string, fill byte) Key {
	t.Helper()
	seed := bytes.Repeat([]byte{fill}, 32)
	seed[0]++
	k, err := newKey(version, seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testEvent(t testing.TB, v *matrix.RoomVersion, change func(*event.Draft)) *event.Event {
	t.Helper()
	d := event.Draft{
		RoomID: "!r:a.example", Type: "m.room.message", Sender: "@u:a.example", Content: jsontext.Value(`{"body":"x"}`),
		PrevEvents: []matrix.EventID{"$p:a.example"}, AuthEvents: []matrix.EventID{"$q:a.example"}, Depth: 2,
		OriginServerTS: 1700000000000, EventID: "$e:ids.example",
	}
	if v.RoomIDHash {
		d.RoomID = "!CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	}
	if change != nil {
		change(&d)
	}
	e, err := event.Build(v, d)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSign_SpecVectors(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/spec_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Seed    string
		Server  matrix.ServerName
		KeyID   KeyID `json:"key_id"`
		Vectors []struct {
			Kind          string
			Input, Output json.RawMessage
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	seed, err := DecodeBase64(file.Seed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey(string(file.KeyID[len("ed25519:"):]), seed)
	if err != nil {
		t.Fatal(err)
	}
	v := version(t, "1")
	for _, x := range file.Vectors {
		want, err := canonicaljson.Canonicalize(x.Output, true)
		if err != nil {
			t.Fatal(err)
		}
		object, err := canonicaljson.Canonicalize(x.Input, true)
		if err != nil {
			t.Fatal(err)
		}
		if x.Kind == "event" {
			hash := event.ContentHash(object)
			object = canonicaljson.Set(object, "hashes", fmt.Appendf(nil, `{"sha256":"%s"}`, EncodeBase64(hash[:])))
			redacted, err := SignJSON(event.AppendRedactedJSON(nil, v, object), file.Server, key)
			if err != nil {
				t.Fatal(err)
			}
			signatures, _ := canonicaljson.Find(redacted, "signatures")
			object = canonicaljson.Set(object, "signatures", signatures)
		} else if object, err = SignJSON(object, file.Server, key); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(object, want) {
			t.Errorf("signed %s\n got %s\nwant %s", x.Input, object, want)
		}
		if x.Kind == "json" {
			if err := VerifyJSON(x.Output, file.Server, file.KeyID, key.Public()); err != nil {
				t.Errorf("VerifyJSON(%s): %v", x.Output, err)
			}
		}
	}
}

func TestSignJSON_KeepsOthersAndUnsigned(t *testing.T) {
	t.Parallel()
	a, b := testKey(t, "a", 1), testKey(t, "b", 2)
	object := []byte(`{"z":1,"unsigned":{"age":5},"a":[1]}`)
	for _, s := range []struct {
		server matrix.ServerName
		key    Key
	}{{"a.example", a}, {"b.example:8448", b}, {"a.example", b}} {
		var err error
		if object, err = SignJSON(object, s.server, s.key); err != nil {
			t.Fatal(err)
		}
	}
	if !canonicaljson.IsCanonical(object) || !bytes.Contains(object, []byte(`"unsigned":{"age":5}`)) {
		t.Errorf("signed object: %s", object)
	}
	for _, s := range []struct {
		server matrix.ServerName
		key    Key
		want   error
	}{
		{"a.example", a, nil}, {"a.example", b, nil}, {"b.example:8448", b, nil},
		{"b.example:8448", a, ErrNoSignature}, {"c.example", a, ErrNoSignature},
	} {
		if err := VerifyJSON(object, s.server, s.key.ID, s.key.Public()); !errors.Is(err, s.want) {
			t.Errorf("VerifyJSON(%s, %s): %v, want %v", s.server, s.key, err, s.want)
		}
	}
	if err := VerifyJSON(object, "a.example", a.ID, b.Public()); !errors.Is(err, ErrBadSignature) {
		t.Errorf("VerifyJSON with another key: %v", err)
	}
	if err := VerifyJSON(bytes.Replace(object, []byte(`"z":1`), []byte(`"z":2`), 1), "a.example", a.ID, a.Public()); !errors.Is(err, ErrBadSignature) {
		t.Errorf("VerifyJSON of a changed object: %v", err)
	}
	for _, bad := range []string{`[]`, `"x"`, `{"a":1.5}`, `{"a":1,"a":1}`, ``} {
		if got, err := SignJSON([]byte(bad), "a.example", a); err == nil {
			t.Errorf("SignJSON(%s) = %s", bad, got)
		}
	}
}

func TestSignEvent_SurvivesRedaction(t *testing.T) {
	t.Parallel()
	for _, id := range matrix.RoomVersions() {
		v := version(t, id)
		rapid.Check(t, func(t *rapid.T) {
			seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
			seed[31] = ^seed[0]
			key, err := newKey("1", seed)
			if err != nil {
				t.Fatal(err)
			}
			d := event.Draft{
				RoomID: "!r:a.example", Sender: "@u:a.example", Depth: 3, OriginServerTS: 5, EventID: "$e:a.example",
				Type:       rapid.SampledFrom([]string{"m.room.member", "m.room.create", "m.x", "m.room.power_levels", "m.room.redaction"}).Draw(t, "type"),
				Content:    jsontext.Value(canonicaljson.AppendString([]byte(`{"ban":7,"membership":"join","redacts":"$x","body":`), rapid.String().Draw(t, "body"))),
				PrevEvents: []matrix.EventID{"$p:a.example"},
			}
			d.Content = append(d.Content, '}')
			if v.RoomIDHash {
				if d.RoomID = "!CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"; d.Type == "m.room.create" {
					d.RoomID = ""
				}
			}
			e, err := event.Build(v, d)
			if err != nil {
				t.Fatal(err)
			}
			signed := SignEvent(e, "a.example", key)
			got, err := event.Parse(v, event.Federation(signed))
			if err != nil || got.HashMismatch || got.ID != e.ID {
				t.Fatalf("Parse(%s) = %+v, %v", event.Federation(signed), got, err)
			}
			redacted, err := event.Redact(got)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range []*event.Event{signed, got, redacted} {
				if err := VerifyEvent(x, "a.example", key.ID, key.Public()); err != nil {
					t.Fatalf("VerifyEvent(%s): %v", event.Federation(x), err)
				}
			}
		})
	}
}

func TestSignEvent_AddsToOthers(t *testing.T) {
	t.Parallel()
	v := version(t, "12")
	a, b := testKey(t, "a", 1), testKey(t, "b", 2)
	e := SignEvent(SignEvent(testEvent(t, v, nil), "b.example", b), "a.example", a)
	if got := string(e.Signatures); !canonicaljson.IsCanonical(e.Signatures) || strings.Index(got, "a.example") > strings.Index(got, "b.example") {
		t.Errorf("signatures = %s", got)
	}
	if err := VerifyEvent(e, "b.example", b.ID, b.Public()); err != nil {
		t.Error(err)
	}
	if err := VerifyEvent(e, "b.example", a.ID, a.Public()); !errors.Is(err, ErrNoSignature) {
		t.Errorf("VerifyEvent with the key of another server: %v", err)
	}
	other := testEvent(t, v, func(d *event.Draft) { d.Depth = 3 }).WithSignatures(e.Signatures)
	if err := VerifyEvent(other, "b.example", b.ID, b.Public()); !errors.Is(err, ErrBadSignature) {
		t.Errorf("VerifyEvent of another event: %v", err)
	}
}

func TestMergeSignatures_NeverOverwrites(t *testing.T) {
	t.Parallel()
	got := MergeSignatures([]byte(`{"a.example":{"ed25519:1":"A"}}`),
		[]byte(`{"a.example":{"ed25519:1":"X","ed25519:2":"B"},"b.example":{"ed25519:1":"C","x":5},"bad name":{"ed25519:1":"D"}}`))
	if want := `{"a.example":{"ed25519:1":"A","ed25519:2":"B"},"b.example":{"ed25519:1":"C"}}`; string(got) != want {
		t.Errorf("MergeSignatures = %s, want %s", got, want)
	}
}

func TestK149_PolicyServerKeyIsNoOriginSignature(t *testing.T) {
	t.Parallel()
	sig := `"` + base64.RawStdEncoding.EncodeToString(make([]byte, 64)) + `"`
	object := []byte(`{"a.example":{"ed25519:1":` + sig + `,"ed25519:2":5,"ed25519:a/b":` + sig + `,"ed25519:policy_server":` + sig + `,"rsa:1":` + sig + `}}`)
	var got []string
	for id, s := range Signatures(object, "a.example") {
		got = append(got, fmt.Sprint(id, " ", len(s)))
	}
	if want := "[ed25519:1 64 ed25519:2 0]"; fmt.Sprint(got) != want {
		t.Errorf("Signatures = %v, want %s", got, want)
	}
	for range Signatures(object, "b.example") {
		t.Error("signatures of another server")
	}
}

func TestRequiredServers(t *testing.T) {
	t.Parallel()
	member := func(content string) func(*event.Draft) {
		return func(d *event.Draft) {
			key := "@u:a.example"
			d.Type, d.StateKey, d.Content = "m.room.member", &key, jsontext.Value(content)
		}
	}
	const (
		plain   = `{"membership":"invite"}`
		third   = `{"membership":"invite","third_party_invite":{}}`
		join3   = `{"membership":"join","third_party_invite":{}}`
		via     = `{"join_authorised_via_users_server":"@x:via.example","membership":"join"}`
		viaOwn  = `{"join_authorised_via_users_server":"@x:a.example","membership":"leave"}`
		viaJunk = `{"join_authorised_via_users_server":5,"membership":"join"}`
	)
	for _, x := range []struct{ version, content, want string }{
		{"1", plain, "[a.example ids.example]"}, {"2", third, "[ids.example]"}, {"3", plain, "[a.example]"}, {"12", third, "[]"},
		{"12", join3, "[a.example]"}, {"7", via, "[a.example]"}, {"8", via, "[a.example via.example]"},
		{"12", via, "[a.example via.example]"}, {"11", viaOwn, "[a.example]"}, {"10", viaJunk, "[a.example ]"},
	} {
		if got := fmt.Sprint(RequiredServers(testEvent(t, version(t, x.version), member(x.content)))); got != x.want {
			t.Errorf("version %s: RequiredServers(%s) = %s, want %s", x.version, x.content, got, x.want)
		}
	}
	message := testEvent(t, version(t, "12"), func(d *event.Draft) { d.Content = jsontext.Value(via) })
	if got := fmt.Sprint(RequiredServers(message)); got != "[a.example]" {
		t.Errorf("RequiredServers of a message = %s", got)
	}
}

func TestK147_SignatureForms(t *testing.T) {
	t.Parallel()
	key := testKey(t, "1", 3)
	e := SignEvent(testEvent(t, version(t, "11"), nil), "a.example", key)
	good := ed25519.Sign(key.Private, event.AppendRedacted(nil, e))
	whole := ed25519.Sign(key.Private, e.JSON)
	// S plus the order of the group is the same number to whoever does not look closely.
	order := []byte{0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 31: 0x10}
	malleable := bytes.Clone(good)
	carry := 0
	for i, c := range order {
		sum := int(malleable[32+i]) + int(c) + carry
		malleable[32+i], carry = byte(sum), sum>>8
	}
	with := func(value string) *event.Event {
		return e.WithSignatures(jsontext.Value(`{"a.example":{"ed25519:1":` + value + `}}`))
	}
	quote := func(b []byte) string { return `"` + EncodeBase64(b) + `"` }
	for _, ok := range []string{quote(good), `"` + base64.StdEncoding.EncodeToString(good) + `"`} {
		if err := VerifyEvent(with(ok), "a.example", key.ID, key.Public()); err != nil {
			t.Errorf("VerifyEvent(%s): %v", ok, err)
		}
	}
	for name, bad := range map[string]string{
		"63 bytes": quote(good[:63]), "65 bytes": quote(append(bytes.Clone(good), 0)), "S not reduced": quote(malleable),
		"over the whole event": quote(whole), "a number": "5", "empty": `""`, "an object": "{}",
		"half padded": `"` + EncodeBase64(good) + `="`, "URL alphabet": `"` + strings.Repeat("-_", 43) + `"`,
	} {
		if err := VerifyEvent(with(bad), "a.example", key.ID, key.Public()); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s: VerifyEvent: %v", name, err)
		}
	}
}

// TestSign_EqualsTheStandardLibrary compares the arithmetic with that of crypto/ed25519, on good and on damaged input.
func TestSign_EqualsTheStandardLibrary(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		seed[31] = ^seed[0]
		key, err := newKey("1", seed)
		if err != nil {
			t.Fatal(err)
		}
		message := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		signature := ed25519.Sign(key.Private, message)
		if got := key.Sign(message); got != EncodeBase64(signature) {
			t.Fatalf("Sign = %s, want %s", got, EncodeBase64(signature))
		}
		public := key.Public()
		if !public.Verify(message, signature) {
			t.Fatal("the signature does not verify")
		}
		bit := rapid.IntRange(0, 96*8-1).Draw(t, "bit")
		damaged := append(bytes.Clone(signature), public[:]...)
		damaged[bit/8] ^= 1 << (bit % 8)
		public, signature = PublicKey(damaged[64:]), damaged[:64]
		if got, want := public.Verify(message, signature), ed25519.Verify(public[:], message, signature); got != want {
			t.Fatalf("Verify with bit %d changed = %v, want %v", bit, got, want)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	key := testKey(b, "1", 1)
	e := testEvent(b, version(b, "12"), nil)
	b.ReportAllocs()
	for b.Loop() {
		SignEvent(e, "a.example", key)
	}
}

func BenchmarkVerify(b *testing.B) {
	key := testKey(b, "1", 1)
	e := SignEvent(testEvent(b, version(b, "12"), nil), "a.example", key)
	public := key.Public()
	b.ReportAllocs()
	for b.Loop() {
		if err := VerifyEvent(e, "a.example", key.ID, public); err != nil {
			b.Fatal(err)
		}
	}
}
