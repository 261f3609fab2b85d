package homeserver

import (
	"net/http"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
)

// framed refuses requests of other servers that do not state the length of their body, and closes the connection. Of a request with both a
// length and chunks the HTTP library keeps only the chunks, so that nobody behind it can tell; a proxy may have believed the length, and taken
// the rest of the body for the next request of somebody else. Servers state the length: what they send is signed as a whole.
func framed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) == 0 {
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
