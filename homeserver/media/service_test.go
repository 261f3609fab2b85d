package media

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

func TestUpload_ComesBackAsItWas(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		for _, body := range [][]byte{{}, []byte("hello"), bytes.Repeat([]byte("0123456789abcdef"), 50_000)} {
			up := content("text/plain; charset=utf-8", body)
			up.Name = "m\u00fcller.txt"
			uri, err := k.Upload(t.Context(), caller(anna), up)
			must(t, err)
			f, err := k.Open(t.Context(), caller(anna), address(uri))
			must(t, err)
			got, err := io.ReadAll(f)
			must(t, errors.Join(err, f.Close()))
			if !bytes.Equal(got, body) || f.Type != "text/plain; charset=utf-8" || f.Name != "m\u00fcller.txt" || f.Size != int64(len(body)) {
				t.Errorf("%d bytes came back as %d, %s, %s", len(body), len(got), f.Type, f.Name)
			}
		}
		for _, in := range k.rules.asked() {
			if in.Point == policy.MediaDownload && (in.Target == nil || in.Target.ID != string(anna) || in.Media.MimeType != "text/plain") {
				t.Errorf("asked about %+v of %+v", in.Media, in.Target)
			}
		}
	})
}

func TestM209_UploadSize(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		limit := k.MaxUpload
		exact := bytes.Repeat([]byte("x"), int(limit))
		if got, err := k.read(anna, k.upload(anna, "", exact)); err != nil || len(got) != int(limit) {
			t.Fatalf("an upload of the largest size: %v", err)
		}
		kept := len(k.files())
		unread := &counter{r: strings.NewReader("x")}
		_, err := k.Upload(t.Context(), caller(anna), Upload{Length: limit + 1, Body: unread})
		if wants(t, "a byte too many, announced", err, 413, "M_TOO_LARGE"); unread.n > 0 {
			t.Error("the body was read although it was announced as too large")
		}
		_, err = k.Upload(t.Context(), caller(anna), Upload{Length: -1, Body: bytes.NewReader(append(exact, 'x'))})
		wants(t, "a byte too many, not announced", err, 413, "M_TOO_LARGE")
		_, err = k.Upload(t.Context(), caller(anna), Upload{Length: 10, Body: bytes.NewReader(append(exact, 'x'))})
		wants(t, "a false length", err, 413, "M_TOO_LARGE")
		_, err = k.Upload(t.Context(), caller(anna), Upload{Length: 10, Body: strings.NewReader("short")})
		wants(t, "less than announced", err, 400, "M_UNKNOWN")
		_, err = k.Upload(t.Context(), caller(anna), Upload{Length: 10, Body: io.MultiReader(strings.NewReader("short"), broken{io.ErrUnexpectedEOF})})
		wants(t, "a connection that ended", err, 400, "M_UNKNOWN")
		_, err = k.Upload(t.Context(), caller(anna), Upload{Length: 10, Body: broken{os.ErrDeadlineExceeded}})
		wants(t, "a deadline that passed", err, 408, "M_UNKNOWN")
		var allowed []time.Duration
		_, err = k.Upload(t.Context(), caller(anna), Upload{Length: 1 << 20, Body: &drip{k: k}, Allow: func(d time.Duration) error {
			allowed = append(allowed, d)
			return nil
		}})
		if wants(t, "a byte a second", err, 408, "M_UNKNOWN"); len(allowed) != 30 || allowed[0] != 30*time.Second || allowed[29] != time.Second {
			t.Errorf("time was allowed %d times: %v", len(allowed), allowed)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := k.Upload(ctx, caller(anna), content("", []byte("x"))); !errors.Is(err, context.Canceled) {
			t.Errorf("a request that is over: %v", err)
		}
		if left := k.files(); len(left) != kept {
			t.Errorf("%d files are left on the disk, want %d: %v", len(left), kept, left)
		}
	})
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// drip sends a byte a second.
type drip struct{ k *kit }

func (d *drip) Read(p []byte) (int, error) {
	d.k.pass(time.Second)
	p[0] = 'x'
	return 1, nil
}

