package policy

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"
)

// maxClasses bounds the audience classes of one snapshot. Users beyond it are judged one pair at a time.
const maxClasses = 2048

const noClass = ^uint32(0)

// ClassID numbers an audience class within one generation.
type ClassID uint32

// contactReads says which members of a party the contact rules of all layers read: they make its audience class.
type contactReads struct {
	members    []string // names of members, sorted
	attributes []string // single attributes, when `attributes` is not among the members
	accesses   []access // rooted at Party
	clock      bool
}

// identity is what contact rules cannot see: it would make a class of every user.
func identity() []string { return []string{"id", "device", "network"} }

func (rs *ruleset) newContactReads() (*contactReads, error) {
	all := newReads()
	for _, l := range rs.layersOf(Contact) {
		all.add(l.reads)
	}
	r := &contactReads{clock: all.clock}
	names := map[string]bool{"kind": true, "local": true, "tenant": true}
	attributes := map[string]bool{}
	for _, pools := range rs.pools {
		for _, layers := range pools {
			if layers[Contact] != nil {
				names["pools"] = true
			}
		}
	}
	values, presence := all.paths()
	for _, p := range presence {
		if len(p) > 1 { // that there is a subject and a target goes without saying
			values = append(values, p)
		}
	}
	for _, p := range values {
		switch {
		case len(p) == 0 || len(p) == 1 && (p[0] == "subject" || p[0] == "target"):
			for name := range rs.codec.plans[rs.codec.party].byName {
				names[name] = true
			}
		case p[0] != "subject" && p[0] != "target":
		case p[1] == "attributes" && len(p) > 2:
			attributes[p[2]] = true
		default:
			names[p[1]] = true
		}
	}
	for _, name := range identity() {
		delete(names, name)
	}
	for name := range names {
		r.members = append(r.members, name)
	}
	slices.Sort(r.members)
	if !names["attributes"] {
		for name := range attributes {
			r.attributes = append(r.attributes, name)
		}
		slices.Sort(r.attributes)
	}
	return r, r.compile(rs.codec)
}

func (r *contactReads) compile(c *codec) error {
	for _, name := range r.members {
		a, err := c.compile(c.party, []string{name})
		if err != nil {
			continue // a member that no party has cannot tell users apart
		}
		r.accesses = append(r.accesses, a)
	}
	for _, name := range r.attributes {
		a, err := c.compile(c.party, []string{"attributes", name})
		if err != nil {
			return err
		}
		r.accesses = append(r.accesses, a)
	}
	return nil
}

// project returns a party with only the members that make the class.
func (r *contactReads) project(c *codec, p *Party) *Party {
	out := &Party{}
	from, to := reflect.ValueOf(p).Elem(), reflect.ValueOf(out).Elem()
	plan := c.plans[c.party]
	for _, name := range r.members {
		if i, ok := plan.byName[name]; ok {
			f := plan.fields[i].index
			to.Field(f).Set(from.Field(f))
		}
	}
	for _, name := range r.attributes {
		if v, ok := p.Attributes[name]; ok {
			if out.Attributes == nil {
				out.Attributes = map[string]string{}
			}
			out.Attributes[name] = v
		}
	}
	return out
}

// classRef is the class of a party in one snapshot, kept with the party.
type classRef struct {
	token *classToken
	id    uint32
}

// classToken tells snapshots apart without keeping an old one in memory.
type classToken struct{ _ byte }

// contacts is the contact matrix of one snapshot: who may know of whom, by ordered pairs of classes. It fills as it is asked.
type contacts struct {
	reads *contactReads
	token *classToken
	rows  [maxClasses]atomic.Pointer[contactRow]

	mu   sync.RWMutex
	ids  map[string]uint32 // guarded by mu
	reps []*Party          // guarded by mu
	keys map[string]uint32 // class keys of ClassKey; guarded by mu
}

type contactRow [maxClasses]atomic.Pointer[verdict]

func newContacts(r *contactReads) *contacts {
	return &contacts{reads: r, token: &classToken{}, ids: map[string]uint32{}, keys: map[string]uint32{}}
}

// inherit takes over the classes of an earlier matrix, and the answers about those pairs of tenants for which nothing
// changed. It does nothing when classes are made up differently now, or when so many came together that most may be gone.
func (m *contacts) inherit(old *contacts, same func(a, b string) bool) {
	if !slices.Equal(m.reads.members, old.reads.members) || !slices.Equal(m.reads.attributes, old.reads.attributes) {
		return
	}
	old.mu.RLock()
	defer old.mu.RUnlock()
	if len(old.reps) > maxClasses/2 {
		return
	}
	m.ids, m.reps, m.keys = maps.Clone(old.ids), slices.Clone(old.reps), maps.Clone(old.keys)
	type pair struct{ a, b string }
	known := map[pair]bool{}
	for i, a := range m.reps {
		from := old.rows[i].Load()
		if from == nil {
			continue
		}
		to := new(contactRow)
		for j, b := range m.reps {
			p := pair{a.Tenant, b.Tenant}
			unchanged, ok := known[p]
			if !ok {
				unchanged = same(p.a, p.b)
				known[p] = unchanged
			}
			if unchanged {
				to[j].Store(from[j].Load())
			}
		}
		m.rows[i].Store(to)
	}
}

