package pushrule

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/matrix/glob"
)

// maxDepth is how many objects deep a property may lie to be found, the event itself being the first; deeper ones are as
// if absent.
const maxDepth = 16

// indexFrom is the number of members or elements from which on an index replaces a walk.
const indexFrom = 16

// slot numbers the properties that rules usually ask for; they are looked up once for an event.
type slot uint8

const (
	slotNone slot = iota
	slotType
	slotSender
	slotRoomID
	slotStateKey
	slotBody
	slotMsgType
	slotMembership
	slotMentionedUsers
	slotMentionsRoom
	slotRelType
	slotCount
)

// slotOf returns the slot of a property path, or slotNone.
func slotOf(path []string) slot {
	switch strings.Join(path, "\x00") {
	case "type":
		return slotType
	case "sender":
		return slotSender
	case "room_id":
		return slotRoomID
	case "state_key":
		return slotStateKey
	case "content\x00body":
		return slotBody
	case "content\x00msgtype":
		return slotMsgType
	case "content\x00membership":
		return slotMembership
	case "content\x00m.mentions\x00user_ids":
		return slotMentionedUsers
	case "content\x00m.mentions\x00room":
		return slotMentionsRoom
	case "content\x00m.relates_to\x00rel_type":
		return slotRelType
	}
	return slotNone
}

// Subject is an event prepared for evaluation, shared by all its recipients. It reads rare properties when they are first
// asked for, so it belongs to one goroutine at a time.
type Subject struct {
	ev    *event.Event
	slots [slotCount]*node
	// own holds the nodes of properties outside content, to save allocations.
	own [slotStateKey + 1]node
	// root is the whole event, made when a rule asks for a property that has no slot.
	root *node
}

// NewSubject reads what rules usually need of an event.
func NewSubject(ev *event.Event) *Subject {
	s := &Subject{ev: ev}
	s.set(slotType, ev.Type)
	s.set(slotSender, string(ev.Sender))
	s.set(slotRoomID, string(ev.RoomID))
	if ev.StateKey != nil {
		s.set(slotStateKey, *ev.StateKey)
	}
	for key, value := range canonicaljson.Members(ev.Content) {
		switch string(key) {
		case "body":
			s.slots[slotBody] = &node{raw: value}
		case "msgtype":
			s.slots[slotMsgType] = &node{raw: value}
		case "membership":
			s.slots[slotMembership] = &node{raw: value}
		case "m.mentions":
			s.slots[slotMentionedUsers] = findNode(value, "user_ids")
			s.slots[slotMentionsRoom] = findNode(value, "room")
		case "m.relates_to":
			s.slots[slotRelType] = findNode(value, "rel_type")
		}
	}
	return s
}

func findNode(object []byte, key string) *node {
	value, ok := canonicaljson.Find(object, key)
	if !ok {
		return nil
	}
	return &node{raw: value}
}

func (s *Subject) set(at slot, text string) {
	s.own[at] = textNode(text)
	s.slots[at] = &s.own[at]
}

// Sender is the user who sent the event.
func (s *Subject) Sender() matrix.UserID { return s.ev.Sender }

// lookup returns a property, read, or nil where the event does not have it.
func (s *Subject) lookup(at slot, path []string) *node {
	n := s.slots[at]
	if at == slotNone {
		if len(path) > maxDepth {
			return nil
		}
		if s.root == nil {
			s.root = s.newRoot()
		}
		n = s.root
		for _, name := range path {
			if n = n.read().find(name); n == nil {
				return nil
			}
		}
	}
	if n == nil {
		return nil
	}
	return n.read()
}

// newRoot holds everything that a rule may ask for and that has no slot: content and the rest of the event's own
// properties.
func (s *Subject) newRoot() *node {
	root := &node{scalar: scalar{kind: jsontext.KindBeginObject}, parts: new(parts), done: true}
	add := func(name string, n node) { root.parts.members = append(root.parts.members, member{name, n}) }
	add("content", node{raw: s.ev.Content})
	add("event_id", textNode(string(s.ev.ID)))
	add("origin_server_ts", node{scalar: scalar{kind: jsontext.KindNumber, num: s.ev.OriginServerTS}, done: true})
	if s.ev.Redacts != "" {
		add("redacts", textNode(string(s.ev.Redacts)))
	}
	return root
}

// scalar is a JSON value without parts: string, integer, boolean or null. The zero value is none of them.
type scalar struct {
	kind jsontext.Kind
	str  string
	num  int64
}

