package pushrule

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// Limits of what one user may keep.
const (
	// MaxRules is the number of own rules.
	MaxRules = 1000
	// MaxConditions is the number of conditions of a rule, and MaxActions that of its actions.
	MaxConditions, MaxActions = 32, 32
	// MaxPattern is the length of a glob in bytes.
	MaxPattern = 1024
	// MaxKey is the length of a property path and of a notification key in bytes.
	MaxKey = 512
	// MaxValue is the size of one condition or action as JSON.
	MaxValue = 4096
	// MaxSize is about the size of all own rules and changes together.
	MaxSize = 256 << 10
)

// Custom is what is stored for a user: everything in which the user's rules differ from the server's defaults.
// The zero value is a user without own rules.
type Custom struct {
	// Rules are the user's own rules.
	Rules Ruleset `json:"rules"`
	// Changes are the default rules that the user switched or gave other actions, by rule id.
	Changes map[string]Change `json:"changes,omitzero"`
}

// Change is what a user changed of a default rule.
type Change struct {
	// Enabled is nil where the rule was not switched.
	Enabled *bool `json:"enabled,omitzero"`
	// Actions is nil where the actions were not changed.
	Actions []jsontext.Value `json:"actions,omitzero"`
}

// Draft is the body of a request that creates or changes a rule.
type Draft struct {
	Actions    []jsontext.Value `json:"actions"`
	Conditions []jsontext.Value `json:"conditions"`
	Pattern    *string          `json:"pattern"`
}

// Place tells where among the own rules of its kind a rule goes: next before or next after another, Before winning where
// both are given. Without either a new rule comes first and an existing one stays.
type Place struct{ Before, After string }

// ParseCustom reads what Encode wrote.
func ParseCustom(stored []byte) (*Custom, error) {
	c := new(Custom)
	if err := json.Unmarshal(stored, c); err != nil {
		return nil, fmt.Errorf("pushrule: read stored rules: %w", err)
	}
	return c, nil
}

// Encode writes c for ParseCustom; equal rules give equal bytes.
func (c *Custom) Encode() ([]byte, error) {
	b, err := json.Marshal(c, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("pushrule: write rules: %w", err)
	}
	return b, nil
}

// Clone returns a copy that shares only what no method changes.
func (c *Custom) Clone() *Custom {
	d := new(Custom)
	for _, kind := range kinds() {
		*d.Rules.list(kind) = slices.Clone(*c.Rules.list(kind))
	}
	d.Changes = maps.Clone(c.Changes)
	return d
}

// Apply joins the defaults with what a user made of them: own rules before default ones of the same kind, except
// .m.rule.master, which is always first. A nil custom leaves the defaults. The result shares no list with its sources.
//
// spec: client-server-api#predefined-rules
func Apply(defaults Ruleset, custom *Custom) Ruleset {
	if custom == nil {
		custom = new(Custom)
	}
	var all Ruleset
	for _, kind := range kinds() {
		own, def := *custom.Rules.list(kind), *defaults.list(kind)
		joined := make([]Rule, 0, len(own)+len(def))
		if kind == Override && len(def) > 0 && def[0].ID == masterID {
			joined, def = append(joined, custom.change(def[0])), def[1:]
		}
		joined = append(joined, own...)
		for _, r := range def {
			joined = append(joined, custom.change(r))
		}
		*all.list(kind) = joined
	}
	return all
}

func (c *Custom) change(r Rule) Rule {
	change, ok := c.Changes[r.ID]
	if !ok {
		return r
	}
	if change.Enabled != nil {
		r.Enabled = *change.Enabled
	}
	if change.Actions != nil {
		r.Actions = change.Actions
	}
	return r
}

// Put creates a rule of the user, enabled, or changes one, which keeps its switch and, without a place, its position.
// After an error nothing has changed.
//
// spec: client-server-api#put_matrixclientv3pushrulesglobalkindruleid
func (c *Custom) Put(kind Kind, id string, d Draft, at Place) error {
	if err := checkRuleID(kind, id); err != nil {
		return err
	}
	r, err := newRule(kind, id, d)
	if err != nil {
		return err
	}
	list := c.Rules.list(kind)
	old := indexRule(*list, id)
	if old >= 0 {
		r.Enabled = (*list)[old].Enabled
	} else if c.count() >= MaxRules {
		return matrix.InvalidParam("A user may have at most %d push rules.", MaxRules)
	}
	next := slices.Clone(*list)
	if old >= 0 {
		next = slices.Delete(next, old, old+1)
	}
	pos := max(old, 0)
	if at.Before != "" || at.After != "" {
		ref, offset := at.Before, 0
		if ref == "" {
			ref, offset = at.After, 1
		}
		if ref == id && old >= 0 { // next to itself is where it is
			pos = old
		} else if pos = indexRule(next, ref); pos < 0 {
			return matrix.Errorf(400, matrix.CodeUnknown, "before/after rule not found: %.255s", ref)
		} else {
			pos += offset
		}
	}
	return c.replace(list, slices.Insert(next, pos, r))
}

