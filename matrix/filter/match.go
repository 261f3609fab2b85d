package filter

import (
	"strings"

	"hansa/matrix"
	"hansa/matrix/glob"
)

// Match tells whether an event passes. hasURL, whether its content has a url, does not matter here; it is a parameter so
// that both kinds of filters are asked alike.
func (f *EventFilter) Match(typ, sender string, _ bool) bool {
	return f == nil || f.types.match(typ) && f.senders.match(sender)
}

// MatchType tells whether an event of this type can pass, whoever sent it.
func (f *EventFilter) MatchType(typ string) bool { return f == nil || f.types.match(typ) }

// MatchesNothing tells whether no event at all can pass, so that none need be looked for.
func (f *EventFilter) MatchesNothing() bool {
	return f != nil && (f.types.nothing() || f.senders.nothing())
}

// Match tells whether an event of a room passes; the room itself is asked with Room.
func (f *RoomEventFilter) Match(typ, sender string, hasURL bool) bool {
	return f == nil || f.EventFilter.Match(typ, sender, hasURL) && (f.ContainsURL == nil || *f.ContainsURL == hasURL)
}

// MatchType tells whether an event of this type can pass, whoever sent it.
func (f *RoomEventFilter) MatchType(typ string) bool { return f == nil || f.types.match(typ) }

// MatchesNothing tells whether no event at all can pass, so that none need be looked for.
func (f *RoomEventFilter) MatchesNothing() bool {
	return f != nil && (f.EventFilter.MatchesNothing() || f.rooms.nothing())
}

// Room tells whether events of a room can pass.
func (f *RoomEventFilter) Room(id matrix.RoomID) bool { return f == nil || f.rooms.match(string(id)) }

// LimitOr returns the limit, or the default where the filter names none.
func (f *RoomEventFilter) LimitOr(def int) int {
	if f == nil || f.Limit == 0 {
		return def
	}
	return f.Limit
}

// Room tells whether a room is in the response at all.
func (f *RoomFilter) Room(id matrix.RoomID) bool { return f == nil || f.rooms.match(string(id)) }

// RoomEvents tells whether events of a room can pass both the filter of rooms and an inner one.
func (f *RoomFilter) RoomEvents(inner *RoomEventFilter, id matrix.RoomID) bool {
	return f.Room(id) && inner.Room(id)
}

// idFilter is a compiled pair of lists of identifiers.
type idFilter struct {
	// in is nil where all are in.
	in, out map[string]struct{}
}

func newIDFilter(in, out []string) idFilter {
	return idFilter{in: newSet(in), out: newSet(out)}
}

// newSet keeps the difference between an absent list and an empty one.
func newSet(list []string) map[string]struct{} {
	if list == nil {
		return nil
	}
	set := make(map[string]struct{}, len(list))
	for _, s := range list {
		set[s] = struct{}{}
	}
	return set
}

func (f *idFilter) match(id string) bool {
	if f.in != nil {
		if _, ok := f.in[id]; !ok {
			return false
		}
	}
	if len(f.out) == 0 {
		return true
	}
	_, out := f.out[id]
	return !out
}

func (f *idFilter) nothing() bool { return f.in != nil && len(f.in) == 0 }

// typeFilter is a compiled pair of lists of event types.
type typeFilter struct{ in, out *patterns }

// patterns is a compiled list of event types, some with wildcards.
type patterns struct {
	any   bool
	exact map[string]struct{}
	globs []*glob.Glob
}

func newTypeFilter(in, out []string) (f typeFilter, err error) {
	if f.in, err = newPatterns(in); err != nil {
		return f, err
	}
	f.out, err = newPatterns(out)
	return f, err
}

func newPatterns(list []string) (*patterns, error) {
	if list == nil {
		return nil, nil
	}
	p := &patterns{exact: make(map[string]struct{}, len(list))}
	for _, s := range list {
		if strings.IndexByte(s, '*') < 0 {
			p.exact[s] = struct{}{}
			continue
		}
		g := glob.CompileStar(s)
		p.any = p.any || g.Any()
		p.globs = append(p.globs, g)
	}
	if len(p.globs) > MaxWildcards {
		return nil, matrix.InvalidParam("A filter may have at most %d types with wildcards in one list.", MaxWildcards)
	}
	return p, nil
}

func (p *patterns) match(typ string) bool {
	if p.any {
		return true
	}
	if _, ok := p.exact[typ]; ok {
		return true
	}
	for _, g := range p.globs {
		if g.Match(typ) {
			return true
		}
	}
	return false
}

func (f *typeFilter) match(typ string) bool {
	return (f.in == nil || f.in.match(typ)) && (f.out == nil || !f.out.match(typ))
}

func (f *typeFilter) nothing() bool {
	return f.in != nil && len(f.in.exact)+len(f.in.globs) == 0 || f.out != nil && f.out.any
}
