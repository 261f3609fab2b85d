package room

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
)

// parse reads a PDU and checks its form, its room and its signatures: checks 1 to 3. It asks no database.
func (s *Service) parse(ctx context.Context, v *matrix.RoomVersion, id matrix.RoomID, raw []byte, options event.ParseOptions) (*event.Event, error) {
	e, err := parseForm(v, id, raw, options)
	if err != nil {
		return nil, err
	}
	find := func(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
		return s.publicKey(ctx, server, id, at)
	}
	if err := verifyWith(e, find); err != nil {
		return nil, err
	}
	return e, nil
}

// parseForm makes checks 1 and 2, and that of the room.
func parseForm(v *matrix.RoomVersion, id matrix.RoomID, raw []byte, options event.ParseOptions) (*event.Event, error) {
	e, err := event.ParseWith(v, raw, options)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDropped, err)
	}
	if e.RoomID != id {
		return nil, fmt.Errorf("%w: it belongs to room %s", ErrDropped, e.RoomID)
	}
	return e, nil
}

// The bounds of finding the keys for many events.
const (
	// keysTimeout is how long all servers are waited for.
	keysTimeout = 30 * time.Second
	// maxSigners is how many keys of one server are looked for in advance for an event.
	maxSigners = 4
)

// parseAll does so for many PDUs, on as many processors as there are. A result is an event or an error. The keys are
// looked for before the signatures are verified, so that servers that do not answer are waited for at the same time; from is the server that
// has brought the PDUs.
func (s *Service) parseAll(ctx context.Context, from matrix.ServerName, v *matrix.RoomVersion, id matrix.RoomID, raw [][]byte, options event.ParseOptions) ([]*event.Event, []error) {
	events, errs := make([]*event.Event, len(raw)), make([]error, len(raw))
	if len(raw) == 1 {
		events[0], errs[0] = s.parse(ctx, v, id, raw[0], options)
		return events, errs
	}
	processors := runtime.GOMAXPROCS(0)
	stream.Spread(len(raw), processors, func(i int) {
		if errs[i] = ctx.Err(); errs[i] == nil {
			events[i], errs[i] = parseForm(v, id, raw[i], options)
		}
	})
	find := s.findKeys(ctx, from, events)
	stream.Spread(len(raw), processors, func(i int) {
		if errs[i] == nil {
			if errs[i] = ctx.Err(); errs[i] == nil {
				errs[i] = verifyWith(events[i], find)
			}
		}
		if errs[i] != nil {
			events[i] = nil
		}
	})
	return events, errs
}

// findKeys looks for the keys that events are signed with, which a server has brought. It returns what finds them.
func (s *Service) findKeys(ctx context.Context, from matrix.ServerName, events []*event.Event) func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error) {
	want := map[matrix.ServerName]map[signing.KeyID]int64{}
	for _, e := range events {
		if e == nil {
			continue
		}
		for _, server := range signing.RequiredServers(e) {
			n := 0
			for id := range signing.Signatures(e.Signatures, server) {
				if k, ours := s.Keys[server]; ours && k.ID == id || id == signing.PolicyServerKeyID {
					continue
				}
				if want[server] == nil {
					want[server] = map[signing.KeyID]int64{}
				}
				want[server][id] = max(want[server][id], keyTime(e))
				if n++; n == maxSigners {
					break
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	var collected func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error)
	if s.Keyring != nil {
		collected = s.Keyring.Collect(ctx, from, want)
	}
	return func(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
		if k, ok := s.Keys[server]; ok && k.ID == id {
			return k.Public(), nil
		}
		if collected == nil {
			return signing.PublicKey{}, fmt.Errorf("no key %s of %s", id, server)
		}
		return collected(server, id, at)
	}
}

// keyTime is the time at which the key that an event is signed with must be valid; 0 where the period of a key does not count.
//
// spec: rooms/v5#signing-key-validity-period
func keyTime(e *event.Event) int64 {
	if e.Version.EnforceKeyValidity {
		return e.OriginServerTS
	}
	return 0
}

// verifyWith checks the signatures that the event must carry.
//
// spec: server-server-api#validating-hashes-and-signatures-on-received-events
func verifyWith(e *event.Event, find func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error)) error {
	at := keyTime(e)
	for _, server := range signing.RequiredServers(e) {
		valid := false
		for id := range signing.Signatures(e.Signatures, server) {
			if id == signing.PolicyServerKeyID {
				continue
			}
			key, err := find(server, id, at)
			if err != nil {
				continue // an unknown key proves nothing
			}
			if err := signing.VerifyEvent(e, server, id, key); err != nil {
				return fmt.Errorf("%w: signature of %s: %w", ErrDropped, server, err)
			}
			valid = true
		}
		if !valid {
			return fmt.Errorf("%w: no valid signature of %s", ErrDropped, server)
		}
	}
	return nil
}

func (s *Service) publicKey(ctx context.Context, server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
	if k, ok := s.Keys[server]; ok && k.ID == id {
		return k.Public(), nil
	}
	if s.Keyring == nil {
		return signing.PublicKey{}, fmt.Errorf("no key %s of %s", id, server)
	}
	return s.Keyring.PublicKey(ctx, server, id, at)
}

// signedBy tells whether a server has signed an event that passed verify. Every server whose signature the rules ask for is among those
// that verify demands.
func signedBy(e *event.Event) func(matrix.ServerName) bool {
	return func(server matrix.ServerName) bool { return slices.Contains(signing.RequiredServers(e), server) }
}

// Countersign adds the signature of a tenant to an event of another server's user: a join that the tenant's user vouches for, or an
// invitation of one of its users. The event must be one that the tenant has decided to let pass; nothing is checked here but its form.
//
// spec: server-server-api#restricted-rooms
// spec: server-server-api#inviting-to-a-room
func (s *Service) Countersign(tenant matrix.ServerName, version string, pdu []byte) ([]byte, error) {
	v, ok := matrix.FindRoomVersion(version)
	if !ok {
		return nil, matrix.Errorf(400, matrix.CodeIncompatibleRoom, "Room version %.32q is not supported.", version)
	}
	key, ok := s.Keys[tenant]
	if !ok {
		return nil, fmt.Errorf("countersign: %s is no tenant", tenant)
	}
	e, err := event.Parse(v, pdu)
	if err != nil {
		return nil, err
	}
	if e.HashMismatch {
		return nil, matrix.BadJSON("The content hash of the event is wrong.")
	}
	return event.Federation(signing.SignEvent(e, tenant, key)), nil
}
