package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const (
	acme   = matrix.ServerName("acme.example")
	globex = matrix.ServerName("globex.example")
	anna   = matrix.UserID("@anna:acme.example")
	bob    = matrix.UserID("@bob:acme.example")
	gus    = matrix.UserID("@gus:globex.example")
)

// rules answer in place of the policy engine: everything is allowed but what the test refuses.
type rules struct {
	mu     sync.Mutex
	inputs []policy.Input                        // guarded by mu
	answer func(*policy.Input, *policy.Decision) // guarded by mu
	stale  int                                   // guarded by mu: how many decisions are not fresh
}

func (r *rules) Decide(_ context.Context, in *policy.Input) policy.Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inputs = append(r.inputs, *in)
	d := policy.Decision{Allow: true, ID: "test", Point: in.Point}
	if r.answer != nil {
		r.answer(in, &d)
	}
	return d
}

func (r *rules) Consider(ctx context.Context, in *policy.Input) policy.Decision {
	return r.Decide(ctx, in)
}

func (r *rules) Fresh(policy.Decision) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale--
	return r.stale < 0
}

func (r *rules) set(answer func(*policy.Input, *policy.Decision)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *rules) asked() []policy.Input {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.inputs
	r.inputs = nil
	return out
}

func (r *rules) Party(_ context.Context, user matrix.UserID) (*policy.Party, error) {
	return &policy.Party{Kind: "user", ID: string(user), Tenant: string(user.Server()), Local: true}, nil
}

// kit is a service on a real database with a clock that is moved by hand.
type kit struct {
	*Service
	t     *testing.T
	rules *rules

	mu sync.Mutex
	at time.Time // guarded by mu
}

func (k *kit) clock() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.at
}

func (k *kit) pass(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = k.at.Add(d)
}

// each runs a test on both databases.
func each(t *testing.T, fn func(t *testing.T, k *kit)) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) { fn(t, newKit(t, db)) })
}

func newKit(t *testing.T, db *storage.DB) *kit {
	t.Helper()
	k := &kit{t: t, rules: &rules{}, at: time.Now()}
	var err error
	k.Service, err = New(Deps{DB: db, Policy: k.rules, Parties: k.rules, Tenants: []matrix.ServerName{acme, globex},
		Path: filepath.Join(t.TempDir(), "media"), MaxUpload: 8 << 20, Log: storagetest.Quiet(), Now: k.clock})
	must(t, err)
	return k
}

func one(t *testing.T) *kit {
	t.Helper()
	return newKit(t, storagetest.Open(t, storage.Options{URL: storagetest.URL(t, "sqlite")}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func caller(user matrix.UserID) Caller {
	return Caller{UserID: user, Tenant: user.Server(), Subject: &policy.Party{Kind: "user", ID: string(user), Tenant: string(user.Server()), Local: true}}
}

func content(typ string, body []byte) Upload {
	return Upload{Type: typ, Length: int64(len(body)), Body: bytes.NewReader(body)}
}

// upload uploads and returns the address.
func (k *kit) upload(user matrix.UserID, typ string, body []byte) Address {
	k.t.Helper()
	uri, err := k.Upload(context.Background(), caller(user), content(typ, body))
	must(k.t, err)
	return address(uri)
}

func address(uri string) Address {
	server, id, _ := strings.Cut(strings.TrimPrefix(uri, "mxc://"), "/")
	return Address{Server: server, ID: id}
}

// read returns the content at an address.
func (k *kit) read(user matrix.UserID, at Address) ([]byte, error) {
	f, err := k.Open(context.Background(), caller(user), at)
	if err != nil {
		return nil, err
	}
	defer func() { must(k.t, f.Close()) }()
	return io.ReadAll(f)
}

// thumb returns a decoded thumbnail and its bytes.
func (k *kit) thumb(user matrix.UserID, at Address, w, h int, method string) (image.Image, []byte, error) {
	f, err := k.Thumbnail(context.Background(), caller(user), at, Size{w, h, method})
	if err != nil {
		return nil, nil, err
	}
	defer func() { must(k.t, f.Close()) }()
	b, err := io.ReadAll(f)
	must(k.t, err)
	img, format, err := image.Decode(bytes.NewReader(b))
	must(k.t, err)
	if f.Type != "image/"+format || f.Size != int64(len(b)) {
		k.t.Errorf("a thumbnail says %s, %d bytes; it is %s, %d bytes", f.Type, f.Size, format, len(b))
	}
	return img, b, nil
}

// files returns the paths of all files below the media folder.
func (k *kit) files() (out []string) {
	k.t.Helper()
	must(k.t, filepath.WalkDir(k.Path, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	}))
	return out
}

// wants fails unless err has a status and an errcode.
func wants(t *testing.T, what string, err error, status int, code string) {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code {
		t.Errorf("%s: %v, want %d %s", what, err, status, code)
	}
}

func pngOf(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, png.Encode(&b, img))
	return b.Bytes()
}

func jpegOf(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, jpeg.Encode(&b, img, nil))
	return b.Bytes()
}

func gifOf(t *testing.T, frames, w, h int) []byte {
	t.Helper()
	g := &gif.GIF{}
	for range frames {
		g.Image = append(g.Image, image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{color.Black, color.White}))
		g.Delay = append(g.Delay, 1)
	}
	var b bytes.Buffer
	must(t, gif.EncodeAll(&b, g))
	return b.Bytes()
}

// halves is a picture whose left half is red and whose right half is blue.
func halves(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{255, 0, 0, 255}
			if x >= w/2 {
				c = color.RGBA{0, 0, 255, 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	return img
}

// colour names the colour of a pixel.
func colour(img image.Image, x, y int) string {
	r, _, b, _ := img.At(img.Bounds().Min.X+x, img.Bounds().Min.Y+y).RGBA()
	switch {
	case r > 0xc000 && b < 0x4000:
		return "red"
	case b > 0xc000 && r < 0x4000:
		return "blue"
	}
	return "mixed"
}

// chunk is a chunk of a PNG.
func chunk(name string, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, name...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// pngHead is the beginning of a PNG of any size.
func pngHead(w, h uint32, depth byte) []byte {
	ihdr := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	return append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(ihdr, depth, 2, 0, 0, 0))...)
}

// segment is a segment of a JPEG.
func segment(marker byte, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(len(data)+2)), data...)
}

// exifOf is EXIF data with an orientation and GPS coordinates.
func exifOf(order binary.AppendByteOrder, turn uint16) []byte {
	b := []byte("II*\x00")
	if order.String() == "BigEndian" {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 2)
	entry := func(tag, typ uint16, value uint32) {
		b = order.AppendUint16(order.AppendUint16(b, tag), typ)
		b = order.AppendUint32(b, 1)
		if typ == 3 {
			b = order.AppendUint16(order.AppendUint16(b, uint16(value)), 0)
		} else {
			b = order.AppendUint32(b, value)
		}
	}
	entry(0x0112, 3, uint32(turn))
	entry(0x8825, 4, 38)
	return append(order.AppendUint32(b, 0), "GPS-SECRET-52.5200N"...)
}

// withExif puts EXIF data into a JPEG.
func withExif(picture, exif []byte) []byte {
	return append(append([]byte{0xff, 0xd8}, segment(0xe1, append([]byte("Exif\x00\x00"), exif...))...), picture[2:]...)
}
