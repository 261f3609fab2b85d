package pushrule

import (
	"bytes"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/glob"
	"hansa/matrix/propertypath"
)

// maxWork is the number of steps, of about a nanosecond each, that one evaluation may spend. Conditions beyond it do not
// match. Fifty keywords on the largest possible message stay below.
const maxWork = 3 << 20

// The kinds of conditions.
const (
	kindEventMatch       = "event_match"
	kindPropertyIs       = "event_property_is"
	kindPropertyContains = "event_property_contains"
	kindDisplayName      = "contains_display_name"
	kindMemberCount      = "room_member_count"
	kindPermission       = "sender_notification_permission"
)

// comparison is how a number of members is compared.
type comparison uint8

const (
	equal comparison = iota
	less
	greater
	atLeast
	atMost
)

// RoomContext is what the rules need to know of the room at the event, the same for every recipient. Functions are called
// only by rules that ask; one that is nil makes their conditions fail.
type RoomContext struct {
	// MemberCount is the number of joined members.
	MemberCount int
	// PowerLevel is the power level of a user.
	PowerLevel func(matrix.UserID) int64
	// NotificationLevel is the level needed for a notification of this key, from `notifications` of m.room.power_levels;
	// 50 where that does not name the key.
	NotificationLevel func(key string) int64
	// DisplayName is the display name of a recipient in the room, empty if there is none.
	DisplayName func(matrix.UserID) string
}

// Result is what the first rule that matches says. It shares its slices with the Evaluator: read only.
type Result struct {
	// Notify tells whether the event notifies at all; without it the rest tells only which rule matched.
	Notify bool
	// Highlight is the tweak of that name; never set without Notify.
	Highlight bool
	// Sound is the tweak of that name, empty for silence.
	Sound string
	// Kind and Rule name the rule that matched, and are empty where none did.
	Kind Kind
	Rule string
	// Tweaks is the object `tweaks` for a push gateway.
	Tweaks jsontext.Value
	// Actions are the actions of the rule.
	Actions []jsontext.Value
}

// Evaluator is the compiled rules of one user: immutable and safe for concurrent use.
type Evaluator struct {
	rules  *compiled
	user   matrix.UserID
	folded string
}

// compiled holds the enabled rules in the order in which they are asked. Where a condition names the user to whom the
// rules belong, it refers to the Evaluator instead, so that users with the same rules can share them.
type compiled struct {
	override, content, underride []rule
	room                         map[matrix.RoomID]*rule
	sender                       map[matrix.UserID]*rule
}

type rule struct {
	conds  []cond
	result Result
}

// op is what a condition does.
type op uint8

const (
	opNever op = iota
	opGlob
	opText     // the folded property equals text
	opSelf     // the folded property equals the user's ID
	opIs       // the property equals value
	opContains // the property is an array with value
	opContainsSelf
	opDisplayName
	opMemberCount
	opPermission
)

type cond struct {
	op      op
	slot    slot
	compare comparison
	limit   int
	text    string
	path    []string
	glob    *glob.Glob
	value   scalar
	// steps is what the condition takes from the budget, globs apart.
	steps int
}

// The steps that a condition takes from the budget besides its globs.
const (
	stepsBase = 4
	// stepsName is for one name of a path that has no slot.
	stepsName = 30
	// stepsDisplayName is for asking for a display name and compiling it.
	stepsDisplayName = 4000
)

