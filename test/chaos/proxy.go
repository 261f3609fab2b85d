package chaos

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"time"
)

// Cut says at which place of a commit a connection is cut.
type Cut int

// The places.
const (
	NoCut Cut = iota
	// BeforeCommit cuts before the server hears of the COMMIT.
	BeforeCommit
	// AfterCommit cuts when the server has it, before the client hears of the outcome.
	AfterCommit
)

// Proxy stands between a client and a PostgreSQL. It can be slow, and it can cut a connection around a COMMIT.
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	cut     Cut // what happens at the next commit that writes; guarded by mu, like all below
	done    chan struct{}
	latency time.Duration
	broken  int // how many connections were cut
	open    map[net.Conn]struct{}
	closed  bool
	wait    sync.WaitGroup
}

// NewProxy begins to listen in front of the PostgreSQL of a URL, and returns the URL that leads through it.
func NewProxy(database string) (*Proxy, string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	p := &Proxy{listener: l, target: u.Host, open: map[net.Conn]struct{}{}}
	u.Host = l.Addr().String()
	p.wait.Go(p.accept)
	return p, u.String(), nil
}

// Close cuts all connections and ends.
func (p *Proxy) Close() {
	_ = p.listener.Close() // ends accept
	p.mu.Lock()
	p.closed = true
	for c := range p.open {
		_ = c.Close() // ends its pumps
	}
	p.mu.Unlock()
	p.wait.Wait()
}

// SetLatency makes every answer of the database come that much later.
func (p *Proxy) SetLatency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// CutNext cuts the connection of the next COMMIT of a transaction that has written; the channel is closed when that has happened.
func (p *Proxy) CutNext(c Cut) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.done = c, make(chan struct{})
	return p.done
}

// CutAll cuts all connections there are.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close() // ends its pumps
		p.broken++
	}
}

// Broken is how many connections were cut.
func (p *Proxy) Broken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close() // the database is down, and so is this
			continue
		}
		l := &link{p: p, client: client, server: server, commits: map[string]bool{}, plain: map[string]bool{}}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			l.close()
			return
		}
		p.open[client], p.open[server] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.wait.Go(l.up)
		p.wait.Go(l.down)
	}
}

// link is one connection through the proxy.
type link struct {
	p              *Proxy
	client, server net.Conn
	commits, plain map[string]bool // names of prepared statements: COMMIT, and those that write nothing
	wrote          bool            // the transaction under way has written

	mu    sync.Mutex
	muted bool // answers are not passed on any more
}

func (l *link) close() {
	_ = l.client.Close() // both ends go together
	_ = l.server.Close()
	l.p.mu.Lock()
	delete(l.p.open, l.client)
	delete(l.p.open, l.server)
	l.p.mu.Unlock()
}

// up passes on what the client says, message by message, and watches for commits.
func (l *link) up() {
	defer l.close()
	for first := true; ; first = false {
		m, err := readMessage(l.client, first)
		if err != nil {
			return
		}
		commit := !first && l.isCommit(m)
		cut := NoCut
		if commit {
			cut = l.take()
		}
		switch cut {
		case BeforeCommit:
			return
		case AfterCommit:
			l.mu.Lock()
			l.muted = true
			l.mu.Unlock()
		}
		if _, err := l.server.Write(m); err != nil {
			return
		}
		if cut == AfterCommit {
			l.lastWords()
			return
		}
	}
}

// lastWords passes on the rest of a commit (it is sent as several messages), and lets the database carry it out.
func (l *link) lastWords() {
	for {
		_ = l.client.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // a connection always has deadlines
		m, err := readMessage(l.client, false)
		if err != nil {
			break
		}
		if _, err := l.server.Write(m); err != nil {
			break
		}
	}
	time.AfterFunc(20*time.Millisecond, l.close)
}

// take is what shall happen to the commit at hand.
func (l *link) take() Cut {
	wrote := l.wrote
	l.wrote = false
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	c := l.p.cut
	if c == NoCut || !wrote {
		return NoCut
	}
	l.p.cut = NoCut
	l.p.broken++
	close(l.p.done)
	return c
}

// isCommit looks at a message of the frontend: Parse names a statement, Bind uses one, Query brings one.
func (l *link) isCommit(m []byte) bool {
	body := m[5:]
	switch m[0] {
	case 'P':
		name, rest, _ := bytes.Cut(body, []byte{0})
		text, _, _ := bytes.Cut(rest, []byte{0})
		l.commits[string(name)] = string(bytes.ToUpper(bytes.TrimSpace(text))) == "COMMIT"
		l.plain[string(name)] = !writes(text)
	case 'B':
		_, rest, _ := bytes.Cut(body, []byte{0}) // the portal
		name, _, _ := bytes.Cut(rest, []byte{0})
		if l.commits[string(name)] {
			return true
		}
		l.wrote = l.wrote || !l.plain[string(name)]
	case 'Q':
		text, _, _ := bytes.Cut(body, []byte{0})
		if string(bytes.ToUpper(bytes.TrimSpace(text))) == "COMMIT" {
			return true
		}
		l.wrote = l.wrote || writes(text)
	}
	return false
}

func writes(text []byte) bool {
	t := bytes.ToUpper(text)
	return bytes.Contains(t, []byte("INSERT")) || bytes.Contains(t, []byte("UPDATE")) || bytes.Contains(t, []byte("DELETE"))
}

// readMessage reads one message of the frontend; the first one has no type.
func readMessage(r io.Reader, first bool) ([]byte, error) {
	head := 5
	if first {
		head = 4
	}
	m := make([]byte, head)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(m[head-4:])) - 4
	if n < 0 || n > 1<<28 {
		return nil, io.ErrUnexpectedEOF
	}
	m = append(m, make([]byte, n)...)
	_, err := io.ReadFull(r, m[head:])
	return m, err
}

// down passes on what the database says.
func (l *link) down() {
	defer l.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := l.server.Read(buf)
		if err != nil {
			return
		}
		l.p.mu.Lock()
		wait := l.p.latency
		l.p.mu.Unlock()
		if wait > 0 {
			<-time.After(wait/2 + time.Duration(rand.Int64N(int64(wait))))
		}
		l.mu.Lock()
		muted := l.muted
		l.mu.Unlock()
		if muted {
			continue
		}
		if _, err := l.client.Write(buf[:n]); err != nil {
			return
		}
	}
}
