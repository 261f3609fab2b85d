package outbound

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// DNS finds the addresses of a name. It is an interface so that tests can answer; net.Resolver is one.
type DNS interface {
	// LookupNetIP returns the addresses of a host; network is ip.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// attemptDelay is how long one attempt to connect has before the next begins beside it.
const attemptDelay = 300 * time.Millisecond

func hexName(s string) string { return hex.EncodeToString([]byte(s)) + ".peer" }

// parseKey undoes target.key.
func parseKey(key string) (target, error) {
	b, err := hex.DecodeString(strings.TrimSuffix(key, ".peer"))
	if err != nil {
		return target{}, err
	}
	parts := strings.Split(string(b), "\x00")
	if len(parts) != 4 {
		return target{}, errRefused
	}
	return target{address: parts[0], name: parts[1], peer: parts[2], trusted: parts[3] == "1"}, nil
}

// dialPlain connects without TLS, to addresses that the operator named and to no others.
func (c *Client) dialPlain(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	t, err := parseKey(host)
	if err != nil || !t.trusted {
		return nil, errNoTLS
	}
	conn, err := c.dial(ctx, t)
	if err != nil {
		c.metrics.dials.WithLabelValues(dialResult(err)).Inc()
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	c.metrics.dials.WithLabelValues("ok").Inc()
	return conn, nil
}

// dialTLS connects to the target that the name stands for, and shakes hands.
func (c *Client) dialTLS(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	t, err := parseKey(host)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx, t)
	if err != nil {
		c.metrics.dials.WithLabelValues(dialResult(err)).Inc()
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	tc := tls.Client(conn, c.tlsConfig(t))
	if err := tc.HandshakeContext(ctx); err != nil {
		c.metrics.dials.WithLabelValues("tls").Inc()
		_ = conn.Close() // the handshake's error says more
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	c.metrics.dials.WithLabelValues("ok").Inc()
	return tc, nil
}

func dialResult(err error) string {
	if errors.Is(err, errRefused) {
		return "refused"
	}
	return "unreachable"
}

// dial connects to the first address of a target that answers. The list of refused ranges is asked again for each.
func (c *Client) dial(ctx context.Context, t target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(t.address)
	if err != nil {
		return nil, err
	}
	list, err := c.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Control: c.guard.control(t.trusted), KeepAlive: 30 * time.Second, FallbackDelay: -1}
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, len(list))
	started, failed := 0, 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	var first error
	for failed < len(list) {
		select {
		case <-timer.C:
			if started == len(list) {
				continue
			}
			address := net.JoinHostPort(list[started].String(), port)
			started++
			go func() {
				conn, err := d.DialContext(ctx, "tcp", address)
				results <- result{conn, err}
			}()
			timer.Reset(attemptDelay)
		case r := <-results:
			if r.err == nil {
				cancel()
				go closeOthers(started-failed-1, func() net.Conn { return (<-results).conn })
				return r.conn, nil
			}
			failed++
			if first == nil || errors.Is(r.err, errRefused) {
				first = r.err
			}
			timer.Reset(0)
		}
	}
	return nil, first
}

// closeOthers closes connections that came too late. Each pending attempt has been cancelled, so that it ends at once.
func closeOthers(n int, next func() net.Conn) {
	for range n {
		if conn := next(); conn != nil {
			_ = conn.Close() // nobody has used it
		}
	}
}

// lookup returns the addresses of a host, both families by turns.
func (c *Client) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	found, err := c.dns.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, "."))
	if err != nil {
		return nil, err
	}
	var six, four, list []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	for i := 0; i < max(len(six), len(four)) && len(list) < maxAddresses; i++ {
		if i < len(six) {
			list = append(list, six[i])
		}
		if i < len(four) {
			list = append(list, four[i])
		}
	}
	if len(list) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	return list, nil
}