// class returns the class of a party, noClass when there are too many.
func (m *contacts) class(c *codec, p *Party) uint32 {
	if ref := p.class.Load(); ref != nil && ref.token == m.token {
		return ref.id
	}
	v := reflect.ValueOf(p).Elem()
	key := make([]byte, 0, 256)
	for i := range m.reads.accesses {
		key = c.appendKey(key, v, &m.reads.accesses[i], false)
	}
	m.mu.RLock()
	id, ok := m.ids[string(key)]
	m.mu.RUnlock()
	if !ok {
		id = m.insert(string(key), m.reads.project(c, p))
	}
	p.class.Store(&classRef{m.token, id})
	return id
}

func (m *contacts) insert(key string, rep *Party) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id, ok := m.ids[key]; ok {
		return id
	}
	if len(m.reps) >= maxClasses {
		return noClass
	}
	id := uint32(len(m.reps))
	m.ids[key] = id
	m.reps = append(m.reps, rep)
	return id
}

func (m *contacts) rep(id uint32) *Party {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.reps[id]
}

func (m *contacts) len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.reps)
}

func (m *contacts) get(a, b uint32, minute int64) *verdict {
	row := m.rows[a].Load()
	if row == nil {
		return nil
	}
	v := row[b].Load()
	if v == nil || v.minute != 0 && v.minute != minute {
		return nil
	}
	return v
}

func (m *contacts) put(a, b uint32, v *verdict) {
	row := m.rows[a].Load()
	if row == nil {
		row = new(contactRow)
		if !m.rows[a].CompareAndSwap(nil, row) {
			row = m.rows[a].Load()
		}
	}
	row[b].Store(v)
}

// Class returns the audience class of a party in the present generation; ok is false when there are too many classes.
func (e *Engine) Class(p *Party) (id ClassID, ok bool) {
	s := e.snapshot(e.opts.Now())
	c := s.contacts.class(e.codec, p)
	return ClassID(c), c != noClass
}

// ClassKey describes the audience class of a party as text. Parties with equal keys are in one class. A key holds for as
// long as the contact rules read the same members (ClassScheme) and the party is the same.
func (e *Engine) ClassKey(p *Party) string {
	return e.snapshot(e.opts.Now()).contacts.key(e.codec, p)
}

// ClassScheme names the members that make up class keys. Stored keys with another scheme must be made again.
func (e *Engine) ClassScheme() string {
	r := e.current.Load().contacts.reads
	return strings.Join(r.members, ",") + ";" + strings.Join(r.attributes, ",")
}

func (m *contacts) key(c *codec, p *Party) string {
	plan := c.plans[c.party]
	v := reflect.ValueOf(p).Elem()
	doc := map[string]any{}
	for _, name := range m.reads.members {
		if i, ok := plan.byName[name]; ok {
			if f := v.Field(plan.fields[i].index); !f.IsZero() {
				doc[name] = f.Interface()
			}
		}
	}
	if len(m.reads.attributes) > 0 {
		attrs := map[string]string{}
		for _, name := range m.reads.attributes {
			if a, ok := p.Attributes[name]; ok {
				attrs[name] = a
			}
		}
		if len(attrs) > 0 {
			doc["attributes"] = attrs
		}
	}
	out, err := json.Marshal(doc, json.Deterministic(true))
	if err != nil {
		return "" // strings that are no UTF-8; the empty key is reachable for nobody
	}
	return string(out)
}

// classOfKey finds the class that a key describes; ok is false for a key that no present party can have.
func (m *contacts) classOfKey(c *codec, key string) (uint32, bool) {
	m.mu.RLock()
	id, ok := m.keys[key]
	m.mu.RUnlock()
	if ok {
		return id, true
	}
	p := &Party{}
	if key == "" || json.Unmarshal([]byte(key), p, json.RejectUnknownMembers(true)) != nil {
		return 0, false
	}
	if m.key(c, p) != key {
		return 0, false
	}
	id = m.class(c, p)
	if id == noClass {
		return 0, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.keys) < 4*maxClasses {
		m.keys[key] = id
	}
	return id, true
}