func TestUpload_PolicyDecides(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		refuse := func(in *policy.Input, d *policy.Decision) {
			if d.Obligations.MaxBytes = 100; in.Media.MimeType == "text/html" {
				d.Allow, d.Reasons = false, []policy.Reason{{Code: "test", Message: "Not that."}}
			} else if in.Media.Size > 100 {
				d.Allow, d.Reasons = false, []policy.Reason{{Code: policy.CodeTooLarge, Message: "This is larger than allowed."}}
			}
		}
		k.rules.set(refuse)
		unread := &counter{r: strings.NewReader("<b>")}
		_, err := k.Upload(t.Context(), caller(anna), Upload{Type: "Text/HTML; charset=utf-8", Length: 3, Body: unread})
		if wants(t, "a type that is refused", err, 403, "M_FORBIDDEN"); unread.n > 0 {
			t.Error("the body was read although it was refused")
		}
		_, err = k.Upload(t.Context(), caller(anna), content("", make([]byte, 101)))
		wants(t, "more than the obligation", err, 413, "M_TOO_LARGE")
		_, err = k.Upload(t.Context(), caller(anna), Upload{Length: -1, Body: bytes.NewReader(make([]byte, 101))})
		wants(t, "more than the obligation, not announced", err, 413, "M_TOO_LARGE")
		k.rules.asked()
		_, err = k.Upload(t.Context(), caller(anna), Upload{Length: -1, Body: bytes.NewReader(make([]byte, 99))})
		must(t, err)
		if asked := k.rules.asked(); len(asked) != 2 || asked[0].Media.Size != 0 || asked[1].Media.Size != 99 || asked[1].Media.Server != string(acme) {
			t.Errorf("an upload without a length was asked about as %d times: %+v", len(asked), asked)
		}
		// The policy changes while the content comes.
		k.rules.set(func(in *policy.Input, d *policy.Decision) {
			k.rules.answer = refuse
			k.rules.stale = 1
		})
		_, err = k.Upload(t.Context(), caller(anna), content("text/html", []byte("x")))
		wants(t, "a type that is refused by now", err, 403, "M_FORBIDDEN")
		if left := k.files(); len(left) != 1 {
			t.Errorf("%d files are left on the disk: %v", len(left), left)
		}
	})
}

func TestM211_AsyncUpload(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		ctx := t.Context()
		c, err := k.Create(ctx, caller(anna))
		must(t, err)
		if want := k.clock().Add(24 * time.Hour).UnixMilli(); c.ExpiresTS != want {
			t.Errorf("expires at %d, want %d", c.ExpiresTS, want)
		}
		at := address(c.URI)
		_, err = k.read(bob, at)
		wants(t, "before the upload", err, 504, "M_NOT_YET_UPLOADED")
		_, _, err = k.thumb(bob, at, 32, 32, "crop")
		wants(t, "a thumbnail before the upload", err, 504, "M_NOT_YET_UPLOADED")
		fill := func(user matrix.UserID, server, id, body string) error {
			return k.Fill(ctx, caller(user), server, id, content("text/plain", []byte(body)))
		}
		wants(t, "somebody else", fill(bob, at.Server, at.ID, "x"), 403, "M_FORBIDDEN")
		wants(t, "another tenant", fill(gus, at.Server, at.ID, "x"), 403, "M_FORBIDDEN")
		wants(t, "an address that nobody made", fill(anna, at.Server, newID(), "x"), 403, "M_FORBIDDEN")
		wants(t, "no address", fill(anna, at.Server, "../x", "x"), 403, "M_FORBIDDEN")
		// Two at once: one wins, and its content stays.
		results := make([]error, 4)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { results[i] = fill(anna, at.Server, at.ID, strings.Repeat("abcd"[i:i+1], 1000)) })
		}
		wg.Wait()
		winner := -1
		for i, err := range results {
			if err == nil && winner < 0 {
				winner = i
			} else {
				wants(t, "a second upload", err, 409, "M_CANNOT_OVERWRITE_MEDIA")
			}
		}
		if got, err := k.read(bob, at); err != nil || winner < 0 || string(got) != strings.Repeat("abcd"[winner:winner+1], 1000) {
			t.Errorf("the content after upload %d won: %.10q, %v", winner, got, err)
		}
		if n := len(k.files()); n != 1 {
			t.Errorf("%d files, want 1", n)
		}
		late, err := k.Create(ctx, caller(anna))
		must(t, err)
		k.pass(24 * time.Hour)
		wants(t, "after the end", fill(anna, at.Server, address(late.URI).ID, "x"), 403, "M_FORBIDDEN")
		_, err = k.read(anna, address(late.URI))
		wants(t, "reading after the end", err, 404, "M_NOT_FOUND")
		for range maxPending {
			_, err := k.Create(ctx, caller(anna))
			must(t, err)
		}
		_, err = k.Create(ctx, caller(anna))
		wants(t, "too many", err, 429, "M_LIMIT_EXCEEDED")
		_, err = k.Create(ctx, caller(bob))
		must(t, err)
		k.pass(26 * time.Hour)
		must(t, k.sweep(ctx))
		_, err = k.Create(ctx, caller(anna))
		must(t, err)
	})
}

