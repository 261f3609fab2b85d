package fedserver

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
)

// maxDepth is how deeply the JSON of a request may be nested.
const maxDepth = 200

// request is an HTTP request on its way through a handler.
type request struct {
	*http.Request
	id     string
	ip     netip.Addr
	route  *route
	tenant Tenant            // of open routes: whom the Host header names
	as     matrix.ServerName // the tenant that a signed request addresses
	origin matrix.ServerName // the server that signed it
	query  url.Values        // see values
	body   []byte
}

type requestKey struct{}

func withRequest(ctx context.Context, q *request) context.Context {
	return context.WithValue(ctx, requestKey{}, q)
}

// requestOf takes out what the front has put in.
func requestOf(ctx context.Context) *request { return ctx.Value(requestKey{}).(*request) }

// readBody reads the body within the route's limit and the memory that there is for bodies. done gives that memory back.
func (a *API) readBody(w http.ResponseWriter, q *request) (done func(), err error) {
	limit := q.route.limit
	if limit == 0 {
		limit = defaultBodyLimit
	}
	if enc := q.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, matrix.Errorf(http.StatusUnsupportedMediaType, matrix.CodeNotJSON, "Compressed request bodies are not accepted.")
	}
	tooLarge := matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "The body may have at most %d bytes.", limit)
	size := q.ContentLength
	if size > limit {
		w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	if size < 0 {
		size = limit
	}
	key := q.ip.String()
	if !a.bodies.take(key, size) {
		w.Header().Set("Connection", "close")
		return nil, ratelimit.TooMany(2 * time.Second)
	}
	done = func() { a.bodies.give(key, size) }
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, limit))
	var mb *http.MaxBytesError
	switch {
	case errors.As(err, &mb):
		done()
		return nil, tooLarge
	case err != nil:
		done()
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeNotJSON, "The body could not be read.")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // all is here; fails where setting it did
	q.body = body
	return done, nil
}

// decode reads the body as a JSON object. Keys match exactly, duplicates and bad UTF-8 are errors, unknown members are ignored.
func (q *request) decode(into any) error { return decode(q.body, into) }

func decode(body []byte, into any) error {
	v := jsontext.Value(body)
	if tooDeep(body) {
		return matrix.BadJSON("The JSON is nested more than %d deep.", maxDepth)
	}
	if err := json.Unmarshal(body, into); err != nil {
		var semantic *json.SemanticError
		if errors.As(err, &semantic) {
			return matrix.BadJSON("The value of %.100q has the wrong type.", string(semantic.JSONPointer))
		}
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return matrix.BadJSON("The JSON is ambiguous.")
		}
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeNotJSON, "The body is not JSON.")
	}
	if v.Kind() != '{' {
		return matrix.BadJSON("The body must be a JSON object.")
	}
	return nil
}

// tooDeep tells whether brackets are nested too deeply, without recursion.
func tooDeep(b []byte) bool {
	level, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{', c == '[':
			if level++; level > maxDepth {
				return true
			}
		case c == '}', c == ']':
			level--
		}
	}
	return false
}

// values are the parameters of the query string, parsed once.
func (q *request) values() url.Values {
	if q.query == nil {
		q.query = q.URL.Query()
	}
	return q.query
}

func (q *request) roomID() (matrix.RoomID, error) {
	id, err := matrix.ParseRoomID(q.PathValue("roomId"))
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not a room ID.", q.PathValue("roomId"))
	}
	return id, nil
}

func (q *request) eventID() (matrix.EventID, error) { return parseEventID(q.PathValue("eventId")) }

func parseEventID(s string) (matrix.EventID, error) {
	id, err := matrix.ParseEventID(s)
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not an event ID.", s)
	}
	return id, nil
}

// eventIDs checks a list of event IDs, of which there may be a bounded number.
func eventIDs(list []string, most int) ([]matrix.EventID, error) {
	if len(list) > most {
		return nil, matrix.InvalidParam("At most %d event IDs may be named.", most)
	}
	out := make([]matrix.EventID, len(list))
	for i, s := range list {
		id, err := parseEventID(s)
		if err != nil {
			return nil, err
		}
		out[i] = id
	}
	return out, nil
}

func (q *request) userID() (matrix.UserID, error) {
	id, err := matrix.ParseUserID(q.PathValue("userId"))
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not a user ID.", q.PathValue("userId"))
	}
	return id, nil
}

// roomAndEvent reads both from the path.
func (q *request) roomAndEvent() (matrix.RoomID, matrix.EventID, error) {
	room, err := q.roomID()
	if err != nil {
		return "", "", err
	}
	id, err := q.eventID()
	return room, id, err
}

// number reads an integer of the query string that must be there unless it has a default.
func (q *request) number(name string, def int64) (int64, error) {
	v := strings.TrimSpace(q.values().Get(name))
	if v == "" && def >= 0 {
		return def, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return 0, matrix.InvalidParam("%s must be a number that is not negative.", name)
	}
	return n, nil
}
