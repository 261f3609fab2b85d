package clientapi

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// maxDepth is how deeply the JSON of a request may be nested.
const maxDepth = 100

// readBody reads the body within the route's limit. Bodies are never decompressed, and forms are refused before they are read.
func (q *request) readBody(w http.ResponseWriter) error {
	limit := q.route.limit
	if limit == 0 {
		limit = defaultBodyLimit
	}
	if ct := q.Header.Get("Content-Type"); strings.HasPrefix(strings.ToLower(strings.TrimSpace(ct)), "multipart/") {
		return matrix.Errorf(http.StatusUnsupportedMediaType, matrix.CodeNotJSON, "This endpoint takes application/json.")
	}
	if enc := q.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return matrix.Errorf(http.StatusUnsupportedMediaType, matrix.CodeNotJSON, "Compressed request bodies are not accepted.")
	}
	tooLarge := matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "The body may have at most %d bytes.", limit)
	if q.ContentLength > limit {
		w.Header().Set("Connection", "close")
		return tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, limit))
	var mb *http.MaxBytesError
	switch {
	case errors.As(err, &mb):
		return tooLarge
	case err != nil:
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeNotJSON, "The body could not be read.")
	}
	q.body = body
	return nil
}

// decode reads the body as a JSON object. Keys match exactly, duplicates and bad UTF-8 are errors, unknown members are ignored.
func (q *request) decode(into any) error { return decode(q.body, into) }

// decodeOptional is decode for endpoints whose body may be empty.
func (q *request) decodeOptional(into any) error {
	if len(strings.TrimSpace(string(q.body))) == 0 {
		return nil
	}
	return decode(q.body, into)
}

// object returns the body as a checked JSON object, byte for byte.
func (q *request) object() (jsontext.Value, error) {
	var v jsontext.Value
	if err := decode(q.body, &v); err != nil {
		return nil, err
	}
	return v, nil
}

func decode(body []byte, into any) error {
	kind, depth := scan(body)
	switch {
	case kind == 0:
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeNotJSON, "The body must be a JSON object.")
	case depth > maxDepth:
		return matrix.BadJSON("The JSON is nested more than %d deep.", maxDepth)
	}
	if err := json.Unmarshal(body, into); err != nil {
		var syntax *jsontext.SyntacticError
		var semantic *json.SemanticError
		switch {
		case errors.As(err, &semantic):
			where := string(semantic.JSONPointer)
			if where == "" {
				where = "the body"
			}
			return matrix.BadJSON("The value of %s has the wrong type.", where)
		case errors.As(err, &syntax) && (errors.Is(err, jsontext.ErrDuplicateName) || strings.Contains(err.Error(), "UTF-8") || strings.Contains(err.Error(), "surrogate")):
			return matrix.BadJSON("The JSON is ambiguous: %v.", err)
		}
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeNotJSON, "The body is not JSON: %v.", err)
	}
	if kind != '{' {
		return matrix.BadJSON("The body must be a JSON object.")
	}
	return nil
}

// scan finds the first byte of the value and how deep brackets are nested, without recursion.
func scan(b []byte) (kind byte, depth int) {
	level, inString := 0, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		if inString {
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
			continue
		}
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		case '"':
			inString = true
		case '{', '[':
			level++
			depth = max(depth, level)
		case '}', ']':
			level--
		}
		if kind == 0 {
			kind = c
		}
	}
	return kind, depth
}

// param is a decoded path parameter.
func (q *request) param(name string) string { return q.params[name] }

func (q *request) roomID() (matrix.RoomID, error) {
	id, err := matrix.ParseRoomID(q.param("roomId"))
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not a room ID.", q.param("roomId"))
	}
	return id, nil
}

func (q *request) eventID() (matrix.EventID, error) {
	id, err := matrix.ParseEventID(q.param("eventId"))
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not an event ID.", q.param("eventId"))
	}
	return id, nil
}

func (q *request) userID() (matrix.UserID, error) {
	id, err := matrix.ParseUserID(q.param("userId"))
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not a user ID.", q.param("userId"))
	}
	return id, nil
}

// self checks that the path's userId is the caller.
func (q *request) self() (matrix.UserID, error) {
	id, err := q.userID()
	if err != nil {
		return "", err
	}
	if id != q.session.UserID {
		return "", matrix.Forbidden("You may do this only for yourself.")
	}
	return id, nil
}

// intQuery reads an integer of the query string, clamped to [low, high].
func (q *request) intQuery(name string, def, low, high int) (int, error) {
	v := q.values().Get(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, matrix.InvalidParam("%s must be a number that is not negative.", name)
	}
	return min(max(n, low), high), nil
}
