// Package outbox sends what happens here to the other servers that it concerns.
//
// It reads the log, and keeps for each pair of a tenant and a server one position: the server has everything up to there. What comes
// after waits in a short queue in memory, and is sent in the order of the log in transactions, one at a time. Before one is sent, its
// last position is stored: its ID and what is in it follow from its first and last position, so that the same transaction is
// sent again after a failure, on this node or another. A server that misses too much is behind: its queue is forgotten, and once
// it answers it gets the newest event of each of its rooms, from which it asks for the others itself. So nothing is stored for each event
// and server, and the memory does not grow with the time that a server is away.
//
// Servers do not wait for one another: each has at most one transaction under way, those that fail or are slow share places of their
// own, and pauses after failures grow and are stored. An item that a server refuses over and over, while it takes others, is found by
// halving the transaction, put aside, and the rest goes on. The door is asked before each transaction, and a few times a second for
// what waits: what is for a server that is no partner any more is forgotten, except that its people were removed, if policy lets that through.
//
// One node at a time sends, the one that holds the lease; what it writes is fenced. Types: Outbox is made by New and run by Run; Sender,
// Door and Rooms are what it needs of others. EDUs that must arrive are queued by storage.Tx.QueueEDU, those that need not by
// Outbox.Ephemeral; receipts are read from the log.
//
// Lock order: session.mu alone; nothing blocks while it is held.
//
// spec: server-server-api#transactions
package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/federation"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/storage"
)

// name is that of the lease and of the cursor.
const name = "federation.outbox"

// Sender makes requests of other servers: the client of federation, or that of a test.
type Sender interface {
	// Send sends a transaction. The answer has what the server says against single events. A server that answers with an error is a
	// *fedclient.Error.
	Send(ctx context.Context, as, to matrix.ServerName, txnID string, t federation.Transaction) (map[matrix.EventID]string, error)
	// SendParting is Send for a transaction that only says who was taken out of rooms.
	SendParting(ctx context.Context, as, to matrix.ServerName, txnID string, t federation.Transaction) (map[matrix.EventID]string, error)
}

// Door tells whether tenants have to do with servers.
type Door interface {
	// Outbound is nil where the tenant may make requests of the server, a *matrix.Error with status 403 where it may not.
	Outbound(ctx context.Context, as, to matrix.ServerName) error
	// OutboundLeave is Outbound for events that only take people out of rooms.
	OutboundLeave(ctx context.Context, as, to matrix.ServerName) error
}

// Rooms is what the outbox needs of rooms.
type Rooms interface {
	// IsLocal tells whether a server name is a tenant of this deployment.
	IsLocal(name matrix.ServerName) bool
	// Sign returns events with the signatures of their senders' tenants.
	Sign(ctx context.Context, events []*storage.Event) ([]*storage.Event, error)
}

// Deps is what an Outbox needs.
type Deps struct {
	DB     *storage.DB
	Stream *stream.Stream
	Rooms  Rooms
	Client Sender
	Door   Door
	// May tells whether a server may be told of an ephemeral EDU of a user; nil: where it may have events, it may have those too.
	May        func(ctx context.Context, to matrix.ServerName, user matrix.UserID, typ string) bool
	Log        *logrus.Entry
	Now        func() time.Time
	Registerer prometheus.Registerer // nil for none
}

// Outbox sends to other servers while Run runs. Its methods may be called from any goroutine.
type Outbox struct {
	Deps
	log     *logrus.Entry
	tune    tuning
	metrics *metrics

	mu   sync.Mutex
	live *session                        // nil while another node sends; guarded by mu
	told map[matrix.ServerName]time.Time // when it was last told of whom this node heard; guarded by mu
}

// tuning are the limits; tests set others.
type tuning struct {
	// pauseFirst is the pause after a failure; it doubles up to pauseLast.
	pauseFirst, pauseLast time.Duration
	// queue is how many items of a server are remembered.
	queue int
	// fast, slow and dead are how many transactions are under way at a time, to servers that answer well, late, and not. overflow is how many
	// more of them there may be that began as fast ones.
	fast, slow, dead, overflow int
	// slowAfter is how long a server may take that answers well, timeout how long any.
	slowAfter, timeout time.Duration
	// lazy is how long receipts wait for company.
	lazy time.Duration
	// behindAfter is how long a server that does not take what waits for it holds the cursor back.
	behindAfter time.Duration
	// forgetAfter is how long the queue of a failing server stays in memory.
	forgetAfter time.Duration
	// refusals is how often the same refusal has to come before the item that causes it is searched for.
	refusals int
	// scan is how many rooms of a server that is behind are looked up at a time.
	scan int
	// look is how often the door is asked about what waits; save how often the cursor is stored; tidy how often what nobody needs is deleted.
	look, save, tidy time.Duration
	// keep is how long an EDU waits for a server.
	keep time.Duration
}

func standard() tuning {
	return tuning{pauseFirst: time.Second, pauseLast: time.Hour, queue: 200, fast: 256, slow: 64, dead: 64, overflow: 1024, slowAfter: 2 * time.Second,
		timeout: 90 * time.Second, lazy: 300 * time.Millisecond, behindAfter: 5 * time.Second, forgetAfter: 5 * time.Minute, refusals: 3, scan: 2000, look: 250 * time.Millisecond,
		save: 500 * time.Millisecond, tidy: time.Hour, keep: 60 * 24 * time.Hour}
}

