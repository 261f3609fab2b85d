package fedclient

import (
	"sync"
	"time"

	"hansa/matrix"
)

// How long a server that could not be reached is left alone.
const (
	minOpen     = 5 * time.Second
	maxOpen     = 2 * time.Minute
	maxCircuits = 10000
)

// circuit remembers servers that could not be reached.
type circuit struct {
	mu   sync.Mutex // guards down
	down map[matrix.ServerName]outage
}

type outage struct {
	failures int
	until    time.Time
	heard    bool // of the server, since it failed last
}

func newCircuit() *circuit { return &circuit{down: map[matrix.ServerName]outage{}} }

func (c *circuit) open(server matrix.ServerName, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Before(c.down[server].until)
}

func (c *circuit) failed(server matrix.ServerName, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.down[server]
	if now.Before(o.until) {
		return // many fail at the same time
	}
	if len(c.down) >= maxCircuits {
		c.sweep(now)
	}
	o.until = now.Add(min(minOpen<<min(o.failures, 5), maxOpen))
	o.failures++
	o.heard = false
	c.down[server] = o
}

// hear lets a server be tried again, once after each failure: it made a request, and is there.
func (c *circuit) hear(server matrix.ServerName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.down[server]; ok && !o.heard {
		o.heard, o.until = true, time.Time{}
		c.down[server] = o
	}
}

func (c *circuit) answered(server matrix.ServerName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.down, server)
}

// sweep forgets outages that are over, or all where none is.
func (c *circuit) sweep(now time.Time) {
	for server, o := range c.down {
		if !now.Before(o.until) {
			delete(c.down, server)
		}
	}
	if len(c.down) >= maxCircuits {
		clear(c.down)
	}
}

// Hear tells that a server has just made a request: if it could not be reached a moment ago, it is tried again all the same.
func (c *Client) Hear(server matrix.ServerName) { c.circuit.hear(server) }

// Reachable tells whether a server is worth trying now: whether it answered when it was asked last, or that is a while ago.
func (c *Client) Reachable(server matrix.ServerName) bool { return !c.circuit.open(server, c.Now()) }
