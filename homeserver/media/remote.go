package media

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"sync"
	"time"

	"hansa/matrix"
	"hansa/outbound"
	"hansa/policy"
	"hansa/storage"
)

// RemoteFile is a file on its way from another server. Whoever got it closes the body.
type RemoteFile struct {
	// Type and Disposition are the headers that the other server gave it.
	Type, Disposition string
	Body              io.ReadCloser
}

// Fetch downloads media of another server in the name of a tenant, refused without anything being resolved or dialled where policy does
// not let that tenant reach the server. Reading beyond maxBytes fails with outbound.ErrTooLarge.
type Fetch func(ctx context.Context, as, to matrix.ServerName, id string, maxBytes int64) (*RemoteFile, error)

const (
	// fetchTime is how long a download may take, fetchWait how long a request waits for it.
	fetchTime = 10 * time.Minute
	fetchWait = 2 * time.Minute
	// maxFetches is how many downloads of one server there are at a time, maxAllFetches how many of all.
	maxFetches    = 8
	maxAllFetches = 256
	// A user may fetch bucketSize bytes at once, and bucketLeak more a second. A download counts for bucketLeast at the least.
	bucketSize  = 512 << 20
	bucketLeak  = 256 << 10
	bucketLeast = 256 << 10
	// maxBuckets is how many users are known who fetched something.
	maxBuckets = 20_000
	// touchEvery is how exactly it is known when a copy was used.
	touchEvery = 10 * time.Minute
	// maxFarID is the longest media ID of another server.
	maxFarID = 200
)

// far is what is remembered about downloads from other servers.
type far struct {
	now func() time.Time

	mu      sync.Mutex // guards all below
	buckets map[matrix.UserID]bucket
	running map[matrix.ServerName]int
	total   int
	fresh   int64 // bytes that were stored since the copies were counted
}

// bucket is how much a user has fetched, less what has leaked since.
type bucket struct {
	level int64
	at    time.Time
}

func newFar(now func() time.Time) *far {
	return &far{now: now, buckets: map[matrix.UserID]bucket{}, running: map[matrix.ServerName]int{}}
}

// level is how full a user's bucket is. The caller holds f.mu.
func (f *far) level(user matrix.UserID, now time.Time) int64 {
	b := f.buckets[user]
	return max(0, b.level-int64(max(now.Sub(b.at), 0).Seconds()*bucketLeak))
}

// charge puts bytes into a user's bucket; ok is false where it is full already.
func (f *far) charge(user matrix.UserID, bytes int64) (wait time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	level := f.level(user, now)
	if level >= bucketSize {
		return time.Duration(level-bucketSize)*time.Second/bucketLeak + time.Second, false
	}
	if len(f.buckets) >= maxBuckets {
		for u := range f.buckets {
			if f.level(u, now) == 0 || len(f.buckets) >= maxBuckets {
				delete(f.buckets, u)
			}
		}
	}
	f.buckets[user] = bucket{level + bytes, now}
	return 0, true
}

// add puts in what a download had beyond the least.
func (f *far) add(user matrix.UserID, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes > bucketLeast {
		now := f.now()
		f.buckets[user] = bucket{f.level(user, now) + bytes - bucketLeast, now}
	}
}

// begin takes a place for a download.
func (f *far) begin(server matrix.ServerName) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[server] >= maxFetches || f.total >= maxAllFetches {
		return false
	}
	f.running[server]++
	f.total++
	return true
}

func (f *far) end(server matrix.ServerName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total--
	if f.running[server]--; f.running[server] == 0 {
		delete(f.running, server)
	}
}

// permittedFar returns media of another server if policy lets the caller have it. Policy is asked before the server is, and again
// when it is known what it is; also about a copy that is here.
func (s *Service) permittedFar(ctx context.Context, by Caller, server matrix.ServerName, id string, thumbnail bool) (*storage.Media, error) {
	decide := func(m *storage.Media) error {
		in := &policy.Input{Schema: policy.InputSchema, Point: policy.MediaDownload, Time: s.Now(), Tenant: policy.Tenant{Name: string(by.Tenant)},
			Subject: by.Subject, Request: by.Request, Media: &policy.Media{Server: string(server), Thumbnail: thumbnail}, Server: &policy.Server{Name: string(server)}}
		if m != nil {
			in.Media.MimeType, in.Media.Size = baseType(m.Type), m.Size
		}
		d := s.Policy.Decide(ctx, in)
		switch {
		case d.Err != nil && m != nil: // the caller tries again
			return d.Error()
		case !d.Allow, s.Fetch == nil:
			return d.NotFound(noMedia)
		}
		return nil
	}
	m, found, err := s.findCopy(ctx, server, id)
	if err != nil {
		return nil, err
	}
	if !found {
		if err := decide(nil); err != nil {
			return nil, err
		}
		if m, err = s.fetch(ctx, by, server, id); err != nil {
			return nil, err
		}
	}
	if err := decide(m); err != nil {
		return nil, err
	}
	if found {
		err = s.DB.Update(ctx, func(tx *storage.Tx) error {
			return tx.TouchRemoteMedia(server, id, s.Now().Add(-touchEvery).UnixMilli())
		})
	}
	return m, err
}

