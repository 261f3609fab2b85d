package federation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage/storagetest"
	"hansa/test/chaos"
	"hansa/test/hstest"
)

// built is the server's binary, which all tests of this package share.
type built struct {
	once   sync.Once
	dir    string
	binary string
	err    error
}

var theBuild built

func program(t *testing.T) string {
	t.Helper()
	theBuild.once.Do(func() {
		if theBuild.binary = os.Getenv("HANSA_CHAOS_BINARY"); theBuild.binary != "" {
			return
		}
		if theBuild.dir, theBuild.err = os.MkdirTemp("", "hansa-federation-"); theBuild.err == nil {
			theBuild.binary, theBuild.err = chaos.Build(context.Background(), theBuild.dir)
		}
	})
	if theBuild.err != nil {
		t.Fatal(theBuild.err)
	}
	return theBuild.binary
}

// process goes on with a server as a process of its own, on the same data and under the same names, which can be killed. Users of the server act
// on the process from then on.
func process(t *testing.T, s *hstest.Server) *chaos.Server {
	t.Helper()
	s.Stop()
	p, err := chaos.Process(program(t), s.Dir, *s.Config)
	if err != nil {
		t.Fatal(err)
	}
	s.URL = p.URL
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", p.LogTail())
		}
	})
	begin(t, p)
	return p
}

func begin(t *testing.T, p *chaos.Server) {
	t.Helper()
	if _, err := p.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// lane is somebody who does one thing after the other, and each again until the server has said that it is done.
type lane struct {
	name string
	// request is the n-th thing: the path, which holds a transaction ID, and the body.
	request func(n int) (string, object)
	done    []string // event IDs, as far as there are any
}

// run goes on until the server does not answer any more.
func (l *lane) run(ctx context.Context, c *chaos.Client, token string) error {
	for ctx.Err() == nil {
		path, body := l.request(len(l.done))
		a, err := c.Do(ctx, "PUT", "/_matrix/client/v3"+path, token, body)
		if err != nil {
			return nil // it will be repeated
		}
		if a.Status >= 500 {
			continue
		}
		var made struct {
			ID string `json:"event_id"`
		}
		if err := a.Into(&made); a.Status != 200 || err != nil {
			return fmt.Errorf("%s %d: %v", l.name, len(l.done), a)
		}
		l.done = append(l.done, made.ID)
	}
	return nil
}

// text is what the n-th thing of the lane says.
func (l *lane) text(n int) string { return fmt.Sprint(l.name, "-", n) }

// listener is a bridge that is told of events, confirms them or does not, and knows which transactions it had already.
type listener struct {
	mu     sync.Mutex
	away   bool
	seen   map[string]bool
	bodies []string
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var t struct {
		Events []struct {
			Content struct {
				Body string `json:"body"`
			} `json:"content"`
		} `json:"events"`
	}
	raw, err := io.ReadAll(r.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || l.away {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if json.Unmarshal(raw, &t) == nil && !l.seen[r.URL.Path] {
		l.seen[r.URL.Path] = true
		for _, e := range t.Events {
			if e.Content.Body != "" {
				l.bodies = append(l.bodies, e.Content.Body)
			}
		}
	}
	_, _ = w.Write([]byte("{}"))
}

func (l *listener) set(away bool) { l.mu.Lock(); l.away = away; l.mu.Unlock() }

func (l *listener) heard() []string { l.mu.Lock(); defer l.mu.Unlock(); return slices.Clone(l.bodies) }

// bridged gives the first server a bridge and a policy that lets it act.
func bridged(o *hstest.Options, url string) error {
	o.Policy = map[string]string{
		"one.example/bridges.yaml": "bridges:\n  irc: {points: [bridge.act, account.register, room.join, room.read, profile.read], contact: [staff]}\n",
		"one.example/pools.yaml":   "staff: {groups: [staff], contact: open}\n",
	}
	file := "id: irc\nurl: " + url + "\nas_token: as-0123456789abcdef0123456789abcdef\nhs_token: hs-0123456789abcdef0123456789abcdef\nsender_localpart: ircbot\n" +
		"tenant: one.example\nrate_limited: false\nnamespaces:\n  users: [{exclusive: true, regex: '@irc_.*:one\\.example'}]\n  aliases: []\n  rooms: []\n"
	dir := filepath.Join(o.Dir, "bridges")
	return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "irc.yaml"), []byte(file), 0o600))
}

