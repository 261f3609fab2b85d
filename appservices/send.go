package appservices

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/outbound"
)

// maxAnswer is how much of the answer of a bridge is read.
const maxAnswer = 64 << 10

// badStatus is an answer of a bridge that is no success.
type badStatus struct {
	status int
	body   []byte
}

func (e *badStatus) Error() string {
	return fmt.Sprintf("the bridge answered with status %d", e.status)
}

// call makes a request to a bridge, at the address that the operator wrote into its registration and at no other: redirects are not followed.
//
// spec: application-service-api#authorisation
func (s *Service) call(ctx context.Context, r *Registration, method, path string, body []byte, timeout time.Duration) ([]byte, error) {
	if r.base == nil {
		return nil, errors.New("the bridge has no URL")
	}
	port := r.base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[r.base.Scheme]
	}
	h := http.Header{"Authorization": {"Bearer " + r.hsToken}}
	if body != nil {
		h.Set("Content-Type", "application/json")
	}
	answer, err := s.Out.Do(ctx, outbound.Request{Method: method, Address: net.JoinHostPort(r.base.Hostname(), port), ServerName: r.base.Hostname(),
		Host: r.base.Host, Path: r.base.EscapedPath() + path, Header: h, Body: body, MaxBody: maxAnswer, Timeout: timeout, Trusted: true,
		Plain: r.base.Scheme == "http"})
	if err != nil {
		return nil, err
	}
	if answer.Status < 200 || answer.Status > 299 {
		return nil, &badStatus{answer.Status, answer.Body}
	}
	return answer.Body, nil
}

// legacy tells whether a bridge does not know a path, so that the one before may help.
//
// spec: application-service-api#legacy-routes
func legacy(err error) bool {
	var bad *badStatus
	return errors.As(err, &bad) && (bad.status == http.StatusNotFound || bad.status == http.StatusMethodNotAllowed)
}

// put hands a transaction over.
func (s *Service) put(ctx context.Context, r *Registration, txnID string, body []byte) error {
	begin := s.Now()
	_, err := s.call(ctx, r, http.MethodPut, "/_matrix/app/v1/transactions/"+url.PathEscape(txnID), body, s.tune.timeout)
	if legacy(err) {
		_, err = s.call(ctx, r, http.MethodPut, "/transactions/"+url.PathEscape(txnID), body, s.tune.timeout)
	}
	s.metrics.seconds.Observe(s.Now().Sub(begin).Seconds())
	return err
}

// The codes of answers to a ping.
const (
	codeURLNotSet         = "M_URL_NOT_SET"
	codeBadStatus         = "M_BAD_STATUS"
	codeConnectionFailed  = "M_CONNECTION_FAILED"
	codeConnectionTimeout = "M_CONNECTION_TIMEOUT"
)

// pingTimeout is how long a bridge has to answer a ping.
const pingTimeout = 10 * time.Second

// Ping asks a bridge whether it hears this server, and returns how long the answer took.
//
// spec: application-service-api#pinging
func (s *Service) Ping(ctx context.Context, id, txnID string) (time.Duration, error) {
	r := s.set.Load().byID[id]
	switch {
	case r == nil || s.isSuspended(id):
		return 0, matrix.NotFound("There is no such application service.")
	case r.base == nil:
		return 0, matrix.Errorf(http.StatusBadRequest, codeURLNotSet, "The application service has no URL.")
	}
	content := map[string]string{}
	if txnID != "" {
		content["transaction_id"] = txnID
	}
	body, err := json.Marshal(content)
	if err != nil {
		return 0, matrix.BadJSON("transaction_id must be text.")
	}
	begin := time.Now()
	_, err = s.call(ctx, r, http.MethodPost, "/_matrix/app/v1/ping", body, pingTimeout)
	took := time.Since(begin)
	var bad *badStatus
	var timeout net.Error
	switch {
	case err == nil:
		return took, nil
	case errors.As(err, &bad):
		s.log.WithField("bridge", id).WithError(err).Warn("a bridge refused a ping")
		return 0, matrix.Errorf(http.StatusBadGateway, codeBadStatus, "The application service answered with status %d.", bad.status).
			With("status", bad.status).With("body", string(bad.body[:min(len(bad.body), 1024)]))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return 0, matrix.Errorf(http.StatusGatewayTimeout, codeConnectionTimeout, "The application service did not answer in time.")
	}
	s.log.WithField("bridge", id).WithError(err).Warn("a bridge cannot be reached")
	return 0, matrix.Errorf(http.StatusBadGateway, codeConnectionFailed, "The application service cannot be reached.")
}
