package api

import (
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

func each(t *testing.T, o hstest.Options, fn func(t *testing.T, s *hstest.Server)) {
	t.Helper()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.Database = name
			fn(t, hstest.New(t, o))
		})
	}
}

func bodies(events []map[string]any) string {
	var out []string
	for _, e := range events {
		if e["type"] == "m.room.message" {
			c, _ := e["content"].(map[string]any)
			out = append(out, fmt.Sprint(c["body"]))
		}
	}
	return strings.Join(out, " ")
}

func TestSync_DeliversWhileWaiting(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat", "name": "Lobby"})
		ben.Join(room)
		first := ben.Sync(0)
		if got := first.Get("rooms", "join", room, "state", "events"); got == nil {
			t.Errorf("a first sync has no state: %s", first.Raw)
		}
		var wg sync.WaitGroup
		wg.Add(1)
		go func() {
			defer wg.Done()
			a := ben.Until("a message", func(a hstest.Answer) bool { return bodies(a.Timeline(room)) != "" })
			if got := bodies(a.Timeline(room)); got != "hello" {
				t.Errorf("ben got %q, want hello", got)
			}
			e := a.Timeline(room)[0]
			if u, _ := e["unsigned"].(map[string]any); u["transaction_id"] != nil || u["membership"] != "join" {
				t.Errorf("unsigned = %v", u)
			}
			if n := a.Get("rooms", "join", room, "unread_notifications", "notification_count"); n != 1.0 {
				t.Errorf("notification_count = %v in the answer with the event, want 1", n)
			}
		}()
		anna.Send(room, "hello")
		wg.Wait()
		own := anna.Until("the own message", func(a hstest.Answer) bool { return bodies(a.Timeline(room)) != "" })
		var tx any
		for _, e := range own.Timeline(room) {
			if e["type"] == "m.room.message" {
				tx = e["unsigned"].(map[string]any)["transaction_id"]
			}
		}
		if tx != "t1" {
			t.Errorf("transaction_id for the sending device = %v, want t1", tx)
		}
	})
}

// The same range of the log, read from memory and from the database, says the same.
func TestSync_MemoryAndDatabaseAgree(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		ben.Join(room)
		ben.Sync(0)
		since := ben.Since
		for i := 0; i < 80; i++ {
			anna.Send(room, fmt.Sprint("m", i))
			if i == 5 {
				anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic/", map[string]any{"topic": "new"})
			}
		}
		look := func() (string, any, int) {
			a := ben.Must("GET", "/sync?timeout=0&since="+since, nil)
			state, _ := a.Get("rooms", "join", room, "state", "events").([]any)
			return bodies(a.Timeline(room)), a.Get("rooms", "join", room, "timeline", "limited"), len(state)
		}
		m1, l1, s1 := look()
		s.Restart()
		m2, l2, s2 := look()
		if m1 != m2 || l1 != l2 || s1 != s2 || l1 != true || s1 != 1 {
			t.Errorf("from memory: %q limited %v, %d state; from the database: %q limited %v, %d state", m1, l1, s1, m2, l2, s2)
		}
	})
}

// A gap is closed by /messages, without a hole and without a double.
func TestSync_GapIsClosedByMessages(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		ben.Join(room)
		ben.Sync(0)
		for i := 0; i < 60; i++ {
			anna.Send(room, fmt.Sprint(i))
		}
		a := ben.Sync(0)
		if a.Get("rooms", "join", room, "timeline", "limited") != true {
			t.Fatalf("60 new events are not limited: %s", a.Raw)
		}
		got := bodies(a.Timeline(room))
		from := a.String("rooms", "join", room, "timeline", "prev_batch")
		for page := 0; page < 20 && !strings.HasPrefix(got, "0 "); page++ {
			p := ben.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=7&from="+from, nil)
			list, _ := p.Get("chunk").([]any)
			for _, e := range list {
				if b := bodies([]map[string]any{e.(map[string]any)}); b != "" {
					got = b + " " + got
				}
			}
			if from = p.String("end"); from == "" {
				break
			}
		}
		var want []string
		for i := 0; i < 60; i++ {
			want = append(want, fmt.Sprint(i))
		}
		if got != strings.Join(want, " ") {
			t.Errorf("history is %q", got)
		}
	})
}

