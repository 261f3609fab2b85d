package membership

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/auth"
)

func proper(version string) string {
	ref := func(name string) string {
		if version == "1" {
			return `["$` + name + `:far.example",{"sha256":"` + strings.Repeat("A", 43) + `"}]`
		}
		return `"$` + name + strings.Repeat("x", 43-len(name)) + `"`
	}
	return fmt.Sprintf(`{"type":"m.room.member","room_id":"!r:far.example","sender":"@a:acme.example","state_key":"@a:acme.example","depth":7,`+
		`"content":{"membership":"join","displayname":"Evil","join_authorised_via_users_server":"@host:far.example"},"origin_server_ts":1,"origin":"far.example",`+
		`"unsigned":{"x":1},"prev_events":[%s],"auth_events":[%s,%s]}`, ref("p"), ref("q"), ref("r"))
}

func TestF111_TemplatesThatAreNotWhatWasAsked(t *testing.T) {
	t.Parallel()
	w := wanted{"!r:far.example", "@a:acme.example", "@a:acme.example", auth.Join}
	good := proper("10")
	got, err := readTemplate(&federation.Template{RoomVersion: "10", Event: jsontext.Value(good)}, w)
	if err != nil || got.depth != 7 || len(got.prev) != 1 || len(got.auth) != 2 || got.via != "@host:far.example" {
		t.Fatalf("a proper template: %+v, %v", got, err)
	}
	first, err := readTemplate(&federation.Template{Event: jsontext.Value(strings.Replace(proper("1"), `,"join_authorised_via_users_server":"@host:far.example"`, "", 1))}, w)
	if err != nil || first.version.ID != "1" || len(first.hashes) != 3 || first.prev[0] != "$p:far.example" {
		t.Fatalf("a template of room version 1: %+v, %v", first, err)
	}
	for what, change := range map[string][2]string{
		"a message":                 {`"m.room.member"`, `"m.room.message"`},
		"power levels":              {`"m.room.member"`, `"m.room.power_levels"`},
		"another room":              {`!r:far.example`, `!s:far.example`},
		"another sender":            {`"sender":"@a:acme.example"`, `"sender":"@b:acme.example"`},
		"another user":              {`"state_key":"@a:acme.example"`, `"state_key":"@b:acme.example"`},
		"no state key":              {`"state_key":"@a:acme.example",`, ``},
		"another membership":        {`"membership":"join"`, `"membership":"ban"`},
		"no membership":             {`"membership":"join",`, ``},
		"a negative depth":          {`"depth":7`, `"depth":-7`},
		"a broken depth":            {`"depth":7`, `"depth":7.5`},
		"depth as text":             {`"depth":7`, `"depth":"7"`},
		"no parents":                {`"prev_events":["$p` + strings.Repeat("x", 42) + `"]`, `"prev_events":[]`},
		"parents that are no IDs":   {`"prev_events":["$p`, `"prev_events":["p`},
		"a parent of old":           {`"prev_events":["$p` + strings.Repeat("x", 42) + `"]`, `"prev_events":["$p:far.example"]`},
		"a host that is nobody":     {`"@host:far.example"`, `"host"`},
		"a sender twice":            {`"sender":"@a:acme.example"`, `"sender":"@b:acme.example","sender":"@a:acme.example"`},
		"too many that allow it":    {`"auth_events":[`, `"auth_events":[` + strings.Repeat(`"$q`+strings.Repeat("x", 42)+`",`, 10)},
		"content that is no object": {`"content":{"membership":"join","displayname":"Evil","join_authorised_via_users_server":"@host:far.example"}`, `"content":"join"`},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%s: the test changes nothing", what)
		}
		if _, err := readTemplate(&federation.Template{RoomVersion: "10", Event: jsontext.Value(bad)}, w); !errors.Is(err, errUnusable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, version := range []string{"99", "0", "x"} {
		if _, err := readTemplate(&federation.Template{RoomVersion: version, Event: jsontext.Value(good)}, w); !errors.Is(err, errUnusable) {
			t.Errorf("version %q: %v", version, err)
		}
	}
	if _, err := readTemplate(&federation.Template{RoomVersion: "7", Event: jsontext.Value(good)}, w); !errors.Is(err, errUnusable) {
		t.Errorf("a restricted join in version 7: %v", err)
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("10", proper("10"))
	f.Add("1", proper("1"))
	f.Add("", `{"prev_events":[[]]}`)
	f.Fuzz(func(t *testing.T, version, body string) {
		w := wanted{"!r:far.example", "@a:acme.example", "@a:acme.example", auth.Join}
		got, err := readTemplate(&federation.Template{RoomVersion: version, Event: jsontext.Value(body)}, w)
		if err != nil {
			if !errors.Is(err, errUnusable) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		for _, id := range append(got.prev, got.auth...) {
			if _, err := matrix.ParseEventID(string(id)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzOldStripped(f *testing.F) {
	f.Add(`{"type":"m.room.name","state_key":"","sender":"@a:x.example","content":{"name":"x"}}`)
	f.Add(`{"type":"m.room.member","state_key":"@a:x","sender":"@a:x","content":{"membership":"join","n":1e3}}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, object string) {
		st, ok := oldStripped(jsontext.Value(object))
		if !ok {
			return
		}
		kept := encodeStripped([]stripped{st, st})
		if !jsontext.Value(kept).IsValid() {
			t.Fatalf("%q is kept as %q", object, kept)
		}
		h := hear(nil, kept)
		if len(h.users) == 0 && len(kept) > 2 && st.Type != typeMember {
			t.Fatalf("%q names nobody", kept)
		}
	})
}
