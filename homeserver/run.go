package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"hansa/storage"
)

// Run serves until ctx ends, then stops: first it takes no new requests and lets those under way finish (waiting syncs end at
// once), then the followers, at last the database.
func (s *Server) Run(ctx context.Context) error {
	defer func() {
		if err := s.DB.Close(); err != nil {
			s.log.WithError(err).Error("the database did not close well")
		}
	}()
	listeners, err := s.listen()
	if err != nil {
		return err
	}
	// The services outlive the requests.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var services errgroup.Group
	for name, run := range map[string]func(context.Context) error{
		"stream": s.Stream.Run, "policy": s.Policy.Run, "accounts": s.Accounts.Run, "sync": s.Sync.Run, "ephemeral": s.Presence.Run, "media": s.Media.Run,
		"caches": s.followCaches, "housekeeping": s.keepHouse,
		"directory": s.Directory.Run,
		"users":     func(ctx context.Context) error { return s.Stream.Follow(ctx, s.Directory.Follower()) },
		"profiles":  func(ctx context.Context) error { return s.Stream.Follow(ctx, s.Members.Follower()) },
	} {
		services.Go(func() error {
			if err := run(background); err != nil {
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

func (s *Server) listen() ([]listener, error) {
	client, err := net.Listen("tcp", s.Config.Listen.Client)
	if err != nil {
		return nil, err
	}
	s.client = client.Addr().String()
	list := []listener{{client, s.http(s.API.Handler())}}
	admin := s.adminHandler()
	if s.Config.Listen.Admin != "" {
		l, err := net.Listen("tcp", s.Config.Listen.Admin)
		if err != nil {
			return nil, errors.Join(err, client.Close())
		}
		s.admin = l.Addr().String()
		list = append(list, listener{l, s.http(admin)})
	}
	return list, nil
}

// http is a server whose every phase has a limit, so that slow peers hold nothing but their own connection.
func (s *Server) http(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: 3 * time.Minute,
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

// adminHandler serves health and metrics; the admin API stands beside them.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.CheckReady(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	return mux
}

// CheckReady tells whether the server can do its work: the database takes writes and policy is loaded.
func (s *Server) CheckReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	name, _ := os.Hostname() // only a label
	return s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.SetCursor("probe."+name, s.now().Unix()) })
}

// followCaches makes what is in memory agree with what any node has written.
func (s *Server) followCaches(ctx context.Context) error {
	pos := s.Stream.Position()
	for {
		if err := s.Stream.Wait(ctx, pos); err != nil {
			return nil
		}
		entries, upto, err := s.Stream.Read(ctx, pos)
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
		pos = upto
	}
}

func (s *Server) follow(ctx context.Context, e *storage.Entry) {
	if e.Kind == storage.KindNotice && e.Name == storage.NoticeAgreement {
		list, err := loadAgreements(ctx, s.DB)
		if err == nil {
			err = s.Policy.SetAgreements(ctx, list)
		}
		if err != nil {
			s.log.WithError(err).Error("agreements could not be read again")
		}
	}
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
