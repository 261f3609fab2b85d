package bridges

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/config"
	"hansa/homeserver"
	"hansa/homeserver/account"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// begin tries to start a server with registration files, and returns why it does not.
func begin(t *testing.T, files map[string]string) error {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, dir, name, text)
	}
	cfg := config.New("acme.example", "globex.example")
	cfg.DataDir = dir + "/data"
	cfg.Database = "sqlite:" + dir + "/data/hansa.db"
	cfg.Policy.Bundles = nil
	cfg.Media.Path = dir + "/media"
	cfg.Appservices.Directory = dir + "/bridges"
	for i := range cfg.Tenants {
		cfg.Tenants[i].SigningKeyFile = dir + "/" + string(cfg.Tenants[i].Name) + ".key"
	}
	s, err := homeserver.New(context.Background(), cfg, homeserver.Deps{Log: storagetest.Quiet()})
	if err == nil {
		err = s.DB.Close()
	}
	return err
}

// B425, B429, B437: registrations that do not hold together keep the server from starting.
func TestB425_BadRegistrations(t *testing.T) {
	t.Parallel()
	irc, mail := newBridge(t, "irc"), newBridge(t, "mail")
	good := irc.registration("")
	with := func(text string, replace ...string) string { return strings.NewReplacer(replace...).Replace(text) }
	if err := begin(t, map[string]string{"irc.yaml": good, "mail.yml": mail.registration(""), "notes.txt": "x", ".irc.yaml": "x"}); err != nil {
		t.Fatalf("good ones: %v", err)
	}
	for what, c := range map[string]struct {
		files map[string]string
		says  string
	}{
		"same id":               {map[string]string{"a.yaml": good, "b.yaml": with(mail.registration(""), "id: mail", "id: irc")}, "the id"},
		"same as_token":         {map[string]string{"a.yaml": good, "b.yaml": with(mail.registration(""), mail.as, irc.as)}, "as_token"},
		"same hs_token":         {map[string]string{"a.yaml": good, "b.yaml": with(mail.registration(""), mail.hs, irc.hs)}, "hs_token"},
		"hs_token of another":   {map[string]string{"a.yaml": good, "b.yaml": with(mail.registration(""), mail.hs, irc.as)}, "hs_token is the as_token"},
		"empty as_token":        {map[string]string{"a.yaml": with(good, irc.as, `""`)}, "as_token must have"},
		"short as_token":        {map[string]string{"a.yaml": with(good, irc.as, "0123456789abcdef0123456789abcde")}, "as_token must have"},
		"short hs_token":        {map[string]string{"a.yaml": with(good, irc.hs, "short")}, "hs_token must have"},
		"one token for both":    {map[string]string{"a.yaml": with(good, irc.hs, irc.as)}, "must differ"},
		"a token to guess":      {map[string]string{"a.yaml": with(good, irc.as, strings.Repeat("ab", 20))}, "can be guessed"},
		"no tenant":             {map[string]string{"a.yaml": with(good, "tenant: acme.example\n", "")}, "tenant is missing"},
		"a tenant elsewhere":    {map[string]string{"a.yaml": with(good, "tenant: acme", "tenant: evil")}, "is not hosted here"},
		"no namespaces":         {map[string]string{"a.yaml": good[:strings.Index(good, "namespaces:")]}, "namespaces is missing"},
		"no YAML":               {map[string]string{"a.yaml": "id: [irc"}, "a.yaml"},
		"two documents":         {map[string]string{"a.yaml": good + "---\n" + good}, "more than one document"},
		"a key twice":           {map[string]string{"a.yaml": good + "id: irc2\n"}, "id"},
		"empty":                 {map[string]string{"a.yaml": ""}, "empty"},
		"bad sender":            {map[string]string{"a.yaml": with(good, "ircbot", "IRC bot")}, "sender_localpart"},
		"bad expression":        {map[string]string{"a.yaml": with(good, `@irc_.*:acme\.example`, `@irc_(.*`)}, "RE2"},
		"backtracking":          {map[string]string{"a.yaml": with(good, `@irc_.*:acme\.example`, `@irc_(?=a)(a+)+\1`)}, "RE2"},
		"greedy":                {map[string]string{"a.yaml": with(good, `@irc_.*:acme\.example`, `.*`)}, "nothing to do with the bridge"},
		"greedy and anchored":   {map[string]string{"a.yaml": with(good, `@irc_.*:acme\.example`, `^@[a-z0-9]+:.*$`)}, "nothing to do with the bridge"},
		"greedy aliases":        {map[string]string{"a.yaml": with(good, `#irc_.*:acme\.example`, `#.+`)}, "nothing to do with the bridge"},
		"overlap":               {map[string]string{"a.yaml": good, "b.yaml": with(mail.registration(""), "@mail_", "@irc_mail_")}, "for themselves"},
		"the bot of another":    {map[string]string{"a.yaml": good, "b.yaml": with(mail.registration(""), "mailbot", "irc_mailbot")}, "for themselves"},
		"file URL":              {map[string]string{"a.yaml": with(good, irc.http.URL, "file:///etc/passwd")}, "only http and https"},
		"unix URL":              {map[string]string{"a.yaml": with(good, irc.http.URL, "unix:/run/x.sock")}, "only http and https"},
		"no scheme":             {map[string]string{"a.yaml": with(good, irc.http.URL, "127.0.0.1:9000")}, "url"},
		"URL with a password":   {map[string]string{"a.yaml": with(good, irc.http.URL, "http://a:b@127.0.0.1/")}, "url"},
		"URL with a query":      {map[string]string{"a.yaml": with(good, irc.http.URL, "http://127.0.0.1/?x=y")}, "url"},
		"an id with a slash":    {map[string]string{"a.yaml": with(good, "id: irc", "id: a/b")}, "id must have"},
		"one bad beside a good": {map[string]string{"a.yaml": good, "b.yaml": "id: x"}, "as_token"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			err := begin(t, c.files)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), ".yaml") {
				t.Errorf("says %v, want something about %q and the file", err, c.says)
			}
			if err != nil && (strings.Contains(err.Error(), irc.as) || strings.Contains(err.Error(), irc.hs)) {
				t.Errorf("tells a token: %v", err)
			}
		})
	}
}

