package room

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
)

// parse reads a PDU and checks its form, its room and its signatures: checks 1 to 3. It asks no database.
func (s *Service) parse(ctx context.Context, v *matrix.RoomVersion, id matrix.RoomID, raw []byte, options event.ParseOptions) (*event.Event, error) {
	e, err := event.ParseWith(v, raw, options)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDropped, err)
	}
	if e.RoomID != id {
		return nil, fmt.Errorf("%w: it belongs to room %s", ErrDropped, e.RoomID)
	}
	if err := s.verify(ctx, e); err != nil {
		return nil, err
	}
	return e, nil
}

// parseAll does so for many PDUs, on as many processors as there are. A result is an event or an error.
func (s *Service) parseAll(ctx context.Context, v *matrix.RoomVersion, id matrix.RoomID, raw [][]byte, options event.ParseOptions) ([]*event.Event, []error) {
	events, errs := make([]*event.Event, len(raw)), make([]error, len(raw))
	if len(raw) == 0 {
		return events, errs
	}
	workers := min(len(raw), runtime.GOMAXPROCS(0)*4) // more than processors, because some wait for the keys of a server
	if len(raw) == 1 {
		events[0], errs[0] = s.parse(ctx, v, id, raw[0], options)
		return events, errs
	}
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				events[i], errs[i] = s.parse(ctx, v, id, raw[i], options)
			}
		})
	}
	for i := range raw {
		next <- i
	}
	close(next)
	wg.Wait()
	return events, errs
}

// verify checks the signatures that the event must carry.
//
// spec: rooms/v5#signing-key-validity-period
// spec: server-server-api#validating-hashes-and-signatures-on-received-events
func (s *Service) verify(ctx context.Context, e *event.Event) error {
	at := e.OriginServerTS
	if !e.Version.EnforceKeyValidity {
		at = 0 // the period of a key does not count
	}
	for _, server := range signing.RequiredServers(e) {
		valid := false
		for id := range signing.Signatures(e.Signatures, server) {
			if id == signing.PolicyServerKeyID {
				continue
			}
			key, err := s.publicKey(ctx, server, id, at)
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
