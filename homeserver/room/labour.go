package room

import (
	"context"
	"runtime"

	"hansa/matrix"
	"hansa/matrix/event"
)

// labour bounds how many processors work on events of other servers at the same time: one is left to our own users, where there is more than
// one. It is not held while keys, other servers or a commit are waited for; what the database is asked in between is little.
type labour chan struct{}

func newLabour() labour { return make(labour, max(1, runtime.GOMAXPROCS(0)-1)) }

// begin waits for a processor.
func (w labour) begin(ctx context.Context) error {
	select {
	case w <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w labour) end() { <-w }

// parseSent reads the PDUs that a server has sent, as parseAll does, but lets our own users go first.
func (s *Service) parseSent(ctx context.Context, from matrix.ServerName, v *matrix.RoomVersion, id matrix.RoomID, raw [][]byte) ([]*event.Event, []error) {
	events, errs := make([]*event.Event, len(raw)), make([]error, len(raw))
	for i := range raw {
		if errs[i] = s.labour.begin(ctx); errs[i] == nil {
			events[i], errs[i] = parseForm(v, id, raw[i], event.ParseOptions{})
			s.labour.end()
		}
	}
	find := s.findKeys(ctx, from, events)
	for i, e := range events {
		if errs[i] == nil {
			if errs[i] = s.labour.begin(ctx); errs[i] == nil {
				errs[i] = verifyWith(e, find)
				s.labour.end()
			}
		}
		if errs[i] != nil {
			events[i] = nil
		}
	}
	return events, errs
}
