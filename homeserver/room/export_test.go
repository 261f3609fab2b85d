package room

import "hansa/matrix"

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