func TestM211_WhoeverWaitsGetsTheUpload(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		c, err := k.Create(t.Context(), caller(anna))
		must(t, err)
		at := address(c.URI)
		at.Wait = time.Minute
		got := make(chan []byte, 3)
		for range cap(got) {
			go func() {
				b, err := k.read(bob, at)
				if err != nil {
					t.Error(err)
				}
				got <- b
			}()
		}
		must(t, k.Fill(t.Context(), caller(anna), at.Server, at.ID, content("", []byte("here"))))
		for range cap(got) {
			if b := <-got; string(b) != "here" {
				t.Errorf("got %q", b)
			}
		}
		if len(k.waiters.m) != 0 {
			t.Errorf("%d waiters are left", len(k.waiters.m))
		}
		other, err := k.Create(t.Context(), caller(anna))
		must(t, err)
		at.ID = address(other.URI).ID
		k.Stop()
		_, err = k.read(bob, at)
		wants(t, "when the server stops", err, 504, "M_NOT_YET_UPLOADED")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := k.Open(ctx, caller(bob), at); err == nil {
			t.Error("a request that is over got something")
		}
	})
}

func TestM215_AddressesCannotBeGuessed(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		seen := map[string]bool{}
		for range 50 {
			at := k.upload(anna, "", []byte("x"))
			if seen[at.ID] || !regexp.MustCompile(`^[a-z2-7]{32}$`).MatchString(at.ID) { // 32 x 5 = 160 bits
				t.Errorf("address %q", at.ID)
			}
			seen[at.ID] = true
		}
		at := k.upload(anna, "image/png", pngOf(t, halves(10, 10)))
		k.rules.set(func(in *policy.Input, d *policy.Decision) {
			d.Allow = in.Target != nil && in.Target.ID == in.Subject.ID
		})
		refused := map[string]Address{"absent": {Server: string(acme), ID: newID()}, "refused": at, "of another tenant": {Server: string(globex), ID: newID()},
			"of a remote server": {Server: "evil.example", ID: at.ID}, "of no server": {Server: "../..", ID: at.ID}, "with a path": {Server: string(acme), ID: "../" + at.ID},
			"cut": {Server: string(acme), ID: at.ID[:31]}, "in capitals": {Server: string(acme), ID: strings.ToUpper(at.ID)}, "empty": {Server: string(acme)}}
		var answers []string
		for name, at := range refused {
			_, err := k.read(bob, at)
			wants(t, "media "+name, err, 404, "M_NOT_FOUND")
			_, _, err = k.thumb(bob, at, 32, 32, "crop")
			wants(t, "a thumbnail "+name, err, 404, "M_NOT_FOUND")
			answers = append(answers, err.Error())
		}
		for _, a := range answers {
			if a != answers[0] {
				t.Errorf("%q and %q are different answers", a, answers[0])
			}
		}
		if _, err := k.read(anna, at); err != nil {
			t.Errorf("the uploader: %v", err)
		}
	})
}