const asToken = "as-0123456789abcdef0123456789abcdef"

// What other servers and bridges have to hear is in the transaction of the event or message itself: a server that is killed at any moment, with
// the others away or listening, has neither an event that they never hear of nor tells them of one that is not there, and tells it once.
func TestD478_OutboxIsInTheTransaction(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			irc := &listener{seen: map[string]bool{}}
			web := httptest.NewServer(irc)
			t.Cleanup(web.Close)
			f := hstest.NewFederation(t, 2, func(i int, o *hstest.Options) {
				o.Database = database
				if i == 0 {
					if err := bridged(o, web.URL); err != nil {
						t.Fatal(err)
					}
				}
			})
			one, two := f.Servers[0], f.Servers[1]
			anna, bob := one.User("anna", "staff"), two.User("bob")
			room := anna.CreateRoom(object{"preset": "public_chat"})
			bob.Must("POST", via(room, one), object{})
			post := anna.CreateRoom(object{"preset": "public_chat"})
			if a := one.Do("POST", "/register", asToken, object{"type": "m.login.application_service", "username": "irc_x", "inhibit_login": true}); a.Status != 200 {
				t.Fatalf("register a user of the bridge: %d %s", a.Status, a.Raw)
			}
			if a := one.Do("POST", "/join/"+hstest.Esc(post)+"?user_id=@irc_x:one.example", asToken, object{}); a.Status != 200 {
				t.Fatalf("join of the bridge: %d %s", a.Status, a.Raw)
			}
			bob.Send(room, "here")
			anna.Until("bob's words", has(room, "here"))
			bob.Sync(0)

			say := func(room, name string) *lane {
				l := &lane{name: name}
				l.request = func(n int) (string, object) {
					return "/rooms/" + hstest.Esc(room) + "/send/m.room.message/" + l.text(n), object{"msgtype": "m.text", "body": l.text(n)}
				}
				return l
			}
			device := &lane{name: "device"}
			device.request = func(n int) (string, object) {
				return "/sendToDevice/org.example.d478/" + device.text(n), object{"messages": object{string(bob.ID): object{bob.DeviceID: object{"text": device.text(n)}}}}
			}
			lanes := []*lane{say(room, "first"), say(room, "second"), device, say(post, "bridge")}
			p := process(t, one)
			client := chaos.NewClient(p.URL)
			// storm lets all lanes go until the server is killed, over and over, and until each has done something.
			storm := func(kills int) {
				before := make([]int, len(lanes))
				for i, l := range lanes {
					before[i] = len(l.done)
				}
				idle := func() bool {
					for i, l := range lanes {
						if len(l.done) == before[i] {
							return true
						}
					}
					return false
				}
				for n := 0; n < kills || n < 10*kills && idle(); n++ {
					ctx, cancel := context.WithCancel(context.Background())
					errs := make(chan error, len(lanes))
					for _, l := range lanes {
						go func() { errs <- l.run(ctx, client, anna.Token) }()
					}
					<-time.After(time.Duration(20+rand.IntN(200)*(1+n/kills)) * time.Millisecond) // longer where too little gets done
					p.Kill()
					cancel()
					for range lanes {
						if err := <-errs; err != nil {
							t.Error(err)
						}
					}
					begin(t, p)
				}
			}
			two.Stop()
			irc.set(true)
			storm(5)
			away := make([]int, len(lanes))
			for i, l := range lanes {
				away[i] = len(l.done)
			}
			two.Restart()
			bob = bob.On(two)
			irc.set(false)
			storm(5)
			p.Kill()
			begin(t, p)
			files(t, p.Dir)

			counts := make([]int, len(lanes))
			for i, l := range lanes {
				if counts[i] = len(l.done); away[i] == 0 || counts[i] == away[i] {
					t.Errorf("%s: %d things were done while the others were away, %d in all", l.name, away[i], counts[i])
				}
			}
			t.Logf("done before the others came back: %v, in all %v", away, counts)
			// What was under way when the server was killed last is repeated by nobody; it may be there or not.
			anna = anna.On(one)
			anna.Send(room, "last")
			anna.Send(post, "last")
			told := ""
			bob.Until("all that was said", func(a hstest.Answer) bool {
				told += string(a.Raw)
				return strings.Contains(told, `"body":"last"`) && strings.Contains(told, quote(device.text(len(device.done)-1)))
			})
			here, there := everything(t, anna, room), everything(t, bob, room)
			if a, b := sorted(here), sorted(there); !slices.Equal(a, b) {
				t.Errorf("%d messages are here and %d there", len(here), len(there))
			}
			for _, l := range lanes[:2] {
				exactly(t, "on the other server", l, there)
			}
			exactly(t, "on the other server's device", device, textsIn(told))
			hstest.Await(t, "the bridge to hear all", func() bool { return slices.Contains(irc.heard(), "last") })
			want := everything(t, anna, post)
			if got := irc.heard(); !slices.Equal(got, want) {
				t.Errorf("the bridge heard %d messages of %d, or in another order", len(got), len(want))
			}
			exactly(t, "at the bridge", lanes[3], irc.heard())
		})
	}
}

