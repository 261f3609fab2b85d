package auth

import (
	"errors"
	"strconv"
	"testing"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// FuzzPowerLevels feeds any content to the parser of every version: it must answer, and what a later version accepts an
// earlier one must read as the same levels.
func FuzzPowerLevels(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"ban":50,"users":{"@a:b":100}}`, `{"ban":"50"}`, `{"ban":50.5}`, `{"users":{"x":1}}`, `{"events":[]}`, `[]`,
		`{"notifications":{"room":"x"}}`, `{"users":{"@\"q\":b":1}}`, `{"ban":9223372036854775807}`,
	} {
		f.Add(s, "@a:b", "m.room.message")
	}
	f.Fuzz(func(t *testing.T, content, user, typ string) {
		var earlier *PowerLevels
		accepted := false
		for _, id := range []string{"12", "9", "5"} {
			v := version(t, id)
			canon, err := canonicaljson.Canonicalize([]byte(content), v.StrictCanonicalJSON)
			if err != nil {
				continue
			}
			p, err := ParsePowerLevels(v, canon)
			if err != nil {
				if !errors.Is(err, ErrPowerLevels) {
					t.Fatalf("error %v is not ErrPowerLevels", err)
				}
				if accepted {
					t.Fatalf("version %s refuses %q, which a later version accepts: %v", id, content, err)
				}
				continue
			}
			if accepted && (p.User(matrix.UserID(user)) != earlier.User(matrix.UserID(user)) ||
				p.Required(typ, true) != earlier.Required(typ, true) || p.Ban() != earlier.Ban()) {
				t.Fatalf("versions disagree on %q", content)
			}
			for _, l := range p.Users() {
				if l == Infinite {
					t.Fatalf("an event gave infinite power: %q", content)
				}
			}
			earlier, accepted = p, true
		}
	})
}

// FuzzCheck throws events of any content at a room: the answer is nil or a *Denied with a reason.
func FuzzCheck(f *testing.F) {
	for _, c := range []string{
		`{"membership":"join"}`, `{"membership":"invite","third_party_invite":{"signed":{"mxid":"@x:y","token":"t","signatures":{}}}}`,
		`{"users":{"@mod:b.example":49}}`, `{"additional_creators":["@a:b"],"creator":"@a:b","room_version":"1"}`,
		`{"membership":"join","join_authorised_via_users_server":"@mod:b.example"}`, `{"join_rule":"knock"}`,
	} {
		for i, typ := range []string{TypeMember, TypePowerLevels, TypeCreate, TypeJoinRules, "m.room.message", TypeAliases} {
			f.Add(i, typ, "@mod:b.example", "@user:b.example", true, c, `{"join_rule":"restricted"}`, `{"ban":5}`)
		}
	}
	f.Fuzz(func(t *testing.T, n int, typ, sender, key string, isState bool, content, joinRules, powerLevels string) {
		id := strconv.Itoa(1 + (n%12+12)%12)
		w := furnished(t, id)
		var canon [3][]byte
		for i, s := range []string{content, joinRules, powerLevels} {
			c, err := canonicaljson.Canonicalize([]byte(s), w.v.StrictCanonicalJSON)
			if err != nil || c[0] != '{' {
				return
			}
			canon[i] = c
		}
		ev := w.event(typ, nil, matrix.UserID(sender), `{}`)
		ev.Content = canon[0]
		if isState {
			ev.StateKey = &key
		}
		for _, k := range NeededFor(ev) {
			if k.Type == "" {
				t.Fatal("the selection holds an empty type")
			}
		}
		rules, levels := w.event(TypeJoinRules, str(""), alice, `{}`), w.event(TypePowerLevels, str(""), alice, `{}`)
		rules.Content, levels.Content = canon[1], canon[2]
		for _, in := range [][2]*event.Event{{nil, nil}, {rules, nil}, {nil, levels}, {rules, levels}} {
			for i, k := range []string{TypeJoinRules, TypePowerLevels} {
				if in[i] != nil {
					w.state[event.StateKey{Type: k}] = in[i]
				} else {
					delete(w.state, event.StateKey{Type: k})
				}
			}
			w.verdict(ev)
		}
	})
}
