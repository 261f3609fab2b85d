package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hansa/matrix"
)

// Request is one HTTP request over TLS, unless it is Plain.
type Request struct {
	// Method is GET where it is empty.
	Method string
	// Address is what is dialled, host:port.
	Address string
	// ServerName is the name or address that the certificate must have, also sent as SNI.
	ServerName string
	// Host is the Host header.
	Host string
	// Path is the request target as it goes on the wire, with its query.
	Path   string
	Header http.Header
	Body   []byte
	// MaxBody is how large the answer may be, decompressed; 0 means 1 MiB.
	MaxBody int64
	// Timeout bounds the whole request; 0 means a minute.
	Timeout time.Duration
	// FollowRedirects follows up to three redirects of a GET, over https only, each checked like a request of its own.
	FollowRedirects bool
	// Peer is the server that is meant, for its pins and for the address that the operator set for it.
	Peer matrix.ServerName
	// Trusted says that the operator named Address: it may be a private one. Never set it for what a stranger or a redirect named.
	Trusted bool
	// Plain sends the request without TLS. Only trusted addresses are asked so.
	Plain bool
	// Repeatable says that the request may be sent twice where a reused connection turns out to be dead. GET and PUT always may.
	Repeatable bool
}

// Response is a whole answer.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Streamed is an answer whose body is still to be read and closed. Reading fails with ErrTooLarge beyond MaxBody, and where the body
// comes slower than an honest peer would send it.
type Streamed struct {
	Status int
	Header http.Header
	Body   io.ReadCloser
}

// FromURL makes a GET of an https URL. URLs with user names and those of other schemes are errors.
func FromURL(raw string) (Request, error) {
	if len(raw) > 8192 {
		return Request{}, errors.New("outbound: the URL is too long")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.User != nil || u.Opaque != "" || u.Hostname() == "" {
		return Request{}, fmt.Errorf("outbound: not a plain https URL: %.200q", raw)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return Request{Method: http.MethodGet, Address: net.JoinHostPort(u.Hostname(), port), ServerName: u.Hostname(), Host: u.Host, Path: u.RequestURI()}, nil
}

// Do sends a request and reads the whole answer. Any status is an answer; an *Error means that there was none.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	s, err := c.Stream(ctx, r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(s.Body)
	if cerr := s.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return &Response{Status: s.Status, Header: s.Header, Body: body}, nil
}

// Stream sends a request and returns once the header of the answer has arrived.
func (c *Client) Stream(ctx context.Context, r Request) (*Streamed, error) {
	for hops := 0; ; hops++ {
		s, err := c.send(ctx, r)
		if err != nil {
			return nil, err
		}
		if !r.FollowRedirects || !isRedirect(s.Status) || s.Header.Get("Location") == "" {
			return s, nil
		}
		_ = s.Body.Close() // a redirect has nothing to read
		next, err := redirected(r, s.Header.Get("Location"))
		if err != nil || hops == maxRedirects {
			return nil, c.fail(r, errors.Join(errors.New("outbound: bad or too many redirects"), err))
		}
		r = next
	}
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirected is the request that follows r. Nothing that the caller put into the header goes to another host.
func redirected(r Request, location string) (Request, error) {
	base, err := url.Parse("https://" + r.Host + r.Path)
	if err != nil {
		return Request{}, err
	}
	to, err := base.Parse(location)
	if err != nil {
		return Request{}, err
	}
	next, err := FromURL(to.String())
	if err != nil {
		return Request{}, err
	}
	next.MaxBody, next.Timeout, next.FollowRedirects = r.MaxBody, r.Timeout, true
	if next.Host == r.Host {
		next.Address, next.ServerName, next.Header, next.Peer = r.Address, r.ServerName, r.Header, r.Peer
	}
	return next, nil
}

// send is one request without redirects.
func (c *Client) send(ctx context.Context, r Request) (*Streamed, error) {
	if r.Timeout == 0 {
		r.Timeout = defaultTimeout
	}
	if r.MaxBody == 0 {
		r.MaxBody = defaultMaxBody
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	req, err := c.request(ctx, r)
	if err != nil {
		cancel()
		return nil, err
	}
	begin := c.now()
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		cancel()
		return nil, c.fail(r, err)
	}
	c.metrics.seconds.Observe(c.now().Sub(begin).Seconds())
	c.metrics.requests.WithLabelValues(statusClass(resp.StatusCode)).Inc()
	if resp.ContentLength > r.MaxBody {
		cancel()
		_ = resp.Body.Close() // too large to read
		return nil, fmt.Errorf("%w: %s announces %d bytes", ErrTooLarge, r.Host, resp.ContentLength)
	}
	return &Streamed{Status: resp.StatusCode, Header: resp.Header, Body: newBody(cancel, c, r, resp.Body)}, nil
}

func statusClass(status int) string {
	if status < 100 || status > 599 {
		return "other"
	}
	return string(rune('0'+status/100)) + "xx"
}

// request builds what net/http sends: the target of the connection in the URL's host, the path byte for byte.
func (c *Client) request(ctx context.Context, r Request) (*http.Request, error) {
	if !strings.HasPrefix(r.Path, "/") || strings.HasPrefix(r.Path, "//") || r.Host == "" || r.ServerName == "" {
		return nil, fmt.Errorf("outbound: incomplete request to %q", r.Host)
	}
	if r.Plain && !r.Trusted || r.Trusted && r.FollowRedirects {
		return nil, errNoTLS
	}
	t := target{address: r.Address, name: strings.Trim(r.ServerName, "[]"), peer: string(r.Peer), trusted: r.Trusted}
	if set, ok := c.addresses[t.peer]; ok && set == r.Address {
		t.trusted = true
	}
	if !isIP(t.name) {
		t.name = strings.ToLower(strings.TrimSuffix(t.name, "."))
	}
	var body io.Reader
	if r.Body != nil {
		body = bytes.NewReader(r.Body)
	}
	scheme := "https"
	if r.Plain {
		scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, scheme+"://"+t.key()+"/", body)
	if err != nil {
		return nil, err
	}
	req.URL.Path, req.URL.Opaque = "", r.Path
	req.Host = r.Host
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "Hansa")
	}
	if r.Repeatable || r.Method == http.MethodPut {
		req.Header["Idempotency-Key"] = nil // says so to net/http and is not sent
	}
	return req, nil
}

// fail makes the uniform error.
func (c *Client) fail(r Request, cause error) error {
	c.metrics.requests.WithLabelValues("unreachable").Inc()
	c.log.WithFields(logrusFields(r)).WithError(cause).Debug("no answer")
	return &Error{Host: r.Host, cause: cause}
}

func logrusFields(r Request) map[string]any { return map[string]any{"destination": r.Host} }
