// Package pushrule decides whether an event notifies a user, and keeps the rules by which the user decides that.
//
// What a user sees and edits is a Ruleset: the server's default rules with the user's own rules before them. What is
// stored is only the Custom part: own rules, and which default rules were switched or given other actions. Apply joins
// both, and the methods of Custom are the operations of the push rules API, with the checks and limits that it needs.
//
// For an event, NewSubject reads the event once; Compile makes an Evaluator of each recipient's rules, to be kept between
// events; Evaluate answers for one recipient, without allocating, from the shared Subject and the shared facts of the
// room. Globs are matched in linear time (package glob) and the work of one evaluation has a ceiling, whatever the rules
// and the event hold.
//
// Left to others: who the recipients are, counting, storing, and everything about pushers and gateways.
//
// spec: client-server-api#push-rules
package pushrule

import (
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// Kind is one of the five lists of a Ruleset.
type Kind string

// The kinds of rules, in the order in which they are asked.
const (
	Override  Kind = "override"
	Content   Kind = "content"
	Room      Kind = "room"
	Sender    Kind = "sender"
	Underride Kind = "underride"
)

// ParseKind checks the kind in the path of a request.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case Override, Content, Room, Sender, Underride:
		return k, nil
	}
	return "", matrix.InvalidParam("There is no kind of push rules named %.64q.", s)
}

// Rule is one push rule. Conditions and actions are kept as JSON, so that what this server does not know survives.
type Rule struct {
	ID      string `json:"rule_id"`
	Default bool   `json:"default"`
	Enabled bool   `json:"enabled"`
	// Conditions is not nil for override and underride rules, nil for others.
	Conditions []jsontext.Value `json:"conditions,omitzero"`
	// Pattern is set for content rules only.
	Pattern string           `json:"pattern,omitzero"`
	Actions []jsontext.Value `json:"actions"`
}

// Ruleset is all rules of a user, in JSON the object `global` of the API and of m.push_rules. Earlier rules of a list come
// first.
type Ruleset struct {
	Override  []Rule `json:"override"`
	Content   []Rule `json:"content"`
	Room      []Rule `json:"room"`
	Sender    []Rule `json:"sender"`
	Underride []Rule `json:"underride"`
}

// list returns the rules of a kind, nil for a kind that does not exist.
func (rs *Ruleset) list(kind Kind) *[]Rule {
	switch kind {
	case Override:
		return &rs.Override
	case Content:
		return &rs.Content
	case Room:
		return &rs.Room
	case Sender:
		return &rs.Sender
	case Underride:
		return &rs.Underride
	}
	return nil
}

// kinds lists the kinds in the order in which they are asked.
func kinds() [5]Kind { return [5]Kind{Override, Content, Room, Sender, Underride} }

// Find returns a rule, or 404 M_NOT_FOUND.
func (rs *Ruleset) Find(kind Kind, id string) (*Rule, error) {
	list := rs.list(kind)
	if list == nil {
		return nil, matrix.InvalidParam("There is no kind of push rules named %.64q.", string(kind))
	}
	if i := indexRule(*list, id); i >= 0 {
		return &(*list)[i], nil
	}
	return nil, errNoRule()
}

func indexRule(rules []Rule, id string) int {
	for i := range rules {
		if rules[i].ID == id {
			return i
		}
	}
	return -1
}

func errNoRule() error { return matrix.NotFound("The push rule was not found.") }
