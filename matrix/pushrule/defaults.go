package pushrule

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// masterID is the rule that silences everything and comes before all other rules, a user's own included.
const masterID = ".m.rule.master"

// Defaults returns the server's default rules for a user.
//
// spec: client-server-api#predefined-rules
func Defaults(user matrix.UserID) Ruleset {
	me := string(user)
	master := defaultRule(masterID, nil)
	master.Enabled = false
	return Ruleset{
		Override: []Rule{
			master,
			defaultRule(".m.rule.suppress_notices", nil, eventMatch("content.msgtype", "m.notice")),
			defaultRule(".m.rule.invite_for_me", actions("notify", "default", false),
				eventMatch("type", "m.room.member"), eventMatch("content.membership", "invite"), eventMatch("state_key", me)),
			defaultRule(".m.rule.member_event", nil, eventMatch("type", "m.room.member")),
			defaultRule(".m.rule.is_user_mention", actions("notify", "default", true),
				condition("event_property_contains", "key", `content.m\.mentions.user_ids`, "value", quote(me))),
			defaultRule(".m.rule.is_room_mention", actions("notify", "", true),
				condition("event_property_is", "key", `content.m\.mentions.room`, "value", "true"),
				condition("sender_notification_permission", "key", "room")),
			defaultRule(".m.rule.tombstone", actions("notify", "", true),
				eventMatch("type", "m.room.tombstone"), eventMatch("state_key", "")),
			defaultRule(".m.rule.reaction", nil, eventMatch("type", "m.reaction")),
			defaultRule(".m.rule.room.server_acl", nil, eventMatch("type", "m.room.server_acl"), eventMatch("state_key", "")),
			defaultRule(".m.rule.suppress_edits", nil,
				condition("event_property_is", "key", `content.m\.relates_to.rel_type`, "value", quote("m.replace"))),
		},
		Content: []Rule{}, Room: []Rule{}, Sender: []Rule{},
		Underride: []Rule{
			defaultRule(".m.rule.call", actions("notify", "ring", false), eventMatch("type", "m.call.invite")),
			defaultRule(".m.rule.encrypted_room_one_to_one", actions("notify", "default", false),
				memberCount("2"), eventMatch("type", "m.room.encrypted")),
			defaultRule(".m.rule.room_one_to_one", actions("notify", "default", false),
				memberCount("2"), eventMatch("type", "m.room.message")),
			defaultRule(".m.rule.message", actions("notify", "", false), eventMatch("type", "m.room.message")),
			defaultRule(".m.rule.encrypted", actions("notify", "", false), eventMatch("type", "m.room.encrypted")),
		},
	}
}

func defaultRule(id string, actions []jsontext.Value, conditions ...jsontext.Value) Rule {
	r := Rule{ID: id, Default: true, Enabled: true, Conditions: conditions, Actions: actions}
	if r.Conditions == nil {
		r.Conditions = []jsontext.Value{}
	}
	if r.Actions == nil {
		r.Actions = []jsontext.Value{}
	}
	return r
}

func actions(notify, sound string, highlight bool) []jsontext.Value {
	list := []jsontext.Value{jsontext.Value(quote(notify))}
	if sound != "" {
		list = append(list, jsontext.Value(`{"set_tweak":"sound","value":`+quote(sound)+`}`))
	}
	if highlight {
		list = append(list, jsontext.Value(`{"set_tweak":"highlight"}`))
	}
	return list
}

func eventMatch(key, pattern string) jsontext.Value {
	return condition("event_match", "key", key, "pattern", quote(pattern))
}

func memberCount(is string) jsontext.Value { return condition("room_member_count", "is", is) }

// condition builds a condition of its kind, a first parameter that is a string, and a second one given as name and JSON.
func condition(kind, name, text string, more ...string) jsontext.Value {
	var b strings.Builder
	b.WriteString(`{"kind":` + quote(kind) + `,` + quote(name) + `:` + quote(text))
	for i := 0; i+1 < len(more); i += 2 {
		b.WriteString(`,` + quote(more[i]) + `:` + more[i+1])
	}
	b.WriteString(`}`)
	return jsontext.Value(b.String())
}

// quote writes a string as JSON; bytes that are no UTF-8 become the replacement character.
func quote(s string) string {
	b, err := jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\ufffd"))
	if err != nil {
		return `""`
	}
	return string(b)
}

// isDefault tells whether a default rule of this kind and id exists.
func isDefault(kind Kind, id string) bool {
	if !strings.HasPrefix(id, ".") {
		return false
	}
	defaults := Defaults("")
	list := defaults.list(kind)
	return list != nil && indexRule(*list, id) >= 0
}
