package fedclient

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/outbound"
)

// oldServer knows media on the path of old only.
type oldServer struct {
	code string // of the answer on the new path
	seen []string
}

func (o *oldServer) Do(context.Context, matrix.ServerName, outbound.Request) (*outbound.Response, error) {
	return nil, errors.New("not asked for")
}

func (o *oldServer) Stream(_ context.Context, _ matrix.ServerName, r outbound.Request) (*outbound.Streamed, error) {
	o.seen = append(o.seen, r.Header.Get("Authorization")[:min(8, len(r.Header.Get("Authorization")))]+" "+r.Path)
	answer := func(status int, typ, body string) (*outbound.Streamed, error) {
		return &outbound.Streamed{Status: status, Header: http.Header{"Content-Type": {typ}}, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
	switch {
	case strings.HasPrefix(r.Path, "/_matrix/federation/"):
		return answer(404, "application/json", `{"errcode":"`+o.code+`","error":"x"}`)
	case strings.HasPrefix(r.Path, "/_matrix/media/v3/download/far.example/gone?"):
		return answer(404, "application/json", `{"errcode":"M_NOT_FOUND"}`)
	}
	return answer(200, "text/plain", "old content")
}

func TestSpec39_Media_OldPath(t *testing.T) {
	t.Parallel()
	key, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old := &oldServer{code: matrix.CodeUnrecognized}
	g := &gate{}
	c, err := New(Deps{Keys: map[matrix.ServerName]signing.Key{acme: key}, Servers: old, Gate: g})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Media(t.Context(), acme, far, "abc", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(m.Body); err != nil || string(got) != "old content" || m.ContentType != "text/plain" {
		t.Errorf("%q of %s, %v", got, m.ContentType, err)
	}
	if len(old.seen) != 2 || !strings.HasPrefix(old.seen[0], "X-Matrix /_matrix/federation/v1/media/download/abc") ||
		!strings.HasPrefix(old.seen[1], " /_matrix/media/v3/download/far.example/abc?") || !strings.Contains(old.seen[1], "allow_remote=false") || g.asked != 2 {
		t.Errorf("requests %q", old.seen)
	}
	var e *Error
	if _, err := c.Media(t.Context(), acme, far, "gone", 1000); !errors.As(err, &e) || e.HTTPStatus() != 404 {
		t.Error(err)
	}
	old.seen, old.code = nil, matrix.CodeNotFound // a server that knows the path and not the file
	if _, err := c.Media(t.Context(), acme, far, "abc", 1000); !errors.As(err, &e) || len(old.seen) != 1 {
		t.Errorf("%v, requests %q", err, old.seen)
	}
}
