package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"hansa/matrix"
	"hansa/outbound"
	"hansa/policy"
	"hansa/storage"
)

const there = matrix.ServerName("there.example:8448")

// answer is an error with a status, as the client of federation has it.
type answer int

func (a answer) Error() string   { return fmt.Sprint("status ", int(a)) }
func (a answer) HTTPStatus() int { return int(a) }

// peer is another server with media.
type peer struct {
	mu    sync.Mutex
	files map[string][]byte // guarded by mu, like all below
	err   error
	body  io.Reader
	calls []string
	hold  chan struct{}
}

func (p *peer) fetch(_ context.Context, as, to matrix.ServerName, id string, maxBytes int64) (*RemoteFile, error) {
	p.mu.Lock()
	p.calls = append(p.calls, fmt.Sprintf("%s>%s/%s", as, to, id))
	err, body, file, ok, hold := p.err, p.body, p.files[id], p.files[id] != nil, p.hold
	p.mu.Unlock()
	if hold != nil {
		<-hold
	}
	switch {
	case err != nil:
		return nil, err
	case body == nil && !ok:
		return nil, answer(http.StatusNotFound)
	case body == nil:
		body = bytes.NewReader(file)
	}
	return &RemoteFile{Type: "image/png; x=y", Disposition: `attachment; filename="../ca\u202et.png"`, Body: io.NopCloser(body)}, nil
}

func (p *peer) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.calls
	p.calls = nil
	return out
}

func (k *kit) peer(files map[string][]byte) *peer {
	p := &peer{files: files}
	k.Fetch = p.fetch
	return p
}

func far1(id string) Address { return Address{Server: string(there), ID: id} }

func (k *kit) bytes(f *File, err error) []byte {
	k.t.Helper()
	must(k.t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(k.t, err)
	return b
}

func code(err error) string {
	var e *matrix.Error
	if errors.As(err, &e) {
		return fmt.Sprintf("%d %s", e.Status, e.Code)
	}
	return fmt.Sprint(err)
}

func TestOpen_OtherServer(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		p := k.peer(map[string][]byte{"cat": []byte("a cat"), "cat2": []byte("another")})
		for range 3 {
			f, err := k.Open(t.Context(), caller(anna), far1("cat"))
			must(t, err)
			if f.Type != "image/png; x=y" || strings.ContainsAny(f.Name, "/\u202e") || f.Size != 5 {
				t.Errorf("file %q %q %d", f.Type, f.Name, f.Size)
			}
			if got := k.bytes(f, nil); string(got) != "a cat" {
				t.Errorf("content %q", got)
			}
		}
		if got := p.asked(); len(got) != 1 || got[0] != "acme.example>there.example:8448/cat" {
			t.Errorf("asked %v", got)
		}
		for _, id := range []string{"absent", strings.Repeat("x", maxFarID+1), "../cat", ""} {
			if _, err := k.Open(t.Context(), caller(anna), far1(id)); code(err) != "404 M_NOT_FOUND" {
				t.Errorf("%q: %v", id, err)
			}
		}
		// A copy that is damaged is fetched again.
		p.asked()
		var file string
		must(t, filepath.WalkDir(filepath.Join(k.Path, remoteDir), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				file = path
			}
			return err
		}))
		must(t, os.WriteFile(file, []byte("short"[:3]), 0o600))
		if got := k.bytes(k.Open(t.Context(), caller(anna), far1("cat"))); string(got) != "a cat" {
			t.Errorf("content %q", got)
		}
		if got := p.asked(); len(got) != 1 {
			t.Errorf("asked %v", got)
		}
		// Neither the sweep nor another service on the same folder takes copies for strays.
		must(t, k.sweep(t.Context()))
		must(t, k.removeFiles(t.Context()))
		if got := k.bytes(k.Open(t.Context(), caller(anna), far1("cat"))); string(got) != "a cat" {
			t.Errorf("content %q", got)
		}
		must(t, k.forgetStrangers(t.Context()))
		k.bytes(k.Open(t.Context(), caller(anna), far1("cat")))
		if got := p.asked(); len(got) != 0 {
			t.Errorf("asked %v", got)
		}
		k.rules.set(func(in *policy.Input, d *policy.Decision) { d.Allow = in.Point != policy.FederationOutbound })
		must(t, k.forgetStrangers(t.Context()))
		k.rules.set(nil)
		must(t, k.removeFiles(t.Context()))
		if entries, _ := os.ReadDir(filepath.Dir(file)); len(entries) != 0 {
			t.Errorf("files are left: %v", entries)
		}
		k.bytes(k.Open(t.Context(), caller(anna), far1("cat")))
		if got := p.asked(); len(got) != 1 {
			t.Errorf("asked %v", got)
		}
	})
}

