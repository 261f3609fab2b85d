package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// client speaks the client-server API with the nodes of a server.
type client struct {
	bases []string
	// spread says which node gets a request: user, room or request.
	spread string
	turn   atomic.Uint64
	http   *http.Client
}

// base is the URL of the node that gets a request.
func (c *client) base(token, path string) string {
	if len(c.bases) == 1 {
		return c.bases[0]
	}
	key := token
	switch c.spread {
	case "request":
		return c.bases[c.turn.Add(1)%uint64(len(c.bases))]
	case "room":
		if _, rest, ok := strings.Cut(path, "/rooms/"); ok {
			key, _, _ = strings.Cut(rest, "/")
		}
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, key) // never fails
	return c.bases[int(h.Sum32()%uint32(len(c.bases)))]
}

func newClient(bases []string, spread string) *client {
	transport := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 4096, DisableCompression: true}
	return &client{bases: bases, spread: spread, http: &http.Client{Transport: transport, Timeout: 90 * time.Second}}
}

// statusError is an answer that is not 2xx.
type statusError struct {
	method, path string
	status       int
	body         []byte
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: %d %.200s", e.method, e.path, e.status, e.body)
}

// call sends body, if there is one, as JSON and reads the answer into out, if there is one.
func (c *client) call(ctx context.Context, method, path, token string, body, out any) error {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base(token, path)+path, send)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return &statusError{method, path, resp.StatusCode, text}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

const apiV3 = "/_matrix/client/v3"

// register makes an account: through the dummy stage, or with a registration token.
func (c *client) register(ctx context.Context, name, token string) (*user, error) {
	body := map[string]any{"username": name, "password": "Correct-horse-9-battery", "auth": map[string]any{"type": "m.login.dummy"}}
	if token != "" {
		var flows struct {
			Session string `json:"session"`
		}
		err := c.call(ctx, http.MethodPost, apiV3+"/register", "", map[string]any{"username": name, "password": body["password"]}, nil)
		if e, ok := err.(*statusError); !ok || e.status != http.StatusUnauthorized {
			return nil, fmt.Errorf("begin to register: %w", err)
		} else if err := json.Unmarshal(e.body, &flows); err != nil {
			return nil, err
		}
		body["auth"] = map[string]any{"type": "m.login.registration_token", "token": token, "session": flows.Session}
	}
	var answer struct {
		UserID      string `json:"user_id"`
		AccessToken string `json:"access_token"`
	}
	if err := c.call(ctx, http.MethodPost, apiV3+"/register", "", body, &answer); err != nil {
		return nil, err
	}
	return &user{id: answer.UserID, token: answer.AccessToken}, nil
}

// message is the part of an event that the driver reads back.
type message struct {
	Type    string `json:"type"`
	Content struct {
		At     int64 `json:"at"`
		Number int   `json:"number"`
	} `json:"content"`
}

// timeline is what /sync says about one room.
type timeline struct {
	Events    []message `json:"events"`
	Limited   bool      `json:"limited"`
	PrevBatch string    `json:"prev_batch"`
}

// syncAnswer is the part of /sync that the driver reads.
type syncAnswer struct {
	NextBatch string `json:"next_batch"`
	Rooms     struct {
		Join map[string]struct {
			Timeline timeline `json:"timeline"`
		} `json:"join"`
	} `json:"rooms"`
}
