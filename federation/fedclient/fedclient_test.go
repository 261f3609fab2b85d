package fedclient

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sirupsen/logrus"

	"hansa/federation"
	"hansa/federation/resolve"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/outbound"
	"hansa/outbound/outboundtest"
)

const (
	acme = matrix.ServerName("acme.example")
	far  = matrix.ServerName("far.example")
	room = matrix.RoomID("!r/o+o m:far.example")
)

// gate denies what the test says.
type gate struct {
	mu     sync.Mutex
	asked  int
	denied error
}

func (g *gate) Outbound(context.Context, matrix.ServerName, matrix.ServerName) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	return g.denied
}

func (g *gate) OutboundLeave(ctx context.Context, as, to matrix.ServerName) error {
	return g.Outbound(ctx, as, to)
}

// world is a client and one server, far.example, that checks the signature of every request.
type world struct {
	*Client
	gate gate
	dns  *outboundtest.Hosts
	now  atomic.Int64
	// hits counts the requests that far.example has seen.
	hits atomic.Int32
	last atomic.Pointer[http.Request]
}

func newWorld(t *testing.T, h http.HandlerFunc) *world {
	t.Helper()
	key, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dns: outboundtest.NewHosts()}
	w.now.Store(time.Now().UnixNano())
	ca := outboundtest.New(t)
	s := ca.Start(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.hits.Add(1)
		w.last.Store(r)
		body, _ := io.ReadAll(r.Body)
		if len(body) == 0 {
			body = nil
		}
		x, err := signing.ParseXMatrix(r.Header.Values("Authorization"))
		if err != nil || x.Origin != acme || x.Destination != far {
			t.Errorf("authorization %q: %v", r.Header.Values("Authorization"), err)
			return
		}
		object, err := signing.RequestJSON(r.Method, r.RequestURI, x.Origin, x.Destination, body)
		if err != nil || !key.Public().Verify(object, x.Signatures[0].Signature) {
			t.Errorf("%s %s: the signature does not verify (%v)", r.Method, r.RequestURI, err)
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		h(rw, r)
	}), string(far))
	log := logrus.New()
	log.SetOutput(io.Discard)
	out, err := outbound.New(outbound.Options{CAFile: ca.File, DNS: w.dns, Log: logrus.NewEntry(log), Addresses: map[string]string{string(far): s.Listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.Close)
	servers := resolve.New(resolve.Deps{Out: out, DNS: w.dns, Log: logrus.NewEntry(log)})
	w.Client, err = New(Deps{Keys: map[matrix.ServerName]signing.Key{acme: key}, Out: out, Servers: servers, Gate: &w.gate, Log: logrus.NewEntry(log), Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) clock() time.Time { return time.Unix(0, w.now.Load()) }

// answers maps request targets to bodies.
func answers(t *testing.T, m map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, ok := m[r.Method+" "+r.RequestURI]
		if !ok {
			t.Errorf("asked for %s %s", r.Method, r.RequestURI)
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, body)
	}
}

func TestClient_Calls(t *testing.T) {
	t.Parallel()
	const r = "%21r%2Fo+o%20m:far.example"
	w := newWorld(t, answers(t, map[string]string{
		"PUT /_matrix/federation/v1/send/t%2F1":                                                 `{"pdus":{"$a":{},"$b":{"error":"bad"}}}`,
		"GET /_matrix/federation/v1/make_join/" + r + "/@u:acme.example?ver=11&ver=12":          `{"room_version":"12","event":{"type":"m.room.member"}}`,
		"PUT /_matrix/federation/v2/send_join/" + r + "/$e?omit_members=false":                  `{"state":[{"a":1}],"auth_chain":[{"b":2},{"c":3}],"event":{"e":1},"origin":"x","members_omitted":false,"servers_in_room":["far.example","bad name"]}`,
		"GET /_matrix/federation/v1/make_leave/" + r + "/@u:acme.example":                       `{"event":{"type":"m.room.member"}}`,
		"PUT /_matrix/federation/v2/send_leave/" + r + "/$e":                                    `{}`,
		"GET /_matrix/federation/v1/make_knock/" + r + "/@u:acme.example?ver=12":                `{"room_version":"12","event":{}}`,
		"PUT /_matrix/federation/v1/send_knock/" + r + "/$e":                                    `{"knock_room_state":[{"type":"m.room.name"}]}`,
		"PUT /_matrix/federation/v2/invite/" + r + "/$e":                                        `{"event":{"signed":true}}`,
		"GET /_matrix/federation/v1/event/$e%2Fx":                                               `{"origin":"x","origin_server_ts":1,"pdus":[{"z":1}]}`,
		"POST /_matrix/federation/v1/get_missing_events/" + r:                                   `{"events":[{"a":1},{"b":1},{"c":1}]}`,
		"GET /_matrix/federation/v1/state_ids/" + r + "?event_id=%24e":                          `{"pdu_ids":["$a","nonsense"],"auth_chain_ids":["$b","$c"]}`,
		"GET /_matrix/federation/v1/state/" + r + "?event_id=%24e":                              `{"auth_chain":[{"b":1}],"pdus":[{"a":1},{"a":2}]}`,
		"GET /_matrix/federation/v1/event_auth/" + r + "/$e":                                    `{"auth_chain":[{"b":1}]}`,
		"GET /_matrix/federation/v1/backfill/" + r + "?limit=2&v=%24a&v=%24b":                   `{"pdus":[{"a":1},{"a":2},{"a":3}]}`,
		"GET /_matrix/federation/v1/query/profile?field=displayname&user_id=%40u%3Afar.example": `{"displayname":"U"}`,
		"GET /_matrix/federation/v1/query/directory?room_alias=%23%C3%A4%3Afar.example":         `{"room_id":"!x:far.example","servers":["far.example"]}`,
		"POST /_matrix/federation/v1/publicRooms":                                               `{"chunk":[{"room_id":"!x:far.example"}],"total_room_count_estimate":1}`,
		"GET /_matrix/federation/v1/user/devices/@u:far.example":                                `{"user_id":"@u:far.example","stream_id":5,"devices":[{"device_id":"D","keys":{}}]}`,
		"POST /_matrix/federation/v1/user/keys/query":                                           `{"device_keys":{"@u:far.example":{"D":{"x":1}}}}`,
		"POST /_matrix/federation/v1/user/keys/claim":                                           `{"one_time_keys":{"@u:far.example":{"D":{"signed_curve25519:A":{"key":"k"}}}}}`,
		"GET /_matrix/federation/v1/version":                                                    `{"server":{"name":"N","version":"1"}}`,
		"GET /_matrix/federation/v1/hierarchy/" + r + "?suggested_only=true":                    `{"room":{},"children":[]}`,
		"GET /_matrix/federation/v1/timestamp_to_event/" + r + "?dir=b&ts=5":                    `{"event_id":"$e","origin_server_ts":4}`,
	}))
	ctx := context.Background()
	show := func(name, got, want string, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
	bad, err := w.Send(ctx, acme, far, "t/1", federation.Transaction{Origin: acme, PDUs: []jsontext.Value{jsontext.Value(`{"a":1}`)}})
	show("send", fmt.Sprint(bad), "map[$b:bad]", err)
	tpl, err := w.MakeJoin(ctx, acme, far, room, "@u:acme.example", []string{"11", "12"})
	show("make_join", tpl.RoomVersion+string(tpl.Event), `12{"type":"m.room.member"}`, err)
	join, err := w.SendJoin(ctx, acme, far, room, []byte(`{"x":1}`), "$e")
	show("send_join", fmt.Sprintf("%s %s %s %v", join.State, join.AuthChain, join.Event, join.ServersInRoom), `[{"a":1}] [{"b":2} {"c":3}] {"e":1} [far.example]`, err)
	tpl, err = w.MakeLeave(ctx, acme, far, room, "@u:acme.example")
	show("make_leave", string(tpl.Event), `{"type":"m.room.member"}`, err)
	show("send_leave", "", "", w.SendLeave(ctx, acme, far, room, []byte(`{}`), "$e"))
	tpl, err = w.MakeKnock(ctx, acme, far, room, "@u:acme.example", []string{"12"})
	show("make_knock", tpl.RoomVersion, "12", err)
	knock, err := w.SendKnock(ctx, acme, far, room, []byte(`{}`), "$e")
	show("send_knock", fmt.Sprintf("%s", knock.KnockRoomState), `[{"type":"m.room.name"}]`, err)
	b, err := w.Invite(ctx, acme, far, room, "$e", federation.Invite{RoomVersion: "12", Event: jsontext.Value(`{}`)})
	show("invite", string(b), `{"signed":true}`, err)
	b, err = w.Event(ctx, acme, far, "$e/x")
	show("event", string(b), `{"z":1}`, err)
	list, err := w.MissingEvents(ctx, acme, far, room, []matrix.EventID{"$a"}, []matrix.EventID{"$b"}, 2, 0)
	show("get_missing_events", fmt.Sprintf("%s", list), `[{"a":1} {"b":1}]`, err)
	state, auth, err := w.StateIDs(ctx, acme, far, room, "$e")
	show("state_ids", fmt.Sprint(state, auth), "[$a] [$b $c]", err)
	pdus, chain, err := w.State(ctx, acme, far, room, "$e")
	show("state", fmt.Sprintf("%s %s", pdus, chain), `[{"a":1} {"a":2}] [{"b":1}]`, err)
	list, err = w.EventAuth(ctx, acme, far, room, "$e")
	show("event_auth", fmt.Sprintf("%s", list), `[{"b":1}]`, err)
	list, err = w.Backfill(ctx, acme, far, room, []matrix.EventID{"$a", "$b"}, 2)
	show("backfill", fmt.Sprintf("%s", list), `[{"a":1} {"a":2}]`, err)
	profile, err := w.Profile(ctx, acme, far, "@u:far.example", "displayname")
	show("profile", string(profile["displayname"]), `"U"`, err)
	id, servers, err := w.Alias(ctx, acme, far, "#ä:far.example")
	show("alias", fmt.Sprintf("%v %v", id, servers), "!x:far.example [far.example]", err)
	rooms, err := w.PublicRooms(ctx, acme, far, federation.PublicRoomsRequest{Limit: 5})
	show("public rooms", fmt.Sprint(len(rooms.Chunk)), "1", err)
	devices, err := w.Devices(ctx, acme, far, "@u:far.example")
	show("devices", fmt.Sprintf("%v %v", devices.StreamID, devices.Devices[0].DeviceID), "5 D", err)
	keys, err := w.QueryKeys(ctx, acme, far, federation.KeysQuery{})
	show("keys", string(keys.DeviceKeys["@u:far.example"]["D"]), `{"x":1}`, err)
	claim, err := w.ClaimKeys(ctx, acme, far, federation.KeysClaim{})
	show("claim", string(claim.OneTimeKeys["@u:far.example"]["D"]["signed_curve25519:A"]), `{"key":"k"}`, err)
	version, err := w.Version(ctx, acme, far)
	show("version", version.Server.Name, "N", err)
	tree, err := w.Hierarchy(ctx, acme, far, room, true)
	show("hierarchy", string(tree), `{"room":{},"children":[]}`, err)
	at, ts, err := w.TimestampToEvent(ctx, acme, far, room, time.UnixMilli(5), "b")
	show("timestamp_to_event", fmt.Sprintf("%v %v", at, ts.UnixMilli()), "$e 4", err)
	if w.gate.asked != 23 || w.hits.Load() != 23 {
		t.Errorf("the gate was asked %d times for %d requests", w.gate.asked, w.hits.Load())
	}
}

func TestGate_ComesFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(http.ResponseWriter, *http.Request) {})
	w.gate.denied = matrix.Forbidden("no agreement")
	for _, to := range []matrix.ServerName{far, "other.example"} {
		_, err := w.Version(context.Background(), acme, to)
		var m *matrix.Error
		if !errors.As(err, &m) || m.Status != http.StatusForbidden {
			t.Errorf("%s: %v, want the refusal", to, err)
		}
	}
	if n := w.hits.Load(); n != 0 || len(w.dns.Asked()) != 0 {
		t.Errorf("%d requests, DNS was asked for %v", n, w.dns.Asked())
	}
	w.gate.denied = nil
	if _, err := w.Version(context.Background(), "stranger.example", far); err == nil {
		t.Error("a stranger's name is used")
	}
	if _, err := w.Version(context.Background(), acme, "not a server"); err == nil {
		t.Error("something that is no server is asked")
	}
}

func TestClient_Errors(t *testing.T) {
	t.Parallel()
	var status int
	var header, value, body string
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		if header != "" {
			rw.Header().Set(header, value)
		}
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	})
	for _, c := range []struct {
		status              int
		header, value, body string
		code                string
		after               time.Duration
	}{
		{403, "", "", `{"errcode":"M_FORBIDDEN","error":"no"}`, "M_FORBIDDEN", 0},
		{429, "Retry-After", "7", `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":3000}`, "M_LIMIT_EXCEEDED", 7 * time.Second},
		{429, "", "", `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":3000}`, "M_LIMIT_EXCEEDED", 3 * time.Second},
		{429, "Retry-After", "99999999999", `{}`, "M_UNKNOWN", maxRetryAfter},
		{429, "Retry-After", "-5", `{"retry_after_ms":-1}`, "M_UNKNOWN", 0},
		{503, "Retry-After", "soon", `<html>`, "M_UNKNOWN", 0},
		{502, "", "", strings.Repeat("x", 1<<20), "M_UNKNOWN", 0},
		{404, "", "", `{"errcode":7,"error":[]}`, "M_UNKNOWN", 0},
		{302, "Location", "https://127.0.0.1/", ``, "M_UNKNOWN", 0},
		{204, "", "", ``, "M_UNKNOWN", 0},
	} {
		status, header, value, body = c.status, c.header, c.value, c.body
		_, err := w.Version(context.Background(), acme, far)
		var e *Error
		if !errors.As(err, &e) || e.Status != c.status || e.Code != c.code || e.RetryAfter != c.after {
			t.Errorf("%d %s: %#v, want %s and %v", c.status, c.body[:min(len(c.body), 50)], err, c.code, c.after)
		}
	}
	status, header = 200, ""
	for _, body = range []string{``, `{`, `[]`, `{"server":{"name":"a","name":"b"}}`, `{"server":{}}{}`, "{\"server\":{\"name\":\"\xff\"}}", strings.Repeat(" ", 2<<20)} {
		if _, err := w.Version(context.Background(), acme, far); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%.50q: %v, want ErrUnreachable", body, err)
		}
	}
}

