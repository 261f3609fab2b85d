package fedclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"

	"hansa/matrix"
	"hansa/outbound"
)

// HTTPStatus is the status of the answer, for those who cannot name this type.
func (e *Error) HTTPStatus() int { return e.Status }

// isUnrecognized tells whether a peer does not know a route.
//
// spec: client-server-api#common-error-codes
func isUnrecognized(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound && e.Code == matrix.CodeUnrecognized
}

// oldMedia downloads a file of a peer on the path of old, which takes no signature. The peer gives only files of its own.
//
// spec: server-server-api#content-repository
func (c *Client) oldMedia(ctx context.Context, as, to matrix.ServerName, id string, maxBytes int64) (*Media, error) {
	if err := c.Gate.Outbound(ctx, as, to); err != nil {
		return nil, err
	}
	q := url.Values{"allow_remote": {"false"}, "allow_redirect": {"false"}, "timeout_ms": {"20000"}}
	r := outbound.Request{Method: http.MethodGet, Path: query("/_matrix/media/v3/download/"+url.PathEscape(string(to))+"/"+url.PathEscape(id), q),
		Header: http.Header{}, MaxBody: maxBytes, Timeout: mediaTimeout}
	s, err := c.Servers.Stream(ctx, to, r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if s.Status != http.StatusOK {
		defer s.Body.Close()
		return nil, readError(s, c.Now())
	}
	return media(textproto.MIMEHeader(s.Header), s.Body), nil
}
