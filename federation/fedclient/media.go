package fedclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"time"

	"hansa/matrix"
	"hansa/outbound"
)

// Media is a file of a peer. Body must be closed.
type Media struct {
	ContentType string
	Disposition string
	Body        io.ReadCloser
}

// mediaTimeout is how long a file may take; outbound demands a least rate besides.
const mediaTimeout = 10 * time.Minute

// Media downloads a file of a peer, at most so many bytes: reading beyond them fails with outbound.ErrTooLarge. The peer may send us on to
// another address for the file; nothing of ours is told there.
//
// spec: server-server-api#get_matrixfederationv1mediadownloadmediaid
func (c *Client) Media(ctx context.Context, as, to matrix.ServerName, id string, maxBytes int64) (*Media, error) {
	p := query(path("v1", "media", "download", id), url.Values{"timeout_ms": {"20000"}})
	s, err := c.stream(ctx, call{name: "media", as: as, to: to, method: http.MethodGet, path: p, max: maxBytes + 64<<10, timeout: mediaTimeout})
	if isUnrecognized(err) {
		return c.oldMedia(ctx, as, to, id, maxBytes)
	}
	if err != nil {
		return nil, err
	}
	m, err := c.open(ctx, s, maxBytes)
	if err != nil {
		_ = s.Body.Close() // the answer is no good
		return nil, unreadable(to, err)
	}
	return m, nil
}

// open finds the file in a multipart answer: the first part is metadata, the second the file or where it is.
//
// spec: server-server-api#content-repository
func (c *Client) open(ctx context.Context, s *outbound.Streamed, maxBytes int64) (*Media, error) {
	kind, params, err := mime.ParseMediaType(s.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" || params["boundary"] == "" {
		return nil, fmt.Errorf("fedclient: %.80q is not multipart/mixed", s.Header.Get("Content-Type"))
	}
	parts := multipart.NewReader(bufio.NewReader(s.Body), params["boundary"])
	meta, err := parts.NextRawPart()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(meta, 64<<10)); err != nil {
		return nil, err
	}
	file, err := parts.NextRawPart()
	if err != nil {
		return nil, err
	}
	if location := file.Header.Get("Location"); location != "" {
		_ = s.Body.Close() // the file is elsewhere
		return c.follow(ctx, location, maxBytes)
	}
	return media(file.Header, &part{file, s.Body, maxBytes}), nil
}

func media(h textproto.MIMEHeader, body io.ReadCloser) *Media {
	return &Media{ContentType: h.Get("Content-Type"), Disposition: h.Get("Content-Disposition"), Body: body}
}

// follow fetches a file from where the peer keeps it.
func (c *Client) follow(ctx context.Context, location string, maxBytes int64) (*Media, error) {
	r, err := outbound.FromURL(location)
	if err != nil {
		return nil, err
	}
	r.MaxBody, r.Timeout, r.FollowRedirects = maxBytes, mediaTimeout, true
	s, err := c.Out.Stream(ctx, r)
	if err != nil {
		return nil, err
	}
	if s.Status != http.StatusOK {
		_ = s.Body.Close() // an error page
		return nil, errors.New("fedclient: the file is not where the peer says")
	}
	return media(textproto.MIMEHeader(s.Header), s.Body), nil
}

// part is the body of one part; closing it ends the request.
type part struct {
	io.Reader
	whole io.Closer
	left  int64
}

// Read reads at most as many bytes as the caller of Media allows.
func (p *part) Read(b []byte) (int, error) {
	if int64(len(b)) > p.left+1 {
		b = b[:p.left+1]
	}
	n, err := p.Reader.Read(b)
	if p.left -= int64(n); p.left < 0 {
		return n - 1, outbound.ErrTooLarge
	}
	return n, err
}

// Close ends the request.
func (p *part) Close() error { return p.whole.Close() }
