// Package statemap is the persistent map that holds room state: from (type, state key) to the ID of an event.
//
// A map is named by the hash of its root node. Nodes are immutable and content-addressed, so equal maps have equal roots,
// a change writes only the nodes on one path (a few of about 1 KiB in a room of ten thousand members), and the difference of two
// maps costs what differs. The tree is 32-way, keyed by the SHA-256 of the key; a leaf holds up to 16 entries. Its
// form depends only on its content, never on the order of changes.
//
// Leaves hold event IDs, not positions, because a map is made before its events have positions.
// The package is pure: nodes come from a Loader and new ones are returned for the caller to store.
package statemap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sort"

	"hansa/matrix"
	"hansa/matrix/event"
)

// Hash names a node, and a whole map by its root. The zero Hash is the empty map.
type Hash [32]byte

// Node is one stored node: Data hashes to Hash.
type Node struct {
	Hash Hash
	Data []byte
}

// Loader returns the data of nodes by hash; a missing node is an error of the caller's store.
type Loader func(hashes []Hash) (map[Hash][]byte, error)

// Change sets a key to an event ID, or removes it where ID is empty.
type Change struct {
	Key event.StateKey
	ID  matrix.EventID
}

// ErrCorrupt is returned when stored bytes are not a node.
var ErrCorrupt = errors.New("statemap: corrupt node")

const (
	leafMax   = 16
	fanBits   = 5
	maxLevel  = 256 / fanBits
	tagLeaf   = 'L'
	tagBranch = 'B'
)

type entry struct {
	key   Hash // see keyed; decode leaves it out, because reading does not need it
	typ   string
	skey  string
	event matrix.EventID
}

type node struct {
	leaf     []entry
	bitmap   uint32
	children []Hash
}

func keyHash(k event.StateKey) Hash {
	b := make([]byte, 0, 128)
	b = binary.AppendUvarint(b, uint64(len(k.Type)))
	b = append(b, k.Type...)
	b = append(b, k.Key...)
	return sha256.Sum256(b)
}

// slot returns the five bits of h that choose the child at a level.
func slot(h *Hash, level int) uint {
	bit := level * fanBits
	v := uint(h[bit/8])<<8 | uint(byteAt(h, bit/8+1))
	return v >> (16 - fanBits - uint(bit%8)) & (1<<fanBits - 1)
}

func byteAt(h *Hash, i int) byte {
	if i < len(h) {
		return h[i]
	}
	return 0
}

