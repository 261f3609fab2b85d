package fedserver

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/ratelimit"
	"hansa/homeserver/reply"
	"hansa/homeserver/room"
	"hansa/matrix"
)

// bodyTime is how long another server may take to send the body of a request, be it drop by drop. What the request leads to has its own limits.
const bodyTime = 20 * time.Second

// front is what every request goes through: request ID, recovery, routing, errors. The endpoints verify who asks.
type front struct {
	api     *API
	mux     *http.ServeMux
	methods map[string]bool
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	q := &request{Request: r, id: reply.RequestID(), ip: f.api.address(r)}
	h.Set("X-Request-Id", q.id)
	c := &counted{ResponseWriter: w}
	defer func() { f.api.metrics.requests.WithLabelValues(strconv.Itoa(c.status)).Inc() }()
	defer f.recover(c, q)
	if len(r.TransferEncoding) > 0 {
		// Of a request with both a length and chunks net/http keeps only the chunks, so it looks like one with chunks alone. A proxy in front may
		// have believed the length, and taken the rest of the body for the next request of somebody else: nothing after it is read.
		h.Set("Connection", "close")
		f.writeError(c, q, matrix.Errorf(http.StatusBadRequest, matrix.CodeUnknown, "Requests between servers must state their length (Content-Length, no Transfer-Encoding)."))
		return
	}
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // a connection that cannot do that has the limits of the listener
	}
	if _, err := f.find(r); err != nil {
		f.writeError(c, q, err)
		return
	}
	// The mux fills in the parameters of the path.
	f.mux.ServeHTTP(c, r.WithContext(withRequest(r.Context(), q)))
}

// address is where a request comes from.
func (a *API) address(r *http.Request) netip.Addr {
	if a.Address != nil {
		return a.Address(r)
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap().WithZone("")
}

// counted notes the status of an answer.
type counted struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (c *counted) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (f *front) recover(w http.ResponseWriter, q *request) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p) // net/http closes the connection on it
		}
		f.api.Log.WithFields(logrus.Fields{"request_id": q.id, "err": fmt.Sprint(p), "stack": string(debug.Stack())}).Error("panic in a handler")
		f.writeError(w, q, errors.New("panic"))
	}
}

// endpoint is one route on its way through the mux.
type endpoint struct {
	front *front
	route *route
}

// ServeHTTP verifies who asks and calls the handler.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := requestOf(r.Context())
	q.Request, q.route = r, e.route
	if err := e.serve(w, q); err != nil {
		e.front.writeError(w, q, err)
	}
}

func (e *endpoint) serve(w http.ResponseWriter, q *request) error {
	a := e.front.api
	if e.route.access == open {
		q.tenant = a.tenantOfHost(q.Host)
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			done, err := a.readBody(w, q)
			if err != nil {
				return err
			}
			defer done()
		}
		return e.route.fn(w, q)
	}
	done, err := a.authenticate(w, q)
	if err != nil {
		return err
	}
	defer done()
	if a.Limits {
		if wait, ok := a.origins.Take(string(q.origin)); !ok {
			return ratelimit.TooMany(wait)
		}
	}
	if e.route.acl {
		if err := a.checkACL(q); err != nil {
			return err
		}
	}
	if !e.route.free {
		leave, err := a.gate.enter(q.Context(), q.origin)
		if err != nil {
			return err
		}
		defer leave()
	}
	return e.route.fn(w, q)
}

// checkACL applies the server ACL of the room in the path.
//
// spec: server-server-api#server-access-control-lists-acls
func (a *API) checkACL(q *request) error {
	id, err := q.roomID()
	if err != nil {
		return err
	}
	ok, err := a.Rooms.ACLAllows(q.Context(), id, q.origin)
	if err == nil && !ok {
		err = matrix.Forbidden("Your server is not in this room.")
	}
	return err
}

// writeError is the one place where errors become answers.
func (f *front) writeError(w http.ResponseWriter, q *request, err error) {
	log := f.api.Log.WithFields(logrus.Fields{"origin": q.origin, "destination": q.as})
	switch {
	case errors.Is(err, room.ErrUndecided):
		log.WithError(err).Warn("policy could not decide")
		err = matrix.Errorf(http.StatusServiceUnavailable, matrix.CodeUnknown, "The policy cannot decide at present; try again later.").With("retry_after_ms", 5000)
	case errors.Is(err, room.ErrUnknownRoom):
		err = matrix.Forbidden("Your server is not in this room.") // the same answer as for a room that exists
	}
	reply.Refuse(q.Context(), w, log, q.id, err)
}

// writeJSON and writeRaw end a handler.
func writeJSON(w http.ResponseWriter, status int, v any) error   { return reply.JSON(w, status, v) }
func writeRaw(w http.ResponseWriter, status int, b []byte) error { return reply.Raw(w, status, b) }