func TestThumbnail_OtherServer(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		k.peer(map[string][]byte{"pic": pngOf(t, image.NewRGBA(image.Rect(0, 0, 400, 300)))})
		size := Size{Width: 32, Height: 32, Method: "scale"}
		f, err := k.Thumbnail(t.Context(), caller(anna), far1("pic"), size)
		if got := k.bytes(f, err); len(got) == 0 || f.Type != "image/png" {
			t.Errorf("%d bytes of %s", len(got), f.Type)
		}
	})
}

// Media of a server with which the caller may have nothing to do is not there, whether a copy is here or not, and nothing is asked.
func TestR349_P310_MediaOfDeniedServer(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		p := k.peer(map[string][]byte{"cat": []byte("a cat"), "dog": []byte("a dog")})
		k.bytes(k.Open(t.Context(), caller(anna), far1("cat")))
		p.asked()
		k.rules.asked()
		k.rules.set(func(in *policy.Input, d *policy.Decision) { d.Allow = in.Server == nil })
		var first string
		for _, id := range []string{"cat", "dog", "absent"} {
			_, err := k.Open(t.Context(), caller(anna), far1(id))
			_, terr := k.Thumbnail(t.Context(), caller(anna), far1(id), Size{Width: 32, Height: 32})
			if first == "" {
				first = fmt.Sprint(err)
			}
			if code(err) != "404 M_NOT_FOUND" || fmt.Sprint(err) != first || fmt.Sprint(terr) != first {
				t.Errorf("%s: %v, %v", id, err, terr)
			}
		}
		if got := p.asked(); len(got) != 0 {
			t.Errorf("asked %v", got)
		}
		for _, in := range k.rules.asked() {
			if in.Point != policy.MediaDownload || in.Server.Name != string(there) || in.Media.Server != string(there) {
				t.Errorf("decided %+v", in)
			}
		}
		k.rules.set(func(in *policy.Input, d *policy.Decision) {
			d.Allow = in.Media == nil || in.Media.MimeType != "image/png"
		}) // known only afterwards
		if _, err := k.Open(t.Context(), caller(anna), far1("dog")); code(err) != "404 M_NOT_FOUND" {
			t.Error(err)
		}
		k.Fetch = func(context.Context, matrix.ServerName, matrix.ServerName, string, int64) (*RemoteFile, error) {
			return nil, matrix.Forbidden("the door")
		}
		k.rules.set(nil)
		if _, err := k.Open(t.Context(), caller(anna), far1("bird")); code(err) != "404 M_NOT_FOUND" {
			t.Error(err)
		}
	})
}

