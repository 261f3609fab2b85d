package media

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const (
	// maxPending is how many addresses without content a user may hold, pendingLife for how long.
	maxPending  = 100
	pendingLife = 24 * time.Hour
	// grace and minRate bound how long an upload may take: so long, and a second more for each minRate bytes that came.
	grace   = 30 * time.Second
	minRate = 16 << 10
	// maxTries is how often a decision is asked for again because the policy changes all the time.
	maxTries = 4
)

// Upload is content that somebody sends.
type Upload struct {
	// Type and Name are what the sender calls it; both may be empty.
	Type, Name string
	// Length is the announced length, negative when there is none.
	Length int64
	Body   io.Reader
	// Allow gives the sender so much more time for what follows, 0 for no limit. May be nil.
	Allow func(time.Duration) error
}

// Upload stores content under a new address and returns that.
//
// spec: client-server-api#post_matrixmediav3upload
func (s *Service) Upload(ctx context.Context, by Caller, up Upload) (string, error) {
	m := &storage.Media{Tenant: by.Tenant, ID: newID(), UserID: by.UserID, CreatedTS: s.Now().UnixMilli()}
	err := s.take(ctx, by, up, m, func() error {
		return s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.InsertMedia(m) })
	})
	if err != nil {
		return "", err
	}
	return uri(m.Tenant, m.ID), nil
}

// Created is an address without content.
type Created struct {
	URI string `json:"content_uri"`
	// ExpiresTS is until when the content has to be there.
	ExpiresTS int64 `json:"unused_expires_at"`
}

// Create promises content. Whether the user may upload is decided when the content comes, of which nothing is known yet.
//
// spec: client-server-api#post_matrixmediav1create
func (s *Service) Create(ctx context.Context, by Caller) (*Created, error) {
	now := s.Now()
	m := &storage.Media{Tenant: by.Tenant, ID: newID(), UserID: by.UserID, CreatedTS: now.UnixMilli(), ExpiresTS: now.Add(pendingLife).UnixMilli(), SHA256: []byte{}}
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		n, err := tx.CountPendingMedia(by.UserID, now.UnixMilli())
		if err != nil {
			return err
		}
		if n >= maxPending {
			return matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "You have %d uploads that have not begun; finish some first.", n).
				With("retry_after_ms", int64(time.Minute/time.Millisecond))
		}
		return tx.InsertMedia(m)
	})
	if err != nil {
		return nil, err
	}
	return &Created{uri(m.Tenant, m.ID), m.ExpiresTS}, nil
}

// Fill stores the content of an address that the caller created.
//
// spec: client-server-api#put_matrixmediav3uploadservernamemediaid
func (s *Service) Fill(ctx context.Context, by Caller, server, id string, up Upload) error {
	if server != string(by.Tenant) || !mediaIDRE.MatchString(id) {
		return notYours()
	}
	if err := s.DB.Read(ctx, func(tx *storage.Tx) error { return s.checkPromise(tx, by, id) }); err != nil {
		return err
	}
	m := &storage.Media{Tenant: by.Tenant, ID: id, UserID: by.UserID}
	err := s.take(ctx, by, up, m, func() error {
		return s.DB.Update(ctx, func(tx *storage.Tx) error {
			ok, err := tx.FillMedia(m, s.Now().UnixMilli())
			if err != nil || ok {
				return err
			}
			if err := s.checkPromise(tx, by, id); err != nil {
				return err
			}
			return notYours()
		})
	})
	if err != nil {
		return err
	}
	s.waiters.wake(uri(m.Tenant, m.ID))
	return nil
}

// notYours is the one answer about addresses that nobody made, that somebody else made and whose time is over.
func notYours() error {
	return matrix.Forbidden("You have not created this address, or its time is over.")
}

// checkPromise tells why the caller may not fill an address, if so.
func (s *Service) checkPromise(tx *storage.Tx, by Caller, id string) error {
	m, ok, err := tx.FindMedia(by.Tenant, id)
	switch {
	case err != nil:
		return err
	case !ok, m.UserID != by.UserID:
		return notYours()
	case m.ExpiresTS == 0:
		return matrix.Errorf(http.StatusConflict, matrix.CodeCannotOverwriteMedia, "This address has content already.")
	case m.ExpiresTS <= s.Now().UnixMilli():
		return notYours()
	}
	return nil
}