func TestM218_NothingIsShared(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		body := pngOf(t, halves(200, 200))
		users := []matrix.UserID{anna, gus, bob, anna}
		var list []Address
		for _, u := range users {
			list = append(list, k.upload(u, "image/png", body))
			_, _, err := k.thumb(u, list[len(list)-1], 32, 32, "crop")
			must(t, err)
		}
		if n := len(k.files()); n != 8 {
			t.Errorf("%d files, want one for each upload and each thumbnail", n)
		}
		for _, f := range k.files() {
			if !strings.Contains(f, string(os.PathSeparator)+string(acme)+string(os.PathSeparator)) && !strings.Contains(f, string(globex)) {
				t.Errorf("%s is in no tenant's folder", f)
			}
		}
		must(t, k.DB.Update(t.Context(), func(tx *storage.Tx) error { return k.DeleteUserMedia(tx, anna) }))
		for i, at := range list {
			_, err := k.read(users[i], at)
			_, _, terr := k.thumb(users[i], at, 32, 32, "crop")
			if users[i] == anna {
				wants(t, "what was removed", err, 404, "M_NOT_FOUND")
				wants(t, "a thumbnail of it", terr, 404, "M_NOT_FOUND")
				continue
			}
			must(t, errors.Join(err, terr))
		}
		must(t, k.removeFiles(t.Context()))
		must(t, k.removeFiles(t.Context()))
		if n := len(k.files()); n != 4 {
			t.Errorf("%d files are left, want 4", n)
		}
	})
}

func TestP310_MediaOfOthers(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		at := k.upload(gus, "", []byte("globex"))
		if b, err := k.read(anna, at); err != nil || string(b) != "globex" {
			t.Fatalf("with an agreement: %v", err)
		}
		asked := k.rules.asked()
		in := asked[len(asked)-1]
		if in.Tenant.Name != string(acme) || in.Server == nil || in.Server.Name != string(globex) || in.Media.Server != string(globex) || in.Target.ID != string(gus) {
			t.Errorf("asked %+v, server %+v, media %+v, target %+v", in.Tenant, in.Server, in.Media, in.Target)
		}
		k.rules.set(func(in *policy.Input, d *policy.Decision) { d.Allow = in.Server == nil })
		_, err := k.read(anna, at)
		wants(t, "what was read before, after the agreement has ended", err, 404, "M_NOT_FOUND")
		if b, err := k.read(gus, at); err != nil || string(b) != "globex" {
			t.Errorf("the tenant itself: %v", err)
		}
		k.rules.set(func(in *policy.Input, d *policy.Decision) { d.Allow, d.Err = false, errors.New("the engine is broken") })
		_, err = k.read(anna, at)
		wants(t, "an engine that cannot answer", err, 503, "M_UNKNOWN")
	})
}

func TestP311_MediaOfAThirdServerIsNotFetched(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		at := Address{Server: "third.example:8448", ID: k.upload(anna, "", []byte("x")).ID}
		for _, allow := range []bool{true, false} {
			k.rules.set(func(in *policy.Input, d *policy.Decision) { d.Allow = allow })
			k.rules.asked()
			_, err := k.read(anna, at)
			wants(t, "content", err, 404, "M_NOT_FOUND")
			_, _, err = k.thumb(anna, at, 32, 32, "crop")
			wants(t, "a thumbnail", err, 404, "M_NOT_FOUND")
			if asked := k.rules.asked(); len(asked) != 2 || asked[0].Server.Name != at.Server || asked[0].Media.Server != at.Server || asked[0].Target != nil {
				t.Errorf("asked %+v", asked)
			}
		}
	})
}

