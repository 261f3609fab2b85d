package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/config"
	"hansa/homeserver/account"
	"hansa/matrix"
	"hansa/test/hstest"
)

// limited is a server with its rate limits on.
func limited(c *config.Config) { c.Limits.Enabled = true }

// from makes a request with headers, as a client or a proxy would.
func from(t testing.TB, s *hstest.Server, method, path, body string, header ...string) hstest.Answer {
	t.Helper()
	req, err := http.NewRequest(method, s.URL+prefixed(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return do(t, req)
}

const wrongPassword = `{"type":"m.login.password","user":"%s","password":"wrong"}`

// However many wrong passwords come, the answer is to wait; nobody is locked out for long.
func TestC157_BruteForce(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{Change: limited})
	anna := s.User("anna")
	refused := 0
	for range 60 {
		a := s.Do("POST", "/login", "", []byte(fmt.Sprintf(wrongPassword, "anna")))
		switch {
		case a.Status == 429 && a.Code() == "M_LIMIT_EXCEEDED":
			refused++
			if wait, ok := a.Get("retry_after_ms").(float64); !ok || wait <= 0 || a.Header.Get("Retry-After") == "" || a.Header.Get("Retry-After") == "0" {
				t.Fatalf("no time to wait: %v %s", a.Header, a.Raw)
			}
		case a.Status != 403 || a.Code() != "M_FORBIDDEN":
			t.Fatalf("a wrong password: %d %s", a.Status, a.Raw)
		}
	}
	if refused < 20 {
		t.Errorf("%d of 60 tries were refused", refused)
	}
	anna.Must("GET", "/account/whoami", nil) // who is logged in goes on
	// One address, many accounts: the address runs out of tries.
	refused = 0
	for i := range 120 {
		if s.Do("POST", "/login", "", []byte(fmt.Sprintf(wrongPassword, fmt.Sprint("user", i)))).Status == 429 {
			refused++
		}
	}
	if refused < 30 {
		t.Errorf("%d of 120 tries on many accounts were refused", refused)
	}
	// The same for UIA, which proves passwords as well.
	refused = 0
	for range 60 {
		a := anna.Try("POST", "/delete_devices", []byte(`{"devices":["X"],"auth":{"type":"m.login.password","identifier":{"type":"m.id.user","user":"anna"},"password":"wrong"}}`))
		if a.Status == 429 {
			refused++
		} else if a.Status != 401 {
			t.Fatalf("UIA with a wrong password: %d %s", a.Status, a.Raw)
		}
	}
	if refused < 20 {
		t.Errorf("%d of 60 tries by UIA were refused", refused)
	}
}

// Where a request comes from is what the connection says, unless a proxy that is known says otherwise.
func TestC158_ClientIPSpoofing(t *testing.T) {
	t.Parallel()
	seen := func(s *hstest.Server, header ...string) string {
		t.Helper()
		a := from(t, s, "POST", "/login", `{"type":"m.login.password","user":"anna","password":"`+hstest.Password+`","device_id":"D"}`, header...)
		if a.Status != 200 {
			t.Fatalf("login: %d %s", a.Status, a.Raw)
		}
		ip := s.Do("GET", "/devices/D", a.String("access_token"), nil).String("last_seen_ip")
		if _, err := netip.ParseAddr(ip); err != nil {
			t.Errorf("last_seen_ip is %q", ip)
		}
		return ip
	}
	direct := hstest.New(t, hstest.Options{Change: limited})
	direct.User("anna")
	for _, h := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP"} {
		if ip := seen(direct, h, "203.0.113.9", h, "for=203.0.113.9"); ip != "127.0.0.1" {
			t.Errorf("%s of a stranger is believed: %s", h, ip)
		}
	}
	refused := 0
	for i := range 60 { // a new address each time does not help
		if from(t, direct, "POST", "/login", fmt.Sprintf(wrongPassword, "anna"), "X-Forwarded-For", fmt.Sprintf("203.0.113.%d", i)).Status == 429 {
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("%d of 60 tries were refused", refused)
	}
	behind := hstest.New(t, hstest.Options{Change: func(c *config.Config) { c.Listen.TrustedProxies = []string{"127.0.0.1", "10.0.0.0/8", "::1"} }})
	behind.User("anna")
	for _, c := range []struct{ list, want string }{
		{"203.0.113.9", "203.0.113.9"},
		{"192.0.2.1, 203.0.113.9", "203.0.113.9"}, // the client wrote the first one itself
		{"203.0.113.9, 10.1.2.3,10.9.9.9", "203.0.113.9"},
		{"203.0.113.9, 10.1.2.3, 198.51.100.7", "198.51.100.7"},
		{"::ffff:203.0.113.9", "203.0.113.9"},
		{"2001:db8::1%eth0", "2001:db8::1"},
		{strings.Repeat("10.0.0.1, ", 100) + "203.0.113.9", "203.0.113.9"},
		{"203.0.113.9, " + strings.Repeat("10.0.0.1, ", 100) + "10.0.0.2", "203.0.113.9"},
		{"203.0.113.9, unknown", "127.0.0.1"},
		{"", "127.0.0.1"}, {",", "127.0.0.1"}, {"'; DROP TABLE users", "127.0.0.1"},
		{"10.0.0.1", "10.0.0.1"},
	} {
		if ip := seen(behind, "X-Forwarded-For", c.list); ip != c.want {
			t.Errorf("X-Forwarded-For %.60q: %s, want %s", c.list, ip, c.want)
		}
	}
	if ip := seen(behind, "X-Forwarded-For", "203.0.113.9", "X-Forwarded-For", "203.0.113.10", "X-Real-IP", "192.0.2.1"); ip != "203.0.113.10" {
		t.Errorf("two headers: %s", ip)
	}
}

// Invitations are limited whichever way they take, and a room that would invite too many is not made.
func TestC189_InviteSpam(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{Change: limited})
	anna := s.User("anna")
	room := anna.CreateRoom(nil)
	people := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("@u%d:acme.example", i))
		}
		return list
	}
	for tries := 1; ; tries++ {
		before, all, began := len(events(s, room)), rooms(s), time.Now()
		a := anna.Try("POST", "/createRoom", map[string]any{"invite": people(400)})
		more := map[string]hstest.Answer{
			"by /invite": anna.Try("POST", at(room)+"/invite", map[string]any{"user_id": fmt.Sprintf("@x%d:acme.example", tries)}),
			"by state":   anna.Try("PUT", fmt.Sprintf("%s/state/m.room.member/@y%d:acme.example", at(room), tries), map[string]any{"membership": "invite"}),
			"by room":    anna.Try("POST", "/createRoom", map[string]any{"invite": people(1)}),
		}
		if time.Since(began) > 2*time.Second && tries < 10 {
			continue // by now there may be room for another one
		}
		wants(t, "400 invitations with a new room", a, 429, "M_LIMIT_EXCEEDED")
		if a.Get("retry_after_ms") == nil || a.Header.Get("Retry-After") == "" {
			t.Errorf("no time to wait: %s", a.Raw)
		}
		for what, a := range more {
			wants(t, "one more "+what, a, 429, "M_LIMIT_EXCEEDED")
		}
		if n, made := len(events(s, room))-before, rooms(s)-all; n != 0 || made != 0 {
			t.Errorf("%d events and %d rooms came of requests that were refused", n, made)
		}
		break
	}
	goesOn(t, anna, room)
	ben := s.User("ben")
	ben.Must("POST", "/createRoom", map[string]any{"invite": people(1)}) // others go on
}

