package media

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"hansa/matrix"
	"hansa/storage"
)

const (
	// decodeTime bounds the making of one thumbnail, queueTime the wait for memory to do it in.
	decodeTime = 20 * time.Second
	queueTime  = 10 * time.Second
	// failed is the variant under which it is kept that there is no thumbnail of a piece of media.
	failed        = "none"
	failedFormat  = "format"
	failedTooMuch = "too_large"
)

// Size is the thumbnail that somebody wants.
type Size struct {
	Width, Height int
	// Method is crop or scale; empty is scale.
	Method string
}

func (z Size) variant() (variant, error) {
	if z.Width <= 0 || z.Height <= 0 {
		return variant{}, matrix.InvalidParam("The width and the height must be more than 0.")
	}
	switch z.Method {
	case "", "scale":
		return pick(z.Width, z.Height, false), nil
	case "crop":
		return pick(z.Width, z.Height, true), nil
	}
	return variant{}, matrix.InvalidParam("The method must be crop or scale.")
}

// String is the name of a variant in the database and in file names.
func (v variant) String() string {
	switch {
	case v.width == 0:
		return "whole"
	case v.crop:
		return fmt.Sprintf("crop-%dx%d", v.width, v.height)
	}
	return fmt.Sprintf("scale-%dx%d", v.width, v.height)
}

// Thumbnail returns a still picture made of content, at least as large as wanted where the content is.
// differs: content that is smaller than wanted is written anew as well, so that thumbnails never hold metadata.
//
// spec: client-server-api#get_matrixclientv1mediathumbnailservernamemediaid
// spec: client-server-api#thumbnails
func (s *Service) Thumbnail(ctx context.Context, by Caller, at Address, size Size) (*File, error) {
	v, err := size.variant()
	if err != nil {
		return nil, err
	}
	m, err := s.find(ctx, by, at, true)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		t, err := s.thumbnail(ctx, m, v)
		if err != nil {
			return nil, err
		}
		f, err := s.store.open(ctx, m.Tenant, t.File, t.Size, t.SHA256)
		if err == nil {
			return &File{File: f, Type: t.Type, Name: "thumbnail" + extension(t.Type), Size: t.Size, SHA256: t.SHA256}, nil
		}
		if !errors.Is(err, errDamaged) {
			return nil, err
		}
		// What was made once can be made again, unless it was removed with its media a moment ago.
		answer := s.damaged(m.Tenant, err)
		if try > 0 {
			return nil, answer
		}
		if err := s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.DeleteThumbnail(m.Tenant, m.ID, t) }); err != nil {
			return nil, err
		}
		s.forget(m.Tenant, t.File)
	}
}

func extension(contentType string) string {
	if contentType == "image/jpeg" {
		return ".jpg"
	}
	return ".png"
}

// thumbnail finds or makes a thumbnail. Requests for the same one wait for each other.
func (s *Service) thumbnail(ctx context.Context, m *storage.Media, v variant) (*storage.Thumbnail, error) {
	t, err := s.loadThumbnail(ctx, m, v)
	if t != nil || err != nil {
		return t, err
	}
	got, err, _ := s.flights.Do(m.File+" "+v.String(), func() (any, error) {
		if t, err := s.loadThumbnail(ctx, m, v); t != nil || err != nil {
			return t, err
		}
		// Others may wait for it, so it does not end with the request that came first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queueTime+decodeTime)
		defer cancel()
		return s.makeThumbnail(ctx, m, v)
	})
	if err != nil {
		return nil, err
	}
	return got.(*storage.Thumbnail), nil
}

// loadThumbnail returns a thumbnail that was made before, nil when there is none yet, and an error when there can be none.
func (s *Service) loadThumbnail(ctx context.Context, m *storage.Media, v variant) (t *storage.Thumbnail, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if t, err = tx.LoadThumbnail(m.Tenant, m.ID, v.String()); errors.Is(err, storage.ErrNotFound) {
			t, err = tx.LoadThumbnail(m.Tenant, m.ID, failed)
		}
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t, failure(t.Failure)
}

