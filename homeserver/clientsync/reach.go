package clientsync

import "context"

// Position is up to where the caches of this node follow the log.
func (s *Service) Position() int64 { return s.hub.position() }

// Reach returns when the caches of this node have followed the log up to a position.
func (s *Service) Reach(ctx context.Context, pos int64) error { return s.hub.reach(ctx, pos) }

// Renew makes the caches of this node follow all that any node has written until now, and tells whether that was more than a position.
// Who has refused a request by what is in memory asks it, and looks again if so: the client may have made it possible a moment ago, on
// another node.
func (s *Service) Renew(ctx context.Context, since int64) bool {
	pos, err := s.Stream.CatchUp(ctx)
	if err != nil || pos <= since {
		return false
	}
	return s.hub.reach(ctx, pos) == nil
}
