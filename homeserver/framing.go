package homeserver

import (
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
)

// bodyTime is how long another server may take to send the body of a request, be it drop by drop. What the request leads to has its own limits.
const bodyTime = 20 * time.Second

// framed gives other servers some time to send the body of a request, and refuses requests that do not state its length, and closes the
// connection. Of a request with both a
// length and chunks the HTTP library keeps only the chunks, so that nobody behind it can tell; a proxy may have believed the length, and taken
// the rest of the body for the next request of somebody else. Servers state the length: what they send is signed as a whole.
func framed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) == 0 {
			if r.ContentLength != 0 {
				r.Body = hurry(w, r.Body)
			}
			next.ServeHTTP(w, r)
			return
		}
		e := matrix.Errorf(http.StatusBadRequest, matrix.CodeUnknown, "Requests between servers must state their length (Content-Length, no Transfer-Encoding).")
		body, err := json.Marshal(map[string]string{"errcode": e.Code, "error": e.Message})
		if err != nil {
			body = []byte("{}") // two strings can always be written
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "close")
		w.WriteHeader(e.Status)
		_, _ = w.Write(body) // if the server went away there is nobody to tell
	})
}

// hurried is a body that has to be there in time.
type hurried struct {
	io.ReadCloser
	control *http.ResponseController
}

func hurry(w http.ResponseWriter, body io.ReadCloser) io.ReadCloser {
	h := hurried{body, http.NewResponseController(w)}
	_ = h.control.SetReadDeadline(time.Now().Add(bodyTime)) // a connection that cannot do that has the limits of the listener
	return h
}

// Read implements io.Reader. When all is there, the connection gets the time back that the listener gives it.
func (h hurried) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if err == io.EOF {
		_ = h.control.SetReadDeadline(time.Now().Add(requestTime)) // as above
	}
	return n, err
}
