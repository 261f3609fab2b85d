package clientsync

import (
	"strconv"
	"sync"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/pushrule"
	"hansa/storage"
)

// item is an event on its way to many clients: what is the same for all of them is made once.
type item struct {
	*storage.Event
	client  []byte // client format without room_id, unsigned and the closing brace
	hasURL  bool
	mu      sync.Mutex
	subject *pushrule.Subject // for push rules; one reader at a time, guarded by mu
}

func newItem(e *storage.Event) *item {
	it := &item{Event: e, client: event.AppendClient(make([]byte, 0, len(e.JSON)), e.Event, false)}
	_, it.hasURL = event.ContentField(e.Event, "url")
	return it
}

// evaluate asks push rules about the event.
func (it *item) evaluate(rules *pushrule.Evaluator, room *pushrule.RoomContext) pushrule.Result {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.subject == nil {
		it.subject = pushrule.NewSubject(it.Event.Event)
	}
	return rules.Evaluate(it.subject, room)
}

func newItems(events []*storage.Event) []*item {
	out := make([]*item, len(events))
	for i, e := range events {
		out[i] = newItem(e)
	}
	return out
}

// reader is for whom events are written.
type reader struct {
	user   matrix.UserID
	device matrix.DeviceID
	now    int64 // ms
	roomID bool  // write room_id
	// replaced are the events that state events took the place of, for prev_content; redactions those that took content away.
	replaced, redactions map[matrix.EventID]*storage.Event
}

// appendEvent writes an event for a reader. membership is what the reader was when it was sent, empty if that is not known.
//
// spec: client-server-api#definition-clientevent
func (r *reader) appendEvent(dst []byte, it *item, membership string) []byte {
	dst = append(dst, it.client...)
	if r.roomID {
		dst = append(dst, `,"room_id":`...)
		dst = appendString(dst, string(it.RoomID))
	}
	dst = append(dst, `,"unsigned":{"age":`...)
	dst = strconv.AppendInt(dst, max(0, r.now-it.OriginServerTS), 10)
	if membership != "" {
		dst = append(dst, `,"membership":`...)
		dst = appendString(dst, membership)
	}
	if it.StateKey != nil && it.Replaces != "" {
		if old := r.replaced[it.Replaces]; old != nil {
			dst = append(dst, `,"prev_content":`...)
			dst = append(dst, old.Content...)
			dst = append(dst, `,"prev_sender":`...)
			dst = appendString(dst, string(old.Sender))
		}
		dst = append(dst, `,"replaces_state":`...)
		dst = appendString(dst, string(it.Replaces))
	}
	if it.RedactedBy != "" {
		if by := r.redactions[it.RedactedBy]; by != nil {
			dst = append(dst, `,"redacted_because":`...)
			dst = append(event.AppendClient(dst, by.Event, true), '}')
		}
		dst = append(dst, `,"redacted_by":`...)
		dst = appendString(dst, string(it.RedactedBy))
	}
	if it.TxnID != "" && it.Sender == r.user && it.DeviceID == r.device {
		dst = append(dst, `,"transaction_id":`...)
		dst = appendString(dst, it.TxnID)
	}
	return append(dst, '}', '}')
}

// appendStripped writes an event as stripped state: what somebody may see of a room that they are not in.
//
// spec: client-server-api#stripped-state
func appendStripped(dst []byte, e *event.Event) []byte {
	dst = append(dst, `{"content":`...)
	dst = append(dst, e.Content...)
	dst = append(dst, `,"sender":`...)
	dst = appendString(dst, string(e.Sender))
	dst = append(dst, `,"state_key":`...)
	dst = appendString(dst, *e.StateKey)
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, e.Type)
	return append(dst, '}')
}
