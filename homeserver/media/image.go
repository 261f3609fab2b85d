package media

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// errNoPicture says that there is no thumbnail of this content, errBigPicture that making one would take too much.
var (
	errNoPicture  = errors.New("media: not a picture that can be read")
	errBigPicture = errors.New("media: the picture is too large")
)

const (
	// maxPixels, maxSide and maxSource bound what is decoded at all.
	maxPixels = 32 << 20
	maxSide   = 65535
	maxSource = 64 << 20
	// maxScans bounds the passes of a progressive JPEG, maxScanWork all passes times the pixels.
	maxScans    = 64
	maxScanWork = 20 * maxPixels
	// maxDecode is the memory that decoding one picture may take, in MiB; scaleMemory is added for what comes after.
	maxDecode   = 256
	scaleMemory = 48
	// memoryBudget is what all decoding together may take, in MiB.
	memoryBudget = maxDecode + scaleMemory
)

// picture is what the header of a picture says.
type picture struct {
	format        string
	width, height int
	// memory is what decoding takes at most, in MiB.
	memory int64
	// orientation is the one in the EXIF data, 1 to 8.
	orientation int
}

// probe reads the header of a picture and judges it. Nothing is decoded.
func probe(r io.ReadSeeker, size int64) (*picture, error) {
	var magic [12]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return nil, errNoPicture
	}
	if size > maxSource {
		return nil, errBigPicture
	}
	look := probeUnknown
	switch {
	case bytes.HasPrefix(magic[:], []byte("\x89PNG\r\n\x1a\n")):
		look = probePNG
	case bytes.HasPrefix(magic[:], []byte("\xff\xd8\xff")):
		look = probeJPEG
	case bytes.HasPrefix(magic[:], []byte("GIF8")):
		look = probeGIF
	case bytes.HasPrefix(magic[:], []byte("RIFF")) && string(magic[8:]) == "WEBP":
		look = probeWebP
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	p, perPixel, err := look(r)
	if err != nil {
		return nil, err
	}
	if p.width <= 0 || p.height <= 0 {
		return nil, errNoPicture
	}
	pixels := int64(p.width) * int64(p.height)
	p.memory = (pixels*perPixel)>>20 + 1
	if p.width > maxSide || p.height > maxSide || pixels > maxPixels || p.memory > maxDecode {
		return nil, errBigPicture
	}
	_, err = r.Seek(0, io.SeekStart)
	return p, err
}

func probeUnknown(io.ReadSeeker) (*picture, int64, error) { return nil, 0, errNoPicture }

// config turns what a package of the library says into a picture.
func config(format string, c image.Config, err error) (*picture, error) {
	if err != nil {
		return nil, errNoPicture
	}
	return &picture{format: format, width: c.Width, height: c.Height, orientation: 1}, nil
}

func probePNG(r io.ReadSeeker) (*picture, int64, error) {
	c, err := png.DecodeConfig(bufio.NewReaderSize(r, 512))
	p, err := config("png", c, err)
	if err != nil {
		return nil, 0, err
	}
	perPixel := int64(6) // interlaced passes come on top
	if c.ColorModel == color.RGBA64Model || c.ColorModel == color.NRGBA64Model || c.ColorModel == color.Gray16Model {
		perPixel = 12
	}
	p.orientation = pngOrientation(r)
	return p, perPixel, nil
}

func probeGIF(r io.ReadSeeker) (*picture, int64, error) {
	c, err := gif.DecodeConfig(bufio.NewReaderSize(r, 512))
	p, err := config("gif", c, err)
	return p, 2, err
}

func probeWebP(r io.ReadSeeker) (*picture, int64, error) {
	c, err := webp.DecodeConfig(r)
	p, err := config("webp", c, err)
	if err != nil {
		return nil, 0, err
	}
	p.orientation = webpOrientation(r)
	return p, 9, nil
}

// probeJPEG walks all segments: the number of scans decides how long decoding takes, and it stands nowhere in the header.
func probeJPEG(r io.ReadSeeker) (*picture, int64, error) {
	c, err := jpeg.DecodeConfig(bufio.NewReaderSize(r, 512))
	p, err := config("jpeg", c, err)
	if err != nil {
		return nil, 0, err
	}
	if _, err := r.Seek(2, io.SeekStart); err != nil {
		return nil, 0, err
	}
	walk := jpegWalk{r: bufio.NewReaderSize(r, 64<<10), orientation: 1}
	walk.run()
	p.orientation = walk.orientation
	if walk.scans > maxScans || int64(walk.scans)*int64(p.width)*int64(p.height) > maxScanWork {
		return nil, 0, errBigPicture
	}
	samples := (walk.sampling + walk.most - 1) / max(walk.most, 1)
	perPixel := samples + 1
	if walk.progressive { // coefficients of all components are kept until the end
		perPixel += (4*walk.sampling + walk.most - 1) / max(walk.most, 1)
	}
	if walk.components == 4 { // converted once more
		perPixel += 4
	}
	return p, perPixel, nil
}

// jpegWalk counts what a JPEG is made of.
type jpegWalk struct {
	r           *bufio.Reader
	scans       int
	progressive bool
	components  int
	// sampling is the sum of the samples of all components per block, most of the one with most.
	sampling, most int64
	orientation    int
}

func (w *jpegWalk) run() {
	for w.scans <= maxScans {
		if _, err := w.r.ReadSlice(0xff); err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		} else if err != nil {
			continue
		}
		marker, err := w.r.ReadByte()
		for err == nil && marker == 0xff {
			marker, err = w.r.ReadByte()
		}
		if err != nil || marker == 0xd9 {
			return
		}
		if marker == 0 || marker >= 0xd0 && marker <= 0xd8 || marker == 0x01 {
			continue
		}
		var length [2]byte
		if _, err := io.ReadFull(w.r, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:])) - 2
		if n < 0 || !w.segment(marker, n) {
			return
		}
	}
}

// segment reads n bytes of a segment.
func (w *jpegWalk) segment(marker byte, n int) bool {
	switch {
	case marker == 0xda:
		w.scans++
	case marker == 0xe1 && w.orientation == 1, marker == 0xc0, marker == 0xc1, marker == 0xc2:
		data := make([]byte, n)
		if _, err := io.ReadFull(w.r, data); err != nil {
			return false
		}
		if marker == 0xe1 {
			if exif, ok := bytes.CutPrefix(data, []byte("Exif\x00\x00")); ok {
				w.orientation = orientation(exif)
			}
			return true
		}
		w.progressive = marker == 0xc2
		w.frame(data)
		return true
	}
	_, err := w.r.Discard(n)
	return err == nil
}

func (w *jpegWalk) frame(data []byte) {
	if len(data) < 6 {
		return
	}
	w.components, w.sampling, w.most = int(data[5]), 0, 0
	for i := 0; i < w.components && 6+3*i+2 < len(data); i++ {
		hv := data[6+3*i+1]
		n := int64(hv>>4) * int64(hv&15)
		w.sampling += n
		w.most = max(w.most, n)
	}
	if w.sampling == 0 {
		w.sampling, w.most = int64(max(w.components, 1)), 1
	}
}

// decode decodes a picture that probe has judged.
func decode(format string, r io.Reader) (image.Image, error) {
	switch format {
	case "png":
		return png.Decode(r)
	case "jpeg":
		return jpeg.Decode(r)
	case "gif":
		return gif.Decode(r) // the first frame
	case "webp":
		return webp.Decode(r)
	}
	return nil, errNoPicture
}
