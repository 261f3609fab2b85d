package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// options is one run.
type options struct {
	shape                  shape
	urls                   []string
	token, version         string
	spread                 string
	pids                   []int
	nodes                  int
	nats                   string
	seconds, syncers, size int
}

// result is what a run prints. Times are milliseconds unless the name says otherwise.
type result struct {
	Database      string  `json:"database,omitempty"`
	Nodes         int     `json:"nodes"`
	Shape         string  `json:"shape"`
	RegisterPerS  float64 `json:"register_per_s"`
	RoomSetupS    float64 `json:"room_setup_s"`
	InitialP50    float64 `json:"initial_sync_ms_p50"`
	SendsPerS     float64 `json:"sends_per_s"`
	Sent          int64   `json:"sent"`
	Failed        int64   `json:"failed"`
	SendP50       float64 `json:"send_ms_p50"`
	SendP99       float64 `json:"send_ms_p99"`
	DeliverP50    float64 `json:"deliver_ms_p50"`
	DeliverP99    float64 `json:"deliver_ms_p99"`
	Delivered     int64   `json:"delivered"`
	Expected      int64   `json:"expected"`
	Doubled       int64   `json:"doubled"`
	Gaps          int64   `json:"gaps"`
	SyncErrors    int64   `json:"sync_errors"`
	DrainS        float64 `json:"drain_s"`
	ServerCPUS    float64 `json:"server_cpu_s"`
	ServerRSSMB   float64 `json:"server_rss_mb"`
	EventsPerCPUS float64 `json:"events_per_cpu_s"`
}

// user is one account of the driver.
type user struct {
	id, token, since string
	syncing          bool
	seen             []bool // by number of the message; owned by the user's sync loop
	delays           []float64
}

// room is one room and its members.
type room struct {
	id      string
	members []*user
	syncers int64
}

// driver is one run under way.
type driver struct {
	options
	c      *client
	log    io.Writer
	prefix string
	users  []*user
	rooms  []*room
	result result

	delivered, doubled, gaps, syncErrors atomic.Int64
	sent, failed, expected, number       atomic.Int64
}

// load does one run against the nodes at o.urls.
func load(ctx context.Context, o options, log io.Writer) (*result, error) {
	d := &driver{options: o, c: newClient(o.urls, o.spread), log: log, prefix: "l" + strconv.FormatUint(uint64(rand.Uint32()), 36)}
	d.result.Shape, d.result.Nodes = o.shape.name, len(o.urls)
	for _, step := range []func(context.Context) error{d.register, d.makeRooms, d.firstSyncs, d.measure} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return &d.result, nil
}

func (d *driver) register(ctx context.Context) error {
	start := time.Now()
	for i := range d.shape.users {
		u, err := d.c.register(ctx, fmt.Sprintf("%s_%d", d.prefix, i), d.token)
		if err != nil {
			return fmt.Errorf("register: %w", err)
		}
		u.syncing = d.syncers < 0 || i < d.syncers
		d.users = append(d.users, u)
	}
	d.result.RegisterPerS = float64(d.shape.users) / time.Since(start).Seconds()
	return nil
}

func (d *driver) makeRooms(ctx context.Context) error {
	start := time.Now()
	for i := range d.shape.rooms {
		r := &room{}
		for _, p := range rand.Perm(len(d.users))[:min(d.shape.members, len(d.users))] {
			r.members = append(r.members, d.users[p])
			if d.users[p].syncing {
				r.syncers++
			}
		}
		body := map[string]any{"preset": "public_chat", "name": fmt.Sprintf("load %d", i)}
		if d.version != "" {
			body["room_version"] = d.version
		}
		var made struct {
			RoomID string `json:"room_id"`
		}
		if err := d.c.call(ctx, http.MethodPost, apiV3+"/createRoom", r.members[0].token, body, &made); err != nil {
			return fmt.Errorf("create a room: %w", err)
		}
		r.id = made.RoomID
		for _, u := range r.members[1:] {
			if err := d.c.call(ctx, http.MethodPost, apiV3+"/join/"+url.PathEscape(r.id), u.token, map[string]any{}, nil); err != nil {
				return fmt.Errorf("join: %w", err)
			}
		}
		d.rooms = append(d.rooms, r)
	}
	d.result.RoomSetupS = time.Since(start).Seconds()
	return nil
}

func (d *driver) firstSyncs(ctx context.Context) error {
	var took []float64
	for _, u := range d.users {
		start := time.Now()
		var answer syncAnswer
		if err := d.c.call(ctx, http.MethodGet, apiV3+"/sync?timeout=0", u.token, nil, &answer); err != nil {
			return fmt.Errorf("first sync: %w", err)
		}
		took = append(took, millis(time.Since(start)))
		u.since = answer.NextBatch
	}
	d.result.InitialP50 = quantile(took, 0.5)
	return nil
}

