package fedserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/storage"
)

// keyTimeout is how long the look-up of the keys of one request may take.
const keyTimeout = 20 * time.Second

// authenticate finds out which server asks which tenant. The door is asked with the name that the request claims, before anything is
// looked up and before the body is read: who is no partner costs nothing. done is to be called when the request has ended.
//
// spec: server-server-api#request-authentication
func (a *API) authenticate(w http.ResponseWriter, q *request) (done func(), err error) {
	x, err := signing.ParseXMatrix(q.Header.Values("Authorization"))
	if err != nil {
		return nil, err
	}
	if q.as = x.Destination; q.as == "" {
		q.as = a.tenantOfHost(q.Host).Name // servers from before v1.3
	}
	if !a.isTenant(q.as) {
		return nil, unauthorized("The request is addressed to another server.")
	}
	if a.isTenant(x.Origin) {
		return nil, unauthorized("The request names a server as its origin that is hosted here.")
	}
	ask := a.Door.Inbound
	if q.route.access == leaving {
		ask = a.Door.InboundLeave
	}
	if err := ask(q.Context(), q.as, x.Origin); err != nil {
		return nil, err
	}
	done = func() {}
	var content []byte
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		if done, err = a.readBody(w, q); err != nil {
			return nil, err
		}
		if content = q.body; len(content) == 0 {
			content = nil
		} else if tooDeep(content) {
			done()
			return nil, matrix.BadJSON("The JSON is nested more than %d deep.", maxDepth)
		}
	}
	if err := a.verify(q, x, content); err != nil {
		done()
		return nil, err
	}
	if q.origin = x.Origin; a.Heard != nil {
		a.Heard(q.origin)
	}
	return done, nil
}

// verify checks the signatures: one by a key that is valid now is enough. What was signed is the request target as it came in.
func (a *API) verify(q *request, x signing.XMatrix, content []byte) error {
	from := q.ip.String() + " " + string(x.Origin) // behind a proxy that is not known all come from one address
	if wait, ok := a.wrong.Take(from); !ok {
		return ratelimit.TooMany(wait) // so many were wrong lately that it is not worth looking
	}
	a.wrong.GiveBack(from)
	object, err := a.signedObject(q, x, content)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(q.Context(), keyTimeout)
	defer cancel()
	for _, s := range x.Signatures {
		key, err := a.Keys.RequestKey(ctx, x.Origin, s.KeyID)
		if errors.Is(err, storage.ErrUnavailable) {
			return err
		}
		if err != nil {
			a.Log.WithFields(logrus.Fields{"request_id": q.id, "origin": x.Origin, "err": err}).Debug("no key for a request")
			continue
		}
		good, err := a.check(ctx, key, object, s.Signature)
		if err != nil {
			return err
		}
		if good {
			return nil
		}
	}
	_, _ = a.wrong.Take(from) // counted
	a.Log.WithFields(logrus.Fields{"request_id": q.id, "origin": x.Origin, "destination": q.as}).
		Warn("the signature of a request is wrong; does a proxy change the path or the query?")
	return unauthorized("The request is not signed by a key of %s that is valid now, over %s as it arrived here.", x.Origin, q.Method+" "+clip(q.RequestURI))
}

// signedObject makes the object that the signature covers. Few requests at a time do this: nobody knows yet who they are.
func (a *API) signedObject(q *request, x signing.XMatrix, content []byte) ([]byte, error) {
	select {
	case a.working <- struct{}{}:
	case <-q.Context().Done():
		return nil, q.Context().Err()
	}
	defer func() { <-a.working }()
	return signing.RequestJSON(q.Method, q.RequestURI, x.Origin, q.as, content)
}

// check verifies a signature, in a place as signedObject has one.
func (a *API) check(ctx context.Context, key signing.PublicKey, object, signature []byte) (bool, error) {
	select {
	case a.working <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-a.working }()
	return key.Verify(object, signature), nil
}

// clip shortens what is repeated in an error.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

func unauthorized(format string, args ...any) *matrix.Error {
	return matrix.Errorf(http.StatusUnauthorized, matrix.CodeUnauthorized, format, args...)
}
