package clientsync

import (
	"context"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/storage"
)

// maxHeld is how many withheld rooms a token remembers.
const maxHeld = 50

// A room that policy has closed to a reader is left out of what the reader is told, and the token moves on. When policy opens the room
// again, the reader must learn of what was left out: so the token remembers the room, and the room is then told like one that is new.

// heldName is how a token names a room. Two rooms of one name are both told again.
func heldName(id matrix.RoomID) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return h.Sum32()
}

// reopened finds the rooms that were withheld from the reader and are open now.
func (s *Service) reopened(ctx context.Context, q *Request, b *inbox) (map[matrix.RoomID]bool, error) {
	if q.Since == nil || len(q.Since.Held) == 0 {
		return nil, nil
	}
	out := map[matrix.RoomID]bool{}
	for id, membership := range b.involved(q.Since.Held) {
		var open bool
		var err error
		if membership == auth.Join {
			open, err = s.RoomOpen(ctx, q.Party, id)
		} else {
			open, err = s.inviterKnown(ctx, q, id)
		}
		if err != nil {
			return nil, err
		}
		if open {
			out[id] = true
		}
	}
	return out, s.reopenedAfar(ctx, q, out)
}

// inviterKnown tells whether a reader may know of whoever has invited them.
func (s *Service) inviterKnown(ctx context.Context, q *Request, id matrix.RoomID) (bool, error) {
	var m storage.Member
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { m, _, err = tx.FindMember(id, q.User); return err })
	if err != nil || m.Membership != auth.Invite {
		return false, err
	}
	c := s.Contacts(q.Party)
	return c.May(ctx, m.Sender), c.Err()
}

// involved are the rooms of certain names in which the user is, or to which the user is invited.
func (b *inbox) involved(names []uint32) map[matrix.RoomID]string {
	out := map[matrix.RoomID]string{}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, membership := range b.rooms {
		if (membership == auth.Join || membership == auth.Invite) && slices.Contains(names, heldName(id)) {
			out[id] = membership
		}
	}
	return out
}

// held are the rooms that the next token remembers: those that were left out now, and those of the last token that are still closed.
func (a *assembly) held() []uint32 {
	var out []uint32
	for _, id := range a.closed {
		out = append(out, heldName(id))
	}
	if a.q.Since != nil && len(a.q.Since.Held) > 0 {
		for _, id := range a.q.closedAfar {
			out = append(out, heldName(id))
		}
		for id := range a.b.involved(a.q.Since.Held) {
			if !a.q.reopened[id] {
				out = append(out, heldName(id))
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxHeld)]
}

func appendHeld(b []byte, held []uint32) []byte {
	for i, h := range held {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendUint(b, uint64(h), 36)
	}
	return b
}

// parseHeld reads the names of rooms in a token; false is for none, and for what is wrong.
func parseHeld(s string) ([]uint32, bool) {
	if s == "" {
		return nil, false
	}
	var out []uint32
	for _, part := range strings.Split(s, ".") {
		h, err := strconv.ParseUint(part, 36, 32)
		if err != nil || len(out) >= maxHeld {
			return nil, false
		}
		out = append(out, uint32(h))
	}
	return out, true
}
