//go:build interop

package interop_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// patience is how long one expected thing may take.
const patience = 60 * time.Second

// until tries until there is no error.
func until(t *testing.T, what string, try func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-late:
			t.Fatalf("waited %v in vain until %s: %v", patience, what, err)
		case <-tick.C:
		}
	}
}

// person is somebody with a session on one of the servers.
type person struct {
	t      *testing.T
	c      *cell
	id     string
	server string
	base   string
	token  string
}

// in makes a person act within a subtest.
func (p *person) in(t *testing.T) *person {
	q := *p
	q.t = t
	return &q
}

// answer is what a server said.
type answer struct {
	status int
	raw    []byte
	json   map[string]any
}

func (a answer) text(key string) string { s, _ := a.json[key].(string); return s }

// get digs into an answer.
func (a answer) get(keys ...string) any {
	var v any = a.json
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

func (a answer) list(keys ...string) []any { l, _ := a.get(keys...).([]any); return l }

func (c *cell) do(method, base, path, token, contentType string, body []byte) (answer, error) {
	if !strings.HasPrefix(path, "/_") {
		path = "/_matrix/client/v3" + path
	}
	req, err := http.NewRequest(method, base+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	if a.raw, err = io.ReadAll(resp.Body); err == nil {
		_ = json.Unmarshal(a.raw, &a.json) // not every answer is an object
	}
	return a, err
}

func (p *person) try(method, path string, body any) answer {
	p.t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	a, err := p.c.do(method, p.base, path, p.token, "application/json", raw)
	if err != nil {
		p.t.Fatalf("%s: %s %s: %v", p.id, method, path, err)
	}
	return a
}

func (p *person) must(method, path string, body any) answer {
	p.t.Helper()
	a := p.try(method, path, body)
	if a.status != http.StatusOK {
		p.t.Fatalf("%s: %s %s: %d %s", p.id, method, path, a.status, a.raw)
	}
	return a
}

// refused makes a request that must be answered with a status of refusal.
func (p *person) refused(status int, method, path string, body any) answer {
	p.t.Helper()
	a := p.try(method, path, body)
	if a.status != status {
		p.t.Errorf("%s: %s %s: %d %s, want %d", p.id, method, path, a.status, a.raw, status)
	}
	return a
}

// add makes an account on one of the servers and logs in.
func (c *cell) add(server, name string) *person {
	c.t.Helper()
	p := &person{t: c.t, c: c, id: "@" + name + ":" + server, server: server, base: "http://" + hansaIP + ":8008"}
	if server == hansaName {
		c.verb(password+"\n", "user", "add", p.id, "--password-stdin", "-c", c.config)
	} else {
		p.base = "http://" + synapseIP + ":8008"
		nonce := p.must("GET", "/_synapse/admin/v1/register", nil).text("nonce")
		mac := hmac.New(sha1.New, []byte(secret))
		fmt.Fprintf(mac, "%s\x00%s\x00%s\x00notadmin", nonce, name, password)
		p.must("POST", "/_synapse/admin/v1/register", map[string]any{"nonce": nonce, "username": name, "password": password, "admin": false, "mac": hex.EncodeToString(mac.Sum(nil))})
	}
	p.token = p.must("POST", "/login", map[string]any{"type": "m.login.password", "identifier": map[string]any{"type": "m.id.user", "user": p.id}, "password": password}).text("access_token")
	return p
}

func esc(s string) string { return url.PathEscape(s) }

func (p *person) create(body map[string]any) string {
	p.t.Helper()
	return p.must("POST", "/createRoom", body).text("room_id")
}

// join joins by way of another server.
func (p *person) join(room, via string) {
	p.t.Helper()
	p.must("POST", "/join/"+esc(room)+"?server_name="+via+"&via="+via, nil)
}

func (p *person) send(room, text string) string {
	p.t.Helper()
	p.c.txn++
	return p.must("PUT", fmt.Sprintf("/rooms/%s/send/m.room.message/t%d", esc(room), p.c.txn), map[string]any{"msgtype": "m.text", "body": text}).text("event_id")
}

// events are the newest events of a room, the latest first.
func (p *person) events(room string, limit int) ([]map[string]any, error) {
	p.t.Helper()
	a := p.try("GET", fmt.Sprintf("/rooms/%s/messages?dir=b&limit=%d", esc(room), limit), nil)
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("%s: messages: %d %s", p.id, a.status, a.raw)
	}
	var out []map[string]any
	for _, e := range a.list("chunk") {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out, nil
}

func body(e map[string]any) string {
	c, _ := e["content"].(map[string]any)
	s, _ := c["body"].(string)
	return s
}

// has tells whether a text is among the newest messages that the person sees.
func (p *person) has(room, text string) bool {
	p.t.Helper()
	list, err := p.events(room, 50)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range list {
		if body(e) == text {
			return true
		}
	}
	return false
}

// sees waits for texts.
func (p *person) sees(room string, texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		until(p.t, p.id+" sees "+text, func() error {
			if !p.has(room, text) {
				return fmt.Errorf("it is not there")
			}
			return nil
		})
	}
}

// membership waits until the person sees another's membership.
func (p *person) membership(room, user, want string) {
	p.t.Helper()
	until(p.t, p.id+" sees that "+user+" is "+want, func() error {
		a := p.try("GET", "/rooms/"+esc(room)+"/state/m.room.member/"+esc(user), nil)
		if got := a.text("membership"); got != want {
			return fmt.Errorf("%d %s", a.status, a.raw)
		}
		return nil
	})
}

// state waits until a state event has a field.
func (p *person) state(room, kind, field, want string) {
	p.t.Helper()
	until(p.t, p.id+" sees "+kind, func() error {
		a := p.try("GET", "/rooms/"+esc(room)+"/state/"+kind, nil)
		if got := a.text(field); got != want {
			return fmt.Errorf("%d %s", a.status, a.raw)
		}
		return nil
	})
}

// sync waits until an answer of /sync satisfies.
func (p *person) sync(what string, ok func(answer) bool) {
	p.t.Helper()
	since := ""
	until(p.t, p.id+": "+what, func() error {
		path := "/sync?timeout=500"
		if since != "" {
			path += "&since=" + url.QueryEscape(since)
		}
		a := p.must("GET", path, nil)
		since = a.text("next_batch")
		if !ok(a) {
			return fmt.Errorf("the last answer was %.2000s", a.raw)
		}
		return nil
	})
}

// invited waits for an invitation.
func (p *person) invited(room string) {
	p.t.Helper()
	p.sync("invited to "+room, func(a answer) bool { return a.get("rooms", "invite", room) != nil })
}