// B425: files that are saved while the server runs are active at once; what does not hold together changes nothing and is told.
func TestB425_SavedFiles(t *testing.T) {
	t.Parallel()
	irc, mail := newBridge(t, "irc"), newBridge(t, "mail")
	s := start(t, "sqlite", irc)
	bob := irc.ghost(s, "bob")
	want(t, "not there yet", mail.act(s, "", "GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
	write(t, s.Dir, "mail.yaml", mail.registration(""))
	until(t, "the new bridge", func() bool { return mail.act(s, "", "GET", "/account/whoami", nil).Status == 200 })
	// A broken file changes nothing, and the list says why.
	write(t, s.Dir, "mail.yaml", "id: mail\n")
	until(t, "the problem to be told", func() bool {
		_, problem, err := s.Server.Bridges.List(context.Background())
		return err == nil && problem != nil && strings.Contains(problem.Error(), "as_token")
	})
	mail.must(s, "", "GET", "/account/whoami", nil)
	irc.must(s, bob, "GET", "/account/whoami", nil)
	// Other tokens end what the old ones could do, also of a sync that waits.
	next := &bridge{t: t, id: mail.id, as: "other-" + asToken, hs: mail.hs}
	write(t, s.Dir, "mail.yaml", strings.ReplaceAll(mail.registration(""), mail.as, next.as))
	until(t, "the other token", func() bool { return next.act(s, "", "GET", "/account/whoami", nil).Status == 200 })
	want(t, "the old token", mail.act(s, "", "GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
}

// B429: expressions match whole names, and names of other tenants never.
func TestB429_Anchored(t *testing.T) {
	t.Parallel()
	irc := newBridge(t, "irc")
	dir := t.TempDir()
	write(t, dir, "irc.yaml", strings.ReplaceAll(irc.registration(""), `@irc_.*:acme\.example`, `@irc_[a-z]+:(acme|globex)\.example`))
	s := hstest.New(t, hstest.Options{Dir: dir, Policy: policies})
	for name, free := range map[string]bool{"irc_x": false, "irc_x9": true, "xirc_x": true, "irc_": true} {
		if a := s.Do("GET", "/register/available?username="+name, "", nil); (a.Status == 200) != free {
			t.Errorf("%s: %d %s", name, a.Status, a.Raw)
		}
	}
	if s.Bridges.Exclusive("@irc_x:globex.example") {
		t.Error("the namespace reaches over to another tenant")
	}
	want(t, "a ghost of another tenant", s.Do("POST", "/register", irc.as, map[string]any{"type": "m.login.application_service", "username": "irc_x9"}), 400, "M_EXCLUSIVE")
}

// B433: a bridge that does not take our token, or is not there, is told of in the answer to its ping.
func TestB433_Ping(t *testing.T) {
	t.Parallel()
	irc := newBridgeAt(t, "irc", "127.77.4.33:0")
	s := start(t, "sqlite", irc)
	bob, staff := irc.ghost(s, "bob"), s.User("staff", "staff")
	const path = "/_matrix/client/v1/appservice/irc/ping"
	a := irc.must(s, "", "POST", path, map[string]any{"transaction_id": "meow"})
	if ms, ok := a.Get("duration_ms").(float64); !ok || ms < 0 || ms > 60_000 {
		t.Errorf("took %s", a.Raw)
	}
	want(t, "a person pings", staff.Try("POST", path, map[string]any{}), 403, "M_FORBIDDEN")
	want(t, "another bridge's ID", irc.act(s, "", "POST", "/_matrix/client/v1/appservice/mail/ping", map[string]any{}), 403, "M_FORBIDDEN")
	irc.behave(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(403)
		_, _ = w.Write([]byte(`{"errcode":"M_FORBIDDEN"}`))
		return true
	})
	a = irc.act(s, "", "POST", path, map[string]any{})
	want(t, "the wrong hs_token", a, 502, "M_BAD_STATUS")
	if a.Get("status") != 403.0 || !strings.Contains(a.String("body"), "M_FORBIDDEN") {
		t.Errorf("no status and body: %s", a.Raw)
	}
	// What it refuses comes again.
	room := shared(t, s, irc, bob, staff, nil)
	staff.Send(room, "again and again")
	until(t, "retries", func() bool { return len(irc.all()) > 2 })
	irc.behave(nil)
	irc.hears("again and again")
	retried(t, irc)
	irc.http.Close()
	want(t, "nobody listens", irc.act(s, "", "POST", path, map[string]any{}), 502, "M_CONNECTION_FAILED")
	// Without a URL there is nothing to ping.
	write(t, s.Dir, "irc.yaml", strings.ReplaceAll(irc.registration(""), fmt.Sprintf("%q", irc.http.URL), "null"))
	until(t, "no URL", func() bool { return irc.act(s, "", "POST", path, map[string]any{}).Code() == "M_URL_NOT_SET" })
}

// B434: receipts, typing and messages to devices are for the bridge's users and their rooms, and only where it asked for them.
func TestB434_EphemeralAndToDevice(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc, mail := newBridge(t, "irc"), newBridge(t, "mail")
		dir := t.TempDir()
		write(t, dir, "irc.yaml", irc.registration("receive_ephemeral: true\n"))
		write(t, dir, "mail.yaml", mail.registration(""))
		s := hstest.New(t, hstest.Options{Database: database, Dir: dir, Policy: policies})
		staff, other := s.User("staff", "staff"), s.User("other", "staff")
		bob, eve := irc.ghost(s, "bob"), mail.ghost(s, "eve")
		room, post := shared(t, s, irc, bob, staff, nil), shared(t, s, mail, eve, staff, nil)
		own := staff.CreateRoom(map[string]any{"invite": []any{other.ID}})
		other.Join(own)
		read := func(u *hstest.User, room, typ string) {
			id := u.Send(room, "read this")
			u.Must("POST", "/rooms/"+hstest.Esc(room)+"/receipt/"+typ+"/"+hstest.Esc(id), map[string]any{})
		}
		typing := func(u *hstest.User, room string) {
			u.Must("PUT", "/rooms/"+hstest.Esc(room)+"/typing/"+hstest.Esc(string(u.ID)), map[string]any{"typing": true, "timeout": 30000})
		}
		send := func(u *hstest.User, to, device, body string) {
			u.Must("PUT", "/sendToDevice/m.test/"+u.Txn(), map[string]any{"messages": map[string]any{to: map[string]any{device: map[string]any{"text": body}}}})
		}
		if a := irc.act(s, bob, "PUT", "/devices/PUPPET", map[string]any{}); a.Status != 201 {
			t.Fatalf("device: %d %s", a.Status, a.Raw)
		}
		if a := mail.act(s, eve, "PUT", "/devices/PUPPET", map[string]any{}); a.Status != 201 {
			t.Fatalf("device: %d %s", a.Status, a.Raw)
		}
		read(staff, room, "m.read.private") // not the bridge's business
		read(other, own, "m.read")
		typing(other, own)
		send(staff, string(other.ID), other.DeviceID, "CANARY for other")
		send(staff, eve, "PUPPET", "CANARY for eve")
		read(staff, post, "m.read")
		typing(staff, post)
		read(staff, room, "m.read")
		typing(staff, room)
		send(staff, bob, "PUPPET", "for bob")
		staff.Send(room, "last")
		irc.hears("last")
		heard := func(what string) func() bool {
			return func() bool { return strings.Contains(irc.text(), what) }
		}
		until(t, "typing", heard(`"type":"m.typing"`))
		until(t, "a receipt", heard(`"type":"m.receipt"`))
		until(t, "a message to a device", heard(`"text":"for bob"`))
		for _, x := range irc.all() {
			for _, e := range x.ephemeral {
				if e["room_id"] != room {
					t.Errorf("ephemeral of another room: %v", e)
				}
			}
			for _, m := range x.toDevice {
				if m["to_user_id"] != bob || m["to_device_id"] != "PUPPET" || m["sender"] != string(staff.ID) {
					t.Errorf("a message to somebody else: %v", m)
				}
			}
		}
		if text := irc.text(); strings.Contains(text, "CANARY") || strings.Contains(text, "m.read.private") {
			t.Errorf("told of what does not concern it:\n%s", text)
		}
		staff.Send(post, "last")
		mail.hears("last")
		if text := mail.text(); strings.Contains(text, "CANARY") || strings.Contains(text, "ephemeral") || strings.Contains(text, "to_device") {
			t.Errorf("a bridge that did not ask was told:\n%s", text)
		}
	})
}

// B437: redirects of a bridge are not followed.
func TestB437_NoRedirects(t *testing.T) {
	t.Parallel()
	irc, trap := newBridge(t, "irc"), newBridge(t, "trap")
	s := start(t, "sqlite", irc)
	irc.behave(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, trap.http.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	want(t, "a ping that is redirected", irc.act(s, "", "POST", "/_matrix/client/v1/appservice/irc/ping", map[string]any{}), 502, "M_BAD_STATUS")
	staff := s.User("staff", "staff")
	room := shared(t, s, irc, irc.ghost(s, "bob"), staff, nil)
	staff.Send(room, "redirected")
	until(t, "retries", func() bool { return len(irc.all()) > 2 })
	irc.behave(nil)
	irc.hears("redirected")
	if n := len(trap.all()) + len(trap.asked); n > 0 {
		t.Errorf("%d requests were redirected", n)
	}
}

// B438: a bridge that does not answer questions about names holds up nobody for long, and is not asked again and again.
func TestB438_Queries(t *testing.T) {
	t.Parallel()
	irc := newBridge(t, "irc")
	s := start(t, "sqlite", irc)
	staff, lab := s.User("staff", "staff"), s.User("lab", "lab")
	irc.ghost(s, "bob")
	join := func(u *hstest.User, alias string) hstest.Answer {
		return u.Try("POST", "/join/"+hstest.Esc(alias), map[string]any{})
	}
	asked := func(what string) (n int) {
		irc.mu.Lock()
		defer irc.mu.Unlock()
		for _, a := range irc.asked {
			if strings.Contains(a, what) {
				n++
			}
		}
		return n
	}
	// A bridge that knows the name makes the room before it answers.
	irc.behave(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "#irc_made:acme.example"):
			irc.must(s, "", "POST", "/createRoom", map[string]any{"room_alias_name": "irc_made", "preset": "public_chat"})
			return false
		case strings.HasSuffix(r.URL.Path, "@irc_made:acme.example"):
			irc.ghost(s, "made")
			return false
		case strings.Contains(r.URL.Path, "/transactions/"):
			return false
		}
		w.WriteHeader(404)
		return true
	})
	if a := join(staff, "#irc_made:acme.example"); a.Status != 200 {
		t.Errorf("a room that the bridge makes: %d %s", a.Status, a.Raw)
	}
	if a := staff.Try("GET", "/profile/"+hstest.Esc("@irc_made:acme.example"), nil); a.Status != 200 {
		t.Errorf("a user that the bridge makes: %d %s", a.Status, a.Raw)
	}
	for range 5 {
		want(t, "a room that is not", join(staff, "#irc_none:acme.example"), 404, "M_NOT_FOUND")
	}
	if n := asked("irc_none"); n != 1 {
		t.Errorf("asked %d times for a name that is not there", n)
	}
	want(t, "somebody who may not know of the bridge", join(lab, "#irc_lab:acme.example"), 404, "M_NOT_FOUND")
	want(t, "a name of nobody", join(staff, "#plain:acme.example"), 404, "M_NOT_FOUND")
	if asked("irc_lab")+asked("plain") > 0 {
		t.Error("the bridge was asked for what it has nothing to do with")
	}
	// It hangs: many who ask wait once, together.
	var hung atomic.Int64
	gone := make(chan struct{})
	defer close(gone)
	irc.behave(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/transactions/") {
			return false
		}
		hung.Add(1)
		select {
		case <-r.Context().Done():
		case <-gone:
		}
		return true
	})
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			a, err := http.NewRequest("POST", s.URL+"/_matrix/client/v3/join/"+url.PathEscape(fmt.Sprintf("#irc_hang%d:acme.example", i%20)), strings.NewReader("{}"))
			if err != nil {
				t.Error(err)
				return
			}
			a.Header.Set("Authorization", "Bearer "+staff.Token)
			resp, err := http.DefaultClient.Do(a)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 404 {
				t.Errorf("join: %d", resp.StatusCode)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begin); took > 20*time.Second { // a question has 5 s
		t.Errorf("40 joins took %v while the bridge hangs", took)
	}
	if n := hung.Load(); n > 8 {
		t.Errorf("%d questions at a time", n)
	}
	before := hung.Load()
	want(t, "right after", join(staff, "#irc_hang99:acme.example"), 404, "M_NOT_FOUND")
	if hung.Load() != before {
		t.Error("the bridge was asked again after it was found to hang")
	}
}