// failure is what is told to whoever wants a thumbnail that cannot be made.
func failure(reason string) error {
	switch reason {
	case "":
		return nil
	case failedTooMuch:
		return matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "The content is too large to make a thumbnail of it.")
	}
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeUnknown, "There is no thumbnail of content of this kind.")
}

func (s *Service) makeThumbnail(ctx context.Context, m *storage.Media, v variant) (*storage.Thumbnail, error) {
	t := &storage.Thumbnail{Variant: v.String()}
	err := s.render(ctx, m, v, t)
	switch {
	case errors.Is(err, errNoPicture):
		*t = storage.Thumbnail{Variant: failed, Failure: failedFormat, SHA256: []byte{}}
	case errors.Is(err, errBigPicture):
		*t = storage.Thumbnail{Variant: failed, Failure: failedTooMuch, SHA256: []byte{}}
	case errors.Is(err, context.DeadlineExceeded): // perhaps there is more time another day
		s.metrics.thumbnails.WithLabelValues("failed").Inc()
		return nil, failure(failedTooMuch)
	case err != nil:
		return nil, diskError(err)
	}
	kept := false
	err = s.DB.Update(ctx, func(tx *storage.Tx) (err error) {
		kept, err = tx.InsertThumbnail(m.Tenant, m.ID, t)
		return err
	})
	if t.Failure != "" {
		s.metrics.thumbnails.WithLabelValues("failed").Inc()
		return nil, errors.Join(failure(t.Failure), err)
	}
	if err != nil || kept {
		s.metrics.thumbnails.WithLabelValues("made").Inc()
		return t, err
	}
	// Another node was faster, or the media is gone.
	s.forget(m.Tenant, t.File)
	if t, err = s.loadThumbnail(ctx, m, v); t == nil && err == nil {
		return nil, notFound()
	}
	return t, err
}

// render makes the file of a thumbnail and describes it in t.
func (s *Service) render(ctx context.Context, m *storage.Media, v variant, t *storage.Thumbnail) error {
	src, err := s.open(ctx, m)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // it was only read
	p, err := probe(src.File, src.Size)
	if err != nil {
		return err
	}
	release, err := s.reserve(ctx, p.memory+scaleMemory)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, decodeTime)
	defer cancel()
	f, err := s.store.create()
	if err != nil {
		return err
	}
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 64<<10)
	if t.Type, err = draws(ctx, w, src, p, v); err == nil {
		err = w.Flush()
	}
	if err == nil {
		t.Size, err = f.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		f.drop()
		return err
	}
	t.SHA256, t.File = h.Sum(nil), m.ID+"."+t.Variant+"."+newID()[:8]
	return f.keep(m.Tenant, t.File)
}

// draws decodes, shrinks and encodes. A decoder that panics has met something that is no picture.
func draws(ctx context.Context, w io.Writer, src io.Reader, p *picture, v variant) (contentType string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errNoPicture, r)
		}
	}()
	// Small pieces, so that a decoder that does much work for few bytes still notices the end of its time.
	img, err := decode(p.format, piecemeal{stoppable{ctx, src}})
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoPicture, err)
	}
	if b := img.Bounds(); b.Dx() <= 0 || b.Dy() <= 0 || b.Dx()*b.Dy() > maxPixels {
		return "", errBigPicture
	}
	out, err := v.shrink(ctx, img, p.orientation)
	if err != nil {
		return "", err
	}
	return encode(w, out, p.format)
}

// piecemeal reads at most 512 bytes at a time.
type piecemeal struct{ r io.Reader }

func (p piecemeal) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), 512)]) }

// reserve takes a share of the memory for decoding, and waits for it for a while.
func (s *Service) reserve(ctx context.Context, mib int64) (release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, queueTime)
	defer cancel()
	mib = min(mib, memoryBudget)
	if err := s.memory.Acquire(wait, mib); err != nil {
		s.metrics.thumbnails.WithLabelValues("busy").Inc()
		return nil, matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "Too many thumbnails are being made; try again later.").With("retry_after_ms", 2000)
	}
	return func() { s.memory.Release(mib) }, nil
}
