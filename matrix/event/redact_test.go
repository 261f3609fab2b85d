package event

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// object makes a canonical object with these keys and the values 1, 2, ...
func object(keys ...string) []byte {
	o := []byte("{}")
	for i, k := range keys {
		o = canonicaljson.Set(o, k, fmt.Append(nil, i+1))
	}
	return o
}

func keysOf(o []byte) []string {
	var keys []string
	for k := range canonicaljson.Members(o) {
		keys = append(keys, string(k))
	}
	return keys
}

// TestA73_KeysOfContent holds the tables of the specification: for each type, which keys survive from which version to
// which.
func TestA73_KeysOfContent(t *testing.T) {
	t.Parallel()
	type row struct {
		typ, key    string
		first, last int
	}
	table := []row{
		{"m.room.member", "membership", 1, 12}, {"m.room.member", "join_authorised_via_users_server", 9, 12},
		{"m.room.create", "creator", 1, 12}, {"m.room.create", "room_version", 11, 12}, {"m.room.create", "m.federate", 11, 12},
		{"m.room.create", "anything", 11, 12}, {"m.room.create", "additional_creators", 11, 12},
		{"m.room.join_rules", "join_rule", 1, 12}, {"m.room.join_rules", "allow", 8, 12},
		{"m.room.power_levels", "ban", 1, 12}, {"m.room.power_levels", "events", 1, 12}, {"m.room.power_levels", "events_default", 1, 12},
		{"m.room.power_levels", "kick", 1, 12}, {"m.room.power_levels", "redact", 1, 12}, {"m.room.power_levels", "state_default", 1, 12},
		{"m.room.power_levels", "users", 1, 12}, {"m.room.power_levels", "users_default", 1, 12}, {"m.room.power_levels", "invite", 11, 12},
		{"m.room.aliases", "aliases", 1, 5}, {"m.room.history_visibility", "history_visibility", 1, 12},
		{"m.room.redaction", "redacts", 11, 12},
	}
	var all []string
	for _, r := range table {
		all = append(all, r.key)
	}
	all = append(all, "body", "displayname", "name", "notifications", "reason", "url", "Membership", "third_party_invit")
	types := []string{"m.room.message", "m.room.name", "m.room.encryption", "m.room.server_acl", "m.room.third_party_invite", "m.room.tombstone", "M.room.member", ""}
	for _, r := range table {
		types = append(types, r.typ)
	}
	for i, id := range matrix.RoomVersions() {
		v := version(t, id)
		for _, typ := range types {
			want := []string{}
			for _, r := range table {
				if r.typ == typ && r.first <= i+1 && i+1 <= r.last {
					want = append(want, r.key)
				}
			}
			content := object(all...)
			if typ == "m.room.create" && i+1 >= 11 {
				want = keysOf(content)
			}
			slices.Sort(want)
			got := appendRedactedContent(nil, v, typ, content)
			if !slices.Equal(keysOf(got), want) || !canonicaljson.IsCanonical(got) {
				t.Errorf("version %s: redacted content of %s = %s, want the keys %v", id, typ, got, want)
			}
			for k, value := range canonicaljson.Members(got) {
				if was, _ := canonicaljson.Find(content, string(k)); string(was) != string(value) {
					t.Errorf("version %s: %s.%s became %s", id, typ, k, value)
				}
			}
		}
	}
}

