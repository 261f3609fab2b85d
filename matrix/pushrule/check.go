package pushrule

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// checkRuleID checks the identifier of a user's own rule.
//
// spec: client-server-api#put_matrixclientv3pushrulesglobalkindruleid
func checkRuleID(kind Kind, id string) error {
	if _, err := ParseKind(string(kind)); err != nil {
		return err
	}
	switch {
	case id == "" || len(id) > matrix.MaxIDLength || !utf8.ValidString(id):
		return matrix.InvalidParam("The id of a push rule must have between 1 and %d bytes.", matrix.MaxIDLength)
	case id[0] == '.':
		return matrix.InvalidParam("The id of a push rule must not begin with a dot: such rules are the server's.")
	case strings.ContainsAny(id, "/\\\x00"):
		return matrix.InvalidParam("The id of a push rule must not hold a slash, backslash or null character.")
	}
	if kind == Room {
		if _, err := matrix.ParseRoomID(id); err != nil {
			return matrix.InvalidParam("The id of a room rule must be a room ID.")
		}
	}
	if kind == Sender {
		if _, err := matrix.ParseUserID(id); err != nil {
			return matrix.InvalidParam("The id of a sender rule must be a user ID.")
		}
	}
	return nil
}

// newRule checks a draft and makes an enabled rule of it. Parameters that do not belong to the kind are left out.
func newRule(kind Kind, id string, d Draft) (Rule, error) {
	actions, err := checkActions(d.Actions)
	if err != nil {
		return Rule{}, err
	}
	r := Rule{ID: id, Enabled: true, Actions: actions}
	switch kind {
	case Override, Underride:
		if len(d.Conditions) > MaxConditions {
			return Rule{}, matrix.InvalidParam("A push rule may have at most %d conditions.", MaxConditions)
		}
		r.Conditions = make([]jsontext.Value, 0, len(d.Conditions))
		for _, raw := range d.Conditions {
			v, err := compact(raw, "condition")
			if err != nil {
				return Rule{}, err
			}
			if _, err := parseCondition(v); err != nil {
				return Rule{}, err
			}
			r.Conditions = append(r.Conditions, v)
		}
	case Content:
		if d.Pattern == nil {
			return Rule{}, matrix.Errorf(400, matrix.CodeMissingParam, "A content rule needs a pattern.")
		}
		if err := checkPattern(*d.Pattern); err != nil {
			return Rule{}, err
		}
		if *d.Pattern == "" {
			return Rule{}, matrix.InvalidParam("The pattern of a content rule must not be empty.")
		}
		r.Pattern = *d.Pattern
	}
	return r, nil
}

func checkPattern(pattern string) error {
	if len(pattern) > MaxPattern || !utf8.ValidString(pattern) {
		return matrix.InvalidParam("A pattern may have at most %d bytes.", MaxPattern)
	}
	return nil
}

// compact returns a copy of a JSON value without white space.
func compact(raw jsontext.Value, what string) (jsontext.Value, error) {
	v := raw.Clone()
	if err := v.Compact(); err != nil {
		return nil, matrix.BadJSON("A %s is not valid JSON.", what)
	}
	if len(v) > MaxValue {
		return nil, matrix.InvalidParam("A %s may have at most %d bytes.", what, MaxValue)
	}
	return v, nil
}

// checkActions checks a list of actions and leaves out the historical ones, which mean nothing.
//
// spec: client-server-api#actions
// spec: client-server-api#historical-actions
func checkActions(list []jsontext.Value) ([]jsontext.Value, error) {
	if list == nil {
		return nil, matrix.Errorf(400, matrix.CodeMissingParam, "A push rule needs a list of actions.")
	}
	if len(list) > MaxActions {
		return nil, matrix.InvalidParam("A push rule may have at most %d actions.", MaxActions)
	}
	checked := make([]jsontext.Value, 0, len(list))
	for _, raw := range list {
		v, err := compact(raw, "action")
		if err != nil {
			return nil, err
		}
		a, err := parseAction(v)
		if err != nil {
			return nil, err
		}
		if !a.historical {
			checked = append(checked, v)
		}
	}
	return checked, nil
}

// action is one parsed action: notify, a tweak, or a historical one.
type action struct {
	notify, historical bool
	tweak              string
	// value is the value of the tweak, nil if it has none.
	value jsontext.Value
}