// findCopy finds the copy that is kept of media of another server.
func (s *Service) findCopy(ctx context.Context, server matrix.ServerName, id string) (m *storage.Media, found bool, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		m, found, err = tx.FindMedia(server, id)
		return err
	})
	return m, found, err
}

// fetch downloads media of another server and keeps it. Those who want the same wait for one download.
//
// spec: server-server-api#content-repository
func (s *Service) fetch(ctx context.Context, by Caller, server matrix.ServerName, id string) (*storage.Media, error) {
	if len(id) > maxFarID {
		return nil, notFound()
	}
	if wait, ok := s.far.charge(by.UserID, bucketLeast); !ok {
		return nil, matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "You have fetched a lot of media of other servers; try again later.").
			With("retry_after_ms", wait.Milliseconds())
	}
	fetched := s.fetches.Start(ctx, uri(server, id), fetchTime, func(ctx context.Context) (*storage.Media, error) {
		if m, found, err := s.findCopy(ctx, server, id); found || err != nil { // another has fetched it since this one looked
			return m, err
		}
		m, err := s.download(ctx, by.Tenant, server, id)
		result := "stored"
		if err != nil {
			result = "failed"
			s.log.WithField("destination", server).WithError(err).Debug("media of another server was not fetched")
		}
		s.metrics.fetches.WithLabelValues(result).Inc()
		return m, err
	})
	t := time.NewTimer(fetchWait)
	defer t.Stop()
	select {
	case <-fetched.Done():
		m, err := fetched.Result()
		if err != nil {
			return nil, fetchError(err)
		}
		s.far.add(by.UserID, m.Size)
		return m, nil
	case <-t.C:
		return nil, notYet()
	case <-s.stop:
		return nil, notYet()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fetchError is what is told to whoever wanted media that could not be fetched.
func fetchError(err error) error {
	var status interface{ HTTPStatus() int }
	var own *matrix.Error
	switch {
	case errors.As(err, &own) && own.Status == http.StatusForbidden: // policy, which has recorded it
		return notFound()
	case errors.As(err, &own):
		return own
	case errors.Is(err, outbound.ErrTooLarge):
		return matrix.Errorf(http.StatusBadGateway, matrix.CodeTooLarge, "The content is larger than what is fetched from other servers.")
	case errors.As(err, &status) && (status.HTTPStatus() == http.StatusNotFound || status.HTTPStatus() == http.StatusForbidden):
		return notFound()
	case errors.As(err, &status) && status.HTTPStatus() == http.StatusGatewayTimeout:
		return notYet()
	}
	return matrix.Errorf(http.StatusBadGateway, matrix.CodeUnknown, "The content could not be fetched from its server.")
}

func (s *Service) download(ctx context.Context, as, server matrix.ServerName, id string) (*storage.Media, error) {
	if !s.far.begin(server) {
		return nil, matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "Too much is being fetched from that server; try again later.").
			With("retry_after_ms", 5000)
	}
	defer s.far.end(server)
	src, err := s.Fetch(ctx, as, server, id, s.MaxUpload)
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.Body.Close() }() // it was only read
	m := &storage.Media{Tenant: server, ID: id, CreatedTS: s.Now().UnixMilli(), Type: CleanType(src.Type), Name: nameIn(src.Disposition)}
	f, err := s.store.create()
	if err != nil {
		return nil, diskError(err)
	}
	h := sha256.New()
	m.Size, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(stoppable{ctx, src.Body}, s.MaxUpload+1))
	switch {
	case err != nil:
		f.drop()
		return nil, diskError(fmt.Errorf("fetch media: %w", err))
	case m.Size > s.MaxUpload:
		f.drop()
		return nil, outbound.ErrTooLarge
	}
	m.SHA256, m.File = h.Sum(nil), id+"."+newID()[:8]
	if err := f.keep(server, m.File); err != nil {
		return nil, diskError(err)
	}
	err = s.keepCopy(ctx, m)
	if err == nil && !s.reaches(ctx, as, server) {
		s.Recheck() // the server has become a stranger meanwhile
	}
	return m, err
}

// nameIn is the file name in a Content-Disposition header, empty where there is none.
func nameIn(disposition string) string {
	if len(disposition) > 4*maxName {
		return ""
	}
	_, params, err := mime.ParseMediaType(disposition)
	if err != nil {
		return ""
	}
	return CleanName(params["filename"])
}