// B439: what a bridge sends is judged by the rules that hold for everybody.
func TestB439_ContentOfBridges(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc := newBridge(t, "irc")
		s := start(t, database, irc)
		staff := s.User("staff", "staff")
		bob, eve := irc.ghost(s, "bob"), irc.ghost(s, "eve")
		room := shared(t, s, irc, bob, staff, nil)
		irc.must(s, bob, "POST", "/rooms/"+hstest.Esc(room)+"/invite", map[string]any{"user_id": eve})
		irc.must(s, eve, "POST", "/join/"+hstest.Esc(room), map[string]any{})
		if a := irc.say(s, bob, room, strings.Repeat("x", 1<<20)); a.Status != 413 || a.Code() != "M_TOO_LARGE" {
			t.Errorf("a message of a MiB: %d %s", a.Status, a.Raw)
		}
		if a := irc.say(s, bob, room, strings.Repeat("x", 70_000)); a.Status != 413 || a.Code() != "M_TOO_LARGE" {
			t.Errorf("a message of 70 kB: %d %s", a.Status, a.Raw)
		}
		name := "B\u202eob\x00\x07"
		if a := irc.act(s, bob, "PUT", "/profile/"+hstest.Esc(bob)+"/displayname", map[string]any{"displayname": name}); a.Status != 200 && a.Status != 400 {
			t.Errorf("a name with control characters: %d %s", a.Status, a.Raw)
		}
		want(t, "somebody else's name", irc.act(s, bob, "PUT", "/profile/"+hstest.Esc(string(staff.ID))+"/displayname", map[string]any{"displayname": "x"}), 403, "M_FORBIDDEN")
		theirs := staff.Send(room, "mine")
		want(t, "redaction of what a person sent", irc.act(s, eve, "PUT", "/rooms/"+hstest.Esc(room)+"/redact/"+hstest.Esc(theirs)+"/"+nextTxn(), map[string]any{}), 403, "M_FORBIDDEN")
		want(t, "power levels by a ghost without power", irc.act(s, eve, "PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.power_levels/", map[string]any{"users": map[string]any{eve: 100}}), 403, "M_FORBIDDEN")
		irc.must(s, bob, "PUT", "/rooms/"+hstest.Esc(room)+"/redact/"+hstest.Esc(theirs)+"/"+nextTxn(), map[string]any{}) // bob made the room

		// The time of an event is the bridge's to say, and nobody else's.
		const then = 1_500_000_000_000
		at := func(id string) any {
			return staff.Must("GET", "/rooms/"+hstest.Esc(room)+"/event/"+hstest.Esc(id), nil).Get("origin_server_ts")
		}
		send := "/rooms/" + hstest.Esc(room) + "/send/m.room.message/"
		body := map[string]any{"msgtype": "m.text", "body": "long ago"}
		if got := at(irc.must(s, bob, "PUT", send+nextTxn()+fmt.Sprint("?ts=", then), body).String("event_id")); got != float64(then) {
			t.Errorf("the time is %v", got)
		}
		if got := at(staff.Must("PUT", send+staff.Txn()+fmt.Sprint("?ts=", then), body).String("event_id")); got == float64(then) {
			t.Error("a person has set the time of an event")
		}
		for _, bad := range []string{"x", "-1", "1.5", "9007199254740992", ""} {
			want(t, "the time "+bad, irc.act(s, bob, "PUT", send+nextTxn()+"?ts="+bad, body), 400, "M_INVALID_PARAM")
		}
	})
}