func TestCircuit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, `{}`) })
	ctx := context.Background()
	const gone = matrix.ServerName("gone.example:1")
	ask := func(want int) {
		t.Helper()
		before := len(w.dns.Asked())
		if _, err := w.Version(ctx, acme, gone); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v, want ErrUnreachable", err)
		}
		if n := len(w.dns.Asked()) - before; n != want {
			t.Errorf("tried %d times, want %d", n, want)
		}
	}
	ask(1)
	ask(0)
	if w.Reachable(gone) || !w.Reachable(far) {
		t.Error("what is reachable is told wrongly")
	}
	if _, err := w.Send(ctx, acme, gone, "t", federation.Transaction{}); !errors.Is(err, ErrUnreachable) || len(w.dns.Asked()) != 2 {
		t.Errorf("a transaction is not tried: %v", err)
	}
	w.now.Add(int64(minOpen))
	ask(1)
	w.now.Add(int64(minOpen))
	ask(0)
	w.now.Add(int64(maxOpen))
	ask(1)
	ask(0)
	w.Hear(gone) // it made a request
	ask(1)
	ask(0)
	w.circuit.answered(gone)
	ask(1)
	if _, err := w.Version(ctx, acme, far); err != nil {
		t.Errorf("another server: %v", err)
	}
	c := newCircuit()
	for i := range 3 * maxCircuits {
		c.failed(matrix.ServerName(fmt.Sprint(i)), time.Unix(int64(i), 0))
	}
	if len(c.down) > maxCircuits {
		t.Errorf("%d servers are remembered", len(c.down))
	}
}

