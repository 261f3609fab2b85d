package reply_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/reply"
	"hansa/matrix"
	"hansa/storage"
)

func TestError(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		err        *matrix.Error
		body, wait string
	}{
		"plain":   {matrix.Forbidden("No."), `{"errcode":"M_FORBIDDEN","error":"No."}`, ""},
		"later":   {matrix.Errorf(429, matrix.CodeLimitExceeded, "Later.").With("retry_after_ms", 1001), `{"errcode":"M_LIMIT_EXCEEDED","error":"Later.","retry_after_ms":1001}`, "2"},
		"a stage": {(&matrix.Error{Status: 401}).With("session", "s"), `{"session":"s"}`, ""},
	} {
		w := httptest.NewRecorder()
		if err := reply.Error(w, c.err); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if w.Code != c.err.Status || w.Body.String() != c.body || w.Header().Get("Retry-After") != c.wait ||
			w.Header().Get("Content-Length") != fmt.Sprint(len(c.body)) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", what, w.Code, w.Header(), w.Body)
		}
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	log := logrus.New()
	log.SetOutput(io.Discard)
	gone, leave := context.WithCancel(context.Background())
	leave()
	for what, c := range map[string]struct {
		ctx    context.Context
		err    error
		status int
		body   string
	}{
		"an answer":    {gone, fmt.Errorf("somewhere: %w", matrix.Forbidden("No.")), 403, "No."},
		"the database": {t.Context(), fmt.Errorf("%w: secret", storage.ErrUnavailable), 503, "database"},
		"a fault":      {t.Context(), errors.New("secret of the house"), 500, "abc"},
		"gone away":    {gone, errors.New("secret of the house"), 200, ""},
	} {
		w := httptest.NewRecorder()
		reply.Refuse(c.ctx, w, logrus.NewEntry(log), "abc", c.err)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) || strings.Contains(w.Body.String(), "secret") || c.body == "" && w.Body.Len() > 0 {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
}

// What cannot be encoded leaves the answer free for the error.
func TestJSON_WritesNothingOnError(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	if err := reply.JSON(w, 200, map[string]any{"f": func() {}}); err == nil || w.Body.Len() > 0 {
		t.Errorf("%v, %d bytes", err, w.Body.Len())
	}
}