func TestD474_DamagedFiles(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		picture := pngOf(t, halves(200, 200))
		for name, harm := range map[string]func(path string) error{
			"a bit":   func(p string) error { return change(p, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) },
			"an end":  func(p string) error { return change(p, func(b []byte) []byte { return b[:len(b)-1] }) },
			"a start": func(p string) error { return change(p, func(b []byte) []byte { return append([]byte("x"), b...) }) },
			"a file":  os.Remove,
		} {
			at, sound := k.upload(anna, "image/png", picture), k.upload(anna, "image/png", picture)
			must(t, harm(k.fileOf(at)))
			_, err := k.read(anna, at)
			wants(t, name+" is lost", err, 502, "M_UNKNOWN")
			_, _, err = k.thumb(anna, at, 32, 32, "crop")
			wants(t, name+" is lost, thumbnail", err, 502, "M_UNKNOWN")
			if _, err := k.read(anna, sound); err != nil {
				t.Errorf("another file: %v", err)
			}
		}
		// A file that was sound is looked at again after a while.
		at := k.upload(anna, "image/png", picture)
		_, err := k.read(anna, at)
		must(t, err)
		must(t, change(k.fileOf(at), func(b []byte) []byte { b[9] ^= 0x10; return b }))
		k.pass(trustFor)
		_, err = k.read(anna, at)
		wants(t, "a bit is lost later", err, 502, "M_UNKNOWN")
		// A thumbnail is made again.
		at = k.upload(anna, "image/png", picture)
		_, first, err := k.thumb(anna, at, 32, 32, "crop")
		must(t, err)
		for _, f := range k.files() {
			if strings.HasPrefix(filepath.Base(f), at.ID+".crop") {
				must(t, change(f, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }))
			}
		}
		k.pass(trustFor)
		if _, again, err := k.thumb(anna, at, 32, 32, "crop"); err != nil || !bytes.Equal(first, again) {
			t.Errorf("a damaged thumbnail: %v", err)
		}
	})
}

// fileOf is the path of the content at an address.
func (k *kit) fileOf(at Address) string {
	k.t.Helper()
	var m *storage.Media
	must(k.t, k.DB.Read(context.Background(), func(tx *storage.Tx) (err error) {
		m, err = tx.LoadMedia(matrix.ServerName(at.Server), at.ID)
		return err
	}))
	return k.store.path(m.Tenant, m.File)
}

func change(path string, fn func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fn(b), 0o600)
}

func TestD445_WhatIsEnteredIsOnTheDisk(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		at := k.upload(anna, "", []byte("durable"))
		if b, err := os.ReadFile(k.fileOf(at)); err != nil || string(b) != "durable" {
			t.Errorf("%q, %v", b, err)
		}
		for _, f := range k.files() {
			if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", f, info.Mode(), err)
			}
		}
		// A folder that takes no file: nothing is acknowledged, nothing is entered.
		must(t, os.MkdirAll(k.store.tenantDir(acme), 0o700))
		blocked := filepath.Join(k.store.tenantDir(acme), "zz")
		must(t, os.WriteFile(blocked, nil, 0o600))
		d, err := k.store.create()
		must(t, err)
		if err := d.keep(acme, "zz-blocked"); err == nil {
			t.Error("a file was kept below a file")
		}
		if drafts, err := os.ReadDir(filepath.Join(k.Path, "tmp")); err != nil || len(drafts) != 0 {
			t.Errorf("%d drafts are left: %v", len(drafts), err)
		}
	})
}

func TestD450_FullDisk(t *testing.T) {
	t.Parallel()
	for _, err := range []error{syscall.ENOSPC, &os.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}} {
		wants(t, err.Error(), diskError(err), 507, "M_UNKNOWN")
	}
	if err := errors.New("other"); diskError(err) != err {
		t.Error("another error was changed")
	}
}

func TestThumbnail_IsMadeOnce(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		at := k.upload(anna, "image/jpeg", jpegOf(t, halves(2000, 1500)))
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if _, _, err := k.thumb(anna, at, 300+i, 200, "scale"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(k.files()); n != 2 {
			t.Errorf("%d files, want the original and one thumbnail", n)
		}
		for _, in := range k.rules.asked() {
			if in.Point == policy.MediaDownload && !in.Media.Thumbnail {
				t.Error("policy was not told that it is a thumbnail")
			}
		}
	})
}
