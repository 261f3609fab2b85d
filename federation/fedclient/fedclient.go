// Package fedclient speaks the server-server API to other servers, as a client: each method is one request, made in the name of one of our
// tenants and signed with its key.
//
// Before anything is resolved, the Gate is asked whether the tenant may talk to the server; a refusal is its *matrix.Error. Answers are
// read strictly and within bounds: bodies have a size that fits the question and a time; states and auth chains are read piece by piece, so
// that a hostile one costs no more than the bound. Events inside are handed on as the bytes that came; homeserver/room judges them one by
// one, so that one that is broken spoils no other.
//
// An answer that is an error of the peer is an *Error with its status and errcode. A peer that gives no answer, or one that nobody can read,
// wraps ErrUnreachable. A peer that could not be reached a moment ago is not tried again for a while (a circuit per server), so that people
// do not wait for it in vain; Send leaves that to the outbox, which waits longer and longer by itself, and a success of either closes the
// circuit.
//
// spec: server-server-api#request-authentication
// spec: server-server-api#authentication
package fedclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/outbound"
)

// Gate says whether a tenant may talk to a server. It is declared here because the door stands beside.
type Gate interface {
	// Outbound returns nil, or a *matrix.Error.
	Outbound(ctx context.Context, as, to matrix.ServerName) error
	// OutboundLeave is Outbound for requests that only take people out of rooms, which are let through for longer.
	OutboundLeave(ctx context.Context, as, to matrix.ServerName) error
}

// Servers sends requests to servers. It is declared here so that tests can answer; *resolve.Resolver is one.
type Servers interface {
	// Do sends a request to a server, wherever it is, and reads the answer.
	Do(ctx context.Context, server matrix.ServerName, r outbound.Request) (*outbound.Response, error)
	// Stream sends a request and hands the body of the answer on.
	Stream(ctx context.Context, server matrix.ServerName, r outbound.Request) (*outbound.Streamed, error)
}