// parseScalar reads a value that is no array, object or broken number.
func parseScalar(v jsontext.Value) (scalar, bool) {
	switch k := v.Kind(); k {
	case jsontext.KindString:
		s, ok := unquote(v)
		return scalar{kind: k, str: s}, ok
	case jsontext.KindNumber:
		return parseInteger(string(v))
	case jsontext.KindTrue, jsontext.KindFalse, jsontext.KindNull:
		return scalar{kind: k}, true
	}
	return scalar{}, false
}

// parseInteger reads an integer of canonical JSON: digits only, within ±(2^53-1).
func parseInteger(s string) (scalar, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > 1<<53-1 || n < -(1<<53-1) {
		return scalar{}, false
	}
	return scalar{kind: jsontext.KindNumber, num: n}, true
}

// node is a property of an event, read from its JSON when it is first asked for.
type node struct {
	// raw is the JSON; done tells that the rest has been made of it.
	raw  []byte
	done bool
	// scalar has the kind of the value, 0 for a number that is no integer, and unless it has parts the value.
	scalar
	// folded is glob.Fold of a string.
	folded string
	// parts is set for objects and arrays.
	parts *parts
}

// parts are the members of an object or the scalars of an array, with an index where they are many.
type parts struct {
	members []member
	index   map[string]*node
	list    []scalar
	set     map[scalar]struct{}
}

type member struct {
	name string
	node node
}

func textNode(s string) node {
	return node{scalar: scalar{kind: jsontext.KindString, str: s}, folded: glob.Fold(s), done: true}
}

// read makes sure that n has been read, and returns it.
func (n *node) read() *node {
	if n.done {
		return n
	}
	n.done = true
	switch v := readLeaf(n.raw); v.kind {
	case jsontext.KindString:
		n.scalar, n.folded = v, glob.Fold(v.str)
	case jsontext.KindBeginObject:
		n.scalar, n.parts = v, readObject(n.raw)
	case jsontext.KindBeginArray:
		n.scalar, n.parts = v, readArray(n.raw)
	default:
		n.scalar = v
	}
	return n
}

// readLeaf reads a scalar, and of an object or array the kind alone.
func readLeaf(raw []byte) scalar {
	switch k := jsontext.Value(raw).Kind(); k {
	case jsontext.KindString:
		if s, ok := canonicaljson.String(raw); ok {
			return scalar{kind: k, str: s}
		}
		return scalar{}
	case jsontext.KindNumber:
		v, _ := parseInteger(string(raw))
		return v
	default:
		return scalar{kind: k}
	}
}

func readObject(raw []byte) *parts {
	p := new(parts)
	for key, value := range canonicaljson.Members(raw) {
		name := string(key)
		if bytes.IndexByte(key, '\\') >= 0 {
			name, _ = canonicaljson.String([]byte(`"` + name + `"`))
		}
		p.members = append(p.members, member{name, node{raw: value}})
	}
	if len(p.members) > indexFrom {
		p.index = make(map[string]*node, len(p.members))
		for i := range p.members {
			p.index[p.members[i].name] = &p.members[i].node
		}
	}
	return p
}

// readArray keeps the scalars of an array; what lies deeper cannot be asked for.
func readArray(raw []byte) *parts {
	p := new(parts)
	for value := range canonicaljson.Elements(raw) {
		switch v := readLeaf(value); v.kind {
		case jsontext.KindInvalid, jsontext.KindBeginObject, jsontext.KindBeginArray:
		default:
			p.list = append(p.list, v)
		}
	}
	if len(p.list) > indexFrom {
		p.set = make(map[scalar]struct{}, len(p.list))
		for _, v := range p.list {
			p.set[v] = struct{}{}
		}
	}
	return p
}

// find returns a member of an object, or nil.
func (n *node) find(name string) *node {
	if n.parts == nil {
		return nil
	}
	if n.parts.index != nil {
		return n.parts.index[name]
	}
	for i := range n.parts.members {
		if n.parts.members[i].name == name {
			return &n.parts.members[i].node
		}
	}
	return nil
}

// contains tells whether an array holds a value.
func (n *node) contains(v scalar) bool {
	if n.parts == nil {
		return false
	}
	if n.parts.set != nil {
		_, ok := n.parts.set[v]
		return ok
	}
	for i := range n.parts.list {
		if n.parts.list[i] == v {
			return true
		}
	}
	return false
}
