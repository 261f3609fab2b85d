package chaos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"hansa/config"
	"hansa/federation/agreement"
	"hansa/homeserver/account"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

type object = map[string]any

// startNATS starts a server of the real thing in this process, and returns its URL.
func startNATS(t *testing.T, port int) (*server.Server, string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true, Authorization: "token"})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS does not start")
	}
	return s, "nats://token@" + s.Addr().String()
}

// startCell starts nodes on one PostgreSQL, which wake each other by NATS or find out by themselves.
func startCell(t *testing.T, nodes int, wakes bool, policy map[string]string) []*hstest.Server {
	t.Helper()
	url := ""
	if wakes {
		_, url = startNATS(t, server.RANDOM_PORT)
	}
	change := func(c *config.Config) { c.NATS = url }
	out := []*hstest.Server{hstest.New(t, hstest.Options{Database: storagetest.URL(t, "postgres"), Policy: policy, Change: change})}
	for len(out) < nodes {
		out = append(out, hstest.New(t, hstest.Options{NodeOf: out[0], Change: change}))
	}
	for _, s := range out {
		await(t, time.Minute, "every node knows of the others", func() bool { return gauge(t, s, "hansa_nodes_count") == float64(nodes) })
		if wakes {
			await(t, time.Minute, "NATS is connected", func() bool { return gauge(t, s, "hansa_stream_nats_connected_bool") == 1 })
		}
	}
	return out
}

// eachCell runs a test with NATS and without.
func eachCell(t *testing.T, nodes int, policy map[string]string, fn func(t *testing.T, nodes []*hstest.Server)) {
	t.Helper()
	for _, wakes := range []bool{true, false} {
		t.Run(map[bool]string{true: "NATS", false: "no NATS"}[wakes], func(t *testing.T) {
			t.Parallel()
			fn(t, startCell(t, nodes, wakes, policy))
		})
	}
}

func gauge(t testing.TB, s *hstest.Server, name string) (sum float64) {
	t.Helper()
	families, err := s.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// await waits for a condition and returns how long it took.
func await(t testing.TB, longest time.Duration, what string, fn func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		if fn() {
			return time.Since(began)
		}
		if time.Since(began) > longest {
			t.Fatalf("in vain for %v: %s", longest, what)
		}
	}
}

// second is what a change on one node may take to hold on another.
func second(t testing.TB, what string, fn func() bool) {
	t.Helper()
	if d := await(t, bar(2*time.Second), what, fn); d > bar(time.Second) {
		t.Errorf("%s: after %v, want 1 s", what, d)
	}
}

// history reads a room's messages, the oldest first.
func history(t *testing.T, u *hstest.User, room string) []string {
	t.Helper()
	var out []string
	for from := ""; ; {
		a := u.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=1000"+from, nil)
		list, _ := a.Get("chunk").([]any)
		for _, e := range list {
			if m, _ := e.(object); m["type"] == "m.room.message" {
				id, _ := m["event_id"].(string)
				out = append(out, id)
			}
		}
		if from = "&from=" + a.String("end"); a.String("end") == "" {
			slices.Reverse(out)
			return out
		}
	}
}