func TestA73_ThirdPartyInviteKeepsSignedOnly(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"display_name":"x","signed":{"mxid":"@a:b","token":"t"}}`: `{"third_party_invite":{"signed":{"mxid":"@a:b","token":"t"}}}`,
		`{"display_name":"x"}`: `{"third_party_invite":{}}`, `5`: `{}`, `[]`: `{}`, `{"signed":5}`: `{"third_party_invite":{"signed":5}}`,
	} {
		content := []byte(`{"displayname":"d","third_party_invite":` + in + `}`)
		if got := appendRedactedContent(nil, version(t, "11"), "m.room.member", content); string(got) != want {
			t.Errorf("redacted content of %s = %s, want %s", content, got, want)
		}
		if got := appendRedactedContent(nil, version(t, "10"), "m.room.member", content); string(got) != "{}" {
			t.Errorf("version 10: redacted content of %s = %s", content, got)
		}
	}
}

func TestA73_TopLevelKeys(t *testing.T) {
	t.Parallel()
	always := []string{"auth_events", "content", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "room_id", "sender", "signatures", "state_key", "type"}
	older := []string{"membership", "origin", "prev_state"}
	in := object(append(append([]string{"age", "unsigned", "redacts", "Sender", "prev_content", "replaces_state", "zzz"}, always...), older...)...)
	in = canonicaljson.Set(in, "content", []byte(`{"body":"x"}`))
	for i, id := range matrix.RoomVersions() {
		want := slices.Clone(always)
		if i+1 < 11 {
			want = append(want, older...)
		}
		slices.Sort(want)
		got := AppendRedactedJSON(nil, version(t, id), in)
		if !slices.Equal(keysOf(got), want) || !canonicaljson.IsCanonical(got) {
			t.Errorf("version %s: redacted event = %s, want the keys %v", id, got, want)
		}
	}
}

func TestRedact_DropsTheTargetOfOldRedactions(t *testing.T) {
	t.Parallel()
	for _, id := range matrix.RoomVersions() {
		v := version(t, id)
		d := draft(v)
		d.Type, d.Redacts, d.Content = "m.room.redaction", "$BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB", jsontext.Value(`{"reason":"r"}`)
		r, err := Redact(build(t, v, d))
		if err != nil {
			t.Fatal(err)
		}
		if v.RedactsInContent != (r.Redacts == d.Redacts) || strings.Contains(string(r.JSON), "reason") {
			t.Errorf("version %s: the redacted redaction is %s", id, r.JSON)
		}
	}
}

func TestBuild_PutsRedactsInPlace(t *testing.T) {
	t.Parallel()
	const target = "$BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"
	for _, id := range matrix.RoomVersions() {
		v := version(t, id)
		for name, change := range map[string]func(*Draft){
			"as a field": func(d *Draft) { d.Redacts, d.Content = target, jsontext.Value(`{"a":1}`) },
			"in content": func(d *Draft) { d.Content = jsontext.Value(`{"a":1,"redacts":"` + target + `"}`) },
			"both":       func(d *Draft) { d.Redacts, d.Content = target, jsontext.Value(`{"a":1,"redacts":"$other"}`) },
		} {
			d := draft(v)
			d.Type = "m.room.redaction"
			change(&d)
			e := build(t, v, d)
			top, _ := canonicaljson.Find(e.JSON, "redacts")
			inside, _ := canonicaljson.Find(e.Content, "redacts")
			if !v.RedactsInContent {
				top, inside = inside, top
			}
			if e.Redacts != target || top != nil || string(inside) != `"`+target+`"` {
				t.Errorf("version %s, %s: %s", id, name, e.JSON)
			}
			client := string(AppendClient(nil, e, false)) + "}"
			if want := `{"content":{"a":1,"redacts":"` + target + `"},"event_id":`; !strings.HasPrefix(client, want) || !strings.Contains(client, `,"redacts":"`+target+`","sender":`) {
				t.Errorf("version %s, %s: the client format is %s", id, name, client)
			}
		}
		message := draft(v)
		message.Redacts, message.Content = target, jsontext.Value(`{"redacts":"$kept"}`)
		if e := build(t, v, message); e.Redacts != "" || string(e.Content) != `{"redacts":"$kept"}` {
			t.Errorf("version %s: a message redacts: %s", id, e.JSON)
		}
	}
}

func TestAppendClient_Format(t *testing.T) {
	t.Parallel()
	e := &Event{
		Version: version(t, "12"), ID: "$i", RoomID: "!r", Type: "m.\"x", StateKey: str(""), Sender: "@u:a", Content: jsontext.Value(`{"a":1}`),
		OriginServerTS: 5,
	}
	want := `prefix{"content":{"a":1},"event_id":"$i","origin_server_ts":5,"room_id":"!r","sender":"@u:a","state_key":"","type":"m.\"x"`
	if got := string(AppendClient([]byte("prefix"), e, true)); got != want {
		t.Errorf("AppendClient = %s, want %s", got, want)
	}
	e.StateKey = nil
	want = `{"content":{"a":1},"event_id":"$i","origin_server_ts":5,"sender":"@u:a","type":"m.\"x"`
	if got := string(AppendClient(nil, e, false)); got != want {
		t.Errorf("AppendClient = %s, want %s", got, want)
	}
	old := &Event{Version: version(t, "3"), ID: "$i", Type: "m.room.redaction", Sender: "@u:a", Content: jsontext.Value(`{"reason":"x","redacts":"$lie"}`), Redacts: "$t"}
	want = `{"content":{"reason":"x","redacts":"$t"},"event_id":"$i","origin_server_ts":0,"redacts":"$t","sender":"@u:a","type":"m.room.redaction"`
	if got := string(AppendClient(nil, old, false)); got != want {
		t.Errorf("AppendClient = %s, want %s", got, want)
	}
	if string(old.Content) != `{"reason":"x","redacts":"$lie"}` {
		t.Errorf("AppendClient changed the event: %s", old.Content)
	}
}

func TestFederation_PutsSignaturesInOrder(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"type":"x"}`: `{"signatures":{"a":1},"type":"x"}`, `{"a":1}`: `{"a":1,"signatures":{"a":1}}`, `{}`: `{"signatures":{"a":1}}`,
		`{"sender":"x","state_key":"y","type":"z"}`: `{"sender":"x","signatures":{"a":1},"state_key":"y","type":"z"}`,
	} {
		e := &Event{JSON: []byte(in), Signatures: jsontext.Value(`{"a":1}`)}
		if got := string(Federation(e)); got != want || len(got) > federationSize(e) {
			t.Errorf("Federation(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestBuild_HashesParentsOfOldVersions(t *testing.T) {
	t.Parallel()
	v := version(t, "1")
	d := draft(v)
	d.ReferenceHash = func(id matrix.EventID) (hash [32]byte, ok bool) { return hash, id == "$p0:a.example" }
	e := build(t, v, d)
	if want := `"prev_events":[["$p0:a.example",{"sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]]`; !strings.Contains(string(e.JSON), want) {
		t.Errorf("Build = %s, want %s", e.JSON, want)
	}
	if want := `"auth_events":[["$a0:a.example",{}],["$a1:a.example",{}]]`; !strings.Contains(string(e.JSON), want) {
		t.Errorf("Build = %s, want %s", e.JSON, want)
	}
	if got := accept(t, v, "built", Federation(e)); len(got.AuthEvents) != 2 || got.PrevEvents[0] != "$p0:a.example" {
		t.Errorf("Parse = %+v", got)
	}
	d.EventID = ""
	if _, err := Build(v, d); err == nil {
		t.Error("Build accepts a draft without an ID")
	}
}

func TestBuild_RefusesBadContent(t *testing.T) {
	t.Parallel()
	v := version(t, "5")
	for content, code := range map[string]string{
		`[]`: "M_BAD_JSON", `null`: "M_BAD_JSON", `"x"`: "M_BAD_JSON", `{"a":1.5}`: "M_BAD_JSON", `{"a":1,"a":1}`: "M_BAD_JSON",
		`{"a":NaN}`: "M_NOT_JSON", `{`: "M_NOT_JSON", `{"a":"\ud800"}`: "M_BAD_JSON", `{} {}`: "M_NOT_JSON",
	} {
		d := draft(v)
		d.Content = jsontext.Value(content)
		if _, err := Build(v, d); err == nil || !strings.Contains(err.Error(), code) {
			t.Errorf("Build(%s): %v, want %s", content, err, code)
		}
	}
	d := draft(v)
	d.Content = nil
	if e := build(t, v, d); string(e.Content) != "{}" {
		t.Errorf("no content became %s", e.Content)
	}
}