// The directory gives no more than it should, whatever is asked of it.
func TestC187_UserDirectory(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: map[string]string{"acme.example/pools.yaml": "vault: {groups: [vault], contact: closed}\n"}}, func(t *testing.T, s *hstest.Server) {
		anna := s.User("anna")
		for i := range 130 {
			if _, err := s.Accounts.Add(t.Context(), account.Operator("test"), account.NewUser{ID: matrix.UserID(fmt.Sprintf("@member%03d:acme.example", i))}); err != nil {
				t.Fatal(err)
			}
		}
		s.User("member-hidden", "vault")
		search := func(body string) hstest.Answer { return anna.Try("POST", "/user_directory/search", []byte(body)) }
		hstest.Await(t, "the last member in the directory", func() bool {
			return strings.Contains(string(search(`{"search_term":"member129"}`).Raw), "member129")
		})
		for _, limit := range []string{"1000000", "9007199254740991", "-1", "0", "100"} {
			a := search(`{"search_term":"member","limit":` + limit + `}`)
			list, _ := a.Get("results").([]any)
			if a.Status != 200 || len(list) > 100 || len(list) == 0 || a.Get("limited") != true {
				t.Errorf("limit %s: %d, %d results, limited %v", limit, a.Status, len(list), a.Get("limited"))
			}
			if strings.Contains(string(a.Raw), "hidden") {
				t.Errorf("limit %s: somebody is found who must not be", limit)
			}
		}
		for _, term := range []string{"%", "_", "*", "m%r", "m_mber", ".*", "\\\\", "'", "\\\"", "", " ", "@", ":", "@:", "member-hidden", "@member-hidden:acme.example", "hidden", "HIDDEN"} {
			a := search(`{"search_term":"` + term + `","limit":100}`)
			if list, _ := a.Get("results").([]any); a.Status != 200 || len(list) != 0 && term != "@" && term != "@:" && term != ":" || strings.Contains(string(a.Raw), "hidden") {
				t.Errorf("term %q: %d %.200s", term, a.Status, a.Raw)
			}
		}
		wants(t, "long term", search(`{"search_term":"`+strings.Repeat("m", 10_000)+`"}`), 400, "M_INVALID_PARAM")
		wants(t, "limit as text", search(`{"search_term":"member","limit":"10"}`), 400, "M_BAD_JSON")
		wants(t, "no term", search(`{}`), 400, "M_MISSING_PARAM")
		wants(t, "without a token", s.Do("POST", "/user_directory/search", "", []byte(`{"search_term":"member"}`)), 401, "M_MISSING_TOKEN")
	})
}

