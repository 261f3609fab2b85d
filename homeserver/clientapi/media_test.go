package clientapi_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa/config"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

const (
	uploadPath   = "/_matrix/media/v3/upload"
	downloadPath = "/_matrix/client/v1/media/download/"
	thumbPath    = "/_matrix/client/v1/media/thumbnail/"
	legacyPath   = "/_matrix/media/v3/download/"
)

// eachServer runs a test against a whole server on both databases.
func eachServer(t *testing.T, files map[string]string, fn func(t *testing.T, s *hstest.Server)) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, hstest.New(t, hstest.Options{Database: name, Policy: files, Change: func(c *config.Config) { c.Media.MaxUpload = 1 << 20 }}))
		})
	}
}

// fetched is an answer that is not JSON.
type fetched struct {
	*http.Response
	body []byte
}

func (f fetched) errcode() string {
	var e struct{ Errcode string }
	_ = json.Unmarshal(f.body, &e) // content is no JSON
	return e.Errcode
}

// send makes a request with headers of its own.
func send(t *testing.T, u *hstest.User, method, path string, body io.Reader, header ...string) fetched {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, u.S.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if u.Token != "" {
		r.Header.Set("Authorization", "Bearer "+u.Token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[http.CanonicalHeaderKey(header[i])] = []string{header[i+1]}
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return fetched{resp, b}
}

// uploads uploads and returns server and media ID as a path.
func uploads(t *testing.T, u *hstest.User, typ string, body []byte, query string) string {
	t.Helper()
	a := send(t, u, "POST", uploadPath+query, bytes.NewReader(body), "Content-Type", typ)
	var answer struct {
		URI string `json:"content_uri"`
	}
	if err := json.Unmarshal(a.body, &answer); err != nil || a.StatusCode != 200 {
		t.Fatalf("upload: %d %s %v", a.StatusCode, a.body, err)
	}
	return strings.TrimPrefix(answer.URI, "mxc://")
}

func picture(t *testing.T, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func expect(t *testing.T, what string, a fetched, status int, errcode string) {
	t.Helper()
	if a.StatusCode != status || a.errcode() != errcode {
		t.Errorf("%s: %d %.200s, want %d %s", what, a.StatusCode, a.body, status, errcode)
	}
}

func TestM201_ContentIsServedHarmless(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, s *hstest.Server) {
		anna := s.User("anna")
		for typ, want := range map[string][2]string{ // what is uploaded: the type and the disposition that are served
			"text/html":                     {"text/html", "attachment"},
			"image/svg+xml":                 {"image/svg+xml", "attachment"},
			"application/pdf":               {"application/pdf", "attachment"},
			"application/xhtml+xml":         {"application/xhtml+xml", "attachment"},
			"image/gif":                     {"image/gif", "inline"},
			"image/png;x=\tSet-Cookie: a=b": {"application/octet-stream", "attachment"},
			"":                              {"application/octet-stream", "attachment"},
		} {
			body := []byte("GIF89a/*<script>alert(1)</script>*/")
			at := uploads(t, anna, typ, body, "?filename="+url.QueryEscape("e\"vil\r\nX: y.html"))
			a := send(t, anna, "GET", downloadPath+at, nil)
			if a.StatusCode != 200 || !bytes.Equal(a.body, body) {
				t.Fatalf("%q: %d %s", typ, a.StatusCode, a.body)
			}
			for name, value := range map[string]string{
				"Content-Type":                 want[0],
				"Content-Disposition":          want[1] + `; filename="e_vilX: y.html"; filename*=UTF-8''e%22vilX%3A%20y.html`,
				"Content-Security-Policy":      "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
				"X-Content-Type-Options":       "nosniff",
				"Cross-Origin-Resource-Policy": "cross-origin",
				"Cache-Control":                "private, max-age=86400, immutable",
				"Access-Control-Allow-Origin":  "*",
				"X":                            "",
				"Set-Cookie":                   "",
			} {
				if got := a.Header.Get(name); got != value {
					t.Errorf("%q: %s is %q, want %q", typ, name, got, value)
				}
			}
			named := send(t, anna, "GET", downloadPath+at+"/"+url.PathEscape("m\u00fcll/er.txt"), nil)
			if got, want := named.Header.Get("Content-Disposition"), want[1]+`; filename="m_ll_er.txt"; filename*=UTF-8''m%C3%BCll_er.txt`; got != want {
				t.Errorf("another name: %q, want %q", got, want)
			}
		}
		at := uploads(t, anna, "image/png", picture(t, 300, 200), "")
		a := send(t, anna, "GET", thumbPath+at+"?width=32&height=32&method=crop&animated=true", nil)
		if a.StatusCode != 200 || a.Header.Get("Content-Type") != "image/png" || a.Header.Get("Content-Disposition") != `inline; filename="thumbnail.png"` || a.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("a thumbnail: %d %v", a.StatusCode, a.Header)
		}
		if a = send(t, anna, "GET", downloadPath+at, nil); a.Header.Get("Content-Disposition") != "inline" {
			t.Errorf("content without a name: %v", a.Header)
		}
		if a = send(t, anna, "HEAD", downloadPath+at, nil); a.StatusCode != 200 || len(a.body) != 0 || a.ContentLength != int64(len(picture(t, 300, 200))) {
			t.Errorf("HEAD: %d, %d bytes", a.StatusCode, a.ContentLength)
		}
		if a = send(t, anna, "GET", downloadPath+at, nil, "If-None-Match", a.Header.Get("Etag")); a.StatusCode != 304 {
			t.Errorf("what is known already: %d", a.StatusCode)
		}
	})
}