// repeated serves prefix, n times element with commas between, and suffix.
func repeated(prefix, element string, n int, suffix string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, prefix)
		chunk := strings.Repeat(element+",", 1000)
		for n := n; n > 1000; n -= 1000 {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, element+suffix)
	}
}

// peak watches the heap. The function that it returns says how many bytes it grew at most.
func peak() func() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	read := func() int64 { metrics.Read(sample); return int64(sample[0].Value.Uint64()) }
	runtime.GC()
	start := read()
	most, stop, done := start, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, read())
			case <-stop:
				return
			}
		}
	}()
	return func() int64 { close(stop); <-done; return most - start }
}

func TestF109_GiantStateResponses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for name, h := range map[string]http.HandlerFunc{
		"600 MB":            repeated(`{"pdus":[`, `{"x":"`+strings.Repeat("y", 60000)+`"}`, 10000, `]}`),
		"5 million events":  repeated(`{"pdus":[`, `{}`, 5000000, `]}`),
		"one giant event":   repeated(`{"pdus":[{"x":[`, `"`+strings.Repeat("y", 1000)+`"`, 600000, `]}]}`),
		"one giant unknown": repeated(`{"other":[`, `"`+strings.Repeat("y", 1000)+`"`, 600000, `]}`),
		"deep": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"pdus":[`+strings.Repeat(`[`, 1000000))
		},
		"breaks off": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"pdus":[{}`) },
		"twice":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"pdus":[],"pdus":[]}`) },
		"no list":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"pdus":{}}`) },
		"trailing":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"pdus":[]} x`) },
		"many members": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "{")
			for i := range 1000 {
				_, _ = fmt.Fprintf(w, `"m%d":0,`, i)
			}
			_, _ = io.WriteString(w, `"pdus":[]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, h)
			if _, _, err := w.State(ctx, acme, far, room, "$e"); !errors.Is(err, ErrUnreachable) {
				t.Errorf("state: %v, want ErrUnreachable", err)
			}
		})
	}
	w := newWorld(t, repeated(`{"pdu_ids":[`, `"$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"`, 5000000, `]}`))
	if _, _, err := w.StateIDs(ctx, acme, far, room, "$e"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("5 million IDs: %v, want ErrUnreachable", err)
	}
	for name, h := range map[string]http.HandlerFunc{
		"1 GiB":             repeated(`{"state":[`, `{"x":"`+strings.Repeat("y", 1000)+`"}`, 1<<20, `],"auth_chain":[]}`),
		"a million events":  repeated(`{"auth_chain":[`, `{"x":"`+strings.Repeat("y", 100)+`"}`, 1000000, `],"state":[]}`),
		"a million servers": repeated(`{"servers_in_room":[`, `"s.example"`, 1000000, `],"state":[]}`),
	} {
		t.Run("join of "+name, func(t *testing.T) {
			w := newWorld(t, h)
			most := peak()
			if _, err := w.SendJoin(ctx, acme, far, room, []byte(`{}`), "$e"); !errors.Is(err, ErrUnreachable) {
				t.Errorf("got %v, want ErrUnreachable", err)
			}
			// What is held is at most maxState, and the collector lets garbage grow to as much again.
			if grown := most(); grown > 2*maxState+128<<20 {
				t.Errorf("the heap grew by %d MiB", grown>>20)
			} else {
				t.Logf("the heap grew by %d MiB at most", grown>>20)
			}
		})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 200<<20 {
		t.Errorf("%d MiB are still held", grown>>20)
	}
}

