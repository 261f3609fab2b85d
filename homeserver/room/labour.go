package room

import (
	"context"
	"fmt"
	"runtime"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
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
func (s *Service) parseSent(ctx context.Context, v *matrix.RoomVersion, id matrix.RoomID, raw [][]byte) ([]*event.Event, []error) {
	events, errs := make([]*event.Event, len(raw)), make([]error, len(raw))
	for i := range raw {
		if errs[i] = s.labour.begin(ctx); errs[i] == nil {
			events[i], errs[i] = parseForm(v, id, raw[i], event.ParseOptions{})
			s.labour.end()
		}
	}
	none := s.findKeys(ctx, events)
	for i, e := range events {
		if errs[i] == nil {
			if errs[i] = s.verifySent(ctx, e, none); errs[i] != nil {
				events[i] = nil
			}
		}
	}
	return events, errs
}

// verifySent is verifyWith that finds the keys before it takes a processor: some may have to be asked for. none are those that cannot be had.
func (s *Service) verifySent(ctx context.Context, e *event.Event, none map[signer]bool) error {
	type found struct {
		signer
		key signing.PublicKey
	}
	keys := make([]found, 0, 2)
	at := int64(0)
	find := func(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
		for _, k := range keys {
			if k.server == server && k.id == id {
				return k.key, nil
			}
		}
		return signing.PublicKey{}, fmt.Errorf("no key %s of %s", id, server)
	}
	if e.Version.EnforceKeyValidity {
		at = e.OriginServerTS
	}
	for _, server := range signing.RequiredServers(e) {
		for id := range signing.Signatures(e.Signatures, server) {
			if k := (signer{server, id}); !none[k] && id != signing.PolicyServerKeyID {
				if key, err := s.publicKey(ctx, server, id, at); err == nil {
					keys = append(keys, found{k, key})
				}
			}
		}
	}
	if err := s.labour.begin(ctx); err != nil {
		return err
	}
	defer s.labour.end()
	return verifyWith(e, find)
}
