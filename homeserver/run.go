package homeserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"hansa/homeserver/adminapi"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// Run serves until ctx ends, then stops: first it is not ready any more and waits until load balancers know, then it takes no new requests
// and lets those under way finish (waiting syncs end at once, without news), then the followers, at last the database. When the disk of the database fails, or the database has gone back in time (storage.ErrWentBack), it stops
// by itself: the next start reads what is really there.
func (s *Server) Run(ctx context.Context) error {
	defer func() {
		if err := s.DB.Close(); err != nil {
			s.log.WithError(err).Error("the database did not close well")
		}
	}()
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	// The services outlive the requests.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.nodes.begin(ctx)
	var services errgroup.Group
	all := map[string]func(context.Context) error{
		"stream": s.Stream.Run, "policy": s.Policy.Run, "accounts": s.Accounts.Run, "sync": s.Sync.Run, "ephemeral": s.Presence.Run, "media": s.Media.Run,
		"database": func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return nil
			case <-s.DB.Failed():
				giveUp()
				return storage.ErrUnavailable
			case <-s.DB.Seen().WentBack():
				giveUp()
				return storage.ErrWentBack
			}
		},
		"caches": s.followCaches, "housekeeping": s.keepHouse, "position": s.remember, "nodes": s.nodes.run,
		"directory":      s.Directory.Run,
		"users":          s.follower(s.Directory.Follower()),
		"leavers":        s.follower(s.Members.Leavers()),
		"signer":         s.follower(s.Rooms.Signer()),
		"compliance":     s.follower(s.Rooms.Compliance()),
		"policy changes": s.Rooms.WatchPolicy,
		"state audit":    s.Rooms.AuditStates,
		"profiles":       s.follower(s.Members.Follower()),
		"bridges":        s.Bridges.Run,
	}
	maps.Copy(all, s.federationServices())
	for name, run := range all {
		services.Go(func() error {
			if err := s.Stream.Keep(background, name, run); err != nil && !(background.Err() != nil && errors.Is(err, context.Canceled)) {
				s.log.WithError(err).WithField("service", name).Error("a service ended")
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	close(s.ready)
	s.log.WithField("listeners", s.client).Info("serving")
	err = s.serve(ctx, listeners)
	stop()
	return errors.Join(err, services.Wait())
}

// follower runs a follower after the caches of this node, so that what it asks of rooms and people is no older than what it was told.
func (s *Server) follower(f stream.Follower) func(context.Context) error {
	handle := f.Handle
	f.Handle = func(ctx context.Context, entries []storage.Entry, upto int64) error {
		if err := s.Sync.Reach(ctx, upto); err != nil {
			return err
		}
		return handle(ctx, entries, upto)
	}
	return func(ctx context.Context) error { return s.Stream.Follow(ctx, f) }
}

// Ready is closed when the server takes requests; Addr is where.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is the address of the client listener once the server is ready.
func (s *Server) Addr() string { return s.client }

// AdminAddr is the address of the admin listener once the server is ready, empty when there is none.
func (s *Server) AdminAddr() string { return s.admin }

// listener is one HTTP server on one socket.
type listener struct {
	net.Listener
	http *http.Server
}

func (s *Server) listen(ctx context.Context) ([]listener, error) {
	client, err := net.Listen("tcp", s.Config.Listen.Client)
	if err != nil {
		return nil, err
	}
	s.client = client.Addr().String()
	list := []listener{{client, s.http(s.clientHandler())}}
	closed := func(err error) error {
		for _, l := range list {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	if l, err := s.listenFederation(); err != nil {
		return nil, closed(err)
	} else if l != nil {
		list = append(list, *l)
	}
	if s.Config.Listen.Admin != "" {
		l, err := net.Listen("tcp", s.Config.Listen.Admin)
		if err != nil {
			return nil, closed(err)
		}
		s.admin = l.Addr().String()
		list = append(list, listener{l, s.http(s.adminHandler())})
	}
	socket, err := adminapi.ListenSocket(ctx, s.Config.AdminSocket())
	if err != nil {
		return nil, closed(err)
	}
	return append(list, listener{socket, s.http(s.Admin.OperatorHandler())}), nil
}

// requestTime is how long somebody may take to send a request.
const requestTime = 2 * time.Minute

// http is a server whose every phase has a limit, so that slow peers hold nothing but their own connection.
func (s *Server) http(h http.Handler) *http.Server {
	return &http.Server{Handler: s.health.leaving(h), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: requestTime, IdleTimeout: 3 * time.Minute,
		MaxHeaderBytes: 32 << 10, ErrorLog: nil}
}

func (s *Server) serve(ctx context.Context, list []listener) error {
	var g errgroup.Group
	for _, l := range list {
		g.Go(func() error {
			if err := l.http.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	failed := make(chan error, 1)
	go func() { failed <- g.Wait() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.log.Info("stopping")
	// Those who send requests here by what /readyz says are let hear of it first; until then all is served.
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(s.Config.ShutdownGrace))
	defer cancel()
	s.health.drain(leave)
	s.Sync.Stop()
	s.Media.Stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(s.Config.ShutdownGrace))
	defer cancel()
	var err error
	for _, l := range list {
		if serr := l.http.Shutdown(grace); serr != nil {
			err = errors.Join(err, serr, l.http.Close())
		}
	}
	return errors.Join(err, <-failed)
}

// followCaches makes what is in memory agree with what any node has written.
func (s *Server) followCaches(ctx context.Context) error {
	for {
		if err := s.Stream.Wait(ctx, s.followed); err != nil {
			return nil
		}
		entries, upto, err := s.Stream.Read(ctx, s.followed)
		if err != nil {
			s.log.WithError(err).Warn("caches could not follow the log; trying again")
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		for i := range entries {
			s.follow(ctx, &entries[i])
		}
		s.followed = upto
	}
}

func (s *Server) follow(ctx context.Context, e *storage.Entry) {
	if e.Kind != storage.KindNotice {
		return
	}
	switch e.Name {
	case storage.NoticeAgreement:
		if err := s.renewAgreements(ctx); err != nil {
			s.log.WithError(err).Error("agreements could not be read again")
		}
		s.forgetStrangers(ctx)
	case storage.NoticePolicy:
		s.nodes.heard(e.Ref)
		s.forgetStrangers(ctx) // an agreement has expired, or a rule denies a server
	case storage.NoticeBridge:
		if err := s.Bridges.Refresh(ctx); err != nil {
			s.log.WithError(err).Error("it could not be read which bridges are suspended")
		}
	}
}

// forgetStrangers forgets what is kept for convenience of servers with which no tenant has to do any more, after something has changed about that:
// profiles, what they said of their rooms, presence, devices and keys, copies of media. What rooms are made of stays, and so do the keys
// that tell who has sent it.
func (s *Server) forgetStrangers(ctx context.Context) {
	s.Accounts.ForgetFar()
	s.Directory.ForgetFar()
	s.Keys.Recheck()
	s.Media.Recheck()
	s.Presence.ForgetFar(func(name matrix.ServerName) bool {
		for as := range s.signing {
			d := s.Policy.Consider(ctx, &policy.Input{Schema: policy.InputSchema, Point: policy.FederationOutbound, Time: s.now(), Tenant: policy.Tenant{Name: string(as)},
				Subject: policy.ServerParty(string(as), true), Server: &policy.Server{Name: string(name)}})
			if d.Allow || d.Err != nil {
				return true
			}
		}
		return false
	})
}

// keepHouse forgets what nobody needs any more.
func (s *Server) keepHouse(ctx context.Context) error {
	t := time.NewTicker(10 * time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		old := s.now().Add(-7 * 24 * time.Hour).UnixMilli()
		err := s.DB.Update(ctx, func(tx *storage.Tx) error {
			if _, err := tx.PruneTxns(old); err != nil {
				return err
			}
			_, err := tx.PruneNotices(old)
			return err
		})
		if err != nil {
			s.log.WithError(err).Warn("old rows were not removed; trying again later")
		}
	}
}
