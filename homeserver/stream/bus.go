package stream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"

	"hansa/storage"
)

// publishApart is the shortest time between two wake-ups that this node sends.
const publishApart = 4 * time.Millisecond

// subscribeTime is how long the server of NATS may take to take note of what this node wants to hear.
const subscribeTime = 500 * time.Millisecond

// bus is the connection to NATS.
type bus struct {
	s      *Stream
	conn   *nats.Conn
	prefix string // of all subjects of this cell
	news   chan struct{}
	last   atomic.Int64 // the newest position that this process has committed
	seal   *seal
	out    chan relayed
	subs   []*nats.Subscription // used by run
	// listening is set while the other nodes are heard.
	listening atomic.Bool
}

// newBus connects in the background, for ever.
func newBus(s *Stream, urls string, cell storage.Cell) (*bus, error) {
	b := &bus{s: s, prefix: "hansa." + cell.Name + ".", news: make(chan struct{}, 1), out: make(chan relayed, 1024)}
	var err error
	if b.seal, err = newSeal(cell.Secret, s.node); err != nil {
		return nil, err
	}
	if b.conn, err = dialNATS(urls, s); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	return b, nil
}

// listen begins to hear the other nodes. Before that nobody may be told of them: who hears them may not be ready.
func (b *bus) listen() error {
	for subject, fn := range map[string]nats.MsgHandler{"pos": b.heardPosition, "lease": b.heardLease, "relay.*": b.heardRelay} {
		sub, err := b.conn.Subscribe(b.prefix+subject, b.guarded(subject, fn))
		if err != nil {
			return fmt.Errorf("nats: %w", err)
		}
		b.subs = append(b.subs, sub)
		if err := sub.SetPendingLimits(8192, 8<<20); err != nil {
			return fmt.Errorf("nats: %w", err)
		}
	}
	if b.conn.IsConnected() {
		_ = b.conn.FlushTimeout(subscribeTime) // where it does not come through, the connection is lost and made anew
	}
	b.listening.Store(true)
	b.s.hinted() // of what was said before
	return nil
}

// guarded lets a bug that a message meets end nothing but that message: it comes on a goroutine of the NATS client.
func (b *bus) guarded(subject string, fn nats.MsgHandler) nats.MsgHandler {
	return func(m *nats.Msg) {
		err := Guard(func() error { fn(m); return nil })
		if bug := (*PanicError)(nil); errors.As(err, &bug) {
			b.s.metrics.panics.WithLabelValues("nats").Inc()
			b.s.log.WithFields(logrus.Fields{"job": "nats", "subject": subject, "stack": bug.Stack}).WithError(err).Error("a message of another node was lost by a panic; please report it")
		}
	}
}

// dialNATS makes a connection that is tried again for ever. A URL may hold a user and password or a token, and name files by parameters:
// creds (credentials of NATS), ca (certificates to trust), cert and key (of this client). With tls:// the connection is encrypted.
func dialNATS(list string, s *Stream) (*nats.Conn, error) {
	opts := []nats.Option{nats.Name("hansa " + s.node), nats.NoEcho(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond), nats.ReconnectBufSize(-1), nats.Timeout(2 * time.Second), nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2), nats.ConnectHandler(func(*nats.Conn) { s.log.Info("connected to NATS"); s.hinted() }),
		nats.ReconnectHandler(func(*nats.Conn) { s.log.Info("connected to NATS again"); s.hinted() }),
		nats.DisconnectErrHandler(func(c *nats.Conn, err error) {
			if c.IsClosed() {
				return // by us
			}
			s.log.WithError(err).Warn("NATS is not connected; news of other nodes come by polling")
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.WithError(err).Warn("NATS told of an error")
		})}
	var servers []string
	for _, raw := range strings.Split(list, ",") {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil || u.Host == "" {
			return nil, errors.New("a URL cannot be read") // it may hold a password: not repeated
		}
		q := u.Query()
		u.RawQuery = ""
		servers = append(servers, u.String())
		if ca := q.Get("ca"); ca != "" {
			opts = append(opts, nats.RootCAs(ca))
		}
		if cert := q.Get("cert"); cert != "" {
			opts = append(opts, nats.ClientCert(cert, q.Get("key")))
		}
		if creds := q.Get("creds"); creds != "" {
			opts = append(opts, nats.UserCredentials(creds))
		}
		if addr, err := netip.ParseAddr(u.Hostname()); u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
			if u.User == nil && q.Get("creds") == "" && q.Get("cert") == "" {
				s.log.Warn("the URL of NATS has no credentials: whoever reaches NATS can make this node look into its database more often")
			}
			if u.Scheme != "tls" {
				s.log.Warn("the URL of NATS is not tls://: positions and the rate of what happens can be read on the way")
			}
		}
	}
	return nats.Connect(strings.Join(servers, ","), opts...)
}

// connected tells whether messages go through at the moment, as far as is known.
func (b *bus) connected() bool { return b.listening.Load() && b.conn.IsConnected() }

// committed notes a position that the others may want to hear of. It never blocks.
func (b *bus) committed(pos int64) {
	for {
		old := b.last.Load()
		if pos <= old {
			return
		}
		if b.last.CompareAndSwap(old, pos) {
			break
		}
	}
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// run hears and sends until ctx ends.
func (b *bus) run(ctx context.Context) error {
	if err := b.listen(); err != nil {
		return err
	}
	var g sync.WaitGroup
	g.Go(func() { _ = b.s.Keep(ctx, "relay", b.relay) }) // it has no errors
	for said := b.s.Position(); ; {
		select {
		case <-ctx.Done():
			g.Wait()
			b.s.keeper.settle(b.s.keeper.ttl) // what is given back is told
			for _, sub := range b.subs {
				_ = sub.Unsubscribe() // the connection is closed next
			}
			b.conn.Close()
			return nil
		case <-b.news:
		}
		pos := b.last.Load()
		b.send("pos", "position", strconv.AppendInt(nil, pos, 10))
		if !Pause(ctx, rest(pos-said, publishApart)) {
			continue
		}
		said = pos
	}
}

// relay sends what this node tells the others, until ctx ends.
func (b *bus) relay(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-b.out:
			b.send("relay."+r.topic, "relay", b.seal.close(b.prefix+"relay."+r.topic, r.message))
		}
	}
}

// send sends a message, or loses it.
func (b *bus) send(subject, kind string, message []byte) {
	if err := b.conn.Publish(b.prefix+subject, message); err == nil {
		b.s.metrics.messages.WithLabelValues("out", kind).Inc()
	}
}

// freed tells that a lease can be taken.
func (b *bus) freed() { b.send("lease", "lease", nil) }

func (b *bus) heardPosition(m *nats.Msg) {
	b.s.metrics.messages.WithLabelValues("in", "position").Inc()
	if pos, err := strconv.ParseInt(string(m.Data), 10, 64); err == nil && pos > b.s.Position() {
		b.s.hinted()
	}
}

func (b *bus) heardLease(*nats.Msg) {
	b.s.metrics.messages.WithLabelValues("in", "lease").Inc()
	b.s.keeper.soon()
}

func (b *bus) heardRelay(m *nats.Msg) {
	b.s.metrics.messages.WithLabelValues("in", "relay").Inc()
	message, ok := b.seal.open(m.Subject, m.Data)
	if !ok {
		b.s.metrics.refused.Inc()
		return
	}
	b.s.hearers.hear(strings.TrimPrefix(m.Subject, b.prefix+"relay."), message)
}

// hinted makes Run look into the database.
func (s *Stream) hinted() {
	select {
	case s.hint <- struct{}{}:
	default:
	}
}