// files fails the test where a server keeps something beside its database.
func files(t *testing.T, dir string) {
	t.Helper()
	known := []string{"hansa.db", "hansa.db-wal", "hansa.db-shm", "hansa.db.lock", "admin.sock", "position"}
	list, err := os.ReadDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if !slices.Contains(known, f.Name()) {
			t.Errorf("the server keeps a file %s", f.Name())
		}
	}
}

// everything are the texts of all messages of a room that a user sees, the oldest first.
func everything(t *testing.T, u *hstest.User, room string) []string {
	t.Helper()
	var out []string
	for from := ""; ; {
		a := u.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=500"+from, nil)
		list, _ := a.Get("chunk").([]any)
		for _, v := range list {
			e, _ := v.(object)
			if c, _ := e["content"].(object); e["type"] == "m.room.message" {
				out = append(out, fmt.Sprint(c["body"]))
			}
		}
		if from = "&from=" + a.String("end"); a.String("end") == "" {
			slices.Reverse(out)
			return out
		}
	}
}

func sorted(list []string) []string { list = slices.Clone(list); slices.Sort(list); return list }

// textsIn are the texts of the messages to a device in answers to syncs.
func textsIn(raw string) (out []string) {
	for rest := raw; ; {
		_, after, ok := strings.Cut(rest, `"content":{"text":"`)
		if !ok {
			return out
		}
		text, more, _ := strings.Cut(after, `"`)
		out, rest = append(out, text), more
	}
}

// exactly fails the test where not everything that a lane has done is there, once and in its order.
func exactly(t *testing.T, where string, l *lane, list []string) {
	t.Helper()
	var got []string
	for _, s := range list {
		if strings.HasPrefix(s, l.name+"-") {
			got = append(got, s)
		}
	}
	for i := range l.done {
		if i >= len(got) || got[i] != l.text(i) {
			t.Errorf("%s: %d of %s are %s, want %d in order; at %d: %v", where, len(got), l.name, where, len(l.done), i, got[min(i, len(got)):min(i+3, len(got))])
			return
		}
	}
	if len(got) > len(l.done)+1 {
		t.Errorf("%s: %d of %s, but only %d were done", where, len(got), l.name, len(l.done))
	}
}