func TestM209_UploadsOverHTTP(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, s *hstest.Server) {
		anna := s.User("anna")
		limit := int(s.Config.Media.MaxUpload)
		if a := anna.Must("GET", "/_matrix/client/v1/media/config", nil); a.Get("m.upload.size") != float64(limit) {
			t.Errorf("config: %s", a.Raw)
		}
		body := bytes.Repeat([]byte("x"), limit)
		at := uploads(t, anna, "", body, "")
		if a := send(t, anna, "GET", downloadPath+at, nil); !bytes.Equal(a.body, body) {
			t.Errorf("the largest upload came back with %d bytes", len(a.body))
		}
		expect(t, "announced as too large", send(t, anna, "POST", uploadPath, bytes.NewReader(append(body, 'x'))), 413, "M_TOO_LARGE")
		chunked := io.MultiReader(bytes.NewReader(body), strings.NewReader("x"))
		expect(t, "too large without a length", send(t, anna, "POST", uploadPath, chunked), 413, "M_TOO_LARGE")
		expect(t, "compressed", send(t, anna, "POST", uploadPath, strings.NewReader("x"), "Content-Encoding", "gzip"), 415, "M_UNKNOWN")
		// The server answers before it gets the body, if the client lets it.
		early := exchange(t, s, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", uploadPath, anna.Token, limit+1))
		if early.StatusCode != 413 {
			t.Errorf("before the body: %d", early.StatusCode)
		}
		// What comes behind the announced length is no part of the content.
		long := exchange(t, s, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello, world", uploadPath, anna.Token))
		if long.StatusCode != 200 {
			t.Errorf("a false length: %d", long.StatusCode)
		}
		a := send(t, &hstest.User{S: s}, "POST", uploadPath, strings.NewReader("x"))
		expect(t, "without a token", a, 401, "M_MISSING_TOKEN")
		r0 := send(t, anna, "POST", "/_matrix/media/r0/upload?filename=a.txt", strings.NewReader("hi"), "Content-Type", "text/plain")
		if r0.StatusCode != 200 {
			t.Errorf("the path of old: %d %s", r0.StatusCode, r0.body)
		}
	})
}

