package pushrule

import (
	"bytes"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/glob"
)

// maxDepth is how many objects deep a property may lie to be found; deeper ones are as if absent.
const maxDepth = 32

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

// usual tells whether a member of content leads to a slot.
func usual(name string) bool {
	switch name {
	case "body", "msgtype", "membership", "m.mentions", "m.relates_to":
		return true
	}
	return false
}

// Subject is an event prepared for evaluation, shared by all its recipients and safe for concurrent use.
type Subject struct {
	ev    *event.Event
	slots [slotCount]*node
	// own holds the nodes of properties outside content, to save allocations.
	own [slotStateKey + 1]node
	// once guards root, which is read when a rule asks for a property that has no slot.
	once sync.Once
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
	content := parseContent(ev.Content, usual)
	s.slots[slotBody] = content.find("body")
	s.slots[slotMsgType] = content.find("msgtype")
	s.slots[slotMembership] = content.find("membership")
	if m := content.find("m.mentions"); m != nil {
		s.slots[slotMentionedUsers], s.slots[slotMentionsRoom] = m.find("user_ids"), m.find("room")
	}
	if m := content.find("m.relates_to"); m != nil {
		s.slots[slotRelType] = m.find("rel_type")
	}
	return s
}

func (s *Subject) set(at slot, text string) {
	s.own[at] = node{scalar: scalar{kind: jsontext.KindString, str: text}, folded: glob.Fold(text)}
	s.slots[at] = &s.own[at]
}

// Sender is the user who sent the event.
func (s *Subject) Sender() matrix.UserID { return s.ev.Sender }

// lookup returns a property, or nil where the event does not have it.
func (s *Subject) lookup(at slot, path []string) *node {
	if at != slotNone {
		return s.slots[at]
	}
	s.once.Do(s.readRoot)
	n := s.root
	for _, name := range path {
		if n = n.find(name); n == nil {
			return nil
		}
	}
	return n
}

// readRoot reads everything that a rule may ask for and that has no slot: all of content and the rest of the event's own
// properties.
func (s *Subject) readRoot() {
	s.root = &node{scalar: scalar{kind: jsontext.KindBeginObject}}
	add := func(name string, n *node) { s.root.members = append(s.root.members, member{name, n}) }
	add("content", parseContent(s.ev.Content, nil))
	add("event_id", stringNode(string(s.ev.ID)))
	add("origin_server_ts", &node{scalar: scalar{kind: jsontext.KindNumber, num: s.ev.OriginServerTS}})
	if s.ev.Redacts != "" {
		add("redacts", stringNode(string(s.ev.Redacts)))
	}
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

// node is a property of an event. The zero kind is a value that no condition can ask for.
type node struct {
	scalar
	// folded is glob.Fold of a string.
	folded string
	// list and set are the scalars of an array; set replaces list when there are many.
	list []scalar
	set  map[scalar]struct{}
	// members and index are those of an object; index replaces a walk when there are many.
	members []member
	index   map[string]*node
}

type member struct {
	name string
	node *node
}

func stringNode(s string) *node {
	return &node{scalar: scalar{kind: jsontext.KindString, str: s}, folded: glob.Fold(s)}
}

// find returns a member of an object, or nil.
func (n *node) find(name string) *node {
	if n.index != nil {
		return n.index[name]
	}
	for i := range n.members {
		if n.members[i].name == name {
			return n.members[i].node
		}
	}
	return nil
}

// contains tells whether an array holds a value.
func (n *node) contains(v scalar) bool {
	if n.set != nil {
		_, ok := n.set[v]
		return ok
	}
	for i := range n.list {
		if n.list[i] == v {
			return true
		}
	}
	return false
}

// parseContent reads content, of its direct members only those that keep wants where keep is given. Content that is
// malformed, which no event has that was parsed, is empty.
func parseContent(content jsontext.Value, keep func(string) bool) *node {
	if len(content) == 0 {
		return new(node)
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(content))
	n, err := parseNode(dec, keep, 0)
	if err != nil || n.kind != jsontext.KindBeginObject {
		return new(node)
	}
	return n
}

func parseNode(dec *jsontext.Decoder, keep func(string) bool, depth int) (*node, error) {
	switch dec.PeekKind() {
	case jsontext.KindBeginObject:
		if depth >= maxDepth {
			return new(node), dec.SkipValue()
		}
		return parseObject(dec, keep, depth)
	case jsontext.KindBeginArray:
		return parseArray(dec)
	}
	v, err := parseLeaf(dec)
	if err != nil {
		return nil, err
	}
	n := &node{scalar: v}
	if v.kind == jsontext.KindString {
		n.folded = glob.Fold(v.str)
	}
	return n, nil
}

func parseLeaf(dec *jsontext.Decoder) (scalar, error) {
	tok, err := dec.ReadToken()
	if err != nil {
		return scalar{}, err
	}
	switch k := tok.Kind(); k {
	case jsontext.KindString:
		return scalar{kind: k, str: tok.String()}, nil
	case jsontext.KindNumber:
		v, _ := parseInteger(tok.String())
		return v, nil
	default:
		return scalar{kind: k}, nil
	}
}

func parseObject(dec *jsontext.Decoder, keep func(string) bool, depth int) (*node, error) {
	n := &node{scalar: scalar{kind: jsontext.KindBeginObject}}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	for dec.PeekKind() != jsontext.KindEndObject {
		tok, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		name := tok.String()
		if keep != nil && !keep(name) {
			if err := dec.SkipValue(); err != nil {
				return nil, err
			}
			continue
		}
		child, err := parseNode(dec, nil, depth+1)
		if err != nil {
			return nil, err
		}
		n.members = append(n.members, member{name, child})
	}
	if len(n.members) > indexFrom {
		n.index = make(map[string]*node, len(n.members))
		for _, m := range n.members {
			n.index[m.name] = m.node
		}
	}
	_, err := dec.ReadToken()
	return n, err
}

// parseArray keeps the scalars of an array; what lies deeper cannot be asked for.
func parseArray(dec *jsontext.Decoder) (*node, error) {
	n := &node{scalar: scalar{kind: jsontext.KindBeginArray}}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	for {
		switch dec.PeekKind() {
		case jsontext.KindEndArray:
			if len(n.list) > indexFrom {
				n.set = make(map[scalar]struct{}, len(n.list))
				for _, v := range n.list {
					n.set[v] = struct{}{}
				}
			}
			_, err := dec.ReadToken()
			return n, err
		case jsontext.KindBeginObject, jsontext.KindBeginArray:
			if err := dec.SkipValue(); err != nil {
				return nil, err
			}
		default:
			v, err := parseLeaf(dec)
			if err != nil {
				return nil, err
			}
			if v.kind != 0 {
				n.list = append(n.list, v)
			}
		}
	}
}
