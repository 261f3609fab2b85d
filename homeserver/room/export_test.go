package room

import (
	"context"
	"time"

	"hansa/matrix"
)

// Waiting is how many sends of our own users wait for a room in memory.
func (s *Service) Waiting(id matrix.RoomID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.rooms[id]
	if !ok {
		return 0
	}
	return int(e.Value.(*live).wanted.Load())
}

// LoadSlowly brings a cold room into memory, and lets something happen after it was read and before it can be used. It returns what those are told
// who wait for the room.
func (s *Service) LoadSlowly(ctx context.Context, id matrix.RoomID, meanwhile func()) error {
	s.mu.Lock()
	l, _ := s.find(id)
	s.mu.Unlock()
	s.load(ctx, []*live{l})
	meanwhile()
	s.finish(ctx, []*live{l})
	return l.err
}

// UntilHour is how long it is until the clock strikes.
func UntilHour(now time.Time, hour int) time.Duration { return untilHour(now, hour) }

// AuditOnly makes audits go through n events of a room.
func (s *Service) AuditOnly(n int) { s.auditEvents = n }
