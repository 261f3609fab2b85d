package room

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
)

// typePolicyServer is the state event that names a room's policy server, somebody who is asked before an event is sent; it has nothing to
// do with the policy of this deployment.
const typePolicyServer = "m.room.policy"

// PolicyServers asks the policy servers of rooms. A Remote that can do so implements it.
type PolicyServers interface {
	// PolicySign returns the signatures object with which a policy server answers for an event, or its refusal as *matrix.Error.
	PolicySign(ctx context.Context, as, via matrix.ServerName, pdu []byte) (jsontext.Value, error)
}

// policyServer is the room's policy server and its key; ok is false where the room uses none. The caller holds l.mu.
//
// spec: server-server-api#determining-if-a-policy-server-is-enabled-in-a-room
func (l *live) policyServer() (via matrix.ServerName, key signing.PublicKey, ok bool) {
	e := l.event(typePolicyServer)
	if e == nil {
		return "", key, false
	}
	var c struct {
		Via        jsontext.Value `json:"via"`
		PublicKeys jsontext.Value `json:"public_keys"`
	}
	lenient(e.Content, &c)
	name, _ := event.ContentString(e, "via")
	text, _ := event.ContentString(&event.Event{Content: c.PublicKeys}, "ed25519")
	via, err := matrix.ParseServerName(name)
	if err != nil {
		return "", key, false
	}
	if key, err = signing.ParsePublicKey(text); err != nil {
		return "", key, false
	}
	for user, m := range l.members {
		if m.membership == auth.Join && user.Server() == via {
			return via, key, true
		}
	}
	return "", key, false
}

// needsNoSignature tells whether an event is one that policy servers are not asked about.
func needsNoSignature(typ string, stateKey *string) bool {
	return typ == typePolicyServer && stateKey != nil && *stateKey == ""
}

// recommended tells whether the room's policy server, if it has one, has signed an event. The caller holds l.mu.
//
// spec: server-server-api#validating-policy-server-signatures
func (l *live) recommended(e *event.Event) bool {
	if needsNoSignature(e.Type, e.StateKey) {
		return true
	}
	via, key, ok := l.policyServer()
	return !ok || signing.VerifyEvent(e, via, signing.PolicyServerKeyID, key) == nil
}

// askPolicyServer gets the signature of the room's policy server for an event that is about to be sent; again is true where the room has moved on
// meanwhile. The caller holds l.mu, which is let go while the policy server is asked. Leaving works without it: others may not
// show it, and the sender is out all the same.
//
// spec: server-server-api#asking-for-a-policy-server-signature-on-an-event
func (s *Service) askPolicyServer(ctx context.Context, l *live, d *Draft, a *storage.Append) (again bool, err error) {
	if l.event(typePolicyServer) == nil || needsNoSignature(d.Type, d.StateKey) {
		return false, nil
	}
	via, key, ok := l.policyServer()
	if !ok {
		return false, nil
	}
	before, as := l.room, d.Sender.Server()
	e := signing.SignEvent(a.Events[0].Event, as, s.Keys[as])
	signed, err := func() (*event.Event, error) {
		l.mu.Unlock()
		defer l.mu.Lock()
		return s.policySigned(ctx, as, via, key, e)
	}()
	if err != nil {
		if leaving, _ := stringMember(d.Content, "membership"); d.Type == typeMember && d.StateKey != nil && *d.StateKey == string(d.Sender) && leaving == auth.Leave {
			return l.gone || l.room != before, nil
		}
		return false, err
	}
	a.Events[0].Event = signed
	return l.gone || l.room != before, nil
}

func (s *Service) policySigned(ctx context.Context, as, via matrix.ServerName, key signing.PublicKey, e *event.Event) (*event.Event, error) {
	unsigned := func() error {
		return matrix.Errorf(http.StatusForbidden, matrix.CodeForbidden, "The policy server of this room cannot be asked at present, so nothing can be sent.")
	}
	asked, can := s.Remote.(PolicyServers)
	if !can || s.IsLocal(via) {
		return nil, unsigned()
	}
	signatures, err := asked.PolicySign(ctx, as, via, event.Federation(e))
	var told *matrix.Error
	if errors.As(err, &told) {
		return nil, told
	}
	if err == nil {
		e, err = signing.TakeSignature(e, signatures, via, signing.PolicyServerKeyID)
	}
	if err == nil {
		err = signing.VerifyEvent(e, via, signing.PolicyServerKeyID, key)
	}
	if err != nil {
		s.log.WithError(err).WithField("destination", via).Warn("a policy server did not sign")
		return nil, unsigned()
	}
	return e, nil
}