func encode(n *node) []byte {
	if n.children == nil {
		b := make([]byte, 0, 1+len(n.leaf)*96)
		b = append(b, tagLeaf)
		for i := range n.leaf {
			e := &n.leaf[i]
			b = appendString(b, e.typ)
			b = appendString(b, e.skey)
			b = appendString(b, string(e.event))
		}
		return b
	}
	b := make([]byte, 0, 5+len(n.children)*32)
	b = append(b, tagBranch)
	b = binary.BigEndian.AppendUint32(b, n.bitmap)
	for i := range n.children {
		b = append(b, n.children[i][:]...)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// takeString cuts a string off the rest of b. whole is all of b as it was, as a string, which the result shares.
func takeString(b []byte, whole string) (string, []byte, bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return "", nil, false
	}
	from := len(whole) - len(b) + w
	return whole[from : from+int(n)], b[w+int(n):], true
}

func decode(b []byte) (*node, error) {
	if len(b) == 0 {
		return nil, ErrCorrupt
	}
	switch tag, b := b[0], b[1:]; tag {
	case tagLeaf:
		n, whole := &node{leaf: make([]entry, 0, leafMax)}, string(b)
		for len(b) > 0 {
			var e entry
			var id string
			var ok1, ok2, ok3 bool
			if e.typ, b, ok1 = takeString(b, whole); ok1 {
				if e.skey, b, ok2 = takeString(b, whole); ok2 {
					id, b, ok3 = takeString(b, whole)
				}
			}
			if !ok3 {
				return nil, ErrCorrupt
			}
			e.event = matrix.EventID(id)
			n.leaf = append(n.leaf, e)
		}
		return n, nil
	case tagBranch:
		if len(b) < 4 {
			return nil, ErrCorrupt
		}
		n := &node{bitmap: binary.BigEndian.Uint32(b)}
		b = b[4:]
		if len(b) != 32*bits.OnesCount32(n.bitmap) || len(b) == 0 {
			return nil, ErrCorrupt
		}
		n.children = make([]Hash, len(b)/32)
		for i := range n.children {
			copy(n.children[i][:], b[i*32:])
		}
		return n, nil
	}
	return nil, ErrCorrupt
}

func (n *node) child(s uint) (int, bool) {
	bit := uint32(1) << s
	return bits.OnesCount32(n.bitmap & (bit - 1)), n.bitmap&bit != 0
}

func load(ld Loader, h Hash) (*node, error) {
	if h == (Hash{}) {
		return &node{}, nil
	}
	m, err := ld([]Hash{h})
	if err != nil {
		return nil, err
	}
	data, ok := m[h]
	if !ok {
		return nil, fmt.Errorf("%w: node %x is missing", ErrCorrupt, h[:8])
	}
	return decode(data)
}

// Get returns the event at key, or "" when the map has none.
func Get(ld Loader, root Hash, key event.StateKey) (matrix.EventID, error) {
	h := keyHash(key)
	for level := 0; root != (Hash{}); level++ {
		data, err := ld([]Hash{root})
		if err != nil {
			return "", err
		}
		d, ok := data[root]
		if !ok {
			return "", fmt.Errorf("%w: node %x is missing", ErrCorrupt, root[:8])
		}
		id, below, err := lookIn(d, &key, &h, level)
		if err != nil || id != "" {
			return id, err
		}
		root = below
	}
	return "", nil
}

// lookIn looks for a key in the data of a node, without taking the node apart. It returns what stands there, or the node below that may have it.
func lookIn(d []byte, k *event.StateKey, h *Hash, level int) (id matrix.EventID, below Hash, err error) {
	if len(d) > 5 && d[0] == tagBranch {
		n := node{bitmap: binary.BigEndian.Uint32(d[1:])}
		d = d[5:]
		if len(d) != 32*bits.OnesCount32(n.bitmap) {
			return "", Hash{}, ErrCorrupt
		}
		if i, ok := n.child(slot(h, level)); ok {
			copy(below[:], d[32*i:])
		}
		return "", below, nil
	}
	if len(d) == 0 || d[0] != tagLeaf {
		return "", Hash{}, ErrCorrupt
	}
	for d = d[1:]; len(d) > 0; {
		var part [3][]byte
		for i := range part {
			n, w := binary.Uvarint(d)
			if w <= 0 || n > uint64(len(d)-w) {
				return "", Hash{}, ErrCorrupt
			}
			part[i], d = d[w:w+int(n)], d[w+int(n):]
		}
		if string(part[0]) == k.Type && string(part[1]) == k.Key {
			return matrix.EventID(part[2]), Hash{}, nil
		}
	}
	return "", Hash{}, nil
}

// GetMany looks several keys up, level by level, with one call of the loader per level.
func GetMany(ld Loader, root Hash, keys []event.StateKey) (map[event.StateKey]matrix.EventID, error) {
	out := make(map[event.StateKey]matrix.EventID, len(keys))
	if root == (Hash{}) {
		return out, nil
	}
	type want struct {
		key event.StateKey
		h   Hash
	}
	at := map[Hash][]want{}
	for _, k := range keys {
		at[root] = append(at[root], want{k, keyHash(k)})
	}
	for level := 0; len(at) > 0; level++ {
		hashes := make([]Hash, 0, len(at))
		for h := range at {
			hashes = append(hashes, h)
		}
		data, err := ld(hashes)
		if err != nil {
			return nil, err
		}
		next := map[Hash][]want{}
		for h, ws := range at {
			d, ok := data[h]
			if !ok {
				return nil, fmt.Errorf("%w: node %x is missing", ErrCorrupt, h[:8])
			}
			for _, w := range ws {
				id, below, err := lookIn(d, &w.key, &w.h, level)
				switch {
				case err != nil:
					return nil, err
				case id != "":
					out[w.key] = id
				case below != Hash{}:
					next[below] = append(next[below], w)
				}
			}
		}
		at = next
	}
	return out, nil
}

// Put applies changes to a map and returns the new root and the nodes that must be stored for it.
func Put(ld Loader, root Hash, changes []Change) (Hash, []Node, error) {
	set := make(map[Hash]entry, len(changes))
	for _, c := range changes {
		h := keyHash(c.Key)
		set[h] = entry{h, c.Key.Type, c.Key.Key, c.ID}
	}
	w := &writer{ld: ld, made: map[Hash][]byte{}}
	list := make([]entry, 0, len(set))
	for _, e := range set {
		list = append(list, e)
	}
	h, err := w.put(root, 0, list)
	if err != nil {
		return Hash{}, nil, err
	}
	nodes, err := w.reachable(h)
	if err != nil {
		return Hash{}, nil, err
	}
	sort.Slice(nodes, func(i, j int) bool { return bytes.Compare(nodes[i].Hash[:], nodes[j].Hash[:]) < 0 })
	return h, nodes, nil
}

type writer struct {
	ld   Loader
	made map[Hash][]byte
}

// reachable lists the made nodes that the new root needs; collapsing may have left others behind.
func (w *writer) reachable(root Hash) ([]Node, error) {
	var nodes []Node
	todo := []Hash{root}
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, ok := w.made[h]
		if !ok {
			continue
		}
		delete(w.made, h)
		nodes = append(nodes, Node{h, d})
		n, err := decode(d)
		if err != nil {
			return nil, err
		}
		todo = append(todo, n.children...)
	}
	return nodes, nil
}