// measure is the sending phase and, after it, the time until everything is delivered.
func (d *driver) measure(ctx context.Context) error {
	syncCtx, stopSync := context.WithCancel(ctx)
	defer stopSync()
	var syncing sync.WaitGroup
	for _, u := range d.users {
		if u.syncing {
			syncing.Go(func() { d.follow(syncCtx, u) })
		}
	}
	before := readUsage(d.pids...)
	start := time.Now()
	sendCtx, stopSend := context.WithDeadline(ctx, start.Add(time.Duration(d.seconds)*time.Second))
	defer stopSend()
	took := make([][]float64, d.shape.senders)
	var sending sync.WaitGroup
	for s := range took {
		sending.Go(func() { took[s] = d.send(ctx, sendCtx, s) })
	}
	sending.Wait()
	elapsed := time.Since(start)
	after := readUsage(d.pids...)
	d.drain(ctx)
	d.result.DrainS = (time.Since(start) - elapsed).Seconds()
	stopSync()
	syncing.Wait()

	var delays []float64
	for _, u := range d.users {
		delays = append(delays, u.delays...)
	}
	sends := slices.Concat(took...)
	r := &d.result
	r.Sent, r.Failed, r.Expected = d.sent.Load(), d.failed.Load(), d.expected.Load()
	r.Delivered, r.Doubled, r.Gaps, r.SyncErrors = d.delivered.Load(), d.doubled.Load(), d.gaps.Load(), d.syncErrors.Load()
	r.SendsPerS = float64(r.Sent) / elapsed.Seconds()
	r.SendP50, r.SendP99 = quantile(sends, 0.5), quantile(sends, 0.99)
	r.DeliverP50, r.DeliverP99 = quantile(delays, 0.5), quantile(delays, 0.99)
	r.ServerCPUS, r.ServerRSSMB = after.cpuSeconds-before.cpuSeconds, after.rssMB
	if r.ServerCPUS > 0 {
		r.EventsPerCPUS = float64(r.Sent) / r.ServerCPUS
	}
	return ctx.Err()
}

// send is one sender: it sends into rooms by turns of chance, as a member of chance, until until is done.
func (d *driver) send(ctx, until context.Context, sender int) []float64 {
	rnd := rand.New(rand.NewPCG(uint64(sender), 1))
	pad := strings.Repeat("x", d.size)
	var took []float64
	for n := 0; until.Err() == nil; n++ {
		r := d.rooms[rnd.IntN(len(d.rooms))]
		u := r.members[rnd.IntN(len(r.members))]
		path := fmt.Sprintf("%s/rooms/%s/send/m.room.message/%s-%d-%d", apiV3, url.PathEscape(r.id), d.prefix, sender, n)
		start := time.Now()
		body := map[string]any{"msgtype": "m.text", "body": pad, "at": start.UnixMicro(), "number": d.number.Add(1)}
		if err := d.c.call(ctx, http.MethodPut, path, u.token, body, nil); err != nil {
			if d.failed.Add(1) <= 3 {
				fmt.Fprintln(d.log, "bench:", err)
			}
			continue
		}
		took = append(took, millis(time.Since(start)))
		d.sent.Add(1)
		d.expected.Add(r.syncers)
	}
	return took
}

// follow holds /sync open for one user and notes what arrives.
func (d *driver) follow(ctx context.Context, u *user) {
	filter := url.QueryEscape(`{"room":{"timeline":{"limit":100}}}`)
	for ctx.Err() == nil {
		var answer syncAnswer
		path := apiV3 + "/sync?timeout=2000&filter=" + filter + "&since=" + url.QueryEscape(u.since)
		if err := d.c.call(ctx, http.MethodGet, path, u.token, nil, &answer); err != nil {
			if ctx.Err() == nil && d.syncErrors.Add(1) <= 3 {
				fmt.Fprintln(d.log, "bench:", err)
			}
			pause(ctx, 100*time.Millisecond)
			continue
		}
		now := time.Now()
		for roomID, joined := range answer.Rooms.Join {
			u.note(d, now, joined.Timeline.Events)
			if joined.Timeline.Limited {
				d.gaps.Add(1)
				d.fillGap(ctx, u, roomID, joined.Timeline.PrevBatch)
			}
		}
		u.since = answer.NextBatch
	}
}

// fillGap reads what a limited timeline left out, as a client does when its user scrolls up.
func (d *driver) fillGap(ctx context.Context, u *user, roomID, from string) {
	for from != "" && ctx.Err() == nil {
		var page struct {
			Chunk []message `json:"chunk"`
			End   string    `json:"end"`
		}
		path := fmt.Sprintf("%s/rooms/%s/messages?dir=b&limit=100&from=%s&to=%s", apiV3, url.PathEscape(roomID), url.QueryEscape(from), url.QueryEscape(u.since))
		if err := d.c.call(ctx, http.MethodGet, path, u.token, nil, &page); err != nil {
			d.syncErrors.Add(1)
			return
		}
		u.note(d, time.Now(), page.Chunk)
		if len(page.Chunk) == 0 || page.End == from {
			return
		}
		from = page.End
	}
}

// note counts the driver's own messages among events, each once.
func (u *user) note(d *driver, now time.Time, events []message) {
	for i := range events {
		e := &events[i]
		if e.Type != "m.room.message" || e.Content.At == 0 || e.Content.Number <= 0 {
			continue
		}
		for e.Content.Number >= len(u.seen) {
			u.seen = append(u.seen, make([]bool, len(u.seen)+1024)...)
		}
		if u.seen[e.Content.Number] {
			d.doubled.Add(1)
			continue
		}
		u.seen[e.Content.Number] = true
		u.delays = append(u.delays, float64(now.UnixMicro()-e.Content.At)/1000)
		d.delivered.Add(1)
	}
}

// drain waits until everything that is expected has arrived, at most 15 seconds.
func (d *driver) drain(ctx context.Context) {
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end) && d.delivered.Load() < d.expected.Load() && ctx.Err() == nil; {
		pause(ctx, 20*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile returns the value below which a share q of v lies; it sorts v.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[int(q*float64(len(v)-1))]
}
