package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// Password is the password of everybody.
const Password = "Correct-horse-9-battery"

const v3 = "/_matrix/client/v3"

// Answer is what the server said.
type Answer struct {
	Status int
	Header http.Header
	Raw    []byte
}

// Into decodes the answer.
func (a Answer) Into(v any) error {
	if err := json.Unmarshal(a.Raw, v); err != nil {
		return fmt.Errorf("answer %.200q: %w", a.Raw, err)
	}
	return nil
}

// Code is the errcode of an error.
func (a Answer) Code() string {
	var e struct {
		Errcode string `json:"errcode"`
	}
	_ = json.Unmarshal(a.Raw, &e) // not every answer is an object
	return e.Errcode
}

func (a Answer) String() string { return fmt.Sprintf("%d %.300s", a.Status, a.Raw) }

// Client makes requests to one server, or to the nodes of one by turns.
type Client struct {
	URL string
	// More are further nodes.
	More []string
	http *http.Client
	turn atomic.Uint64
}

// base is the URL for the next request.
func (c *Client) base() string {
	if n := c.turn.Add(1) % uint64(len(c.More)+1); n > 0 {
		return c.More[n-1]
	}
	return c.URL
}

// NewClient returns a client with a pool of connections of its own.
func NewClient(url string) *Client {
	return &Client{URL: url, http: &http.Client{Timeout: 100 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}}}
}

// Do makes one request. body may be nil, []byte (sent as it is) or anything that encodes to JSON.
func (c *Client) Do(ctx context.Context, method, path, token string, body any) (Answer, error) {
	var rd io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case []byte:
		rd, kind = bytes.NewReader(b), "application/octet-stream"
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return Answer{}, err
		}
		rd = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base()+path, rd)
	if err != nil {
		return Answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if rd != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer discard(resp.Body)
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	a.Raw, err = io.ReadAll(resp.Body)
	return a, err
}

// Decided makes a request like Do, and makes it again where the rules had no time to decide about it.
func (c *Client) Decided(ctx context.Context, method, path, token string, body any) (Answer, error) {
	for try := 0; ; try++ {
		a, err := c.Do(ctx, method, path, token, body)
		if err != nil || !undecided(a) || try == 200 {
			return a, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return a, nil
		}
	}
}

// Person is somebody with a session.
type Person struct {
	Name, ID, Device, Token string
}

// Register makes an account and logs it in.
func (c *Client) Register(ctx context.Context, name string) (*Person, error) {
	a, err := c.Decided(ctx, "POST", v3+"/register", "", map[string]any{"username": name, "password": Password, "auth": map[string]any{"type": "m.login.dummy"}})
	if err != nil {
		return nil, err
	}
	if a.Status != 200 {
		return nil, fmt.Errorf("register %s: %v", name, a)
	}
	return a.person(name)
}

func (a Answer) person(name string) (*Person, error) {
	var got struct {
		UserID   string `json:"user_id"`
		DeviceID string `json:"device_id"`
		Token    string `json:"access_token"`
	}
	err := a.Into(&got)
	return &Person{Name: name, ID: got.UserID, Device: got.DeviceID, Token: got.Token}, err
}

// Must makes a request that has to succeed and decodes the answer into out, unless that is nil.
func (c *Client) Must(ctx context.Context, p *Person, method, path string, body, out any) error {
	a, err := c.Decided(ctx, method, path, p.Token, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if a.Status != 200 {
		return fmt.Errorf("%s: %s %s: %v", p.ID, method, path, a)
	}
	if out == nil {
		return nil
	}
	return a.Into(out)
}

// esc escapes a path parameter.
func esc(s string) string { return url.PathEscape(s) }

// roomPath is the path of something in a room.
func roomPath(room string, rest string) string { return v3 + "/rooms/" + esc(room) + rest }

// Event is an event as clients see it.
type Event struct {
	ID       string          `json:"event_id"`
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Sender   string          `json:"sender"`
	Content  json.RawMessage `json:"content"`
	TS       int64           `json:"origin_server_ts"`
}

// field reads a string of the content.
func (e *Event) field(name string) string {
	var m map[string]json.RawMessage
	var s string
	if json.Unmarshal(e.Content, &m) == nil {
		_ = json.Unmarshal(m[name], &s) // absent and other types are the empty string
	}
	return s
}

// message builds a text message.
func message(body string) map[string]any { return map[string]any{"msgtype": "m.text", "body": body} }