func (w *writer) store(n *node) Hash {
	data := encode(n)
	h := Hash(sha256.Sum256(data))
	w.made[h] = data
	return h
}

// put returns the hash of the subtree at h with the changes made.
func (w *writer) put(h Hash, level int, changes []entry) (Hash, error) {
	n, err := load(w.ld, h)
	if err != nil {
		return Hash{}, err
	}
	if n.children == nil {
		return w.build(mergeLeaf(keyed(n.leaf), changes), level), nil
	}
	groups := map[uint][]entry{}
	for _, c := range changes {
		s := slot(&c.key, level)
		groups[s] = append(groups[s], c)
	}
	out := &node{}
	for s := uint(0); s < 1<<fanBits; s++ {
		i, ok := n.child(s)
		cs := groups[s]
		var ch Hash
		switch {
		case ok && len(cs) == 0:
			ch = n.children[i]
		case ok:
			if ch, err = w.put(n.children[i], level+1, cs); err != nil {
				return Hash{}, err
			}
		case len(cs) > 0:
			ch = w.build(mergeLeaf(nil, cs), level+1)
		}
		if ch != (Hash{}) {
			out.bitmap |= 1 << s
			out.children = append(out.children, ch)
		}
	}
	return w.collapse(out, level, changes)
}

// collapse keeps the form canonical: a branch whose subtree has come down to leafMax entries becomes a leaf again.
func (w *writer) collapse(n *node, level int, changes []entry) (Hash, error) {
	removed := false
	for i := range changes {
		removed = removed || changes[i].event == ""
	}
	if len(n.children) == 0 {
		return Hash{}, nil
	}
	if removed {
		all, err := w.collect(n, leafMax+1)
		if err != nil {
			return Hash{}, err
		}
		if len(all) <= leafMax {
			return w.build(all, level), nil
		}
	}
	return w.store(n), nil
}

func (w *writer) collect(n *node, limit int) ([]entry, error) {
	if n.children == nil {
		return keyed(n.leaf), nil
	}
	if len(n.children) > limit {
		return make([]entry, limit), nil
	}
	var all []entry
	for _, c := range n.children {
		var sub *node
		var err error
		if d, ok := w.made[c]; ok {
			sub, err = decode(d)
		} else {
			sub, err = load(w.ld, c)
		}
		if err != nil {
			return nil, err
		}
		part, err := w.collect(sub, limit-len(all))
		if err != nil {
			return nil, err
		}
		if all = append(all, part...); len(all) >= limit {
			return all, nil
		}
	}
	return all, nil
}

// keyed works out the keys of entries that were read.
func keyed(leaf []entry) []entry {
	for i := range leaf {
		leaf[i].key = keyHash(event.StateKey{Type: leaf[i].typ, Key: leaf[i].skey})
	}
	return leaf
}

func mergeLeaf(old, changes []entry) []entry {
	m := make(map[Hash]entry, len(old)+len(changes))
	for _, e := range old {
		m[e.key] = e
	}
	for _, e := range changes {
		if e.event == "" {
			delete(m, e.key)
		} else {
			m[e.key] = e
		}
	}
	out := make([]entry, 0, len(m))
	for _, e := range m {
		out = append(out, e)
	}
	return out
}

func (w *writer) build(entries []entry, level int) Hash {
	if len(entries) == 0 {
		return Hash{}
	}
	if len(entries) <= leafMax || level >= maxLevel {
		sort.Slice(entries, func(i, j int) bool { return bytes.Compare(entries[i].key[:], entries[j].key[:]) < 0 })
		return w.store(&node{leaf: entries})
	}
	groups := make([][]entry, 1<<fanBits)
	for _, e := range entries {
		s := slot(&e.key, level)
		groups[s] = append(groups[s], e)
	}
	n := &node{}
	for s, g := range groups {
		if len(g) > 0 {
			n.bitmap |= 1 << s
			n.children = append(n.children, w.build(g, level+1))
		}
	}
	return w.store(n)
}
