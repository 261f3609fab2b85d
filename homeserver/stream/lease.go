package stream

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/storage"
)

// leaseTime is how long the leases of a node outlive it. A fifth of it is how often they are renewed and looked for.
const leaseTime = 3 * time.Second

// Lease is what its holder shows when it writes. The zero value stands for a database with one process, where nothing is contended.
type Lease struct {
	stream *Stream
	lease  storage.Lease
}

// Fence makes a transaction fail when another node has taken the lease. It comes first in the transaction, and the transaction is short:
// until it ends, no lease of this node is renewed.
func (l *Lease) Fence(tx *storage.Tx) error {
	if l.stream == nil {
		return nil
	}
	return tx.Fence(l.lease)
}

// claim is the wish of one goroutine of this node to hold a lease.
type claim struct {
	name   string
	lease  *Lease             // nil while it is not held
	gone   bool               // it was lost and fn has not returned yet
	lost   context.CancelFunc // ends the work of the holder
	expiry *time.Timer        // calls lost when the time is over, also while the database does not answer
	got    chan struct{}      // receives when it was taken
}

// keeper takes, renews and loses the leases of this node.
type keeper struct {
	s    *Stream
	ttl  time.Duration
	kick chan struct{}
	busy atomic.Int64 // goroutines in Hold

	mu     sync.Mutex
	claims map[string]*claim // guarded by mu, and so are the claims
	own    *storage.DB       // guarded by mu; nil while run does not run
}

// alive begins the name of the lease by which a node shows that it lives. The rest is the node's name.
const alive = "node."

func newKeeper(s *Stream, ttl time.Duration) *keeper {
	if ttl == 0 {
		ttl = leaseTime
	}
	return &keeper{s: s, ttl: ttl, kick: make(chan struct{}, 1), claims: map[string]*claim{}}
}

func newNodeID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (k *keeper) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, c := range k.claims {
		if c.lease != nil && !c.gone {
			n++
		}
	}
	return n
}

// settle waits until nobody holds anything, but not for ever.
func (k *keeper) settle(longest time.Duration) {
	for end := time.Now().Add(longest); k.busy.Load() > 0 && time.Now().Before(end); {
		Pause(context.Background(), 5*time.Millisecond)
	}
}

// soon makes the keeper look at once.
func (k *keeper) soon() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// run renews what is held and takes what is free, until ctx ends. It does so on connections of its own, so that a node whose other
// connections are all busy does not look like one that is dead. Looks into the log use them, too: all that wait for news wait for these.
func (k *keeper) run(ctx context.Context) error {
	var own *storage.DB
	for own == nil {
		var err error
		if own, err = storage.Open(ctx, k.s.keeping); err == nil {
			break
		}
		if own = nil; ctx.Err() != nil {
			return nil
		}
		k.s.log.WithError(err).Warn("no connection for leases; trying again")
		if !Pause(ctx, time.Second) {
			return nil
		}
	}
	k.setOwn(own)
	defer func() {
		k.setOwn(nil)
		k.depart(own)
		if err := own.Close(); err != nil {
			k.s.log.WithError(err).Warn("the connection for leases did not close well")
		}
	}()
	tick := time.NewTicker(k.ttl / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			k.renew(ctx)
		case <-k.kick:
		}
		if err := k.take(ctx); err != nil && ctx.Err() == nil {
			k.s.log.WithError(err).Warn("leases could not be looked for; trying again")
		}
		if !Pause(ctx, 10*time.Millisecond) { // however often it is kicked
			return nil
		}
	}
}

// depart says that this node stops, so that nobody takes it for dead.
func (k *keeper) depart(own *storage.DB) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // the server stops, this is the last chance
	defer cancel()
	err := own.Update(ctx, func(tx *storage.Tx) error {
		held, err := tx.RenewLeases(k.s.node, k.ttl)
		if err != nil || held[alive+k.s.node] == 0 {
			return err
		}
		if err := tx.FreeLease(storage.Lease{Name: alive + k.s.node, Node: k.s.node, Epoch: held[alive+k.s.node]}); err != nil {
			return err
		}
		return tx.PruneLeases(alive)
	})
	if err != nil {
		k.s.log.WithError(err).Warn("this node could not say that it stops; the others see it soon")
	}
}