// put makes a transaction of a guest without waiting for anything but its answer, which may not come.
func (g *guest) put(c *http.Client, txn string, body []byte) (status int, answer []byte, err error) {
	target := "/_matrix/federation/v1/send/" + txn
	header, err := signing.SignRequest(g.o.Key, "PUT", target, g.o.Name, g.to, body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest("PUT", "https://"+string(g.to)+target, strings.NewReader(string(body)))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", header)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// A server answers what another one sends only when it is durable. It is killed at any moment of a transaction: either the other one has no 200,
// and what it sends again has its effect once, or events and messages to devices are there when the server is back.
func TestF105_KilledBetweenReceiptAndCommit(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			f := hstest.NewFederation(t, 1, func(_ int, o *hstest.Options) { o.Database = database })
			one := f.Servers[0]
			anna, g := party(t, f, "11")
			anna.Sync(0)
			p := process(t, one)
			client := f.Client()
			told, answered, unanswered := "", 0, 0
			typical := 20 * time.Millisecond
			const rounds = 16
			for round := range rounds {
				var pdus []json.RawMessage
				var ids []matrix.EventID
				for i := range 3 {
					e := g.message(fmt.Sprintf("event-%d-%d", round, i))
					pdus, ids = append(pdus, event.Federation(e)), append(ids, e.ID)
				}
				edu := object{"edu_type": "m.direct_to_device", "content": object{"sender": g.id, "type": "org.example.f105", "message_id": fmt.Sprint("m", round),
					"messages": object{string(anna.ID): object{anna.DeviceID: object{"text": fmt.Sprint("device-", round)}}}}}
				body, err := json.Marshal(object{"origin": g.o.Name, "origin_server_ts": time.Now().UnixMilli(), "pdus": pdus, "edus": []any{edu}})
				if err != nil {
					t.Fatal(err)
				}
				txn := fmt.Sprint("t", round)
				type outcome struct {
					status int
					raw    []byte
					err    error
				}
				done := make(chan outcome, 1)
				began := time.Now()
				go func() {
					status, raw, err := g.put(client, txn, body)
					done <- outcome{status, raw, err}
				}()
				var got outcome
				if round%4 == 0 { // killed right after the answer
					got = <-done
					typical = (typical + time.Since(began)) / 2
					p.Kill()
				} else { // killed at some moment
					longest := typical * 5 / 4
					if round%4 == 1 {
						longest = typical / 4
					}
					<-time.After(rand.N(longest) + 1)
					p.Kill()
					got = <-done
				}
				client.CloseIdleConnections()
				begin(t, p)
				if got.err == nil && got.status == 200 {
					answered++
				} else {
					unanswered++
					hstest.Await(t, "the answer to the transaction once more", func() bool {
						got.status, got.raw, got.err = g.put(client, txn, body)
						if got.err != nil || got.status != 200 && got.status != 503 { // 503: policy has no time to decide
							t.Fatalf("the transaction once more: %d %s %v", got.status, got.raw, got.err)
						}
						return got.status == 200
					})
				}
				for id, reason := range results(t, hstest.Answer{Status: got.status, Raw: got.raw}) {
					if reason != "" || !slices.Contains(ids, id) {
						t.Errorf("round %d: %s: %s", round, id, reason)
					}
				}
				// It is there now, without another word of the other server.
				told += string(anna.Sync(0).Raw)
				all := everything(t, anna, string(g.room))
				for i := range 3 {
					if text := fmt.Sprintf("event-%d-%d", round, i); !slices.Contains(all, text) {
						t.Errorf("round %d: %s was answered and is not there", round, text)
					}
				}
				if !slices.Contains(textsIn(told), fmt.Sprint("device-", round)) {
					t.Errorf("round %d: a message to a device was answered and is not there", round)
				}
			}
			t.Logf("%d transactions were answered before the server was killed, %d were not", answered, unanswered)
			if answered == 0 || unanswered == 0 {
				t.Errorf("only one of the two was seen")
			}
			all, texts := everything(t, anna, string(g.room)), textsIn(told)
			if len(all) != 3*rounds || len(slices.Compact(sorted(all))) != len(all) {
				t.Errorf("%d messages are in the room, want each of %d once", len(all), 3*rounds)
			}
			if len(texts) != rounds || len(slices.Compact(sorted(texts))) != len(texts) {
				t.Errorf("%d messages came to the device, want each of %d once", len(texts), rounds)
			}
		})
	}
}
