package fedserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"hansa/homeserver/media"
	"hansa/matrix"
	"hansa/policy"
)

// Media hands out what our users uploaded. It is declared here so that the routes can be tested by themselves.
type Media interface {
	Serve(ctx context.Context, as, origin matrix.ServerName, id string) (*media.File, error)
	ServeThumbnail(ctx context.Context, as, origin matrix.ServerName, id string, size media.Size) (*media.File, error)
}

func (a *API) mediaRoutes() []route {
	if a.Media == nil {
		return nil
	}
	const v1 = "/_matrix/federation/v1/media/"
	return []route{
		{method: "GET", path: v1 + "download/{mediaId}", point: policy.MediaDownload, fn: a.download, free: true},
		{method: "GET", path: v1 + "thumbnail/{mediaId}", point: policy.MediaDownload, fn: a.thumbnail, free: true},
	}
}

// spec: server-server-api#get_matrixfederationv1mediadownloadmediaid
// spec: server-server-api#content-repository
func (a *API) download(w http.ResponseWriter, q *request) error {
	return a.serveMedia(w, q, func() (*media.File, error) {
		return a.Media.Serve(q.Context(), q.as, q.origin, q.PathValue("mediaId"))
	})
}

// spec: server-server-api#get_matrixfederationv1mediathumbnailmediaid
func (a *API) thumbnail(w http.ResponseWriter, q *request) error {
	size := media.Size{Method: q.values().Get("method")}
	for name, into := range map[string]*int{"width": &size.Width, "height": &size.Height} {
		n, err := strconv.Atoi(q.values().Get(name))
		if err != nil || n < 1 {
			return matrix.InvalidParam("%s must be a positive number.", name)
		}
		*into = n
	}
	return a.serveMedia(w, q, func() (*media.File, error) {
		return a.Media.ServeThumbnail(q.Context(), q.as, q.origin, q.PathValue("mediaId"), size)
	})
}

// serveMedia writes content as the second part of a message of two; the first is for facts about it, of which there are none yet. Finding it
// waits for the server's turn; writing it does not, because a slow line would keep others waiting.
func (a *API) serveMedia(w http.ResponseWriter, q *request, find func() (*media.File, error)) error {
	leave, err := a.gate.enter(q.Context(), q.origin)
	if err != nil {
		return err
	}
	f, err := find()
	leave()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	boundary := hex.EncodeToString(random[:])
	head := fmt.Sprintf("--%s\r\nContent-Type: application/json\r\n\r\n{}\r\n--%s\r\nContent-Type: %s\r\nContent-Disposition: %s\r\n\r\n",
		boundary, boundary, f.Type, media.Disposition(f.Type, f.Name))
	tail := "\r\n--" + boundary + "--\r\n"
	w.Header().Set("Content-Type", "multipart/mixed; boundary="+boundary)
	w.Header().Set("Content-Length", strconv.FormatInt(int64(len(head))+f.Size+int64(len(tail)), 10))
	w.WriteHeader(http.StatusOK)
	conn := http.NewResponseController(w)
	defer func() { _ = conn.SetWriteDeadline(time.Time{}) }() // the next request starts afresh
	to := &patient{w, conn}
	if _, err := io.WriteString(to, head); err != nil {
		return nil // the other server went away
	}
	if n, err := io.Copy(to, io.LimitReader(f, f.Size)); err != nil || n != f.Size {
		panic(http.ErrAbortHandler) // what was begun must not look complete
	}
	_, _ = io.WriteString(to, tail) // when the other server went away, there is nobody to tell
	return nil
}

// patient gives a server a minute to take each piece of content.
type patient struct {
	io.Writer
	conn *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.conn.SetWriteDeadline(time.Now().Add(time.Minute)) // some connections have no deadlines
	return p.Writer.Write(b)
}
