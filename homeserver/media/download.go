package media

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const (
	// maxWait is how long a request waits for an upload, waitStep how often it looks for one that went to another node.
	maxWait  = 20 * time.Second
	waitStep = 2 * time.Second
)

// Address names media as a request does.
type Address struct {
	Server, ID string
	// Wait is how long to wait for content that was promised.
	Wait time.Duration
}

// File is content, open for reading. Whoever got it closes it.
type File struct {
	*os.File
	Type, Name string
	Size       int64
	SHA256     []byte
}

// Open returns content. What policy refuses is as absent as what is not there.
//
// spec: client-server-api#get_matrixclientv1mediadownloadservernamemediaid
func (s *Service) Open(ctx context.Context, by Caller, at Address) (*File, error) {
	m, err := s.find(ctx, by, at, false)
	if err != nil {
		return nil, err
	}
	f, err := s.open(ctx, m)
	if err != nil && !s.hosted(m.Tenant) { // the copy is gone: fetch another
		if m, err = s.find(ctx, by, at, false); err != nil {
			return nil, err
		}
		f, err = s.open(ctx, m)
	}
	return f, err
}

func (s *Service) open(ctx context.Context, m *storage.Media) (*File, error) {
	f, err := s.store.open(ctx, m.Tenant, m.File, m.Size, m.SHA256)
	if errors.Is(err, errDamaged) {
		if !s.hosted(m.Tenant) {
			if derr := s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.DropRemoteMedia(m.Tenant, []string{m.ID}) }); derr != nil {
				return nil, derr
			}
		}
		return nil, s.damaged(m.Tenant, err)
	}
	if err != nil {
		return nil, err
	}
	return &File{File: f, Type: m.Type, Name: m.Name, Size: m.Size, SHA256: m.SHA256}, nil
}

// damaged raises the alarm about a file and is the answer to whoever asked for it.
func (s *Service) damaged(tenant matrix.ServerName, err error) error {
	s.metrics.damaged.Inc()
	s.log.WithField("tenant", tenant).WithError(err).Error("stored media is damaged")
	return matrix.Errorf(http.StatusBadGateway, matrix.CodeUnknown, "The stored content is damaged.")
}

// find returns the row of media that the caller may have, and waits for its content if need be.
func (s *Service) find(ctx context.Context, by Caller, at Address, thumbnail bool) (*storage.Media, error) {
	server, err := matrix.ParseServerName(at.Server)
	if err != nil || !mediaIDRE.MatchString(at.ID) {
		return nil, notFound()
	}
	end := s.Now().Add(min(at.Wait, maxWait))
	var done <-chan struct{}
	for {
		m, err := s.permitted(ctx, by, server, at.ID, thumbnail)
		if err != nil || m.ExpiresTS == 0 {
			return m, err
		}
		if m.ExpiresTS <= s.Now().UnixMilli() {
			return nil, notFound()
		}
		left := end.Sub(s.Now())
		if left <= 0 {
			return nil, notYet()
		}
		if done == nil { // look once more after joining, so that no upload is missed in between
			ch, leave := s.waiters.join(uri(server, at.ID))
			defer leave()
			done = ch
			continue
		}
		if err := s.wait(ctx, done, min(left, waitStep)); err != nil {
			return nil, err
		}
	}
}

func notYet() error {
	return matrix.Errorf(http.StatusGatewayTimeout, matrix.CodeNotYetUploaded, "The content has not been uploaded yet.")
}

func (s *Service) wait(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-s.stop:
		return notYet()
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// permitted returns media if policy lets the caller have it.
func (s *Service) permitted(ctx context.Context, by Caller, server matrix.ServerName, id string, thumbnail bool) (m *storage.Media, err error) {
	if !s.hosted(server) {
		return s.permittedFar(ctx, by, server, id, thumbnail)
	}
	found := false
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		m, found, err = tx.FindMedia(server, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !found && server == by.Tenant { // there is nobody to ask about; the answer names a decision like any other
		d := s.Policy.Decide(ctx, &policy.Input{Schema: policy.InputSchema, Point: policy.Contact, Time: s.Now(), Subject: by.Subject, Target: by.Subject})
		return nil, d.NotFound(noMedia)
	}
	in := &policy.Input{Schema: policy.InputSchema, Point: policy.MediaDownload, Time: s.Now(), Tenant: policy.Tenant{Name: string(by.Tenant)},
		Subject: by.Subject, Request: by.Request, Media: &policy.Media{Server: string(server), Thumbnail: thumbnail}}
	switch {
	case by.Server != "":
		in.Server = &policy.Server{Name: string(by.Server)}
	case server != by.Tenant:
		in.Server = &policy.Server{Name: string(server)}
	}
	if found {
		in.Media.MimeType, in.Media.Size = baseType(m.Type), m.Size
		if in.Target, err = s.Parties.Party(ctx, m.UserID); err != nil {
			return nil, err
		}
	}
	d := s.Policy.Decide(ctx, in)
	switch {
	case d.Err != nil && found: // the caller tries again
		return nil, d.Error()
	case !d.Allow, !found:
		return nil, d.NotFound(noMedia)
	}
	return m, nil
}
