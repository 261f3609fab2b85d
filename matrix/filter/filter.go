// Package filter reads the filters with which clients narrow what /sync, /messages and /context return, and applies them.
//
// Parse and ParseRoomEvent check a filter strictly (exact names, exact types, limits on size and number of entries) and
// compile its lists, so that the Match and Room methods answer without allocating. A nil filter of any kind matches
// everything. Fields trims the JSON of an event to `event_fields`. Canonical gives equal bytes for equal filters, so that
// a stored filter is kept once.
//
// In every list only absence means all: an empty list matches nothing, and the not_ lists win over the others.
//
// Which limit applies where a filter names none, lazy loading itself and the shape of events are left to the callers.
//
// spec: client-server-api#filtering
package filter

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// Limits of a filter.
const (
	// MaxSize is the size of a filter in bytes.
	MaxSize = 64 << 10
	// MaxEntries is the number of entries of one list, and MaxWildcards of those with a `*`.
	MaxEntries, MaxWildcards = 1024, 128
	// MaxEntry is the length of an entry in bytes.
	MaxEntry = 512
	// MaxLimit is the greatest number of events; a filter that asks for more gets this.
	MaxLimit = 1000
)

// Filter is what a client uploads or passes to /sync.
type Filter struct {
	// EventFields is nil where all fields are wanted.
	EventFields *Fields
	// Federation is true for event_format federation, false for client.
	Federation bool
	// Presence and AccountData are nil where absent.
	Presence, AccountData *EventFilter
	Room                  RoomFilter
	canonical             []byte
}

// RoomFilter is the part of a Filter about rooms. Its own lists of rooms come before those of the inner filters.
type RoomFilter struct {
	Rooms, NotRooms []string
	IncludeLeave    bool
	// State, Timeline, Ephemeral and AccountData are nil where absent.
	State, Timeline, Ephemeral, AccountData *RoomEventFilter
	rooms                                   idFilter
}

// EventFilter filters events by type and sender. Lists are nil where absent. Only values that Parse made match rightly.
type EventFilter struct {
	// Limit is the greatest number of events to return, 0 where the filter names none.
	Limit                                int
	Types, NotTypes, Senders, NotSenders []string
	types                                typeFilter
	senders                              idFilter
}

// RoomEventFilter is an EventFilter for events of rooms.
type RoomEventFilter struct {
	EventFilter
	Rooms, NotRooms []string
	// ContainsURL is nil where the filter does not ask; else only events with, or without, a url in content match.
	ContainsURL                                                         *bool
	LazyLoadMembers, IncludeRedundantMembers, UnreadThreadNotifications bool
	rooms                                                               idFilter
}

// IsInline tells whether the filter parameter of a request is JSON itself and not the id of a stored filter.
func IsInline(param string) bool { return strings.HasPrefix(param, "{") }

// Parse reads a filter of a client. Errors are *matrix.Error.
//
// spec: client-server-api#post_matrixclientv3useruseridfilter
func Parse(raw []byte) (*Filter, error) {
	o, err := readRoot(raw)
	if err != nil {
		return nil, err
	}
	f := new(Filter)
	if f.EventFields, err = readFields(o); err != nil {
		return nil, err
	}
	if f.Federation, err = readFormat(o); err != nil {
		return nil, err
	}
	if f.Presence, err = readEventFilter(o, "presence"); err != nil {
		return nil, err
	}
	if f.AccountData, err = readEventFilter(o, "account_data"); err != nil {
		return nil, err
	}
	if room, ok, err := o.object("room"); err != nil {
		return nil, err
	} else if ok {
		if err := f.Room.read(room); err != nil {
			return nil, err
		}
	}
	canonical := jsontext.Value(raw).Clone()
	if err := canonical.Canonicalize(); err != nil {
		return nil, matrix.Errorf(400, matrix.CodeNotJSON, "The filter is not valid JSON.")
	}
	f.canonical = canonical
	return f, nil
}

// ParseRoomEvent reads the filter parameter of /messages and /context. An empty parameter is no filter: nil.
func ParseRoomEvent(raw []byte) (*RoomEventFilter, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	o, err := readRoot(raw)
	if err != nil {
		return nil, err
	}
	return newRoomEventFilter(o)
}

// Canonical is the filter as the client gave it, members that this server does not know included, in one form: two filters
// that are equal as JSON have equal bytes. It is what is stored and returned.
func (f *Filter) Canonical() []byte { return f.canonical }

func (f *RoomFilter) read(o object) (err error) {
	if f.rooms, err = readIDs(o, "rooms", '!', &f.Rooms, &f.NotRooms); err != nil {
		return err
	}
	if f.IncludeLeave, err = o.boolean("include_leave"); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		to   **RoomEventFilter
	}{{"state", &f.State}, {"timeline", &f.Timeline}, {"ephemeral", &f.Ephemeral}, {"account_data", &f.AccountData}} {
		inner, ok, err := o.object(part.name)
		if err != nil {
			return err
		}
		if ok {
			if *part.to, err = newRoomEventFilter(inner); err != nil {
				return err
			}
		}
	}
	return nil
}

func newRoomEventFilter(o object) (*RoomEventFilter, error) {
	f := new(RoomEventFilter)
	err := f.EventFilter.read(o)
	if err != nil {
		return nil, err
	}
	if f.rooms, err = readIDs(o, "rooms", '!', &f.Rooms, &f.NotRooms); err != nil {
		return nil, err
	}
	if o.has("contains_url") {
		with, err := o.boolean("contains_url")
		if err != nil {
			return nil, err
		}
		f.ContainsURL = &with
	}
	for _, flag := range []struct {
		name string
		to   *bool
	}{
		{"lazy_load_members", &f.LazyLoadMembers},
		{"include_redundant_members", &f.IncludeRedundantMembers},
		{"unread_thread_notifications", &f.UnreadThreadNotifications},
	} {
		if *flag.to, err = o.boolean(flag.name); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func readEventFilter(o object, name string) (*EventFilter, error) {
	inner, ok, err := o.object(name)
	if err != nil || !ok {
		return nil, err
	}
	f := new(EventFilter)
	return f, f.read(inner)
}

func (f *EventFilter) read(o object) (err error) {
	if f.Limit, err = o.limit(); err != nil {
		return err
	}
	if f.senders, err = readIDs(o, "senders", '@', &f.Senders, &f.NotSenders); err != nil {
		return err
	}
	if f.Types, err = o.list("types"); err != nil {
		return err
	}
	if f.NotTypes, err = o.list("not_types"); err != nil {
		return err
	}
	f.types, err = newTypeFilter(f.Types, f.NotTypes)
	return err
}

func readFormat(o object) (federation bool, err error) {
	if !o.has("event_format") {
		return false, nil
	}
	switch format, _ := o.text("event_format"); format {
	case "client":
		return false, nil
	case "federation":
		return true, nil
	}
	return false, matrix.InvalidParam("The event_format of a filter must be client or federation.")
}