// Rules that are dear to evaluate cost the event nothing that others would notice; rules without end are refused.
func TestC190_PushRuleCost(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	put := func(path, body string) hstest.Answer { return c.ben.Try("PUT", "/pushrules/global"+path, []byte(body)) }
	for what, a := range map[string]hstest.Answer{
		"unknown kind":     put("/nonsense/x", `{"actions":[]}`),
		"default rule":     put("/override/.m.rule.master", `{"actions":[]}`),
		"own dot rule":     put("/override/.x", `{"actions":[]}`),
		"slash in the ID":  put("/override/a%2Fb", `{"actions":[]}`),
		"backslash":        put("/override/a%5Cb", `{"actions":[]}`),
		"no actions":       put("/override/x", `{}`),
		"unknown action":   put("/override/x", `{"actions":["explode"]}`),
		"actions a text":   put("/override/x", `{"actions":"notify"}`),
		"no pattern":       put("/content/x", `{"actions":[]}`),
		"pattern a number": put("/content/x", `{"actions":[],"pattern":7}`),
		"conditions":       put("/override/x", `{"actions":[],"conditions":{}}`),
		"pattern of 60 KB": put("/content/x", `{"actions":[],"pattern":"`+strings.Repeat("*a", 30_000)+`"}`),
		"before nothing":   put("/override/x?before=never", `{"actions":[]}`),
	} {
		if a.Status != 400 && a.Status != 404 && a.Status != 413 {
			t.Errorf("%s: %d %s, want a refusal", what, a.Status, a.Raw)
		}
	}
	made := 0
	for i := range 5000 {
		a := put(fmt.Sprint("/override/r", i), `{"actions":["notify"],"conditions":[{"kind":"event_match","key":"content.body","pattern":"*a*a*a*a*a*a*a*a*b"},{"kind":"event_match","key":"content.body","pattern":"*a*a*a*a*a*a*a*a*c"}]}`)
		if a.Status != 200 {
			if a.Status != 400 && a.Status != 403 || !strings.Contains(a.Code(), "LIMIT") && a.Code() != "M_INVALID_PARAM" {
				t.Errorf("rule %d: %d %s", i, a.Status, a.Raw)
			}
			break
		}
		made++
	}
	if made == 5000 {
		t.Error("there is no cap on rules")
	}
	c.ben.Sync(0)
	begin := time.Now()
	for range 10 {
		c.anna.Send(c.room, strings.Repeat("a", 60_000))
	}
	end := c.anna.Send(c.room, "end")
	c.ben.Until("the end", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), end) })
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("with %d rules 11 messages took %v", made, took)
	}
	if other := c.anna.Must("GET", "/pushrules/", nil); strings.Contains(string(other.Raw), `"r1"`) {
		t.Error("rules of another user")
	}
}

