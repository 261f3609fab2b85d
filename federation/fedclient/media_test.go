package fedclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"hansa/outbound"
)

func multipartly(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
	}
}

func TestMedia(t *testing.T) {
	t.Parallel()
	const mixed = "multipart/mixed; boundary=b"
	head := "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n"
	for name, c := range map[string]struct {
		contentType, body string
		want              string // the file, or empty for an error
	}{
		"file":           {mixed, head + "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nhello\r\n--b--\r\n", "hello"},
		"no multipart":   {"text/plain", "hello", ""},
		"no boundary":    {"multipart/mixed", "hello", ""},
		"one part":       {mixed, "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b--\r\n", ""},
		"to the inside":  {mixed, head + "Location: https://127.0.0.1:1/x\r\n\r\n\r\n--b--\r\n", ""},
		"to a file":      {mixed, head + "Location: file:///etc/passwd\r\n\r\n\r\n--b--\r\n", ""},
		"no end":         {mixed, head + "Content-Type: text/plain\r\n\r\nhel", ""},
		"many headers":   {mixed, head + strings.Repeat("X: y\r\n", 100000) + "\r\nhello\r\n--b--\r\n", ""},
		"encoded":        {mixed, head + "Content-Transfer-Encoding: quoted-printable\r\n\r\na=3D\r\n--b--\r\n", "a=3D"},
		"long meta data": {mixed, "--b\r\n\r\n{\"x\":\"" + strings.Repeat("y", 1<<20) + "\"}\r\n--b\r\n\r\nhello\r\n--b--\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, multipartly(c.contentType, c.body))
			m, err := w.Media(context.Background(), acme, far, "abc", 1000)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(m.Body)
				_ = m.Body.Close()
			}
			if c.want == "" && err == nil || c.want != "" && (err != nil || string(got) != c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	w := newWorld(t, multipartly(mixed, head+"\r\n"+strings.Repeat("x", 1001)+"\r\n--b--\r\n"))
	m, err := w.Media(context.Background(), acme, far, "abc", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(m.Body); !errors.Is(err, outbound.ErrTooLarge) {
		t.Errorf("1001 bytes of 1000: %v, want ErrTooLarge", err)
	}
	_ = m.Body.Close()
}