// New returns an Outbox that is ready to run.
func New(d Deps) *Outbox {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Outbox{Deps: d, log: d.Log.WithField("pkg", "outbox"), tune: standard(), metrics: newMetrics(), told: map[matrix.ServerName]time.Time{}}
}

// Run sends whenever this node holds the lease, until ctx ends.
func (o *Outbox) Run(ctx context.Context) error {
	if o.Registerer != nil {
		if err := o.metrics.register(o.Registerer, o); err != nil {
			return fmt.Errorf("metrics of the outbox: %w", err)
		}
	}
	o.Stream.Hear(topic, o.listen)
	return o.Stream.Hold(ctx, name, func(ctx context.Context, l *stream.Lease) error {
		return o.Stream.Keep(ctx, name, func(ctx context.Context) error { return o.sessions(ctx, l) })
	})
}

// sessions begins anew what fails, until ctx ends or the lease is lost.
func (o *Outbox) sessions(ctx context.Context, l *stream.Lease) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		began := time.Now()
		err := o.session(ctx, l)
		if ctx.Err() != nil || err == nil {
			return nil
		}
		if bug := (*stream.PanicError)(nil); errors.Is(err, storage.ErrNotHeld) || errors.As(err, &bug) {
			return err
		}
		o.log.WithError(err).Warn("sending to other servers was interrupted; it begins anew")
		if time.Since(began) > time.Minute {
			pause = 50 * time.Millisecond
		}
		if errors.Is(err, storage.ErrUnavailable) {
			pause = min(pause, 500*time.Millisecond)
		}
		if !stream.Pause(ctx, pause) {
			return nil
		}
	}
}

// Hear tells that a server has just made a request: it is there, and what waits for it is tried again at once.
func (o *Outbox) Hear(origin matrix.ServerName) {
	if s := o.current(); s != nil {
		s.hear(origin)
		return
	}
	o.mu.Lock()
	now := time.Now()
	again := now.Sub(o.told[origin]) < tellAgain
	if !again {
		if len(o.told) >= maxRooms {
			clear(o.told)
		}
		o.told[origin] = now
	}
	o.mu.Unlock()
	if !again {
		o.tell(word{Heard: origin})
	}
}

// About says whom an ephemeral EDU concerns: the servers in Room, or where that is empty those that share a room with User.
type About struct {
	Room matrix.RoomID `json:"room,omitempty"`
	User matrix.UserID `json:"user,omitempty"`
}

// Ephemeral sends an EDU that may get lost, such as typing and presence, to the servers that it concerns. One of the same type, room and user
// that still waits is replaced. It never blocks; a node that does not send hands it to the one that does.
func (o *Outbox) Ephemeral(as matrix.ServerName, about About, edu federation.EDU) {
	if len(edu.Content) > maxEphemeral {
		return
	}
	if !o.accept(ephemeral{as, about, edu}) {
		o.tell(word{As: as, About: about, EDU: edu})
	}
}

// accept takes an ephemeral EDU on the node that sends; it is false on another.
func (o *Outbox) accept(e ephemeral) bool {
	s := o.current()
	if s == nil {
		return false
	}
	select {
	case s.ephemera <- e:
	default: // too much at once
		o.metrics.dropped.Inc()
	}
	return true
}

const (
	// topic is what nodes tell each other about, tellAgain how long a node keeps to itself that it has heard of the same server again.
	topic     = "outbox"
	tellAgain = 5 * time.Second
)

// word is what a node tells the one that sends.
type word struct {
	Heard matrix.ServerName `json:"heard,omitempty"`
	As    matrix.ServerName `json:"as,omitempty"`
	About About             `json:"about,omitzero"`
	EDU   federation.EDU    `json:"edu,omitzero"`
}

// tell hands something to the node that sends.
func (o *Outbox) tell(w word) {
	if b, err := json.Marshal(w); err == nil {
		o.Stream.Tell(topic, b)
	}
}

// listen takes what another node tells.
func (o *Outbox) listen(message []byte) {
	var w word
	if json.Unmarshal(message, &w) != nil {
		return // of another version
	}
	if w.Heard == "" {
		o.accept(ephemeral{w.As, w.About, w.EDU})
	} else if s := o.current(); s != nil {
		s.hear(w.Heard)
	}
}

func (o *Outbox) current() *session {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.live
}

// flushPoll is how often Flush looks.
const flushPoll = 100 * time.Millisecond

// Flush returns when a server has everything of a tenant that is in the log now, whichever node sends it; or with the error of ctx.
func (o *Outbox) Flush(ctx context.Context, as, to matrix.ServerName) error {
	target := int64(-1)
	for {
		var cursor, pos int64
		var behind bool
		err := o.DB.View(ctx, func(tx *storage.Tx) (err error) {
			if target < 0 {
				if target, err = tx.Position(); err != nil {
					return err
				}
			}
			if cursor, err = tx.LoadCursor(name); err != nil {
				return err
			}
			d, err := tx.LoadDestination(as, to)
			pos, behind = d.Pos, d.Behind || d.Sending > 0
			return err
		})
		if err != nil || pos >= target || cursor >= target && !behind {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(flushPoll):
		}
	}
}
