package resolve

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/outbound"
)

// The limits of the well-known file.
//
// spec: server-server-api#resolving-server-names
const (
	wellKnownPath    = "/.well-known/matrix/server"
	maxWellKnown     = 50 << 10
	wellKnownTimeout = 15 * time.Second
	minAge           = 5 * time.Minute
	defaultAge       = 24 * time.Hour
	maxAge           = 48 * time.Hour
	minBackoff       = time.Minute
	maxBackoff       = time.Hour
)

// well is what is known of the well-known file of a host.
type well struct {
	server   string    // delegated to, empty where there is no valid answer
	next     time.Time // when to ask again
	last     time.Time // until when server counts although asking again has failed
	failures int
}

func (r *Resolver) knownWell(host string) (well, bool) {
	w, ok := r.wells.get(host)
	return w, ok && r.Now().Before(w.next)
}

// delegated returns the server that a host delegates to.
func (r *Resolver) delegated(ctx context.Context, host string) (string, bool) {
	w, ok := r.knownWell(host)
	if !ok {
		var err error
		w, err = r.wellsAsked.Do(ctx, host, lookupTimeout+wellKnownTimeout, func(ctx context.Context) (well, error) {
			if w, ok := r.knownWell(host); ok { // another has asked since this one saw that it was not known
				return w, nil
			}
			return r.ask(ctx, host), nil
		})
		if err != nil {
			return "", false // the caller is gone
		}
	}
	return w.server, w.server != ""
}

// ask fetches the file of a host and remembers the outcome, good or bad.
func (r *Resolver) ask(ctx context.Context, host string) well {
	before, _ := r.wells.get(host)
	now := r.Now()
	w, err := r.fetch(ctx, host, now)
	if err != nil {
		r.log.WithField("destination", host).WithError(err).Debug("no well-known file")
		wait := minBackoff << min(before.failures, 6)
		w = well{next: now.Add(min(wait, maxBackoff)), failures: before.failures + 1}
		if before.server != "" && now.Before(before.last) {
			w.server, w.last = before.server, before.last
		}
	}
	r.wells.put(host, w)
	return w
}

func (r *Resolver) fetch(ctx context.Context, host string, now time.Time) (well, error) {
	resp, err := r.Out.Do(ctx, outbound.Request{Method: http.MethodGet, Address: net.JoinHostPort(host, r.ports.wellKnown), ServerName: host, Host: host,
		Path: wellKnownPath, MaxBody: maxWellKnown, Timeout: wellKnownTimeout, FollowRedirects: true})
	if err != nil {
		return well{}, err
	}
	if resp.Status != http.StatusOK {
		return well{}, fmt.Errorf("status %d", resp.Status)
	}
	server, err := parseWellKnown(resp.Body)
	if err != nil {
		return well{}, err
	}
	return well{server: server, next: now.Add(age(resp.Header, now)), last: now.Add(maxAge)}, nil
}

// parseWellKnown reads the file and returns the server name in it.
//
// spec: server-server-api#getwell-knownmatrixserver
func parseWellKnown(body []byte) (string, error) {
	var file struct {
		Server string `json:"m.server"`
	}
	if err := json.Unmarshal(body, &file); err != nil {
		return "", err
	}
	server, err := matrix.ParseServerName(file.Server)
	return string(server), err
}

// age is how long an answer counts, from its header.
func age(h http.Header, now time.Time) time.Duration {
	out, known := time.Duration(0), false
	for _, line := range h.Values("Cache-Control") {
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return minAge
			case "max-age":
				if n, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 64); err == nil && n >= 0 {
					out, known = time.Duration(min(n, int64(maxAge/time.Second)))*time.Second, true
				}
			}
		}
	}
	if t, err := http.ParseTime(h.Get("Expires")); err == nil && !known {
		out, known = t.Sub(now), true
	}
	if !known {
		out = defaultAge
	}
	return min(max(out, minAge), maxAge)
}