// Who is a little behind is told everything, in as many responses as it takes.
func TestSync_ALittleBehindIsNoGap(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		busy, quiet := anna.CreateRoom(map[string]any{"preset": "public_chat"}), anna.CreateRoom(map[string]any{"preset": "public_chat"})
		ben.Join(busy)
		ben.Join(quiet)
		ben.Sync(0)
		var want, got []string
		for i := 0; i < 45; i++ {
			anna.Send(busy, fmt.Sprint(i))
			want = append(want, fmt.Sprint(i))
		}
		anna.Send(quiet, "at last")
		for answers := 1; ; answers++ {
			a := ben.Sync(0)
			if a.Get("rooms", "join", busy, "timeline", "limited") == true {
				t.Fatalf("there is a gap: %s", a.Raw)
			}
			if text := bodies(a.Timeline(busy)); text != "" {
				got = append(got, text)
			}
			if count, ok := a.Get("rooms", "join", busy, "unread_notifications", "notification_count").(float64); ok && int(count) != len(strings.Fields(strings.Join(got, " "))) {
				t.Errorf("%v unread after %q", count, got)
			}
			if bodies(a.Timeline(quiet)) == "at last" {
				break
			}
			if answers > 10 {
				t.Fatal("the end does not come")
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("told: %q", got)
		}
	})
}

func TestSync_StateAfterUnderBothNames(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna := s.User("anna")
	room := anna.CreateRoom(nil)
	for param, name := range map[string]string{"use_state_after": "state_after", "org.matrix.msc4222.use_state_after": "org.matrix.msc4222.state_after"} {
		anna.Since = ""
		a := anna.Sync(0, param, "true")
		if a.Get("rooms", "join", room, "state") != nil || a.Get("rooms", "join", room, name, "events") == nil {
			t.Errorf("%s: %s", param, a.Raw)
		}
		anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic/", map[string]any{"topic": param})
		a = anna.Sync(0, param, "true")
		list, _ := a.Get("rooms", "join", room, name, "events").([]any)
		if len(list) != 1 {
			t.Errorf("%s: the state after a new topic has %d events, want 1: %s", param, len(list), a.Raw)
		}
	}
}

func TestSync_InviteJoinLeave(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		ben.Sync(0)
		room := anna.CreateRoom(map[string]any{"name": "Cabin"})
		anna.Send(room, "before the invitation")
		anna.Invite(room, ben)
		a := ben.Until("the invitation", func(a hstest.Answer) bool { return a.Get("rooms", "invite", room) != nil })
		events, _ := a.Get("rooms", "invite", room, "invite_state", "events").([]any)
		types := map[string]bool{}
		for _, e := range events {
			m := e.(map[string]any)
			types[m["type"].(string)] = true
			if len(m) != 4 {
				t.Errorf("stripped state has other members: %v", m)
			}
		}
		if !types["m.room.create"] || !types["m.room.name"] || !types["m.room.member"] {
			t.Errorf("stripped state has only %v", types)
		}
		ben.Join(room)
		a = ben.Until("the room", func(a hstest.Answer) bool { return a.Get("rooms", "join", room) != nil })
		if !strings.Contains(string(a.Raw), `"m.room.create"`) || !strings.Contains(bodies(a.Timeline(room)), "before") {
			t.Errorf("a room just joined comes without its state or shared history: %s", a.Raw)
		}
		anna.Must("POST", "/rooms/"+hstest.Esc(room)+"/kick", map[string]any{"user_id": ben.ID})
		a = ben.Until("being kicked", func(a hstest.Answer) bool { return a.Get("rooms", "leave", room) != nil })
		anna.Send(room, "after the kick")
		a = ben.Sync(0)
		if a.Get("rooms") != nil {
			t.Errorf("a room that was left says more: %s", a.Raw)
		}
		m := ben.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=50", nil)
		if strings.Contains(string(m.Raw), "after the kick") {
			t.Error("history after the kick is shown")
		}
	})
}