// One event that cannot be read spoils no other; the room judges each.
func TestF110_OneBrokenEventInState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"state":[{"a":1},{"a":1,"a":2},7,null,{"b":"`+"\xff"+`"},{"c":1e99},{"big":"`+strings.Repeat("x", maxEventSize)+`"},{"d":4}],"auth_chain":null}`)
	})
	a, err := w.SendJoin(context.Background(), acme, far, room, []byte(`{}`), "$e")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%s", a.State), `[{"a":1} {"a":1,"a":2} {"b":"`+"\xff"+`"} {"c":1e99} {"d":4}]`; got != want {
		t.Errorf("state %s, want %s", got, want)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"pdus":[{"a":1}],"auth_chain":[],"pdu_ids":["$a"]}`))
	f.Add([]byte(`{"pdus":null,"x":[[[]]]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := newReader(strings.NewReader(string(body)), new(atomic.Int64))
		var events [][]byte
		_ = r.object(func(name string) (bool, error) {
			switch name {
			case "pdus":
				return true, r.events(10, &events)
			case "pdu_ids":
				return true, r.strings(10, func(string) {})
			case "event":
				var b []byte
				return true, r.value(&b)
			}
			return false, nil
		})
		for _, e := range events {
			if len(e) < 2 || e[0] != '{' {
				t.Errorf("event %q", e)
			}
		}
	})
}
