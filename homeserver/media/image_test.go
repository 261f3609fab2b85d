package media

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"os/exec"
	"strings"
	"testing"
)

// bombs are small files that want much, and decoders' old enemies.
func bombs(t *testing.T) map[string][]byte {
	t.Helper()
	progressive := segment(0xc2, []byte{8, 0x10, 0, 0x10, 0, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0}) // 4096 x 4096
	scans := append([]byte{0xff, 0xd8}, progressive...)
	for range 1000 {
		scans = append(append(scans, segment(0xda, []byte{1, 1, 0, 0, 0, 0})...), 0x55)
	}
	vp8x := func(w, h uint32, flags byte, more []byte) []byte {
		b := append([]byte("VP8X\x0a\x00\x00\x00"), flags, 0, 0, 0, byte(w-1), byte((w-1)>>8), byte((w-1)>>16), byte(h-1), byte((h-1)>>8), byte((h-1)>>16))
		b = append(b, more...)
		return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(b)+4)), append([]byte("WEBP"), b...)...)
	}
	vp8l := []byte("VP8L\x08\x00\x00\x00\x2f\xff\xff\xff\x0f\x00\x00\x00")
	return map[string][]byte{
		"413 png 50000 x 50000":      append(pngHead(50_000, 50_000, 8), chunk("IDAT", []byte{0x78, 0x9c})...),
		"413 png of 16 bits":         append(pngHead(5_600, 5_600, 16), chunk("IDAT", []byte{0x78, 0x9c})...),
		"413 png of one endless row": append(pngHead(1<<24, 1, 8), chunk("IDAT", []byte{0x78, 0x9c})...),
		"413 jpeg 65500 x 65500":     append(append([]byte{0xff, 0xd8}, segment(0xc0, []byte{8, 0xff, 0xdc, 0xff, 0xdc, 1, 1, 0x11, 0})...), segment(0xda, []byte{1, 1, 0, 0, 63, 0})...),
		"413 jpeg of 1000 scans":     scans,
		"413 webp 16384 x 16384":     vp8x(16_384, 16_384, 0, vp8l),
		"413 gif 65535 x 65535":      append([]byte("GIF89a\xff\xff\xff\xff\x00\x00\x00"), ','),
		"400 webp that lies":         vp8x(1, 1, 0, vp8l),
		"400 webp that moves":        vp8x(16, 16, 2, []byte("ANIM\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
		"400 webp cut short":         vp8x(16, 16, 0x10, []byte("ALPH\xff\xff\xff\x7f\x00")),
		"400 png cut short":          append(pngHead(64, 64, 8), chunk("IDAT", []byte{0x78, 0x9c})...),
		"400 png with a lie":         append(pngHead(64, 64, 8), chunk("IDAT", bytes.Repeat([]byte{0xff}, 64))...),
		"400 gif cut short":          []byte("GIF89a\x10\x00\x10\x00\x00\x00\x00,"),
		"400 gif outside the screen": []byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02\x44\x01\x00;"),
		"400 nothing":                {},
		"400 text":                   []byte("this is a text and no picture"),
		"400 svg":                    []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`),
		"400 tiff":                   append([]byte("II*\x00\x08\x00\x00\x00"), bytes.Repeat([]byte{0xff}, 64)...),
		"400 bmp":                    append([]byte("BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00"), bytes.Repeat([]byte{0x7f}, 64)...),
	}
}

func TestM203_ImageBombs(t *testing.T) {
	t.Parallel()
	k := one(t)
	for name, body := range bombs(t) {
		at := k.upload(anna, "image/png", body)
		for range 2 { // made, then remembered
			_, err := k.Thumbnail(t.Context(), caller(anna), at, Size{96, 96, "crop"})
			if strings.HasPrefix(name, "413") {
				wants(t, name, err, 413, "M_TOO_LARGE")
			} else {
				wants(t, name, err, 400, "M_UNKNOWN")
			}
		}
		if got, err := k.read(anna, at); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: the original is not there any more: %v", name, err)
		}
	}
	many := k.upload(anna, "image/gif", gifOf(t, 20_000, 8, 8))
	if img, _, err := k.thumb(anna, many, 32, 32, "crop"); err != nil || img.Bounds().Dx() != 8 {
		t.Errorf("the first of 20,000 frames: %v", err)
	}
	thin := k.upload(anna, "image/png", pngOf(t, image.NewGray(image.Rect(0, 0, 65_535, 1))))
	if img, _, err := k.thumb(anna, thin, 320, 240, "scale"); err != nil || img.Bounds().Dx() != 320 || img.Bounds().Dy() != 1 {
		t.Errorf("a row of 65,535 pixels: %v", err)
	}
	if !k.memory.TryAcquire(memoryBudget) {
		t.Error("memory for decoding was not given back")
	}
}

func TestM203_ProbeCountsMemoryAndScans(t *testing.T) {
	t.Parallel()
	frame := func(marker, h, v byte, w, ht uint16, scans int) []byte {
		b := append([]byte{0xff, 0xd8}, segment(marker, []byte{8, byte(ht >> 8), byte(ht), byte(w >> 8), byte(w), 3, 1, h<<4 | v, 0, 2, 0x11, 0, 3, 0x11, 0})...)
		for range scans {
			b = append(append(b, segment(0xda, []byte{1, 1, 0, 0, 63, 0})...), 1, 2, 0xff, 0, 0xff, 0xd0, 3)
		}
		return append(b, 0xff, 0xd9)
	}
	for _, c := range []struct {
		name   string
		body   []byte
		memory int64 // 0: refused
	}{
		{"baseline 4:2:0, 12 megapixels", frame(0xc0, 2, 2, 4000, 3000, 1), 12_000_000*3>>20 + 1},
		{"progressive 4:2:0, 24 megapixels", frame(0xc2, 2, 2, 6000, 4000, 10), 24_000_000*9>>20 + 1},
		{"progressive 4:4:4, 24 megapixels", frame(0xc2, 1, 1, 6000, 4000, 10), 0},
		{"small with 64 scans", frame(0xc2, 1, 1, 100, 100, 64), 1},
		{"small with 65 scans", frame(0xc2, 1, 1, 100, 100, 65), 0},
		{"large with 40 scans", frame(0xc2, 2, 2, 6000, 4000, 40), 0},
	} {
		p, err := probe(bytes.NewReader(c.body), int64(len(c.body)))
		switch {
		case c.memory == 0 && err != errBigPicture:
			t.Errorf("%s: %v, want too big", c.name, err)
		case c.memory != 0 && (err != nil || p.memory != c.memory):
			t.Errorf("%s: %+v, %v, want %d MiB", c.name, p, err, c.memory)
		}
	}
	if _, err := probe(bytes.NewReader(pngHead(1, 1, 8)), maxSource+1); err != errBigPicture {
		t.Errorf("a file of more than %d bytes: %v", maxSource, err)
	}
}

func TestM205_OnlyFourDecodersAreLinked(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "hansa/homeserver/media").Output()
	must(t, err)
	for _, pkg := range strings.Fields(string(out)) {
		if strings.HasPrefix(pkg, "golang.org/x/image/") && (strings.HasSuffix(pkg, "/tiff") || strings.HasSuffix(pkg, "/bmp")) {
			t.Errorf("%s is linked", pkg)
		}
	}
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "golang.org/x/image").Output()
	must(t, err)
	var minor int
	if _, err := fmt.Sscanf(string(version), "v0.%d.", &minor); err != nil || minor < 45 {
		t.Errorf("golang.org/x/image is %s, want v0.45.0 or later", version)
	}
}

func TestM205_BrokenPicturesAreErrors(t *testing.T) {
	t.Parallel()
	good := [][]byte{pngOf(t, halves(40, 30)), jpegOf(t, halves(40, 30)), gifOf(t, 2, 40, 30), withExif(jpegOf(t, halves(40, 30)), exifOf(binary.LittleEndian, 6))}
	for _, body := range good {
		for i := 0; i < len(body); i += 1 + len(body)/97 {
			for _, mask := range []byte{0xff, 0x80, 0x01} {
				broken := bytes.Clone(body)
				broken[i] ^= mask
				render(t, broken)
				render(t, body[:i])
			}
		}
	}
}

// render makes a thumbnail without a service. It must not panic; errors are fine.
func render(t *testing.T, body []byte) {
	t.Helper()
	p, err := probe(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return
	}
	if p.memory > maxDecode || p.width > maxSide || p.height > maxSide || p.orientation < 1 || p.orientation > 8 {
		t.Errorf("probe let through %+v", p)
	}
	if int64(p.width)*int64(p.height) > 1<<20 {
		return // fine, but slow
	}
	for _, v := range []variant{{96, 96, true}, {320, 240, false}, {}} {
		var out bytes.Buffer
		if _, err := draws(t.Context(), &out, bytes.NewReader(body), p, v); err == nil {
			if _, _, err := image.Decode(&out); err != nil {
				t.Errorf("a thumbnail cannot be read: %v", err)
			}
		}
	}
}

func FuzzProbe(f *testing.F) {
	f.Add(pngHead(3, 2, 8))
	f.Add(segment(0xc2, []byte{8, 0, 9, 0, 9, 1, 1, 0x11, 0}))
	f.Add([]byte("RIFF\x10\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00"))
	f.Add(exifOf(binary.BigEndian, 3))
	f.Fuzz(func(t *testing.T, body []byte) {
		render(t, body)
		if v := orientation(body); v < 1 || v > 8 {
			t.Errorf("orientation %d", v)
		}
	})
}

func TestM206_OrientationIsAppliedAndMetadataDropped(t *testing.T) {
	t.Parallel()
	k := one(t)
	// Where the red half of the stored picture is seen.
	seen := map[uint16][2]string{ // colour at the top left, at the bottom right
		0: {"red", "blue"}, 1: {"red", "blue"}, 2: {"blue", "red"}, 3: {"blue", "red"}, 4: {"red", "blue"},
		5: {"red", "blue"}, 6: {"red", "blue"}, 7: {"blue", "red"}, 8: {"blue", "red"}, 9: {"red", "blue"},
	}
	for turn, want := range seen {
		for name, order := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
			at := k.upload(anna, "image/jpeg", withExif(jpegOf(t, halves(400, 300)), exifOf(order, turn)))
			for _, size := range []Size{{320, 240, "scale"}, {96, 96, "crop"}, {5000, 5000, "scale"}} {
				img, b, err := k.thumb(anna, at, size.Width, size.Height, size.Method)
				must(t, err)
				w, h := img.Bounds().Dx(), img.Bounds().Dy()
				if upright := turn < 5 || turn > 8; size.Method == "scale" && upright != (w > h) {
					t.Errorf("orientation %d, %v: %d x %d", turn, size, w, h)
				}
				if got := [2]string{colour(img, 1, 1), colour(img, w-2, h-2)}; got != want {
					t.Errorf("orientation %d (%s), %v: %v, want %v", turn, name, size, got, want)
				}
				if bytes.Contains(b, []byte("GPS")) || bytes.Contains(b, []byte("Exif")) {
					t.Errorf("orientation %d, %v: metadata is left", turn, size)
				}
			}
		}
	}
	must(t, k.checkPNG(t))
}

// checkPNG looks at the orientation of a PNG, and at a colour profile as large as the file.
func (k *kit) checkPNG(t *testing.T) error {
	body := pngOf(t, halves(400, 300))
	const head = 8 + 25
	extra := append(chunk("iCCP", bytes.Repeat([]byte("x"), 1<<20)), chunk("eXIf", exifOf(binary.BigEndian, 6))...)
	at := k.upload(anna, "image/png", append(append(bytes.Clone(body[:head]), extra...), body[head:]...))
	img, b, err := k.thumb(anna, at, 320, 240, "scale")
	if err == nil && (img.Bounds().Dx() >= img.Bounds().Dy() || len(b) > 100_000 || bytes.Contains(b, []byte("GPS"))) {
		return fmt.Errorf("a PNG that lies on its side: %v, %d bytes", img.Bounds(), len(b))
	}
	return err
}

func TestUpright_AgreesWithTurned(t *testing.T) {
	t.Parallel()
	src := image.NewRGBA(image.Rect(0, 0, 7, 4))
	for i := range src.Pix {
		src.Pix[i] = byte(i*37) | 0x80*byte(i%4/3)
		if i%4 == 3 {
			src.Pix[i] = 255
		}
	}
	for turn := 1; turn <= 8; turn++ {
		a, b := upright(src, turn), turned{src, turn}
		if a.Bounds() != b.Bounds() {
			t.Errorf("orientation %d: %v and %v", turn, a.Bounds(), b.Bounds())
			continue
		}
		for y := range a.Rect.Dy() {
			for x := range a.Rect.Dx() {
				if a.At(x, y) != b.At(x, y) {
					t.Errorf("orientation %d at %d,%d: %v and %v", turn, x, y, a.At(x, y), b.At(x, y))
				}
			}
		}
	}
}

func TestM207_Sizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		w, h   int
		method string
		want   string
	}{
		{32, 32, "crop", "crop-32x32"}, {33, 30, "crop", "crop-96x96"}, {33, 33, "crop", "crop-96x96"}, {96, 96, "crop", "crop-96x96"}, {97, 97, "crop", "crop-320x320"},
		{320, 240, "crop", "crop-320x240"}, {300, 225, "crop", "crop-320x240"}, {800, 600, "crop", "crop-800x600"}, {801, 1, "crop", "whole"},
		{1, 1, "scale", "scale-320x240"}, {320, 240, "", "scale-320x240"}, {321, 1, "scale", "scale-640x480"}, {800, 600, "scale", "scale-800x600"},
		{800, 601, "scale", "scale-1600x1200"}, {1_000_000_000, 1_000_000_000, "scale", "whole"},
	} {
		v, err := Size{c.w, c.h, c.method}.variant()
		if err != nil || v.String() != c.want {
			t.Errorf("%d x %d %s: %s, %v, want %s", c.w, c.h, c.method, v, err, c.want)
		}
	}
	for _, z := range []Size{{0, 32, "crop"}, {32, 0, "scale"}, {-1, 32, "crop"}, {32, 32, "x"}, {32, 32, "CROP"}} {
		_, err := z.variant()
		wants(t, fmt.Sprint(z), err, 400, "M_INVALID_PARAM")
	}
	names := map[string]bool{}
	for w := 1; w < 10_000; w++ {
		for _, method := range []string{"crop", "scale"} {
			v, err := Size{w, 1 + w*7%911, method}.variant()
			must(t, err)
			names[v.String()] = true
		}
	}
	if len(names) > 12 {
		t.Errorf("%d variants: %v", len(names), names)
	}
}

func TestM207_NeverLargerThanTheOriginal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ w, h int }{{1, 1}, {10, 10}, {50, 200}, {200, 50}, {95, 97}, {4000, 3000}, {3000, 4000}, {1, 500}, {65_535, 3}, {333, 331}} {
		for _, v := range append(variants(true), variants(false)...) {
			part, w, h := v.layout(c.w, c.h)
			if w < 1 || h < 1 || w > c.w || h > c.h || w > part.Dx() || h > part.Dy() || !part.In(image.Rect(0, 0, c.w, c.h)) {
				t.Errorf("%s of %d x %d: %v as %d x %d", v, c.w, c.h, part, w, h)
			}
			if enough := c.w >= v.width && c.h >= v.height; enough && v.crop && (w != v.width || h != v.height) {
				t.Errorf("%s of %d x %d is %d x %d", v, c.w, c.h, w, h)
			} else if enough && !v.crop && w != v.width && h != v.height {
				t.Errorf("%s of %d x %d is %d x %d", v, c.w, c.h, w, h)
			}
		}
	}
	k := one(t)
	at := k.upload(anna, "image/png", pngOf(t, halves(50, 20)))
	for _, z := range []Size{{32, 32, "crop"}, {800, 600, "scale"}, {2000, 2000, "scale"}} {
		img, _, err := k.thumb(anna, at, z.Width, z.Height, z.Method)
		must(t, err)
		if b := img.Bounds(); b.Dx() > 50 || b.Dy() > 20 {
			t.Errorf("%v of 50 x 20: %v", z, b)
		}
	}
	moving := k.upload(anna, "image/gif", gifOf(t, 3, 900, 700))
	if _, b, err := k.thumb(anna, moving, 4000, 4000, "scale"); err != nil || bytes.HasPrefix(b, []byte("GIF")) {
		t.Errorf("a moving picture does not stand still: %v", err)
	}
}

func TestShrink_KeepsTheColours(t *testing.T) {
	t.Parallel()
	wide := halves(4000, 1000)
	ycc := image.NewYCbCr(wide.Rect, image.YCbCrSubsampleRatio420)
	for i := range ycc.Y {
		ycc.Y[i] = 128
	}
	for i := range ycc.Cb {
		ycc.Cb[i], ycc.Cr[i] = 128, 128
	}
	clear := image.NewNRGBA(wide.Rect)
	shifted := wide.SubImage(image.Rect(100, 100, 3900, 900))
	pal := image.NewPaletted(wide.Rect, color.Palette{color.RGBA{255, 0, 0, 255}, color.RGBA{0, 0, 255, 255}})
	draw.Draw(pal, pal.Rect, wide, image.Point{}, draw.Src)
	for name, src := range map[string]image.Image{"rgba": wide, "part": shifted, "palette": pal, "ycbcr": ycc, "clear": clear} {
		for _, v := range append(variants(true), variants(false)...) {
			img, err := v.shrink(t.Context(), src, 1)
			must(t, err)
			b := img.Bounds()
			left, right := colour(img, 0, 0), colour(img, b.Dx()-1, b.Dy()-1)
			switch r, g, bl, a := img.At(b.Dx()/4, b.Dy()/2).RGBA(); name {
			case "ycbcr":
				if r>>8 != 128 || g>>8 != 128 || bl>>8 != 128 || a>>8 != 255 {
					t.Errorf("%s %s: %d %d %d %d", name, v, r>>8, g>>8, bl>>8, a>>8)
				}
			case "clear":
				if a != 0 || isOpaque(img) {
					t.Errorf("%s %s is not transparent", name, v)
				}
			default:
				if left != "red" || right != "blue" {
					t.Errorf("%s %s: %s and %s", name, v, left, right)
				}
			}
		}
	}
}