// 400 sends at a time into one room through two nodes: everything is there once, and everybody sees one order.
func TestNodes_OneRoomThroughTwo(t *testing.T) {
	t.Parallel()
	eachCell(t, 2, nil, func(t *testing.T, nodes []*hstest.Server) {
		anna, ben := nodes[0].User("anna"), nodes[0].User("ben")
		room := anna.CreateRoom(object{"preset": "public_chat"})
		ben.Join(room)
		readers := []*hstest.User{anna.On(nodes[0]), anna.On(nodes[1]), ben.On(nodes[0]), ben.On(nodes[1])}
		for _, r := range readers {
			r.Sync(0)
		}
		const sends = 400
		sent := make([]string, sends)
		var wg sync.WaitGroup
		for i := range sends {
			u := []*hstest.User{anna, ben}[i/2%2]
			wg.Go(func() {
				s := nodes[i%2]
				path := fmt.Sprintf("/rooms/%s/send/m.room.message/n%d", hstest.Esc(room), i)
				for try := range 100 { // a room that is too busy says so, and the request is repeated
					a := s.Do("PUT", path, u.Token, object{"msgtype": "m.text", "body": fmt.Sprint(i)})
					if sent[i] = a.String("event_id"); a.Status == 200 {
						return
					}
					if a.Status < 500 {
						t.Errorf("send %d: %d %s", i, a.Status, a.Raw)
						return
					}
					pause(time.Duration(min(10*try, 500)) * time.Millisecond)
				}
				t.Errorf("send %d found no way", i)
			})
		}
		wg.Wait()
		want := history(t, readers[0], room)
		if len(want) != sends {
			t.Errorf("%d messages are in the room, want %d", len(want), sends)
		}
		at := map[string]int{}
		for i, id := range want {
			if _, twice := at[id]; twice {
				t.Errorf("%s is there twice", id)
			}
			at[id] = i
		}
		for i, id := range sent {
			if _, ok := at[id]; !ok {
				t.Errorf("send %d was acknowledged as %q and is not there", i, id)
			}
		}
		if got := history(t, readers[3], room); !slices.Equal(got, want) {
			t.Error("two nodes show two orders")
		}
		for i, r := range readers {
			var got []string
			for end := time.Now().Add(time.Minute); len(got) < sends && time.Now().Before(end); { // an answer may tell of other things first
				a := r.Sync(2*time.Second, "filter", `{"room":{"timeline":{"limit":1000}}}`)
				news := a.Timeline(room)
				if a.Get("rooms", "join", room, "timeline", "limited") == true {
					t.Errorf("reader %d has a gap", i)
				}
				for _, e := range news {
					if e["type"] == "m.room.message" {
						id, _ := e["event_id"].(string)
						got = append(got, id)
					}
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("reader %d has got %d messages in another order or number than the room has", i, len(got))
			}
		}
	})
}

// What somebody did on one node holds for the next request on another, however soon it comes.
func TestNodes_ReadYourWrites(t *testing.T) {
	t.Parallel()
	eachCell(t, 2, nil, func(t *testing.T, nodes []*hstest.Server) {
		anna, ben := nodes[0].User("anna"), nodes[1].User("ben")
		for i := range 15 {
			a, b := nodes[i%2], nodes[1-i%2]
			room := anna.On(a).CreateRoom(object{"preset": "private_chat"})
			anna.On(b).Invite(room, ben)
			ben.On(a).Join(room)
			ben.On(b).Send(room, "hello")
			anna.On(a).Send(room, "hello")
			ben.On(a).Must("PUT", "/rooms/"+hstest.Esc(room)+"/typing/"+hstest.Esc(string(ben.ID)), object{"typing": true, "timeout": 1000})
			anna.On(b).Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.power_levels/", object{"users": object{string(ben.ID): 60}})
			ben.On(a).Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic/", object{"topic": "a"})
			anna.On(a).Must("POST", "/rooms/"+hstest.Esc(room)+"/kick", object{"user_id": ben.ID})
			if r := ben.On(b).Try("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/late", object{"msgtype": "m.text", "body": "late"}); r.Status != 403 {
				t.Errorf("somebody who was removed sends on another node: %d %s", r.Status, r.Raw)
			}
			alias := fmt.Sprintf("#x%d:acme.example", i)
			anna.On(a).Must("PUT", "/directory/room/"+hstest.Esc(alias), object{"room_id": room})
			anna.On(b).Must("GET", "/directory/room/"+hstest.Esc(alias), nil)
			anna.On(a).Must("PUT", "/user/"+hstest.Esc(string(anna.ID))+"/account_data/x", object{"i": i})
			if got := anna.On(b).Must("GET", "/user/"+hstest.Esc(string(anna.ID))+"/account_data/x", nil); got.Get("i") != float64(i) {
				t.Errorf("account data %s", got.Raw)
			}
			anna.Login(anna.DeviceID) // the old token ends, the new one is good everywhere
			anna.On(b).Must("GET", "/account/whoami", nil)
		}
	})
}

// What is read on one node is no older than what was answered on another before, whatever of it the node has in memory: in rooms that it did not
// know a moment ago, and in those that it does.
func TestNodes_ReadsAfterWritesElsewhere(t *testing.T) {
	t.Parallel()
	eachCell(t, 2, nil, func(t *testing.T, nodes []*hstest.Server) {
		anna, ben := nodes[0].User("anna"), nodes[1].User("ben")
		known := anna.CreateRoom(object{"preset": "public_chat"})
		space := anna.CreateRoom(object{"preset": "public_chat", "creation_content": object{"type": "m.space"}})
		hidden := anna.CreateRoom(object{"preset": "private_chat"})
		anna.Must("PUT", "/rooms/"+hstest.Esc(space)+"/state/m.space.child/"+hstest.Esc(hidden), object{"via": []string{"acme.example"}})
		for i := range 12 {
			a, b := nodes[i%2], nodes[1-i%2]
			tree := func() bool {
				got := ben.On(b).Must("GET", "/_matrix/client/v1/rooms/"+hstest.Esc(space)+"/hierarchy", nil)
				return strings.Contains(string(got.Raw), `"room_id":"`+hidden)
			}
			if tree() {
				t.Errorf("round %d: a room that ben is not in is in the tree of the space", i)
			}
			anna.On(a).Invite(hidden, ben)
			if !tree() {
				t.Errorf("round %d: a room that ben was invited to on another node is not in the tree of the space", i)
			}
			ben.On(a).Must("POST", "/rooms/"+hstest.Esc(hidden)+"/leave", object{})
			room := known
			if i%3 == 0 {
				room = anna.On(a).CreateRoom(object{"preset": "public_chat"})
				anna.On(b).Must("PUT", "/rooms/"+hstest.Esc(space)+"/state/m.space.child/"+hstest.Esc(room), object{"via": []string{"acme.example"}})
			}
			in := "/rooms/" + hstest.Esc(room)
			has := func(path, want string) {
				t.Helper()
				if got := ben.On(b).Must("GET", path, nil); !strings.Contains(string(got.Raw), want) {
					t.Errorf("round %d: %s does not hold %s: %s", i, path, want, got.Raw)
				}
			}
			topic := fmt.Sprint("topic ", i)
			anna.On(b).Must("PUT", in+"/state/m.room.topic/", object{"topic": topic})
			ben.On(a).Join(room)
			has(in+"/state", topic)
			anna.On(a).Must("PUT", in+"/state/m.room.topic/", object{"topic": topic + " anew"})
			has(in+"/state/m.room.topic/", topic+" anew")
			ben.On(a).Must("POST", in+"/leave", object{})
			ben.On(b).Join(room)
			ben.On(a).Must("POST", in+"/leave", object{})
			ben.On(a).Join(room)
			has(in+"/members", string(ben.ID))
			has(in+"/joined_members", string(ben.ID))
			has("/joined_rooms", room)
			event := anna.On(a).Send(room, fmt.Sprint("word ", i))
			has(in+"/messages?dir=b&limit=5", event)
			event = ben.On(a).Send(room, "of ben")
			has(in+"/event/"+hstest.Esc(event), event)
			event = anna.On(a).Send(room, "again")
			has(in+"/context/"+hstest.Esc(event), event)
			event = anna.On(a).Send(room, "once more")
			ben.On(b).Must("POST", in+"/receipt/m.read/"+hstest.Esc(event), object{})
			event = ben.On(a).Send(room, "a mistake")
			ben.On(b).Must("PUT", in+"/redact/"+hstest.Esc(event)+"/"+ben.Txn(), object{})
			if got := ben.On(a).Must("GET", in+"/event/"+hstest.Esc(event), nil); strings.Contains(string(got.Raw), "a mistake") {
				t.Errorf("round %d: what was redacted on another node is read: %s", i, got.Raw)
			}
			ben.On(a).Must("POST", in+"/leave", object{})
			event = anna.On(a).Send(room, "between us")
			if got := ben.On(b).Try("GET", in+"/event/"+hstest.Esc(event), nil); got.Status != 403 && got.Status != 404 {
				t.Errorf("round %d: who has left on another node reads what came later: %d %s", i, got.Status, got.Raw)
			}
			ben.On(b).Must("POST", in+"/forget", object{})
		}
	})
}

// A repeated request has its effect once, on whatever nodes its copies arrive.
func TestNodes_TransactionIDs(t *testing.T) {
	t.Parallel()
	eachCell(t, 3, nil, func(t *testing.T, nodes []*hstest.Server) {
		anna := nodes[0].User("anna")
		room := anna.CreateRoom(nil)
		for i := range 10 {
			ids := make([]string, 9)
			var wg sync.WaitGroup
			for k := range ids {
				wg.Go(func() {
					a := nodes[k%3].Do("PUT", fmt.Sprintf("/rooms/%s/send/m.room.message/same%d", hstest.Esc(room), i), anna.Token, object{"msgtype": "m.text", "body": "x"})
					if ids[k] = a.String("event_id"); a.Status != 200 {
						t.Errorf("%d %s", a.Status, a.Raw)
					}
				})
			}
			wg.Wait()
			if slices.Sort(ids); ids[0] != ids[len(ids)-1] {
				t.Errorf("one transaction ID made %v", slices.Compact(ids))
			}
		}
		if n := len(history(t, anna, room)); n != 10 {
			t.Errorf("%d messages of 10 requests", n)
		}
	})
}

// A one-time key is given away once, on whichever nodes it is asked for.
func TestNodes_OneTimeKeys(t *testing.T) {
	t.Parallel()
	nodes := startCell(t, 3, true, nil)
	anna := nodes[0].User("anna")
	const keys = 60
	one := object{}
	for i := range keys {
		one[fmt.Sprintf("curve25519:k%02d", i)] = random()
	}
	anna.Must("POST", "/keys/upload", object{"one_time_keys": one})
	anna.On(nodes[1]).Until("the number of keys", func(a hstest.Answer) bool {
		return a.Get("device_one_time_keys_count", "curve25519") == float64(keys)
	})
	claimers := make([]*hstest.User, 6)
	for i := range claimers {
		claimers[i] = nodes[i%3].User(fmt.Sprint("claimer", i))
	}
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for i, c := range claimers {
		wg.Go(func() {
			for range keys/len(claimers) + 2 {
				a := nodes[i%3].Do("POST", "/keys/claim", c.Token, object{"one_time_keys": object{string(anna.ID): object{anna.DeviceID: "curve25519"}}})
				given, _ := a.Get("one_time_keys", string(anna.ID), anna.DeviceID).(object)
				mu.Lock()
				for id := range given {
					got[id]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(got) != keys {
		t.Errorf("%d keys of %d were given away", len(got), keys)
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("%s was given away %d times", id, n)
		}
	}
	anna.On(nodes[2]).Until("no keys are left", func(a hstest.Answer) bool {
		n := a.Get("device_one_time_keys_count", "curve25519")
		return n == nil || n == 0.0
	})
}

func random() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Sessions that end, accounts that are locked or suspended: within a second on every node, also for requests that wait.
func TestP166_RevocationOnEveryNode(t *testing.T) {
	t.Parallel()
	eachCell(t, 3, nil, func(t *testing.T, nodes []*hstest.Server) {
		status := func(s *hstest.Server, u *hstest.User) string {
			a := s.Do("GET", "/account/whoami", u.Token, nil)
			return fmt.Sprint(a.Status, " ", a.Code())
		}
		for name, c := range map[string]struct {
			do   func(u *hstest.User)
			want string
		}{
			"logout": {func(u *hstest.User) { u.Must("POST", "/logout", object{}) }, "401 M_UNKNOWN_TOKEN"},
			"wipe": {func(u *hstest.User) {
				if err := nodes[0].Accounts.Wipe(context.Background(), account.Operator("test"), u.ID); err != nil {
					t.Error(err)
				}
			}, "401 M_UNKNOWN_TOKEN"},
			"lock": {func(u *hstest.User) {
				if err := nodes[0].Accounts.Lock(context.Background(), account.Operator("test"), u.ID, true); err != nil {
					t.Error(err)
				}
			}, "401 M_USER_LOCKED"},
		} {
			u := nodes[0].User("u" + random()[:8])
			var wg sync.WaitGroup
			ended := make([]time.Time, len(nodes))
			for i, s := range nodes {
				since := u.On(s).Sync(0).String("next_batch")
				wg.Go(func() {
					a := s.Do("GET", "/sync?timeout=20000&since="+since, u.Token, nil)
					if ended[i] = time.Now(); fmt.Sprint(a.Status, " ", a.Code()) != c.want {
						t.Errorf("%s: a sync that waits on node %d ends with %d %s", name, i, a.Status, a.Raw)
					}
				})
			}
			pause(200 * time.Millisecond) // until they wait
			began := time.Now()
			c.do(u)
			for i, s := range nodes {
				second(t, fmt.Sprint(name, " on node ", i), func() bool { return status(s, u) == c.want })
			}
			wg.Wait()
			for i, at := range ended {
				if d := at.Sub(began); d > bar(time.Second) {
					t.Errorf("%s: a sync that waits on node %d ends after %v", name, i, d)
				}
			}
		}
		u := nodes[0].User("suspect")
		room := u.CreateRoom(nil)
		if err := nodes[0].Accounts.Suspend(context.Background(), account.Operator("test"), u.ID, true); err != nil {
			t.Error(err)
		}
		for i, s := range nodes {
			second(t, fmt.Sprint("suspended on node ", i), func() bool {
				return u.On(s).Try("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/"+random(), object{"msgtype": "m.text", "body": "x"}).Code() == "M_USER_SUSPENDED"
			})
		}
		if err := nodes[1].Accounts.Suspend(context.Background(), account.Operator("test"), u.ID, false); err != nil {
			t.Error(err)
		}
		for i, s := range nodes {
			second(t, fmt.Sprint("free again on node ", i), func() bool {
				return u.On(s).Try("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/"+random(), object{"msgtype": "m.text", "body": "x"}).Status == 200
			})
		}
	})
}

func pause(d time.Duration) { <-time.After(d) }

const twoPools = "red: {contact: closed}\nblue: {contact: closed}\n"

// People who are moved to other pools, and policies that change, are judged anew on every node within a second.
func TestNodes_PolicyEverywhere(t *testing.T) {
	t.Parallel()
	eachCell(t, 2, map[string]string{"acme.example/pools.yaml": twoPools}, func(t *testing.T, nodes []*hstest.Server) {
		anna, ben := nodes[0].User("anna", "red"), nodes[0].User("ben", "red")
		profile := func(s *hstest.Server) int {
			return anna.On(s).Try("GET", "/profile/"+hstest.Esc(string(ben.ID)), nil).Status
		}
		for _, s := range nodes {
			if got := profile(s); got != 200 {
				t.Fatalf("profile: %d", got)
			}
		}
		move := func(pool string) {
			if err := nodes[0].Accounts.SetPools(context.Background(), account.Operator("test"), ben.ID, []string{pool}); err != nil {
				t.Fatal(err)
			}
		}
		move("blue")
		for i, s := range nodes {
			second(t, fmt.Sprint("parted on node ", i), func() bool { return profile(s) != 200 })
		}
		move("red")
		for i, s := range nodes {
			second(t, fmt.Sprint("together again on node ", i), func() bool { return profile(s) == 200 })
		}
		// The nodes read one folder; whoever sees the change first tells the others.
		nodes[0].WritePolicy("acme.example/more.rego", "package tenants[\"acme.example\"].room.create\n\ndeny contains {\"code\": \"no\", \"message\": \"No rooms today.\"} if true\n")
		for i, s := range nodes {
			second(t, fmt.Sprint("the rule holds on node ", i), func() bool { return anna.On(s).Try("POST", "/createRoom", object{}).Status == 403 })
		}
		await(t, time.Minute, "one revision", func() bool {
			return nodes[0].Policy.Revision() == nodes[1].Policy.Revision() && gauge(t, nodes[1], "hansa_nodes_policy_revisions_count") == 1
		})
	})
}

// Nodes whose folders differ say so.
func TestNodes_PoliciesThatDiffer(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	a := hstest.New(t, hstest.Options{Database: url, Policy: map[string]string{"acme.example/pools.yaml": twoPools}})
	dir := t.TempDir()
	b := hstest.New(t, hstest.Options{NodeOf: a, Change: func(c *config.Config) { c.Policy.Bundles = []string{dir} }})
	for _, s := range []*hstest.Server{a, b} {
		await(t, time.Minute, "both revisions are counted", func() bool { return gauge(t, s, "hansa_nodes_policy_revisions_count") == 2 })
	}
	b.Stop()
	await(t, time.Minute, "a node that has stopped is none any more", func() bool { return gauge(t, a, "hansa_nodes_count") == 1 })
}

// An agreement that is suspended on one node connects nobody on any node.
func TestNodes_SuspendedAgreement(t *testing.T) {
	t.Parallel()
	eachCell(t, 2, nil, func(t *testing.T, nodes []*hstest.Server) {
		anna, gina := nodes[0].User("anna"), nodes[0].User("@gina:globex.example")
		const acme, globex = "acme.example", "globex.example"
		if _, err := nodes[0].Agreements.Propose(context.Background(), operator(acme), acme, globex, agreement.Terms{}); err != nil {
			t.Fatal(err)
		}
		if _, err := nodes[1].Agreements.Approve(context.Background(), operator(globex), globex, acme, agreement.Terms{}); err != nil {
			t.Fatal(err)
		}
		profile := func(s *hstest.Server) int {
			return anna.On(s).Try("GET", "/profile/"+hstest.Esc(string(gina.ID)), nil).Status
		}
		for i, s := range nodes {
			second(t, fmt.Sprint("the agreement holds on node ", i), func() bool { return profile(s) == 200 })
		}
		if _, err := nodes[1].Agreements.Suspend(context.Background(), operator(acme), acme, globex); err != nil {
			t.Fatal(err)
		}
		for i, s := range nodes {
			second(t, fmt.Sprint("suspended on node ", i), func() bool { return profile(s) != 200 })
		}
	})
}

// Typing and presence are seen on other nodes where NATS carries them.
func TestNodes_TypingAndPresence(t *testing.T) {
	t.Parallel()
	nodes := startCell(t, 2, true, nil)
	anna, ben := nodes[0].User("anna"), nodes[0].User("ben")
	room := anna.CreateRoom(object{"preset": "public_chat"})
	ben.Join(room)
	far := ben.On(nodes[1])
	far.Sync(0)
	anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/typing/"+hstest.Esc(string(anna.ID)), object{"typing": true, "timeout": 20000})
	far.Until("typing", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), `"user_ids":["`+string(anna.ID)) })
	anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/typing/"+hstest.Esc(string(anna.ID)), object{"typing": false})
	far.Until("no typing", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), `"user_ids":[]`) })
	anna.Must("PUT", "/presence/"+hstest.Esc(string(anna.ID))+"/status", object{"presence": "unavailable", "status_msg": "at lunch"})
	await(t, time.Minute, "presence on the other node", func() bool {
		a := far.Try("GET", "/presence/"+hstest.Esc(string(anna.ID))+"/status", nil)
		return a.String("presence") == "unavailable" && a.String("status_msg") == "at lunch"
	})
}

