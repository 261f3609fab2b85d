package clientapi

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"hansa/homeserver/media"
	"hansa/matrix"
	"hansa/policy"
)

// mediaPolicy is the Content-Security-Policy of content that strangers made.
const mediaPolicy = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';"

// mediaRoutes are uploads, downloads and thumbnails. The old paths for downloads take the same token as the new ones; without
// one there is nothing to be had from them.
func (a *API) mediaRoutes() []route {
	const v1 = "/_matrix/client/v1/media"
	const v3 = "/_matrix/media/v3"
	const one = "/{serverName}/{mediaId}"
	return []route{
		{method: "POST", path: v3 + "/upload", access: user, point: policy.MediaUpload, fn: a.uploadMedia, raw: true},
		{method: "PUT", path: v3 + "/upload" + one, access: user, point: policy.MediaUpload, fn: a.fillMedia, raw: true},
		{method: "POST", path: "/_matrix/media/v1/create", access: user, none: "only makes a name; the content is judged when it comes", fn: a.createMedia},
		{method: "GET", path: v1 + "/config", access: user, none: "says how large uploads may be", fn: a.mediaConfig, aliases: []string{v3 + "/config"}},
		{method: "GET", path: v1 + "/download" + one, access: user, point: policy.MediaDownload, fn: a.downloadMedia},
		{method: "GET", path: v1 + "/download" + one + "/{fileName}", access: user, point: policy.MediaDownload, fn: a.downloadMedia},
		{method: "GET", path: v1 + "/thumbnail" + one, access: user, point: policy.MediaDownload, fn: a.thumbnailMedia},
		{method: "GET", path: v3 + "/download" + one, access: optional, point: policy.MediaDownload, fn: frozen(a.downloadMedia)},
		{method: "GET", path: v3 + "/download" + one + "/{fileName}", access: optional, point: policy.MediaDownload, fn: frozen(a.downloadMedia)},
		{method: "GET", path: v3 + "/thumbnail" + one, access: optional, point: policy.MediaDownload, fn: frozen(a.thumbnailMedia)},
	}
}

// frozen refuses requests without a token, as the specification asks of the old paths. All media here is newer than the freeze.
//
// spec: client-server-api#content-repo-client-behaviour
func frozen(fn handler) handler {
	return func(w http.ResponseWriter, r *request) error {
		if r.session == nil {
			return matrix.NotFound("Media is not handed out without an access token.")
		}
		return fn(w, r)
	}
}

func (q *request) mediaCaller() media.Caller {
	return media.Caller{UserID: q.session.UserID, Tenant: q.session.Tenant, Subject: q.subject(), Request: q.policyRequest()}
}

// upload is the content of the request.
func (q *request) upload(w http.ResponseWriter) (media.Upload, error) {
	if enc := q.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return media.Upload{}, matrix.Errorf(http.StatusUnsupportedMediaType, matrix.CodeUnknown, "Compressed request bodies are not accepted.")
	}
	conn := http.NewResponseController(w)
	return media.Upload{Type: q.Header.Get("Content-Type"), Name: q.URL.Query().Get("filename"), Length: q.ContentLength, Body: q.Body,
		Allow: func(d time.Duration) error {
			var end time.Time
			if d > 0 {
				end = time.Now().Add(d)
			}
			_ = conn.SetReadDeadline(end) // some connections have no deadlines; then the server's limits hold
			return nil
		}}, nil
}

// spec: client-server-api#post_matrixmediav3upload
func (a *API) uploadMedia(w http.ResponseWriter, r *request) error {
	up, err := r.upload(w)
	if err != nil {
		return err
	}
	uri, err := a.Media.Upload(r.Context(), r.mediaCaller(), up)
	if err != nil {
		w.Header().Set("Connection", "close") // the rest of the body is not wanted
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"content_uri": uri})
}

// spec: client-server-api#put_matrixmediav3uploadservernamemediaid
func (a *API) fillMedia(w http.ResponseWriter, r *request) error {
	up, err := r.upload(w)
	if err != nil {
		return err
	}
	if err := a.Media.Fill(r.Context(), r.mediaCaller(), r.param("serverName"), r.param("mediaId"), up); err != nil {
		w.Header().Set("Connection", "close") // the rest of the body is not wanted
		return err
	}
	return empty(w)
}