func TestM213_RemoteMediaDiskFill(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		files := map[string][]byte{}
		for i := range 40 {
			files[fmt.Sprintf("f%02d", i)] = bytes.Repeat([]byte{byte(i)}, 100<<10)
		}
		k.peer(files)
		k.MaxRemote = 1 << 20
		for i := range 40 {
			k.bytes(k.Open(t.Context(), caller(anna), far1(fmt.Sprintf("f%02d", i))))
			k.bytes(k.Open(t.Context(), caller(anna), far1("f00"))) // in use all the time
			k.pass(touchEvery + time.Minute)
		}
		must(t, k.removeFiles(t.Context()))
		var onDisk int64
		must(t, filepath.WalkDir(filepath.Join(k.Path, remoteDir), func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				info, _ := d.Info()
				onDisk += info.Size()
			}
			return err
		}))
		var sum int64
		must(t, k.DB.Read(t.Context(), func(tx *storage.Tx) (err error) { sum, err = tx.SumRemoteMedia(); return err }))
		if sum > k.MaxRemote || onDisk != sum {
			t.Errorf("%d bytes are kept, %d on disk", sum, onDisk)
		}
		// Small ones count, too.
		k.far = newFar(k.clock)
		n := 0
		var err error
		for ; n < 3000; n++ {
			if _, err = k.Open(t.Context(), caller(bob), far1(fmt.Sprintf("none%d", n))); code(err) != "404 M_NOT_FOUND" {
				break
			}
		}
		if n != bucketSize/bucketLeast || code(err) != "429 M_LIMIT_EXCEEDED" {
			t.Errorf("after %d: %v", n, err)
		}
		k.bytes(k.Open(t.Context(), caller(anna), far1("f01"))) // another user
		k.pass(time.Minute)
		if _, err = k.Open(t.Context(), caller(bob), far1("nonesuch")); code(err) != "404 M_NOT_FOUND" {
			t.Error(err)
		}
	})
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestM214_HostileRemoteMedia(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		p := k.peer(nil)
		for what, c := range map[string]struct {
			body io.Reader
			err  error
			want string
		}{
			"endless":     {body: endless{}, want: "502 M_TOO_LARGE"},
			"cut off":     {body: io.MultiReader(strings.NewReader("begin"), iotest.ErrReader(io.ErrUnexpectedEOF)), want: "502 M_UNKNOWN"},
			"too large":   {body: iotest.ErrReader(fmt.Errorf("x: %w", outbound.ErrTooLarge)), want: "502 M_TOO_LARGE"},
			"redirect":    {err: errors.New("169.254.169.254 is refused"), want: "502 M_UNKNOWN"},
			"forbidden":   {err: answer(403), want: "404 M_NOT_FOUND"},
			"later":       {err: answer(504), want: "504 M_NOT_YET_UPLOADED"},
			"broken":      {err: answer(500), want: "502 M_UNKNOWN"},
			"undecidable": {err: matrix.Errorf(503, matrix.CodeUnknown, "later"), want: "503 M_UNKNOWN"},
		} {
			p.body, p.err = c.body, c.err
			if _, err := k.Open(t.Context(), caller(anna), far1("x")); code(err) != c.want {
				t.Errorf("%s: %v, want %s", what, err, c.want)
			}
		}
		drafts, err := os.ReadDir(filepath.Join(k.Path, "tmp"))
		if err != nil || len(drafts) != 0 {
			t.Errorf("%d drafts are left, %v", len(drafts), err)
		}
		// A server that does not let go holds nothing but its own places.
		p.mu.Lock()
		p.body, p.err, p.hold = nil, nil, make(chan struct{})
		hold := p.hold
		p.mu.Unlock()
		var wg sync.WaitGroup
		for i := range maxFetches {
			wg.Go(func() { _, _ = k.Open(t.Context(), caller(anna), far1(fmt.Sprintf("h%d", i))) })
		}
		for busy := false; !busy; {
			k.far.mu.Lock()
			busy = k.far.running[there] == maxFetches
			k.far.mu.Unlock()
		}
		if _, err := k.Open(t.Context(), caller(bob), far1("more")); code(err) != "429 M_LIMIT_EXCEEDED" {
			t.Error(err)
		}
		p.mu.Lock()
		p.hold, p.files = nil, map[string][]byte{"ok": []byte("ok")}
		p.mu.Unlock()
		if got := k.bytes(k.Open(t.Context(), caller(bob), Address{Server: "other.example", ID: "ok"})); string(got) != "ok" {
			t.Errorf("content %q", got)
		}
		close(hold)
		wg.Wait()
	})
}

// Those who want the same wait for one download.
func TestOpen_OtherServerOnce(t *testing.T) {
	k := one(t)
	p := k.peer(map[string][]byte{"cat": []byte("a cat")})
	p.hold = make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			f, err := k.Open(t.Context(), caller(anna), far1("cat"))
			if err != nil {
				t.Error(err)
				return
			}
			_ = f.Close()
		})
	}
	for len(p.callsNow()) == 0 {
	}
	close(p.hold)
	wg.Wait()
	if got := p.asked(); len(got) != 1 {
		t.Errorf("asked %v", got)
	}
}

func (p *peer) callsNow() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

func TestServe(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		p := k.peer(nil)
		body := pngOf(t, image.NewRGBA(image.Rect(0, 0, 100, 80)))
		at := k.upload(anna, "image/png", body)
		other := k.upload(gus, "image/png", body)
		k.rules.asked()
		f, err := k.Serve(t.Context(), acme, there, at.ID)
		if got := k.bytes(f, err); sha256.Sum256(got) != sha256.Sum256(body) {
			t.Error("other bytes")
		}
		in := k.rules.asked()
		if len(in) != 1 || in[0].Subject.Kind != "server" || in[0].Subject.ID != string(there) || in[0].Server.Name != string(there) || in[0].Tenant.Name != string(acme) ||
			in[0].Target.ID != string(anna) || in[0].Media.Server != string(acme) {
			t.Errorf("decided %+v", in)
		}
		tf, err := k.ServeThumbnail(t.Context(), acme, there, at.ID, Size{Width: 32, Height: 32})
		if len(k.bytes(tf, err)) == 0 {
			t.Error("no thumbnail")
		}
		k.rules.set(func(in *policy.Input, d *policy.Decision) {
			d.Allow = in.Target == nil || in.Target.ID != string(bob)
		})
		denied := k.upload(bob, "image/png", body)
		for _, id := range []string{"absent", other.ID, denied.ID, "../x", ""} {
			if _, err := k.Serve(t.Context(), acme, there, id); code(err) != "404 M_NOT_FOUND" {
				t.Errorf("%q: %v", id, err)
			}
		}
		if _, err := k.Serve(t.Context(), there, acme, at.ID); code(err) != "404 M_NOT_FOUND" {
			t.Error(err)
		}
		if got := p.asked(); len(got) != 0 {
			t.Errorf("asked %v", got)
		}
	})
}
