package outbound

import (
	"context"
	"fmt"
	"io"
	"time"
)

// A body must come at this rate on average, after a start that costs nothing. Whoever is slower holds a connection for nothing.
const (
	bodyGrace   = 15 * time.Second
	bytesPerSec = 4 << 10
)

// body is the body of an answer with its limits.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc // ends the request
	c      *Client
	r      Request
	left   int64 // bytes that may still come
	read   int64
	// stuck ends the request at the deadline, which moves on with what is read.
	stuck    *time.Timer
	deadline time.Time
}

func newBody(cancel context.CancelFunc, c *Client, r Request, from io.ReadCloser) *body {
	return &body{ReadCloser: from, cancel: cancel, c: c, r: r, left: r.MaxBody, stuck: time.AfterFunc(c.grace, cancel), deadline: c.now().Add(c.grace)}
}

// Read reads within the limits.
func (b *body) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	b.allow(int64(n))
	if b.left < 0 {
		b.cancel()
		return n - 1, fmt.Errorf("%w: %s sends more than %d bytes", ErrTooLarge, b.r.Host, b.r.MaxBody)
	}
	if err != nil && err != io.EOF {
		return n, b.c.fail(b.r, err)
	}
	return n, err
}

// allow moves the deadline on by what the bytes that came are worth, once a second's worth is together.
func (b *body) allow(n int64) {
	b.c.metrics.bytes.Add(float64(n))
	before := b.read / bytesPerSec
	b.read += n
	if gained := b.read/bytesPerSec - before; gained > 0 {
		b.deadline = b.deadline.Add(time.Duration(gained) * time.Second)
		b.stuck.Reset(max(b.deadline.Sub(b.c.now()), 0))
	}
}

// Close ends the request.
func (b *body) Close() error {
	b.stuck.Stop()
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}
