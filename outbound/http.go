package outbound

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Web says how a standard client for URLs that others chose behaves.
type Web struct {
	// MaxBody is how large an answer may be; 0 means 1 MiB.
	MaxBody int64
	// MaxRequest is how large a request may be; 0 means 1 MiB.
	MaxRequest int64
	// Timeout bounds one request; 0 means a minute.
	Timeout time.Duration
	// Ports are those that may be asked; none means any.
	Ports []string
	// Redirects follows up to three redirects of a GET.
	Redirects bool
	// Pad is how long a failure takes at least, so that its time tells nothing of closed ports and refused addresses.
	Pad time.Duration
}

// HTTP returns a standard client with the limits of c, for code that wants one. Only https URLs are asked.
func (c *Client) HTTP(w Web) *http.Client {
	if w.MaxRequest == 0 {
		w.MaxRequest = 1 << 20
	}
	return &http.Client{Transport: &web{c, w}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// web is the http.RoundTripper of Client.HTTP.
type web struct {
	c *Client
	w Web
}

// RoundTrip sends one request.
func (t *web) RoundTrip(req *http.Request) (*http.Response, error) {
	begin := t.c.now()
	s, err := t.send(req)
	if err != nil {
		if wait := t.w.Pad - t.c.now().Sub(begin); wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-req.Context().Done():
			}
		}
		return nil, err
	}
	return &http.Response{Status: http.StatusText(s.Status), StatusCode: s.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: s.Header, Body: s.Body, ContentLength: -1, Request: req}, nil
}

func (t *web) send(req *http.Request) (*Streamed, error) {
	r, err := FromURL(req.URL.String())
	if err == nil && len(t.w.Ports) > 0 && !slices.Contains(t.w.Ports, portOf(req.URL)) {
		err = errRefused
	}
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // nothing was sent
		}
		return nil, t.c.fail(Request{Host: req.URL.Host}, err)
	}
	r.Method, r.Header, r.MaxBody, r.Timeout, r.FollowRedirects = req.Method, req.Header, t.w.MaxBody, t.w.Timeout, t.w.Redirects && req.Method == http.MethodGet
	if req.Body != nil && req.Body != http.NoBody {
		r.Body, err = io.ReadAll(io.LimitReader(req.Body, t.w.MaxRequest+1))
		if cerr := req.Body.Close(); err == nil {
			err = cerr
		}
		if err == nil && int64(len(r.Body)) > t.w.MaxRequest {
			err = errors.New("outbound: the request is too large")
		}
		if err != nil {
			return nil, err
		}
	}
	return t.c.Stream(req.Context(), r)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return "443"
}