// Compile prepares a user's rules. Rules are asked in the order of rs, as Apply made it; a condition that is malformed or
// of an unknown kind never matches.
func Compile(rs Ruleset, user matrix.UserID) *Evaluator {
	e := &Evaluator{user: user, folded: glob.Fold(string(user)), rules: new(compiled)}
	c := e.rules
	c.override = compileList(Override, rs.Override, user)
	c.content = compileList(Content, rs.Content, user)
	c.underride = compileList(Underride, rs.Underride, user)
	for i := range rs.Room {
		if r := &rs.Room[i]; r.Enabled {
			if c.room == nil {
				c.room = make(map[matrix.RoomID]*rule)
			}
			if id := matrix.RoomID(r.ID); c.room[id] == nil {
				c.room[id] = &rule{result: compileResult(Room, r)}
			}
		}
	}
	for i := range rs.Sender {
		id, err := matrix.ParseUserID(rs.Sender[i].ID)
		if r := &rs.Sender[i]; r.Enabled && err == nil {
			if c.sender == nil {
				c.sender = make(map[matrix.UserID]*rule)
			}
			if c.sender[id] == nil {
				c.sender[id] = &rule{result: compileResult(Sender, r)}
			}
		}
	}
	return e
}

// For returns an evaluator for another user that shares the compiled rules of e. It is meant for the many users who have
// the same rules but for their own ID, above all those who never changed the defaults.
func (e *Evaluator) For(user matrix.UserID) *Evaluator {
	return &Evaluator{rules: e.rules, user: user, folded: glob.Fold(string(user))}
}

func compileList(kind Kind, rules []Rule, user matrix.UserID) []rule {
	list := make([]rule, 0, len(rules))
	for i := range rules {
		r := &rules[i]
		if !r.Enabled {
			continue
		}
		out := rule{result: compileResult(kind, r)}
		if kind == Content {
			out.conds = []cond{compileMatch([]string{"content", "body"}, r.Pattern, "")}
		}
		for _, v := range r.Conditions {
			out.conds = append(out.conds, compileCondition(v, user))
		}
		for k := range out.conds {
			out.conds[k].steps = stepsOf(&out.conds[k])
		}
		if !neverMatches(out.conds) {
			list = append(list, out)
		}
	}
	return list
}

func stepsOf(c *cond) int {
	switch {
	case c.op == opDisplayName:
		return stepsDisplayName
	case c.slot == slotNone:
		return stepsBase + stepsName*len(c.path)
	}
	return stepsBase
}

func neverMatches(conds []cond) bool {
	for i := range conds {
		if conds[i].op == opNever {
			return true
		}
	}
	return false
}

func compileCondition(v jsontext.Value, user matrix.UserID) cond {
	raw, err := parseCondition(v)
	if err != nil {
		return cond{}
	}
	switch raw.kind {
	case kindEventMatch:
		return compileMatch(propertypath.Split(raw.key), raw.pattern, user)
	case kindPropertyIs, kindPropertyContains:
		c := cond{op: opIs, path: propertypath.Split(raw.key), value: raw.value}
		c.slot = slotOf(c.path)
		if raw.kind == kindPropertyContains {
			c.op = opContains
			if user != "" && raw.value == (scalar{kind: jsontext.KindString, str: string(user)}) {
				c.op = opContainsSelf
			}
		}
		return c
	case kindDisplayName:
		return cond{op: opDisplayName, slot: slotBody}
	case kindMemberCount:
		return cond{op: opMemberCount, compare: raw.compare, limit: raw.limit}
	case kindPermission:
		return cond{op: opPermission, text: raw.key}
	}
	return cond{}
}

func compileMatch(path []string, pattern string, user matrix.UserID) cond {
	c := cond{op: opGlob, path: path, slot: slotOf(path)}
	if len(pattern) > MaxPattern {
		return cond{}
	}
	folded := glob.Fold(pattern)
	if c.slot == slotBody {
		c.glob = glob.CompileWord(folded)
		return c
	}
	c.glob = glob.Compile(folded)
	if text, ok := c.glob.Literal(); ok {
		c.op, c.text = opText, text
		if user != "" && pattern == string(user) {
			c.op = opSelf
		}
	}
	return c
}