func TestSync_LazyLoadsMembers(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna, ben, carl := s.User("anna"), s.User("ben"), s.User("carl")
	room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
	ben.Join(room)
	carl.Join(room)
	for i := 0; i < 12; i++ {
		anna.Send(room, fmt.Sprint(i))
	}
	const f = `{"room":{"state":{"lazy_load_members":true}}}`
	a := carl.Sync(0, "filter", f)
	has := func(a hstest.Answer) map[string]bool {
		out := map[string]bool{}
		list, _ := a.Get("rooms", "join", room, "state", "events").([]any)
		for _, e := range list {
			if m := e.(map[string]any); m["type"] == "m.room.member" {
				out[m["state_key"].(string)] = true
			}
		}
		return out
	}
	if h := has(a); !h[string(anna.ID)] || !h[string(carl.ID)] {
		t.Errorf("members with a first sync: %v, want anna who speaks and carl himself", h)
	}
	given := has(a) // members who name the room come at once
	ben.Send(room, "hi")
	a = carl.Sync(30*time.Second, "filter", f)
	if h := has(a); !h[string(ben.ID)] && !given[string(ben.ID)] {
		t.Errorf("ben speaks for the first time without his membership: %s", a.Raw)
	}
	ben.Send(room, "again")
	a = carl.Sync(30*time.Second, "filter", f)
	if bodies(a.Timeline(room)) != "again" {
		t.Errorf("carl got %s", a.Raw)
	}
	if h := has(a); len(h) != 0 {
		t.Errorf("ben's membership comes twice: %v", h)
	}
}

func TestSync_UnreadCountsAndReceipts(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben, carl := s.User("anna"), s.User("ben"), s.User("carl")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		ben.Join(room)
		carl.Join(room)
		ben.Sync(0)
		var last string
		for i := 0; i < 3; i++ {
			last = anna.Send(room, fmt.Sprint(i))
		}
		anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/"+anna.Txn(), map[string]any{"msgtype": "m.text", "body": "you",
			"m.mentions": map[string]any{"user_ids": []string{string(ben.ID)}}})
		count := func(a hstest.Answer) (any, any) {
			return a.Get("rooms", "join", room, "unread_notifications", "notification_count"), a.Get("rooms", "join", room, "unread_notifications", "highlight_count")
		}
		a := ben.Until("the mention", func(a hstest.Answer) bool { return strings.Contains(bodies(a.Timeline(room)), "you") })
		if n, h := count(a); n != 4.0 || h != 1.0 {
			t.Errorf("counts %v and %v, want 4 and 1", n, h)
		}
		ben.Must("POST", "/rooms/"+hstest.Esc(room)+"/receipt/m.read/"+hstest.Esc(last), map[string]any{})
		a = ben.Until("the own receipt", func(a hstest.Answer) bool { return a.Get("rooms", "join", room, "unread_notifications") != nil })
		if n, h := count(a); n != 1.0 || h != 1.0 {
			t.Errorf("counts after reading three: %v and %v, want 1 and 1", n, h)
		}
		s.Restart()
		ben.Since = ""
		if n, h := count(ben.Sync(0)); n != 1.0 || h != 1.0 {
			t.Errorf("counts after a restart: %v and %v, want 1 and 1", n, h)
		}
		carl.Sync(0)
		ben.Must("POST", "/rooms/"+hstest.Esc(room)+"/receipt/m.read.private/"+hstest.Esc(last), map[string]any{})
		if b := carl.Sync(200 * time.Millisecond); strings.Contains(string(b.Raw), "m.read.private") {
			t.Errorf("a private receipt is shown: %s", b.Raw)
		}
	})
}