// A suspended bridge can do nothing and is told of nothing; when it goes on it is told of what it missed.
func TestSuspend(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc := newBridge(t, "irc")
		s := start(t, database, irc)
		staff := s.User("staff", "staff")
		bob := irc.ghost(s, "bob")
		room := shared(t, s, irc, bob, staff, nil)
		staff.Send(room, "before")
		irc.hears("before")
		after(t, s, irc)
		if err := s.Server.Bridges.Suspend(context.Background(), "irc", true); err != nil {
			t.Fatal(err)
		}
		want(t, "act", irc.act(s, bob, "GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
		want(t, "register", s.Do("POST", "/register", irc.as, map[string]any{"type": "m.login.application_service", "username": "irc_x"}), 401, "M_UNKNOWN_TOKEN")
		if a := s.Do("GET", "/register/available?username=irc_x", "", nil); a.Code() != "M_EXCLUSIVE" {
			t.Errorf("its names are free: %s", a.Raw)
		}
		told := len(irc.all())
		staff.Send(room, "meanwhile")
		s.Restart()
		want(t, "act after a restart", irc.act(s, bob, "GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
		if n := len(irc.all()); n != told {
			t.Errorf("it was told of %d transactions while suspended", n-told)
		}
		if err := s.Server.Bridges.Suspend(context.Background(), "irc", false); err != nil {
			t.Fatal(err)
		}
		irc.hears("meanwhile")
		irc.must(s, bob, "GET", "/account/whoami", nil)
	})
}

// Two nodes: one of them tells the bridge, each thing once; when it stops, the other one goes on. A suspension holds on both.
func TestSeveralNodes(t *testing.T) {
	t.Parallel()
	irc := newBridge(t, "irc")
	a := start(t, "postgres", irc)
	b := hstest.New(t, hstest.Options{NodeOf: a})
	staff := a.User("staff", "staff")
	bob := irc.ghost(b, "bob")
	room := shared(t, a, irc, bob, staff, nil)
	var wanted []string
	for i := range 10 {
		text := fmt.Sprint("node ", i)
		wanted = append(wanted, text)
		if i%2 == 0 {
			staff.Send(room, text)
		} else if r := irc.say(b, bob, room, text); r.Status != 200 {
			t.Fatalf("say: %d %s", r.Status, r.Raw)
		}
	}
	irc.hears("node 9")
	if got := irc.bodies(); strings.Join(got, "|") != strings.Join(wanted, "|") {
		t.Errorf("heard %q", got)
	}
	if err := a.Server.Bridges.Suspend(context.Background(), "irc", true); err != nil {
		t.Fatal(err)
	}
	until(t, "the suspension on the other node", func() bool { return irc.act(b, bob, "GET", "/account/whoami", nil).Status == 401 })
	if err := b.Server.Bridges.Suspend(context.Background(), "irc", false); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of it", func() bool { return irc.act(a, bob, "GET", "/account/whoami", nil).Status == 200 })
	other := staff.On(b)
	a.Stop()
	other.Send(room, "on the other node")
	irc.hears("on the other node")
}

// Administrators see and stop the bridges of their own tenant, and learn nothing of others.
func TestAdministrators(t *testing.T) {
	t.Parallel()
	irc := newBridge(t, "irc")
	s := start(t, "sqlite", irc)
	yes := true
	admin := func(id string) *hstest.User {
		u := s.User(id)
		if err := s.Accounts.SetFacts(context.Background(), account.Operator("test"), u.ID, account.Facts{Admin: &yes}); err != nil {
			t.Fatal(err)
		}
		return u
	}
	ours, theirs, nobody := admin("@root:acme.example"), admin("@root:globex.example"), s.User("ann")
	handler := s.Admin.Handler()
	ask := func(u *hstest.User, method, path string) (int, string) {
		r := httptest.NewRequest(method, "/_hansa/admin/v1"+path, nil)
		r.Header.Set("Authorization", "Bearer "+u.Token)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if code, body := ask(ours, "GET", "/bridges"); code != 200 || !strings.Contains(body, `"id":"irc"`) || strings.Contains(body, s.Dir) || strings.Contains(body, irc.as) {
		t.Errorf("the list of the own tenant: %d %s", code, body)
	}
	if code, body := ask(theirs, "GET", "/bridges"); code != 200 || strings.Contains(body, "irc") {
		t.Errorf("the list of another tenant: %d %s", code, body)
	}
	if code, body := ask(theirs, "POST", "/bridges/irc/suspend"); code != 404 {
		t.Errorf("another tenant's bridge: %d %s", code, body)
	}
	for _, path := range []string{"/bridges/irc/suspend", "/bridges/irc/resume"} {
		if code, body := ask(nobody, "POST", path); code != 403 {
			t.Errorf("%s by somebody without rights: %d %s", path, code, body)
		}
	}
	irc.must(s, "", "GET", "/account/whoami", nil)
	if code, body := ask(ours, "POST", "/bridges/irc/suspend"); code != 200 || !strings.Contains(body, `"suspended":true`) {
		t.Errorf("suspend: %d %s", code, body)
	}
	want(t, "a suspended bridge", irc.act(s, "", "GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
	if code, body := ask(ours, "POST", "/bridges/irc/resume"); code != 200 {
		t.Errorf("resume: %d %s", code, body)
	}
	irc.must(s, "", "GET", "/account/whoami", nil)
}