// exchange sends bytes and reads one answer.
func exchange(t *testing.T, s *hstest.Server, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the test is done with it
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestM211_AsyncUploadOverHTTP(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, s *hstest.Server) {
		anna, bob := s.User("anna"), s.User("bob")
		created := anna.Must("POST", "/_matrix/media/v1/create", map[string]any{})
		at := strings.TrimPrefix(created.String("content_uri"), "mxc://")
		if created.Get("unused_expires_at") == nil {
			t.Errorf("created: %s", created.Raw)
		}
		expect(t, "before", send(t, bob, "GET", downloadPath+at+"?timeout_ms=0", nil), 504, "M_NOT_YET_UPLOADED")
		put := func(u *hstest.User, body string) fetched {
			return send(t, u, "PUT", uploadPath+"/"+at, strings.NewReader(body), "Content-Type", "text/plain")
		}
		expect(t, "somebody else", put(bob, "x"), 403, "M_FORBIDDEN")
		waiting := make(chan fetched, 1)
		go func() { waiting <- send(t, bob, "GET", downloadPath+at+"?timeout_ms=20000", nil) }()
		if a := put(anna, "now"); a.StatusCode != 200 || string(a.body) != "{}" {
			t.Errorf("put: %d %s", a.StatusCode, a.body)
		}
		if a := <-waiting; string(a.body) != "now" {
			t.Errorf("whoever waited got %d %s", a.StatusCode, a.body)
		}
		expect(t, "again", put(anna, "x"), 409, "M_CANNOT_OVERWRITE_MEDIA")
		s.Restart()
		if a := send(t, bob, "GET", downloadPath+at, nil); string(a.body) != "now" {
			t.Errorf("after a restart: %d %s", a.StatusCode, a.body)
		}
	})
}

func TestM219_Ranges(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, s *hstest.Server) {
		anna := s.User("anna")
		at := uploads(t, anna, "video/mp4", []byte("0123456789"), "")
		for header, want := range map[string]string{ // what is sent; empty: 416
			"bytes=0-3": "0123", "bytes=7-": "789", "bytes=-2": "89", "bytes=5-999": "56789", "bytes=-999": "0123456789", "BYTES=0-0": "0",
			"lines=1-2": "0123456789", "bytes 0-3": "0123456789",
			"bytes=10-": "", "bytes=5-4": "", "bytes=-0": "", "bytes=--1": "", "bytes=-5-6": "", "bytes=+1-2": "", "bytes=": "", "bytes=-": "",
			"bytes=0-,0-": "", "bytes=" + strings.Repeat("0-,", 1000) + "0-": "", "bytes=99999999999999999999-": "", "bytes=a-b": "",
		} {
			a := send(t, anna, "GET", downloadPath+at, nil, "Range", header)
			if want == "" {
				expect(t, header, a, 416, "M_INVALID_PARAM")
				if a.Header.Get("Content-Range") != "bytes */10" || a.Header.Get("Content-Disposition") != "" {
					t.Errorf("%.30s: %v", header, a.Header)
				}
			} else if string(a.body) != want || (a.StatusCode == 206) != strings.HasPrefix(strings.ToLower(header), "bytes=") && a.StatusCode != 200 {
				t.Errorf("%s: %d %s, want %s", header, a.StatusCode, a.body, want)
			}
		}
		whole := send(t, anna, "GET", downloadPath+at, nil, "Range", "bytes=0-3", "If-Range", `"other"`)
		if whole.StatusCode != 200 || string(whole.body) != "0123456789" {
			t.Errorf("a range of something else: %d %s", whole.StatusCode, whole.body)
		}
	})
}