func TestC181_SyncTokens(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna := s.User("anna")
	for _, since := range []string{"x", "s", "s-x", "s1_2_3_4", "s99999999", strings.Repeat("s1", 5000), "s1_-2", "s9223372036854775808"} {
		if a := anna.Try("GET", "/sync?since="+hstest.Esc(since), nil); a.Status != 400 || a.Code() != "M_INVALID_PARAM" {
			t.Errorf("since=%.20s: %d %s, want 400 M_INVALID_PARAM", since, a.Status, a.Code())
		}
	}
	if a := anna.Try("GET", "/sync?since=s-5", nil); a.Status != 200 && a.Status != 400 {
		t.Errorf("a negative token: %d", a.Status)
	}
}

func TestC166_RevocationEndsWaiting(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna := s.User("anna")
		other := &hstest.User{S: s, ID: anna.ID}
		other.Login("")
		anna.Sync(0)
		answer := make(chan hstest.Answer, 1)
		go func() { answer <- anna.Try("GET", "/sync?timeout=60000&since="+anna.Since, nil) }()
		other.Must("POST", "/logout/all", map[string]any{})
		select {
		case a := <-answer:
			if a.Status != 401 || a.Code() != "M_UNKNOWN_TOKEN" {
				t.Errorf("a waiting sync of a revoked session: %d %s, want 401 M_UNKNOWN_TOKEN", a.Status, a.Raw)
			}
		case <-time.After(20 * time.Second):
			t.Error("a sync of a revoked session goes on waiting")
		}
	})
}

func TestO506_StopEndsWaitingSyncs(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna := s.User("anna")
	anna.Sync(0)
	for try := 1; ; try++ {
		wrote, done := make(chan struct{}), make(chan error, 1)
		var once sync.Once
		status := 0
		go func() {
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { once.Do(func() { close(wrote) }) }})
			req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/_matrix/client/v3/sync?timeout=60000&since="+anna.Since, nil)
			if err == nil {
				req.Header.Set("Authorization", "Bearer "+anna.Token)
				var resp *http.Response
				if resp, err = http.DefaultClient.Do(req); err == nil {
					status = resp.StatusCode
					_ = resp.Body.Close() // only the status matters
				}
			}
			done <- err
		}()
		<-wrote
		s.User(fmt.Sprint("ben", try)).Sync(0) // by now anna's request is there, too, as a rule
		s.Stop()
		err := <-done
		if err != nil && try < 5 { // it was read too late
			s.Restart()
			continue
		}
		if err != nil || status != 200 {
			t.Errorf("a sync that waits while the server stops: %d (%v), want an empty 200", status, err)
		}
		return
	}
}

// Who closes the account is gone from all rooms and cannot come back.
func TestDeactivate_LeavesAllRooms(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		ben.Join(room)
		first := ben.Try("POST", "/account/deactivate", map[string]any{"erase": true})
		if first.Status != 401 || first.Code() != "" || first.String("session") == "" {
			t.Fatalf("deactivation without proof: %d %s, want 401 with a session", first.Status, first.Raw)
		}
		ben.Must("POST", "/account/deactivate", map[string]any{"erase": true, "auth": map[string]any{"type": "m.login.password",
			"session": first.String("session"), "identifier": map[string]any{"type": "m.id.user", "user": string(ben.ID)}, "password": hstest.Password}})
		if a := ben.Try("GET", "/account/whoami", nil); a.Status != 401 {
			t.Errorf("the session of a closed account: %d, want 401", a.Status)
		}
		anna.Until("ben's leaving", func(a hstest.Answer) bool {
			for _, e := range a.Timeline(room) {
				if c, _ := e["content"].(map[string]any); e["type"] == "m.room.member" && e["state_key"] == string(ben.ID) && c["membership"] == "leave" {
					return true
				}
			}
			return false
		})
	})
}