// spec: client-server-api#post_matrixmediav1create
func (a *API) createMedia(w http.ResponseWriter, r *request) error {
	created, err := a.Media.Create(r.Context(), r.mediaCaller())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, created)
}

// spec: client-server-api#get_matrixclientv1mediaconfig
func (a *API) mediaConfig(w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, map[string]int64{"m.upload.size": a.Media.MaxBytes()})
}

// mediaAddress is the media that the path names.
func (q *request) mediaAddress() (media.Address, error) {
	wait, err := q.intQuery("timeout_ms", 20_000, 0, 60_000)
	return media.Address{Server: q.param("serverName"), ID: q.param("mediaId"), Wait: time.Duration(wait) * time.Millisecond}, err
}

// spec: client-server-api#get_matrixclientv1mediadownloadservernamemediaid
// spec: client-server-api#get_matrixclientv1mediadownloadservernamemediaidfilename
func (a *API) downloadMedia(w http.ResponseWriter, r *request) error {
	at, err := r.mediaAddress()
	if err != nil {
		return err
	}
	f, err := a.Media.Open(r.Context(), r.mediaCaller(), at)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	if name, ok := r.params["fileName"]; ok {
		f.Name = name
	}
	return serveMedia(w, r, f)
}

// spec: client-server-api#get_matrixclientv1mediathumbnailservernamemediaid
func (a *API) thumbnailMedia(w http.ResponseWriter, r *request) error {
	at, err := r.mediaAddress()
	if err != nil {
		return err
	}
	size := media.Size{Method: r.URL.Query().Get("method")}
	for name, into := range map[string]*int{"width": &size.Width, "height": &size.Height} {
		v := r.URL.Query().Get(name)
		if v == "" {
			return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The query must hold width and height.")
		}
		if *into, err = strconv.Atoi(v); err != nil {
			return matrix.InvalidParam("%s must be a number.", name)
		}
	}
	f, err := a.Media.Thumbnail(r.Context(), r.mediaCaller(), at, size)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	return serveMedia(w, r, f)
}

// serveMedia writes content, or the one range of it that was asked for.
//
// spec: client-server-api#content-repository
func serveMedia(w http.ResponseWriter, r *request, f *media.File) error {
	h := w.Header()
	etag := `"` + hex.EncodeToString(f.SHA256) + `"`
	want, ok := oneRange(r.Header.Get("Range"), f.Size)
	if cond := r.Header.Get("If-Range"); cond != "" && cond != etag { // a part of something that is no more
		want, ok = "", true
	}
	if !ok {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", f.Size))
		return matrix.Errorf(http.StatusRequestedRangeNotSatisfiable, matrix.CodeInvalidParam, "Only one range of bytes within the content can be had.")
	}
	r.Header.Del("If-Range")
	if r.Header.Del("Range"); want != "" {
		r.Header.Set("Range", want)
	}
	h.Set("Content-Type", f.Type)
	h.Set("Content-Disposition", media.Disposition(f.Type, f.Name))
	h.Set("Content-Security-Policy", mediaPolicy)
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "private, max-age=86400, immutable")
	h.Set("Vary", "Authorization")
	h.Set("ETag", etag)
	conn := http.NewResponseController(w)
	defer func() { _ = conn.SetWriteDeadline(time.Time{}) }() // the next request starts afresh
	http.ServeContent(w, r.Request, "", time.Time{}, &patient{f, conn})
	return nil
}

// patient gives a client a minute to take each piece of content.
type patient struct {
	io.ReadSeeker
	conn *http.ResponseController
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.conn.SetWriteDeadline(time.Now().Add(time.Minute)) // some connections have no deadlines
	return p.ReadSeeker.Read(b)
}

// oneRange reads a Range header that asks for one range, which must overlap the content. It returns the header as ServeContent
// wants it, empty for the whole content, which units that nobody knows mean as well.
func oneRange(header string, size int64) (want string, ok bool) {
	unit, spec, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return "", true
	}
	from, to, found := strings.Cut(strings.TrimSpace(spec), "-")
	first, fromOK := digits(from)
	last, toOK := digits(to)
	switch {
	case !found || !fromOK && from != "" || !toOK && to != "":
		return "", false
	case from == "":
		ok = toOK && last > 0 && size > 0
	case to == "":
		ok = first < size
	default:
		ok = first < size && last >= first
	}
	return "bytes=" + from + "-" + to, ok
}

// digits reads a number of nothing but digits.
func digits(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && s[0] != '+'
}
