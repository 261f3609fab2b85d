package media

import (
	"context"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/draw"
)

// variant is one of the few sizes in which thumbnails are made. One without a size is the whole picture.
type variant struct {
	width, height int
	crop          bool
}

// variants are the sizes that the specification recommends, squares as large for those who crop, and one size more for dense
// screens. However many sizes clients ask for, there are no more than these of a picture.
//
// spec: client-server-api#thumbnails
func variants(crop bool) []variant {
	if crop {
		return []variant{{32, 32, true}, {96, 96, true}, {320, 240, true}, {320, 320, true}, {640, 480, true}, {640, 640, true}, {800, 600, true}}
	}
	return []variant{{320, 240, false}, {640, 480, false}, {800, 600, false}, {1600, 1200, false}}
}

// pick finds the size to answer with: never smaller than what was asked, of the wanted shape when cropped, else the smallest.
func pick(width, height int, crop bool) variant {
	var best variant
	worst := math.Inf(1)
	for _, v := range variants(crop) {
		if v.width < width || v.height < height {
			continue
		}
		cost := float64(v.width * v.height)
		if crop {
			want, have := float64(width)/float64(height), float64(v.width)/float64(v.height)
			cost += 1e9 * math.Abs(math.Log(want/have))
		}
		if cost < worst {
			best, worst = v, cost
		}
	}
	return best
}

// layout says which part of a picture becomes a thumbnail of which size. It is never larger than that part.
func (v variant) layout(width, height int) (part image.Rectangle, w, h int) {
	part = image.Rect(0, 0, width, height)
	if !v.crop {
		f := min(float64(v.width)/float64(width), float64(v.height)/float64(height), 1)
		return part, max(1, int(math.Round(f*float64(width)))), max(1, int(math.Round(f*float64(height))))
	}
	cw, ch := width, height
	if width*v.height > height*v.width {
		cw = max(1, (height*v.width+v.height/2)/v.height)
	} else {
		ch = max(1, (width*v.height+v.width/2)/v.width)
	}
	cw, ch = min(cw, width), min(ch, height)
	x, y := (width-cw)/2, (height-ch)/2
	return image.Rect(x, y, x+cw, y+ch), min(v.width, cw), min(v.height, ch)
}

// shrink makes the thumbnail of a decoded picture, turned upright.
func (v variant) shrink(ctx context.Context, src image.Image, turn int) (image.Image, error) {
	b := src.Bounds()
	if v.width == 0 {
		if turn > 1 {
			src = turned{src, turn}
		}
		return src, nil
	}
	if turn >= 5 {
		v.width, v.height = v.height, v.width
	}
	part, w, h := v.layout(b.Dx(), b.Dy())
	part = part.Add(b.Min)
	// Whole blocks of pixels are averaged first, a strip at a time, so that a large picture takes little memory and time.
	k := max(1, min(part.Dx()/w, part.Dy()/h))
	small, err := average(ctx, src, part, k)
	if err != nil {
		return nil, err
	}
	if small.Rect.Dx() != w || small.Rect.Dy() != h {
		out := image.NewRGBA(image.Rect(0, 0, w, h))
		var scaler draw.Scaler = draw.CatmullRom
		if w*h > 800*600 { // its memory grows with the width of the one and the height of the other
			scaler = draw.ApproxBiLinear
		}
		scaler.Scale(out, out.Rect, small, small.Rect, draw.Src, nil)
		small = out
	}
	return upright(small, turn), ctx.Err()
}

// average makes one pixel of each block of k by k.
func average(ctx context.Context, src image.Image, part image.Rectangle, k int) (*image.RGBA, error) {
	w, h := max(1, part.Dx()/k), max(1, part.Dy()/k)
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	if k == 1 {
		draw.Draw(out, out.Rect, src, part.Min, draw.Src)
		return out, ctx.Err()
	}
	strip := image.NewRGBA(image.Rect(0, 0, w*k, k))
	sums := make([]uint32, 4*w)
	n := uint32(k * k)
	for y := range h {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		draw.Draw(strip, strip.Rect, src, image.Pt(part.Min.X, part.Min.Y+y*k), draw.Src)
		clear(sums)
		for sy := range k {
			row := strip.Pix[sy*strip.Stride : sy*strip.Stride+4*w*k]
			for x := range w {
				for i := 4 * x * k; i < 4*(x+1)*k; i += 4 {
					sums[4*x] += uint32(row[i])
					sums[4*x+1] += uint32(row[i+1])
					sums[4*x+2] += uint32(row[i+2])
					sums[4*x+3] += uint32(row[i+3])
				}
			}
		}
		for i, s := range sums {
			out.Pix[y*out.Stride+i] = uint8((s + n/2) / n)
		}
	}
	return out, nil
}

// upright turns and mirrors a picture as its EXIF orientation says.
func upright(src *image.RGBA, turn int) *image.RGBA {
	if turn <= 1 || turn > 8 {
		return src
	}
	w, h := src.Rect.Dx(), src.Rect.Dy()
	ow, oh := w, h
	if turn >= 5 {
		ow, oh = h, w
	}
	out := image.NewRGBA(image.Rect(0, 0, ow, oh))
	for y := range h {
		for x := range w {
			dx, dy := x, y
			switch turn {
			case 2:
				dx = w - 1 - x
			case 3:
				dx, dy = w-1-x, h-1-y
			case 4:
				dy = h - 1 - y
			case 5:
				dx, dy = y, x
			case 6:
				dx, dy = h-1-y, x
			case 7:
				dx, dy = h-1-y, w-1-x
			case 8:
				dx, dy = y, w-1-x
			}
			copy(out.Pix[dy*out.Stride+4*dx:][:4], src.Pix[y*src.Stride+4*x:][:4])
		}
	}
	return out
}

// turned is a picture seen upright, for those that are not shrunk and would take too much memory a second time.
type turned struct {
	image.Image
	turn int
}

// Bounds are those of the upright picture.
func (t turned) Bounds() image.Rectangle {
	b := t.Image.Bounds()
	if t.turn >= 5 {
		return image.Rect(0, 0, b.Dy(), b.Dx())
	}
	return image.Rect(0, 0, b.Dx(), b.Dy())
}

// At is a pixel of the upright picture.
func (t turned) At(x, y int) color.Color {
	b := t.Image.Bounds()
	w, h := b.Dx(), b.Dy()
	switch t.turn {
	case 2:
		x = w - 1 - x
	case 3:
		x, y = w-1-x, h-1-y
	case 4:
		y = h - 1 - y
	case 5:
		x, y = y, x
	case 6:
		x, y = y, h-1-x
	case 7:
		x, y = w-1-y, h-1-x
	case 8:
		x, y = w-1-y, x
	}
	return t.Image.At(b.Min.X+x, b.Min.Y+y)
}

// encode writes a thumbnail, a photograph as JPEG, anything small or transparent as PNG. Neither holds any metadata.
func encode(w io.Writer, img image.Image, format string) (contentType string, err error) {
	b := img.Bounds()
	large := b.Dx()*b.Dy() > 640*480
	if (format == "jpeg" || large) && isOpaque(img) {
		return "image/jpeg", jpeg.Encode(w, img, &jpeg.Options{Quality: 85})
	}
	e := png.Encoder{}
	if large {
		e.CompressionLevel = png.BestSpeed
	}
	return "image/png", e.Encode(w, img)
}

func isOpaque(img image.Image) bool {
	if t, ok := img.(turned); ok {
		img = t.Image
	}
	o, ok := img.(interface{ Opaque() bool })
	return ok && o.Opaque()
}
