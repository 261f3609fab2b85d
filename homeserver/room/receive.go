package room

import (
	"context"
	"errors"
	"fmt"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// Incoming is an event from another server.
type Incoming struct {
	RoomID matrix.RoomID
	// JSON is the PDU as it was received.
	JSON []byte
	// Outlier marks an event that was fetched as auth event or state: it gets no place in the timeline and is judged by
	// its auth events alone.
	Outlier bool
	// StateBefore is the state before the event where its parents are unknown and stay so: stored events, one a key.
	StateBefore []matrix.EventID
}

// Received says what became of an incoming event.
type Received struct {
	EventID matrix.EventID
	// Known is true where the event was stored before.
	Known bool
	// Flags tell how it was judged; none means that clients see it.
	Flags storage.Flags
	// Reason says why it was rejected, soft-failed or withheld.
	Reason string
	Pos    int64
}

// MissingError names events that must be stored before an incoming one can be judged.
type MissingError struct {
	Auth, Parents []matrix.EventID
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("room: %d auth events and %d parents are missing", len(e.Auth), len(e.Parents))
}

// ErrDropped is wrapped where an incoming event is malformed or not signed by whom it must be: it is not stored at all.
var ErrDropped = errors.New("room: event dropped")

// ErrUndecided is returned where policy could not answer; the sender must try again.
var ErrUndecided = errors.New("room: policy could not decide")

// Receive takes in one event of another server without asking any server for what is missing: the checks of the specification in
// their order, policy the last. An event that is rejected, fails softly or is withheld is stored and no error. Ingest is for what
// servers send.
//
// spec: server-server-api#checks-performed-on-receipt-of-a-pdu
func (s *Service) Receive(ctx context.Context, in Incoming) (Received, error) {
	l, err := s.live(ctx, in.RoomID)
	if err != nil {
		return Received{}, unavailable(err)
	}
	e, err := s.parse(ctx, l.version, in.RoomID, in.JSON, event.ParseOptions{})
	if err != nil {
		return Received{}, err
	}
	a := &arrival{e: e, outlier: in.Outlier, stateBefore: in.StateBefore}
	s.take(ctx, in.RoomID, []*arrival{a})
	return a.r, a.err
}

// arrival is one foreign event on its way into a room. It was parsed, and its signatures are good.
type arrival struct {
	e *event.Event
	// outlier and stateBefore are as in Incoming.
	outlier     bool
	stateBefore []matrix.EventID
	// backfilled marks history that is fetched later: it takes part in nothing but the timeline. hole is where it belongs.
	backfilled bool
	hole       storage.Hole
	// strict is set for an event that is let in whole or not at all: what the rules or policy refuse is not stored.
	strict bool
	// relayed is set for an event of another server that this one has to send on.
	relayed bool

	r      Received
	stored *storage.Event // where this very call stored it
	err    error
}