// replace sets one list of own rules unless everything together becomes too large.
func (c *Custom) replace(list *[]Rule, next []Rule) error {
	before := *list
	*list = next
	if c.size() > MaxSize {
		*list = before
		return errTooLarge()
	}
	return nil
}

func errTooLarge() error {
	return matrix.Errorf(413, matrix.CodeTooLarge, "All push rules of a user together may have at most %d bytes.", MaxSize)
}

// Delete removes a rule of the user; a default rule cannot be removed.
//
// spec: client-server-api#delete_matrixclientv3pushrulesglobalkindruleid
func (c *Custom) Delete(kind Kind, id string) error {
	list := c.Rules.list(kind)
	if list == nil {
		_, err := ParseKind(string(kind))
		return err
	}
	i := indexRule(*list, id)
	if i < 0 {
		if isDefault(kind, id) {
			return matrix.InvalidParam("A default push rule cannot be deleted, only disabled.")
		}
		return errNoRule()
	}
	*list = slices.Delete(slices.Clone(*list), i, i+1)
	return nil
}

// SetEnabled switches a rule of the user or of the defaults.
//
// spec: client-server-api#put_matrixclientv3pushrulesglobalkindruleidenabled
func (c *Custom) SetEnabled(kind Kind, id string, enabled bool) error {
	return c.edit(kind, id,
		func(r *Rule) { r.Enabled = enabled },
		func(ch *Change) { ch.Enabled = &enabled })
}

// SetActions gives other actions to a rule of the user or of the defaults.
//
// spec: client-server-api#put_matrixclientv3pushrulesglobalkindruleidactions
func (c *Custom) SetActions(kind Kind, id string, actions []jsontext.Value) error {
	checked, err := checkActions(actions)
	if err != nil {
		return err
	}
	return c.edit(kind, id,
		func(r *Rule) { r.Actions = checked },
		func(ch *Change) { ch.Actions = checked })
}

func (c *Custom) edit(kind Kind, id string, own func(*Rule), def func(*Change)) error {
	list := c.Rules.list(kind)
	if list == nil {
		_, err := ParseKind(string(kind))
		return err
	}
	if i := indexRule(*list, id); i >= 0 {
		next := slices.Clone(*list)
		own(&next[i])
		return c.replace(list, next)
	}
	if !isDefault(kind, id) {
		return errNoRule()
	}
	change := c.Changes[id]
	def(&change)
	grown := &Custom{Rules: c.Rules, Changes: map[string]Change{}}
	maps.Copy(grown.Changes, c.Changes)
	grown.Changes[id] = change
	if grown.size() > MaxSize {
		return errTooLarge()
	}
	c.Changes = grown.Changes
	return nil
}

// CopyRoom gives a room the rules that the user has for another one, as after an upgrade of the room: the room rule, and
// copies of own override rules that name the old room as a whole. A room that already has a rule keeps it.
func (c *Custom) CopyRoom(from, to matrix.RoomID) error {
	i := indexRule(c.Rules.Room, string(from))
	if i >= 0 && indexRule(c.Rules.Room, string(to)) < 0 && c.count() < MaxRules {
		r := c.Rules.Room[i]
		r.ID = string(to)
		if err := c.replace(&c.Rules.Room, slices.Insert(slices.Clone(c.Rules.Room), 0, r)); err != nil {
			return err
		}
	}
	i = indexRule(c.Rules.Override, string(from))
	if i < 0 || indexRule(c.Rules.Override, string(to)) >= 0 || c.count() >= MaxRules {
		return nil
	}
	r := c.Rules.Override[i]
	r.ID = string(to)
	r.Conditions = slices.Clone(r.Conditions)
	for k, v := range r.Conditions {
		r.Conditions[k] = jsontext.Value(strings.ReplaceAll(string(v), quote(string(from)), quote(string(to))))
	}
	return c.replace(&c.Rules.Override, slices.Insert(slices.Clone(c.Rules.Override), 0, r))
}

func (c *Custom) count() int {
	n := 0
	for _, kind := range kinds() {
		n += len(*c.Rules.list(kind))
	}
	return n
}

// size estimates the bytes that c takes as JSON.
func (c *Custom) size() int {
	const overhead = 96
	n := 0
	for _, kind := range kinds() {
		for _, r := range *c.Rules.list(kind) {
			n += overhead + len(r.ID) + len(r.Pattern) + sizeOf(r.Conditions) + sizeOf(r.Actions)
		}
	}
	for id, change := range c.Changes {
		n += overhead + len(id) + sizeOf(change.Actions)
	}
	return n
}

func sizeOf(values []jsontext.Value) int {
	n := 0
	for _, v := range values {
		n += len(v) + 1
	}
	return n
}