// Deps is what a Client needs.
type Deps struct {
	// Keys are what the tenants sign with.
	Keys map[matrix.ServerName]signing.Key
	// Out follows the redirects of media.
	Out *outbound.Client
	// Servers finds other servers.
	Servers    Servers
	Gate       Gate
	Log        *logrus.Entry
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Client asks other servers. Its methods may be called from any goroutine.
type Client struct {
	Deps
	log     *logrus.Entry
	circuit *circuit
	seconds *prometheus.HistogramVec
	held    atomic.Int64 // bytes of answers that are being read piece by piece
}

// New returns a Client that is ready to use.
func New(d Deps) (*Client, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	c := &Client{Deps: d, log: d.Log.WithField("pkg", "fedclient"), circuit: newCircuit(),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hansa_fedclient_request_seconds",
			Help: "Time of requests to other servers, by what was asked.", Buckets: prometheus.ExponentialBuckets(0.005, 3, 9)}, []string{"call"})}
	if d.Registerer != nil {
		if err := d.Registerer.Register(c.seconds); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// ErrUnreachable is wrapped where a peer gave no answer that can be read.
var ErrUnreachable = outbound.ErrUnreachable

// Error is an error that a peer answered with.
type Error struct {
	Status  int
	Code    string
	Message string
	// RetryAfter is how long to wait where the peer says so, else 0.
	RetryAfter time.Duration
	// Body is the error object as it came, for members such as room_version; nil where it is none.
	Body jsontext.Value
}

// Error tells what the peer said.
func (e *Error) Error() string {
	return fmt.Sprintf("the server answered %d %s: %.200q", e.Status, e.Code, e.Message)
}

// The limits of answers.
const (
	maxSmall     = 1 << 20
	maxEvents    = 8 << 20   // a few hundred events
	maxState     = 256 << 20 // the state of a very large room
	quickTimeout = 20 * time.Second
	usualTimeout = time.Minute
	longTimeout  = 5 * time.Minute
	maxTxnTime   = 90 * time.Second
)

// call is one request of a tenant to a server.
type call struct {
	name    string // for the metric
	as, to  matrix.ServerName
	method  string
	path    string // request target
	body    any    // marshalled where not nil; a jsontext.Value goes as it is
	max     int64
	timeout time.Duration
	repeat  bool // may be sent twice
	always  bool // tried although the server was unreachable a moment ago
	leave   bool // only takes people out of rooms
}

// path joins the parts of a request target below /_matrix/federation, each escaped.
func path(version string, parts ...string) string {
	var b strings.Builder
	b.WriteString("/_matrix/federation/" + version)
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

func query(p string, q url.Values) string {
	if len(q) == 0 {
		return p
	}
	return p + "?" + q.Encode()
}

// request asks the gate, then signs and builds the request.
//
// spec: server-server-api#request-authentication
func (c *Client) request(ctx context.Context, k call) (outbound.Request, error) {
	key, ok := c.Keys[k.as]
	if !ok {
		return outbound.Request{}, fmt.Errorf("fedclient: %s is not hosted here", k.as)
	}
	if _, err := matrix.ParseServerName(string(k.to)); err != nil {
		return outbound.Request{}, matrix.InvalidParam("%.100q is not the name of a server.", string(k.to))
	}
	ask := c.Gate.Outbound
	if k.leave {
		ask = c.Gate.OutboundLeave
	}
	if err := ask(ctx, k.as, k.to); err != nil {
		return outbound.Request{}, err
	}
	if !k.always && c.circuit.open(k.to, c.Now()) {
		return outbound.Request{}, fmt.Errorf("%w: %s did not answer a moment ago", ErrUnreachable, k.to)
	}
	r := outbound.Request{Method: k.method, Path: k.path, Header: http.Header{}, MaxBody: k.max, Timeout: k.timeout, Repeatable: k.repeat}
	switch body := k.body.(type) {
	case nil:
	case jsontext.Value:
		r.Body = body
	default:
		b, err := json.Marshal(body)
		if err != nil {
			return outbound.Request{}, fmt.Errorf("write the request: %w", err)
		}
		r.Body = b
	}
	authorization, err := signing.SignRequest(key, r.Method, r.Path, k.as, k.to, r.Body)
	if err != nil {
		return outbound.Request{}, fmt.Errorf("sign the request: %w", err)
	}
	r.Header.Set("Authorization", authorization)
	r.Header.Set("Accept", "application/json")
	if r.Body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// do sends a request and returns the body of a 200.
func (c *Client) do(ctx context.Context, k call) ([]byte, error) {
	s, err := c.stream(ctx, k)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(s.Body)
	if cerr := s.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, unreadable(k.to, err)
	}
	return b, nil
}

// get sends a request and decodes the body of a 200 into out.
func (c *Client) get(ctx context.Context, k call, out any) error {
	b, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return unreadable(k.to, err)
	}
	return nil
}

// unreadable is the error about an answer that breaks off or that is not what was asked for.
func unreadable(to matrix.ServerName, err error) error {
	return fmt.Errorf("%w: answer of %s: %w", ErrUnreachable, to, err)
}

// stream sends a request and returns the answer where it is a 200.
func (c *Client) stream(ctx context.Context, k call) (*outbound.Streamed, error) {
	r, err := c.request(ctx, k)
	if err != nil {
		return nil, err
	}
	begin := c.Now()
	s, err := c.Servers.Stream(ctx, k.to, r)
	c.seconds.WithLabelValues(k.name).Observe(c.Now().Sub(begin).Seconds())
	if err != nil {
		if ctx.Err() == nil {
			c.circuit.failed(k.to, c.Now())
		}
		if !errors.Is(err, ErrUnreachable) {
			err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return nil, err
	}
	c.circuit.answered(k.to)
	if s.Status == http.StatusOK {
		return s, nil
	}
	defer s.Body.Close()
	return nil, readError(s, c.Now())
}

// readError makes an Error of an answer that is none of success.
//
// spec: client-server-api#standard-error-response
func readError(s *outbound.Streamed, now time.Time) *Error {
	e := &Error{Status: s.Status, Code: matrix.CodeUnknown}
	body, err := io.ReadAll(io.LimitReader(s.Body, 64<<10))
	var in struct {
		Code         string         `json:"errcode"`
		Message      string         `json:"error"`
		RetryAfterMS jsontext.Value `json:"retry_after_ms"`
	}
	if err == nil && json.Unmarshal(body, &in) == nil {
		e.Body = body
		if in.Code != "" {
			e.Code = in.Code
		}
		e.Message = in.Message
		if ms, err := strconv.ParseInt(string(in.RetryAfterMS), 10, 64); err == nil && ms > 0 {
			e.RetryAfter = time.Duration(min(ms, int64(maxRetryAfter/time.Millisecond))) * time.Millisecond
		}
	}
	if after := retryAfter(s.Header.Get("Retry-After"), now); after > 0 {
		e.RetryAfter = after
	}
	return e
}

// maxRetryAfter is the longest that a peer can make us wait.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads the header, which holds seconds or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 {
		return time.Duration(min(n, int64(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil {
		return min(max(t.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