// compileResult works out what a rule says when it matches. Malformed actions are left out.
func compileResult(kind Kind, r *Rule) Result {
	res := Result{Kind: kind, Rule: r.ID, Actions: r.Actions}
	tweaks := make(map[string]jsontext.Value)
	for _, v := range r.Actions {
		a, err := parseAction(v)
		if err != nil {
			continue
		}
		res.Notify = res.Notify || a.notify
		switch {
		case a.tweak == "":
		case a.value != nil:
			tweaks[a.tweak] = a.value
		case a.tweak == "highlight":
			tweaks[a.tweak] = jsontext.Value("true")
		default:
			tweaks[a.tweak] = jsontext.Value("null")
		}
	}
	res.Sound, _ = unquote(tweaks["sound"])
	res.Highlight = res.Notify && bytes.Equal(tweaks["highlight"], []byte("true"))
	res.Tweaks = jsontext.Value("{}")
	if b, err := json.Marshal(tweaks, json.Deterministic(true)); err == nil {
		res.Tweaks = b
	}
	return res
}

// Evaluate asks the rules about an event. A user's own events match no rule.
//
// spec: client-server-api#push-rules
func (e *Evaluator) Evaluate(s *Subject, room *RoomContext) Result {
	if s.ev.Sender == e.user {
		return Result{}
	}
	work := maxWork
	if r := e.first(e.rules.override, s, room, &work); r != nil {
		return r.result
	}
	if r := e.first(e.rules.content, s, room, &work); r != nil {
		return r.result
	}
	if r := e.rules.room[s.ev.RoomID]; r != nil {
		return r.result
	}
	if r := e.rules.sender[s.ev.Sender]; r != nil {
		return r.result
	}
	if r := e.first(e.rules.underride, s, room, &work); r != nil {
		return r.result
	}
	return Result{}
}

func (e *Evaluator) first(rules []rule, s *Subject, room *RoomContext, work *int) *rule {
next:
	for i := range rules {
		conds := rules[i].conds
		for k := range conds {
			if !e.holds(&conds[k], s, room, work) {
				continue next
			}
		}
		return &rules[i]
	}
	return nil
}

func (e *Evaluator) holds(c *cond, s *Subject, room *RoomContext, work *int) bool {
	if !spend(work, c.steps) {
		return false
	}
	switch c.op {
	case opMemberCount:
		return c.compare.holds(room.MemberCount, c.limit)
	case opPermission:
		return room.PowerLevel != nil && room.NotificationLevel != nil &&
			room.PowerLevel(s.ev.Sender) >= room.NotificationLevel(c.text)
	case opDisplayName:
		return e.namesMe(s, room, work)
	}
	n := s.lookup(c.slot, c.path)
	if n == nil {
		return false
	}
	switch c.op {
	case opText:
		return n.kind == jsontext.KindString && n.folded == c.text
	case opSelf:
		return n.kind == jsontext.KindString && n.folded == e.folded
	case opGlob:
		return n.kind == jsontext.KindString && spend(work, c.glob.Cost(len(n.folded))) && c.glob.Match(n.folded)
	case opIs:
		return n.scalar == c.value
	case opContains:
		return n.contains(c.value)
	case opContainsSelf:
		return n.contains(scalar{kind: jsontext.KindString, str: string(e.user)})
	}
	return false
}

// spend takes steps from the budget and tells whether it sufficed.
func spend(work *int, steps int) bool {
	*work -= steps
	return *work >= 0
}

// namesMe tells whether the body holds the recipient's display name as a word.
func (e *Evaluator) namesMe(s *Subject, room *RoomContext, work *int) bool {
	body := s.lookup(slotBody, nil)
	if body == nil || body.kind != jsontext.KindString || room.DisplayName == nil {
		return false
	}
	name := room.DisplayName(e.user)
	if name == "" || len(name) > MaxPattern {
		return false
	}
	g := glob.CompileWordLiteral(glob.Fold(name))
	return spend(work, g.Cost(len(body.folded))) && g.Match(body.folded)
}

func (c comparison) holds(n, limit int) bool {
	switch c {
	case less:
		return n < limit
	case greater:
		return n > limit
	case atLeast:
		return n >= limit
	case atMost:
		return n <= limit
	default:
		return n == limit
	}
}