func (k *keeper) setOwn(db *storage.DB) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.own = db
}

// db is the connection for leases, or what there is before run has begun and after it has ended.
func (k *keeper) db() *storage.DB {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own != nil {
		return k.own
	}
	return k.s.db
}

// renew prolongs what is held. What another node has taken is lost.
func (k *keeper) renew(ctx context.Context) {
	began := time.Now()
	var held map[string]int64
	err := k.db().Update(ctx, func(tx *storage.Tx) (err error) {
		if held, err = tx.RenewLeases(k.s.node, k.ttl); err != nil || held[alive+k.s.node] > 0 {
			return err
		}
		_, _, err = tx.TakeLease(alive+k.s.node, k.s.node, k.ttl)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			k.s.log.WithError(err).Warn("leases could not be renewed; trying again")
		}
		return
	}
	for name, epoch := range k.keep(held, began) {
		// Nobody here works behind it: its taking was committed, but the answer was lost.
		k.s.free(ctx, storage.Lease{Name: name, Node: k.s.node, Epoch: epoch})
	}
}

// keep goes on with what is still held since a moment, and returns what is held and nobody here knows of.
func (k *keeper) keep(held map[string]int64, since time.Time) (unknown map[string]int64) {
	unknown = map[string]int64{}
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, epoch := range held {
		if name == alive+k.s.node {
			continue
		}
		if c := k.claims[name]; c == nil || c.lease == nil || c.lease.lease.Epoch != epoch {
			unknown[name] = epoch
		}
	}
	for name, c := range k.claims {
		switch {
		case c.lease == nil || c.gone:
		case held[name] != c.lease.lease.Epoch:
			k.lose(c)
		default:
			c.expiry.Reset(k.ttl - time.Since(since))
		}
	}
	return unknown
}

// lose ends the work of a holder. The caller holds mu.
func (k *keeper) lose(c *claim) {
	if c.gone {
		return
	}
	c.gone = true
	k.s.log.WithField("follower", c.name).Warn("a lease is lost")
	k.s.metrics.lost.Inc()
	c.expiry.Stop()
	c.lost()
}

// wanted lists the claims without a lease.
func (k *keeper) wanted() map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]bool{}
	for name, c := range k.claims {
		if c.lease == nil {
			out[name] = true
		}
	}
	return out
}

// take takes what is wanted and free.
func (k *keeper) take(ctx context.Context) error {
	want := k.wanted()
	var list []storage.Lease
	if err := k.db().Read(ctx, func(tx *storage.Tx) (err error) { list, err = tx.LoadLeases(); return err }); err != nil {
		return err
	}
	if err := k.bury(ctx, list); err != nil {
		return err
	}
	for _, l := range list {
		if !l.Free {
			delete(want, l.Name)
		}
	}
	for name := range want {
		began := time.Now()
		var epoch int64
		var ok bool
		err := k.db().Update(ctx, func(tx *storage.Tx) (err error) { epoch, ok, err = tx.TakeLease(name, k.s.node, k.ttl); return err })
		if err != nil {
			return err
		}
		if l := (storage.Lease{Name: name, Node: k.s.node, Epoch: epoch}); ok && !k.give(l, began) {
			k.s.free(ctx, l)
		}
	}
	return nil
}