// Pages of history that hold nothing for the reader still lead on to the rest.
func TestC193_PaginationEnd(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		ben.Join(room)
		first := anna.Send(room, "the first")
		// What ben may not see: sent while he was away, under a history that only members see.
		anna.Must("PUT", at(room)+"/state/m.room.history_visibility", map[string]any{"history_visibility": "joined"})
		ben.Must("POST", at(room)+"/leave", nil)
		for i := range 60 {
			anna.Send(room, fmt.Sprint("hidden ", i))
		}
		ben.Join(room)
		last := anna.Send(room, "the last")
		for _, q := range []string{"limit=5", "limit=1", "limit=5&filter=" + hstest.Esc(`{"types":["m.room.message"]}`)} {
			from, got, pages := "", "", 0
			for ; pages < 200; pages++ {
				a := ben.Must("GET", at(room)+"/messages?dir=b&"+q+"&from="+from, nil)
				got += string(a.Raw)
				if from = a.String("end"); from == "" {
					break
				}
			}
			if !strings.Contains(got, first) || !strings.Contains(got, last) || strings.Contains(got, "hidden") || pages == 200 {
				t.Errorf("%s backwards: after %d pages the first is found: %v, the last: %v, hidden ones: %v", q, pages, strings.Contains(got, first), strings.Contains(got, last), strings.Contains(got, "hidden"))
			}
			from, got, pages = "", "", 0
			for ; pages < 200; pages++ {
				a := ben.Must("GET", at(room)+"/messages?dir=f&"+q+"&from="+from, nil)
				got += string(a.Raw)
				if from = a.String("end"); from == "" {
					break
				}
			}
			if !strings.Contains(got, first) || !strings.Contains(got, last) || strings.Contains(got, "hidden") || pages == 200 {
				t.Errorf("%s forwards: after %d pages the first is found: %v, the last: %v", q, pages, strings.Contains(got, first), strings.Contains(got, last))
			}
		}
		// A filter that nothing matches ends, too.
		from, pages := "", 0
		for ; pages < 200; pages++ {
			a := ben.Must("GET", at(room)+"/messages?dir=b&limit=3&filter="+hstest.Esc(`{"types":["com.example.never"]}`)+"&from="+from, nil)
			if from = a.String("end"); from == "" {
				break
			}
		}
		if pages == 200 {
			t.Error("a page that nothing matches leads on for ever")
		}
	})
}

// Any web page may call; no browser sends its cookies along, and nobody on the way keeps an answer.
func TestC197_CORSAndCaching(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	for _, path := range []string{"/_matrix/client/versions", "/.well-known/matrix/client", "/_matrix/client/v3/sync?timeout=0", "/_matrix/client/v3/account/whoami", "/_matrix/client/v3/nonsense", "/_matrix/client/r0/login"} {
		for _, token := range []string{"", "Bearer " + c.anna.Token} {
			a := from(t, c.Server, "GET", path, "", "Origin", "https://evil.example", "Cookie", "access_token="+c.anna.Token, "Authorization", token)
			h := a.Header
			if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Set-Cookie") != "" {
				t.Errorf("%s: %v", path, h)
			}
			if cc := h.Get("Cache-Control"); !strings.Contains(cc, "no-store") {
				t.Errorf("%s: Cache-Control %q", path, cc)
			}
			if h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Type"), "application/json") {
				t.Errorf("%s: %v", path, h)
			}
		}
		a := from(t, c.Server, "OPTIONS", path, "", "Origin", "https://evil.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization")
		if a.Status/100 != 2 || a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Access-Control-Allow-Credentials") != "" ||
			!strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "PUT") || !strings.Contains(strings.ToLower(a.Header.Get("Access-Control-Allow-Headers")), "authorization") {
			t.Errorf("preflight of %s: %d %v", path, a.Status, a.Header)
		}
	}
	wants(t, "with a cookie alone", from(t, c.Server, "GET", "/account/whoami", "", "Cookie", "access_token="+c.anna.Token), 401, "M_MISSING_TOKEN")
}