func TestM207_ThumbnailParameters(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, s *hstest.Server) {
		anna := s.User("anna")
		at := uploads(t, anna, "image/png", picture(t, 1000, 1000), "")
		for query, want := range map[string]string{
			"":                                     "M_MISSING_PARAM",
			"width=32":                             "M_MISSING_PARAM",
			"width=0&height=32":                    "M_INVALID_PARAM",
			"width=-1&height=32":                   "M_INVALID_PARAM",
			"width=1e3&height=32":                  "M_INVALID_PARAM",
			"width=32&height=99999999999999999999": "M_INVALID_PARAM",
			"width=32&height=32&method=x":          "M_INVALID_PARAM",
			"width=32&height=32&timeout_ms=x":      "M_INVALID_PARAM",
		} {
			expect(t, query, send(t, anna, "GET", thumbPath+at+"?"+query, nil), 400, want)
		}
		for _, size := range []string{"width=32&height=32&method=crop", "width=500&height=500&method=scale&animated=false", "width=1000000000&height=1000000000"} {
			a := send(t, anna, "GET", thumbPath+at+"?"+size, nil)
			if c, _, err := image.DecodeConfig(bytes.NewReader(a.body)); err != nil || c.Width > 1000 || c.Height > 1000 {
				t.Errorf("%s: %d, %+v, %v", size, a.StatusCode, c, err)
			}
		}
		text := uploads(t, anna, "image/png", []byte("no picture"), "")
		expect(t, "no picture", send(t, anna, "GET", thumbPath+text+"?width=32&height=32", nil), 400, "M_UNKNOWN")
	})
}

func TestMedia_OldPathsNeedATokenToo(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, s *hstest.Server) {
		anna, nobody := s.User("anna"), &hstest.User{S: s}
		at := uploads(t, anna, "image/png", picture(t, 100, 100), "")
		absent := strings.Split(at, "/")[0] + "/absent"
		for _, prefix := range []string{"/_matrix/media/v3/", "/_matrix/media/r0/"} {
			for _, tail := range []string{"download/%s", "download/%s/name.png", "thumbnail/%s?width=32&height=32"} {
				path := prefix + tail
				there, gone := send(t, nobody, "GET", fmt.Sprintf(path, at), nil), send(t, nobody, "GET", fmt.Sprintf(path, absent), nil)
				expect(t, path, there, 404, "M_NOT_FOUND")
				if !bytes.Equal(there.body, gone.body) {
					t.Errorf("%s: %s and %s tell apart what is there", path, there.body, gone.body)
				}
				if a := send(t, anna, "GET", fmt.Sprintf(path, at), nil); a.StatusCode != 200 {
					t.Errorf("%s with a token: %d %s", path, a.StatusCode, a.body)
				}
			}
			expect(t, prefix+"config", send(t, nobody, "GET", prefix+"config", nil), 401, "M_MISSING_TOKEN")
			if a := anna.Must("GET", prefix+"config", nil); a.Get("m.upload.size") == nil {
				t.Errorf("%sconfig: %s", prefix, a.Raw)
			}
		}
		for _, path := range []string{downloadPath + at, thumbPath + at + "?width=1&height=1", "/_matrix/client/v1/media/config"} {
			expect(t, path, send(t, nobody, "GET", path, nil), 401, "M_MISSING_TOKEN")
		}
		bad := &hstest.User{S: s, Token: "wrong"}
		expect(t, "a wrong token", send(t, bad, "GET", legacyPath+at, nil), 401, "M_UNKNOWN_TOKEN")
	})
}