// bury ends what nodes have under way in the database whose leases ran out: they are dead, paused or cut off, and what they have
// locked holds up everybody.
func (k *keeper) bury(ctx context.Context, list []storage.Lease) error {
	for _, l := range list {
		if !l.Lost || l.Node == k.s.node {
			continue
		}
		var n int64
		err := k.db().Update(ctx, func(tx *storage.Tx) error {
			ok, err := tx.EndLease(l)
			if err != nil || !ok || l.Name != alive+l.Node {
				return err
			}
			if err := tx.PruneLeases(alive); err != nil {
				return err
			}
			n, err = tx.EndSessions(l.Node)
			return err
		})
		if err != nil {
			return err
		}
		if l.Name == alive+l.Node {
			k.s.log.WithFields(logrus.Fields{"node": l.Node, "sessions": n}).Warn("another node does not answer any more")
		}
	}
	return nil
}

// give hands a lease that was taken to who wants it; false when nobody does any more.
func (k *keeper) give(l storage.Lease, began time.Time) bool {
	k.s.metrics.taken.Inc()
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.claims[l.Name]
	if c == nil || c.lease != nil {
		return false
	}
	c.lease = &Lease{stream: k.s, lease: l}
	c.expiry = time.AfterFunc(k.ttl-time.Since(began), func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.lose(c)
	})
	c.got <- struct{}{}
	return true
}

// errTwice is returned to the second goroutine of this process that wants the same lease.
var errTwice = errors.New("stream: this lease is wanted already")

// Hold runs fn whenever this node holds the lease of a name, until ctx ends: of all nodes one at a time does. The context that fn gets
// ends when the lease is lost or ctx ends; what fn writes is safe from a later holder behind Lease.Fence. When fn returns,
// the lease is given back, and after a while taken again.
func (s *Stream) Hold(ctx context.Context, name string, fn func(ctx context.Context, l *Lease) error) error {
	if s.db.Name() == "sqlite" {
		return fn(ctx, &Lease{})
	}
	for ctx.Err() == nil {
		err := s.holdOnce(ctx, name, fn)
		if errors.Is(err, errTwice) {
			return err
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, storage.ErrNotHeld) {
			s.log.WithError(err).WithField("follower", name).Warn("what a lease was held for ended; it begins anew")
			if !Pause(ctx, time.Second) {
				return nil
			}
		}
	}
	return nil
}

func (s *Stream) holdOnce(ctx context.Context, name string, fn func(ctx context.Context, l *Lease) error) error {
	k := s.keeper
	k.busy.Add(1)
	defer k.busy.Add(-1)
	work, lost := context.WithCancel(ctx)
	defer lost()
	c := &claim{name: name, lost: lost, got: make(chan struct{}, 1)}
	k.mu.Lock()
	if k.claims[name] != nil {
		k.mu.Unlock()
		return errTwice
	}
	k.claims[name] = c
	k.mu.Unlock()
	defer s.unclaim(ctx, c) // also when fn panics: then it is run again, and wants the lease again
	if err := k.take(ctx); err != nil && ctx.Err() == nil {
		s.log.WithError(err).WithField("follower", name).Warn("a lease could not be looked for; trying again")
	}
	select {
	case <-c.got:
		return fn(work, c.lease)
	case <-ctx.Done():
		return nil
	}
}

// unclaim ends the wish for a lease, and gives it back where it is held.
func (s *Stream) unclaim(ctx context.Context, c *claim) {
	k := s.keeper
	k.mu.Lock()
	delete(k.claims, c.name)
	l := c.lease
	if l != nil {
		c.expiry.Stop()
	}
	k.mu.Unlock()
	if l != nil {
		s.free(ctx, l.lease)
	}
}

// free gives a lease back, also while the server stops, and tells the others.
func (s *Stream) free(ctx context.Context, l storage.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.keeper.ttl)
	defer cancel()
	if err := s.db.Update(ctx, func(tx *storage.Tx) error { return tx.FreeLease(l) }); err != nil {
		s.log.WithError(err).WithField("follower", l.Name).Warn("a lease was not given back; it ends by itself")
		return
	}
	if s.bus != nil {
		s.bus.freed()
	}
}
