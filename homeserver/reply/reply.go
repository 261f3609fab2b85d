// Package reply writes what the HTTP APIs answer: JSON, and errors in the form that the Matrix specification gives them. It knows
// nothing of what is asked and answered.
//
// An answer that cannot be written has no reader any more, so writing it is no error. JSON that cannot be made is one: the caller
// then answers with that error instead, as nothing has been written.
package reply

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/storage"
)

// writeTimeout is how long a reader may take for an answer.
const writeTimeout = 2 * time.Minute

// RequestID names a request in the log and in X-Request-Id.
func RequestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// JSON writes v as JSON.
func JSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return Raw(w, status, b)
}

// Raw writes what is JSON already. The error is always nil, so that a handler can end with it.
func Raw(w http.ResponseWriter, status int, b []byte) error {
	conn := Begin(w, status, len(b))
	defer End(conn)
	_, _ = w.Write(b)
	return nil
}

// Begin writes the head of an answer of size bytes, which the caller writes next, and End after them. The reader has 2 minutes.
func Begin(w http.ResponseWriter, status, size int) *http.ResponseController {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(size))
	conn := http.NewResponseController(w)
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // some connections have no deadlines
	w.WriteHeader(status)
	return conn
}

// End ends an answer: the next request on the connection starts afresh.
func End(conn *http.ResponseController) { _ = conn.SetWriteDeadline(time.Time{}) }

// Refuse answers a request with an error: what a matrix.Error says, else that the database or the server has a fault, which is logged.
// Nobody is answered who has gone away.
func Refuse(ctx context.Context, w http.ResponseWriter, log *logrus.Entry, requestID string, err error) {
	log = log.WithFields(logrus.Fields{"request_id": requestID, "err": err})
	var e *matrix.Error
	switch {
	case errors.As(err, &e):
		log.Debug("request refused")
	case errors.Is(err, storage.ErrUnavailable):
		log.Warn("database not available")
		e = storage.Unavailable(err)
	case ctx.Err() != nil:
		return
	default:
		log.Error("request failed")
		e = matrix.Errorf(http.StatusInternalServerError, matrix.CodeUnknown, "Something went wrong in the server. The request's ID is %s.", requestID)
	}
	if werr := Error(w, e); werr != nil {
		log.WithField("write_err", werr).Error("the error cannot be encoded")
	}
}

// Error writes an error, with Retry-After where it says when to try again.
//
// spec: client-server-api#standard-error-response
func Error(w http.ResponseWriter, e *matrix.Error) error {
	body := make(map[string]any, len(e.Extra)+2)
	for k, v := range e.Extra {
		body[k] = v
	}
	if e.Code != "" { // the first answer of user-interactive authentication is no error
		body["errcode"], body["error"] = e.Code, e.Message
	}
	if ms, ok := e.Extra["retry_after_ms"]; ok {
		if n, err := strconv.ParseInt(fmt.Sprint(ms), 10, 64); err == nil {
			w.Header().Set("Retry-After", strconv.FormatInt((n+999)/1000, 10))
		}
	}
	return JSON(w, e.Status, body)
}