// keepCopy enters a copy, or takes the one of another node that was faster; and makes room where there are too many.
func (s *Service) keepCopy(ctx context.Context, m *storage.Media) error {
	kept := false
	err := s.DB.Update(ctx, func(tx *storage.Tx) (err error) {
		kept, err = tx.PutRemoteMedia(m)
		return err
	})
	if err != nil {
		return err // then the file is left to the sweep
	}
	if !kept {
		s.forget(m.Tenant, m.File)
		return s.DB.Read(ctx, func(tx *storage.Tx) error {
			old, err := tx.LoadMedia(m.Tenant, m.ID)
			if err == nil {
				*m = *old
			}
			return err
		})
	}
	s.far.mu.Lock()
	s.far.fresh += m.Size
	full := s.far.fresh > s.MaxRemote/64
	s.far.mu.Unlock()
	if full {
		return s.trim(ctx)
	}
	return nil
}

// trim removes the copies that were not used for the longest time, until what is left has room.
func (s *Service) trim(ctx context.Context) error {
	s.far.mu.Lock()
	s.far.fresh = 0
	s.far.mu.Unlock()
	for {
		more := false
		err := s.DB.Update(ctx, func(tx *storage.Tx) error {
			more = false
			sum, err := tx.SumRemoteMedia()
			if err != nil || sum <= s.MaxRemote {
				return err
			}
			list, err := tx.ListUnusedMedia(sweepBatch)
			if err != nil {
				return err
			}
			gone := map[matrix.ServerName][]string{}
			for _, m := range list {
				if sum <= s.MaxRemote*9/10 {
					break
				}
				sum -= m.Size
				gone[m.Tenant] = append(gone[m.Tenant], m.ID)
			}
			for server, ids := range gone {
				if err := tx.DropRemoteMedia(server, ids); err != nil {
					return err
				}
			}
			more = sum > s.MaxRemote && len(list) == sweepBatch
			return nil
		})
		if err != nil || !more {
			return err
		}
	}
}

// Recheck makes Run remove what is kept of servers with which no tenant has to do any more. It is called when that has changed.
func (s *Service) Recheck() {
	select {
	case s.recheck <- struct{}{}:
	default:
	}
}

func (s *Service) forgetStrangers(ctx context.Context) error {
	var servers []matrix.ServerName
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		servers, err = tx.ListMediaServers()
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range servers {
		if slices.ContainsFunc(s.Tenants, func(as matrix.ServerName) bool { return s.reaches(ctx, as, name) }) {
			continue
		}
		if err := s.forgetServer(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// reaches tells whether a tenant has to do with another server, or whether that cannot be decided.
func (s *Service) reaches(ctx context.Context, as, name matrix.ServerName) bool {
	d := s.Policy.Consider(ctx, &policy.Input{Schema: policy.InputSchema, Point: policy.FederationOutbound, Time: s.Now(), Tenant: policy.Tenant{Name: string(as)},
		Subject: policy.ServerParty(string(as), true), Server: &policy.Server{Name: string(name)}})
	return d.Allow || d.Err != nil
}

// forgetServer removes the copies of media of a server.
func (s *Service) forgetServer(ctx context.Context, server matrix.ServerName) error {
	for {
		n := 0
		err := s.DB.Update(ctx, func(tx *storage.Tx) error {
			list, err := tx.ListServerMedia(server, sweepBatch)
			if n = len(list); err != nil || n == 0 {
				return err
			}
			ids := make([]string, n)
			for i, m := range list {
				ids[i] = m.ID
			}
			return tx.DropRemoteMedia(server, ids)
		})
		if err != nil || n < sweepBatch {
			return err
		}
	}
}

// asServer is a server that asks a tenant.
func asServer(as, origin matrix.ServerName) Caller {
	return Caller{Tenant: as, Server: origin, Subject: policy.ServerParty(string(origin), false), Request: &policy.Request{Via: "federation"}}
}

// serveWait is how long another server waits for content that was promised.
const serveWait = 15 * time.Second

// Serve returns content of the tenant that another server asks. What it may not have is as absent as what is not there.
//
// spec: server-server-api#get_matrixfederationv1mediadownloadmediaid
func (s *Service) Serve(ctx context.Context, as, origin matrix.ServerName, id string) (*File, error) {
	if !s.hosted(as) {
		return nil, notFound()
	}
	return s.Open(ctx, asServer(as, origin), Address{Server: string(as), ID: id, Wait: serveWait})
}

// ServeThumbnail returns a thumbnail of content of the tenant that another server asks.
//
// spec: server-server-api#get_matrixfederationv1mediathumbnailmediaid
func (s *Service) ServeThumbnail(ctx context.Context, as, origin matrix.ServerName, id string, size Size) (*File, error) {
	if !s.hosted(as) {
		return nil, notFound()
	}
	return s.Thumbnail(ctx, asServer(as, origin), Address{Server: string(as), ID: id, Wait: serveWait}, size)
}