func parseAction(v jsontext.Value) (action, error) {
	switch v.Kind() {
	case jsontext.KindString:
		switch s, _ := unquote(v); s {
		case "notify":
			return action{notify: true}, nil
		case "dont_notify", "coalesce":
			return action{historical: true}, nil
		}
		return action{}, matrix.InvalidParam("Unknown action %.64s.", v)
	case jsontext.KindBeginObject:
		var o struct {
			Tweak jsontext.Value `json:"set_tweak"`
			Value jsontext.Value `json:"value"`
		}
		if err := json.Unmarshal(v, &o); err != nil {
			return action{}, matrix.BadJSON("An action is not valid JSON.")
		}
		if tweak, ok := unquote(o.Tweak); ok && tweak != "" {
			return action{tweak: tweak, value: o.Value}, nil
		}
		return action{}, matrix.InvalidParam("An action that is an object needs a string set_tweak.")
	}
	return action{}, matrix.BadJSON("An action must be a string or an object.")
}

// unquote returns the string that v is, and false where v is something else.
func unquote(v jsontext.Value) (string, bool) {
	if v.Kind() != jsontext.KindString {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

// rawCondition is a condition as it was parsed; only the fields of its kind are set.
type rawCondition struct {
	kind, key, pattern string
	value              scalar
	compare            comparison
	limit              int
}

// parseCondition checks a condition. A kind that this server does not know is accepted as it is and never matches.
//
// spec: client-server-api#conditions-1
func parseCondition(v jsontext.Value) (rawCondition, error) {
	var o struct {
		Kind    jsontext.Value `json:"kind"`
		Key     jsontext.Value `json:"key"`
		Pattern jsontext.Value `json:"pattern"`
		Is      jsontext.Value `json:"is"`
		Value   jsontext.Value `json:"value"`
	}
	if v.Kind() != jsontext.KindBeginObject {
		return rawCondition{}, matrix.BadJSON("A condition must be an object.")
	}
	if err := json.Unmarshal(v, &o); err != nil {
		return rawCondition{}, matrix.BadJSON("A condition is not valid JSON.")
	}
	var c rawCondition
	var ok bool
	if c.kind, ok = unquote(o.Kind); !ok {
		return c, matrix.BadJSON("A condition needs a string kind.")
	}
	switch c.kind {
	case kindEventMatch, kindPropertyIs, kindPropertyContains, kindPermission:
		if c.key, ok = unquote(o.Key); !ok || len(c.key) > MaxKey {
			return c, matrix.InvalidParam("A condition of kind %s needs a string key of at most %d bytes.", c.kind, MaxKey)
		}
	}
	switch c.kind {
	case kindEventMatch:
		if c.pattern, ok = unquote(o.Pattern); !ok {
			return c, matrix.InvalidParam("A condition of kind %s needs a string pattern.", c.kind)
		}
		return c, checkPattern(c.pattern)
	case kindPropertyIs, kindPropertyContains:
		if c.value, ok = parseScalar(o.Value); !ok {
			return c, matrix.InvalidParam("A condition of kind %s needs a value that is a string, integer, boolean or null.", c.kind)
		}
	case kindMemberCount:
		is, isText := unquote(o.Is)
		if c.compare, c.limit, ok = parseIs(is); !ok || !isText {
			return c, matrix.InvalidParam("A condition of kind %s needs a member is such as \"2\" or \">=10\".", c.kind)
		}
	}
	return c, nil
}

// parseIs reads a decimal integer with an optional comparison before it. Numbers beyond any room are all the same.
func parseIs(s string) (comparison, int, bool) {
	cmp, rest := equal, s
	for _, p := range []struct {
		prefix string
		cmp    comparison
	}{{"==", equal}, {">=", atLeast}, {"<=", atMost}, {">", greater}, {"<", less}} {
		if after, ok := strings.CutPrefix(s, p.prefix); ok {
			cmp, rest = p.cmp, after
			break
		}
	}
	if rest == "" || strings.Trim(rest, "0123456789") != "" {
		return 0, 0, false
	}
	n, err := strconv.ParseInt(rest, 10, 32)
	if err != nil {
		n = 1 << 31
	}
	return cmp, int(n), true
}