// Counts of what is unread, rules for notifications, the directory and a reader who changes nodes with every request.
func TestNodes_SyncOnAnyNode(t *testing.T) {
	t.Parallel()
	eachCell(t, 2, nil, func(t *testing.T, nodes []*hstest.Server) {
		anna, ben := nodes[0].User("anna"), nodes[1].User("ben")
		room := anna.CreateRoom(object{"preset": "public_chat"})
		ben.Join(room)
		ben.Sync(0)
		unread := func(a hstest.Answer) any {
			return a.Get("rooms", "join", room, "unread_notifications", "notification_count")
		}
		var last string
		for i := range 30 {
			last = anna.On(nodes[i%2]).Send(room, fmt.Sprint("word ", i))
			reader := ben.On(nodes[(i/2)%2])
			reader.Since = ben.Since
			var got []string
			var count any
			for end := time.Now().Add(time.Minute); len(got) == 0; {
				a := reader.Sync(5 * time.Second)
				if time.Now().After(end) {
					t.Fatalf("message %d (%s) since %s is not in %s", i, last, ben.Since, a.Raw)
				}
				for _, e := range a.Timeline(room) {
					if e["type"] == "m.room.message" {
						id, _ := e["event_id"].(string)
						got = append(got, id)
					}
				}
				count = unread(a)
			}
			ben.Since = reader.Since
			if len(got) != 1 || got[0] != last {
				t.Fatalf("message %d: got %v, want %s once", i, got, last)
			}
			if count != float64(i+1) {
				t.Errorf("after message %d the count of unread ones is %v", i, count)
			}
		}
		ben.On(nodes[0]).Must("POST", "/rooms/"+hstest.Esc(room)+"/receipt/m.read/"+hstest.Esc(last), object{})
		for i, s := range nodes {
			reader := ben.On(s)
			reader.Until(fmt.Sprint("nothing unread on node ", i), func(a hstest.Answer) bool {
				n := unread(a)
				return n == 0.0 || n == nil && a.Get("rooms", "join", room) == nil
			})
		}
		// A rule that is set on one node keeps quiet on the other.
		ben.On(nodes[0]).Must("PUT", "/pushrules/global/room/"+hstest.Esc(room), object{"actions": []string{"dont_notify"}})
		reader := ben.On(nodes[1])
		reader.Since = ben.Since
		second(t, "the rule is known on the other node", func() bool {
			return reader.Try("GET", "/pushrules/global/room/"+hstest.Esc(room), nil).Status == 200
		})
		reader.Sync(0)
		anna.Send(room, "hush")
		a := reader.Until("the quiet message", func(a hstest.Answer) bool { return len(a.Timeline(room)) > 0 })
		if n := unread(a); n != 0.0 && n != nil {
			t.Errorf("a room that shall not notify counts %v", n)
		}
		anna.Must("PUT", "/profile/"+hstest.Esc(string(anna.ID))+"/displayname", object{"displayname": "Zacharias"})
		for i, s := range nodes {
			second(t, fmt.Sprint("found in the directory on node ", i), func() bool {
				a := ben.On(s).Try("POST", "/user_directory/search", object{"search_term": "zachar"})
				return strings.Contains(string(a.Raw), string(anna.ID))
			})
		}
	})
}

// operator is who changes agreements of a tenant.
func operator(tenant matrix.ServerName) agreement.Actor {
	return agreement.Actor{Party: &policy.Party{Kind: "operator", ID: "operator", Tenant: string(tenant), Local: true, Listed: true}}
}