// take reads, judges and keeps content; enter then writes the row. When it fails, nothing stays behind.
func (s *Service) take(ctx context.Context, by Caller, up Upload, m *storage.Media, enter func() error) (err error) {
	defer func() {
		if err != nil {
			s.metrics.uploads.WithLabelValues("refused").Inc()
		} else {
			s.metrics.uploads.WithLabelValues("stored").Inc()
			s.metrics.bytes.Add(float64(m.Size))
		}
	}()
	m.Type, m.Name, m.Size = CleanType(up.Type), CleanName(up.Name), max(up.Length, 0)
	if up.Length > s.MaxUpload {
		return tooLarge(s.MaxUpload)
	}
	d, err := s.mayUpload(ctx, by, m)
	if err != nil {
		return err
	}
	limit := s.MaxUpload
	if most := d.Obligations.MaxBytes; most > 0 {
		limit = min(limit, most)
	}
	f, err := s.store.create()
	if err != nil {
		return diskError(err)
	}
	if m.Size, m.SHA256, err = s.copy(ctx, f, up, limit); err != nil {
		f.drop()
		return diskError(err)
	}
	m.File = m.ID + "." + newID()[:8]
	if err := f.keep(m.Tenant, m.File); err != nil {
		return diskError(err)
	}
	// What was decided before the content came holds only if the length was told and the policy is still the same.
	for try := 0; err == nil && try < maxTries && (up.Length < 0 || !s.Policy.Fresh(d)); try++ {
		d, err = s.mayUpload(ctx, by, m)
		up.Length = m.Size
	}
	if err == nil {
		err = enter()
	}
	// After an error of the database nobody knows whether the row is there; then the file is left to the sweep.
	if refused := (*matrix.Error)(nil); errors.As(err, &refused) {
		s.forget(m.Tenant, m.File)
	}
	return err
}

// forget removes a file that nothing refers to.
func (s *Service) forget(tenant matrix.ServerName, file string) {
	if err := s.store.remove(tenant, file); err != nil {
		s.log.WithField("tenant", tenant).WithError(err).Warn("a file was not removed; trying again later")
	}
}

func (s *Service) mayUpload(ctx context.Context, by Caller, m *storage.Media) (policy.Decision, error) {
	d := s.Policy.Decide(ctx, &policy.Input{Schema: policy.InputSchema, Point: policy.MediaUpload, Time: s.Now(),
		Tenant: policy.Tenant{Name: string(by.Tenant)}, Subject: by.Subject, Request: by.Request,
		Media: &policy.Media{Server: string(by.Tenant), MimeType: baseType(m.Type), Size: m.Size}})
	switch {
	case d.Allow:
		return d, nil
	case d.Has(policy.CodeTooLarge):
		e := d.Error()
		e.Status, e.Code = http.StatusRequestEntityTooLarge, matrix.CodeTooLarge
		return d, e
	}
	return d, d.Error()
}

// copy reads the whole body into f. A sender who is slower than minRate is cut off.
func (s *Service) copy(ctx context.Context, f *draft, up Upload, limit int64) (n int64, sum []byte, err error) {
	h, buf, start := sha256.New(), make([]byte, 64<<10), s.Now()
	allow := up.Allow
	if allow == nil {
		allow = func(time.Duration) error { return nil }
	}
	for {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		left := grace + time.Duration(n/minRate)*time.Second - s.Now().Sub(start)
		if left <= 0 {
			return 0, nil, tooSlow()
		}
		if err := allow(left); err != nil {
			return 0, nil, err
		}
		got, err := up.Body.Read(buf)
		if n += int64(got); n > limit {
			return 0, nil, tooLarge(limit)
		}
		_, _ = h.Write(buf[:got]) // never fails
		if _, werr := f.Write(buf[:got]); werr != nil {
			return 0, nil, werr
		}
		switch {
		case errors.Is(err, io.EOF):
			if up.Length >= 0 && n != up.Length {
				return 0, nil, cutOff()
			}
			return n, h.Sum(nil), allow(0)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return 0, nil, tooSlow()
		case err != nil:
			return 0, nil, cutOff()
		}
	}
}

func tooSlow() error {
	return matrix.Errorf(http.StatusRequestTimeout, matrix.CodeUnknown, "The upload came too slowly.")
}

func cutOff() error {
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeUnknown, "The upload ended before it was complete.")
}