func TestP310_MediaFollowsPolicy(t *testing.T) {
	files := map[string]string{
		"acme.example/pools.yaml":      "vault: {groups: [vault], contact: closed}\nlab: {groups: [lab], contact: open}\n",
		"acme.example/partners.yaml":   "partners: {globex.example: {pools: [{ours: lab, theirs: \"*\"}], features: [messages, media]}}\n",
		"globex.example/partners.yaml": "partners: {acme.example: {pools: [{ours: \"*\", theirs: lab}], features: \"*\"}}\n",
	}
	eachServer(t, files, func(t *testing.T, s *hstest.Server) {
		people := map[string]*hstest.User{"anna": s.User("anna"), "vera": s.User("vera", "vault"), "vito": s.User("vito", "vault"),
			"lars": s.User("lars", "lab"), "gus": s.User("@gus:globex.example")}
		may := map[string][]string{ // who may have what somebody uploaded
			"anna": {"anna", "lars"},
			"vera": {"vera", "vito"},
			"vito": {"vera", "vito"},
			"lars": {"anna", "gus", "lars"},
			"gus":  {"gus", "lars"},
		}
		body := picture(t, 64, 64)
		check := func(may map[string][]string) {
			t.Helper()
			for owner, u := range people {
				at := uploads(t, u, "image/png", body, "?filename=canary.png")
				for name, reader := range people {
					for _, path := range []string{downloadPath + at, downloadPath + at + "/x.png", legacyPath + at, thumbPath + at + "?width=32&height=32"} {
						a := send(t, reader, "GET", path, nil)
						if slices.Contains(may[owner], name) {
							if a.StatusCode != 200 {
								t.Errorf("%s may have what %s uploaded, got %d %s", name, owner, a.StatusCode, a.body)
							}
							continue
						}
						gone := send(t, reader, "GET", strings.Replace(path, at, strings.Split(at, "/")[0]+"/"+strings.Repeat("a", 32), 1), nil)
						expect(t, name+" of "+owner, a, 404, "M_NOT_FOUND")
						if sameBut(string(a.body)) != sameBut(string(gone.body)) || !slices.Equal(headers(a), headers(gone)) {
							t.Errorf("%s of %s: refused is %s %v, absent %s %v", name, owner, a.body, headers(a), gone.body, headers(gone))
						}
					}
				}
			}
		}
		check(may)
		expect(t, "a remote server", send(t, people["anna"], "GET", downloadPath+"remote.example/abc", nil), 404, "M_NOT_FOUND")
		// The agreement no longer covers media.
		s.WritePolicy("acme.example/partners.yaml", "partners: {globex.example: {pools: [{ours: lab, theirs: \"*\"}], features: [messages]}}\n")
		s.ReloadPolicy()
		less := maps.Clone(may)
		less["lars"], less["gus"] = []string{"anna", "lars"}, []string{"gus"}
		check(less)
	})
}

// headers are the names of the headers of an answer and the values of those that do not change by themselves.
func headers(f fetched) []string {
	var out []string
	for name, values := range f.Header {
		if name == "X-Request-Id" || name == "Date" || name == "Content-Length" { // the length is that of the body
			values = nil
		}
		out = append(out, name+": "+strings.Join(values, ","))
	}
	slices.Sort(out)
	return out
}

func TestMedia_UploadFollowsPolicy(t *testing.T) {
	files := map[string]string{"acme.example/content.yaml": "content: {mimetypes: {deny: [\"application/x-msdownload\"]}, max_upload_bytes: 1000}\n"}
	eachServer(t, files, func(t *testing.T, s *hstest.Server) {
		anna, gus := s.User("anna"), s.User("@gus:globex.example")
		up := func(u *hstest.User, typ string, n int) fetched {
			return send(t, u, "POST", uploadPath, bytes.NewReader(make([]byte, n)), "Content-Type", typ)
		}
		expect(t, "a type that is refused", up(anna, "application/x-msdownload", 10), 403, "M_FORBIDDEN")
		expect(t, "more than the tenant allows", up(anna, "text/plain", 1001), 413, "M_TOO_LARGE")
		if a := up(anna, "text/plain", 1000); a.StatusCode != 200 {
			t.Errorf("as much as the tenant allows: %d %s", a.StatusCode, a.body)
		}
		if a := up(gus, "application/x-msdownload", 2000); a.StatusCode != 200 {
			t.Errorf("another tenant: %d %s", a.StatusCode, a.body)
		}
		created := anna.Must("POST", "/_matrix/media/v1/create", map[string]any{})
		a := send(t, anna, "PUT", uploadPath+"/"+strings.TrimPrefix(created.String("content_uri"), "mxc://"), strings.NewReader("MZ"), "Content-Type", "application/x-msdownload")
		expect(t, "the same in two steps", a, 403, "M_FORBIDDEN")
	})
}