// Redacted, hidden and edge visibility: what an event may be seen by is the setting at that event, not the one of now.
func TestA81_HistoryVisibilityChanges(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		set := func(v string) string {
			return anna.Must("PUT", at(room)+"/state/m.room.history_visibility", map[string]any{"history_visibility": v}).String("event_id")
		}
		early := anna.Send(room, "early, shared")
		closing := set("joined")
		closed := anna.Send(room, "closed")
		ben.Join(room)
		open := set("shared")
		ben.Must("POST", at(room)+"/leave", nil)
		away := anna.Send(room, "while ben was away, shared")
		shut := set("joined")
		gone := anna.Send(room, "while ben was away, closed")
		ben.Join(room)
		now := anna.Send(room, "now")
		var page string
		for range 3 {
			page = string(ben.Must("GET", at(room)+"/messages?dir=b&limit=100", nil).Raw)
			for what, c := range map[string]struct {
				id   string
				seen bool
			}{"early": {early, true}, "the change to closed, seen by what was before": {closing, true}, "closed": {closed, false}, "the change to shared": {open, true},
				"away, shared": {away, true}, "the change while away": {shut, true}, "away, closed": {gone, false}, "now": {now, true}} {
				if got := strings.Contains(page, c.id); got != c.seen {
					t.Errorf("%s: in history %v, want %v", what, got, c.seen)
				}
				if got := ben.Try("GET", at(room)+"/event/"+hstest.Esc(c.id), nil); (got.Status == 200) != c.seen {
					t.Errorf("%s: by itself %d, want seen %v", what, got.Status, c.seen)
				}
			}
			set("invited") // what is set now changes nothing of the past
			set("joined")
		}
	})
}

// A client that has gone mad is told to wait; what it was not told to wait for is there once, and nobody else notices.
func TestC177_C178_OneUserMayNotTakeItAll(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{Change: limited})
	mad, ben := s.User("mad"), s.User("ben")
	room := mad.CreateRoom(map[string]any{"preset": "public_chat"})
	ben.Join(room)
	storm := func(method, path string, body any) (done, refused int64) { // many at a time, which are faster than the limit also on a slow machine
		var next, ok, later atomic.Int64
		var wg sync.WaitGroup
		for range 24 {
			wg.Go(func() {
				for i := next.Add(1); i <= 4000 && later.Load() < 20; i = next.Add(1) {
					a := mad.Try(method, strings.Replace(path, "NUMBER", strconv.FormatInt(i, 10), 1), body)
					switch {
					case a.Status == 200:
						ok.Add(1)
					case a.Status == 429 && a.Code() == "M_LIMIT_EXCEEDED" && a.Get("retry_after_ms") != nil && a.Header.Get("Retry-After") != "":
						later.Add(1)
					default:
						t.Errorf("%s %s: %d %s", method, path, a.Status, a.Raw)
						return
					}
				}
			})
		}
		wg.Wait()
		return ok.Load(), later.Load()
	}
	for what, f := range map[string]func() (int64, int64){
		"messages": func() (int64, int64) {
			return storm("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/NUMBER", map[string]any{"msgtype": "m.text", "body": "x"})
		},
		"key claims": func() (int64, int64) {
			return storm("POST", "/keys/claim?n=NUMBER", map[string]any{"one_time_keys": map[string]any{}})
		},
		"typing": func() (int64, int64) {
			return storm("PUT", "/rooms/"+hstest.Esc(room)+"/typing/"+hstest.Esc(string(mad.ID))+"?n=NUMBER", map[string]any{"typing": true, "timeout": 1000})
		},
	} {
		if done, refused := f(); done < 100 || refused == 0 {
			t.Errorf("%s: %d done, %d refused", what, done, refused)
		}
	}
	ben.Send(room, "I am not slowed down")
	mad.Must("GET", "/sync?timeout=0", nil)
}
