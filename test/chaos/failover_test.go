package chaos

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A standby that lagged behind is promoted while two nodes run. Both notice, start anew by themselves and serve what is left; what is lost is
// reported; no position is given out a second time, and no one-time key that may have been claimed.
func TestD457_Failover(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c := newCluster(t)
	a := newServer(t, c.url)
	if _, err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b, err := a.Sibling(dir)
	if err != nil {
		t.Fatal(err)
	}
	attend(t, b, "the other node")
	if _, err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	one, two := NewClient(a.URL), NewClient(b.URL)
	anna, err := one.Register(ctx, "anna")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var room struct {
		ID string `json:"room_id"`
	}
	must(one.Must(ctx, anna, "POST", v3+"/createRoom", map[string]any{}, &room))
	send := func(c *Client, text string) error {
		return c.Must(ctx, anna, "PUT", roomPath(room.ID, "/send/m.room.message/"+text), message(text), nil)
	}
	sync := func(c *Client, since string) (next string, counts map[string]int, raw string) {
		t.Helper()
		answer, err := c.Decided(ctx, "GET", v3+"/sync?timeout=0"+since, anna.Token, nil)
		must(err)
		var out struct {
			Next string         `json:"next_batch"`
			Keys map[string]int `json:"device_one_time_keys_count"`
		}
		must(answer.Into(&out))
		return out.Next, out.Keys, string(answer.Raw)
	}
	must(send(one, "kept"))
	must(send(two, "kept-too"))
	must(one.Must(ctx, anna, "POST", v3+"/keys/upload", map[string]any{"one_time_keys": map[string]any{"curve25519:AAAAAA": "cGFwZXIgYm9hdHMgb24gYSBwb25kIGluIG1hcmNoaGE"}}, nil))
	if _, err := setup("clone", c.dir); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		must(send([]*Client{one, two}[i%2], "lost-"+strconv.Itoa(i)))
	}
	before, keys, _ := sync(one, "")
	if keys["curve25519"] != 1 {
		t.Errorf("one-time keys before: %v", keys)
	}
	if _, err := setup("failover", c.dir); err != nil {
		t.Fatal(err)
	}

	// Whoever sends goes on sending until it is taken; that is on the new server, by nodes that have started anew.
	for i, c := range []*Client{one, two} {
		for {
			answer, err := c.Do(ctx, "PUT", roomPath(room.ID, "/send/m.room.message/after-"+strconv.Itoa(i)), anna.Token, message("after-"+strconv.Itoa(i)))
			if err == nil && answer.Status == 200 {
				break
			}
			if err == nil && answer.Status < 500 {
				t.Fatalf("send after the failover: %s", answer)
			}
			select {
			case <-ctx.Done():
				t.Fatalf("nothing is taken after the failover: %v %s", err, answer)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	must(a.AwaitReady(ctx))
	must(b.AwaitReady(ctx))
	next, keys, raw := sync(two, "&since="+before)
	if position(t, next) <= position(t, before) {
		t.Errorf("tokens go back: %s, then %s", before, next)
	}
	if !strings.Contains(raw, "after-0") || !strings.Contains(raw, "after-1") {
		t.Errorf("who was up to date does not hear of what came after the failover: %s", raw)
	}
	if keys["curve25519"] != 0 {
		t.Errorf("a one-time key is offered that may have been claimed: %v", keys)
	}
	_, _, raw = sync(one, "")
	for text, want := range map[string]bool{"kept": true, "kept-too": true, "lost-29": false, "after-0": true, "after-1": true} {
		if strings.Contains(raw, `"`+text+`"`) != want {
			t.Errorf("%s in a new sync: %v, want %v", text, !want, want)
		}
	}
	alarms := ""
	for _, d := range []string{a.Dir, dir} {
		text, err := os.ReadFile(filepath.Join(d, "log"))
		must(err)
		alarms += string(text)
		if !strings.Contains(string(text), "starting anew") {
			t.Errorf("the node in %s did not start anew: %s", d, text)
		}
	}
	for _, want := range []string{"another database server has taken over", "gone back in time"} {
		if !strings.Contains(alarms, want) {
			t.Errorf("the logs do not say %q:\n%s", want, alarms)
		}
	}
}

// position is that of a sync token.
func position(t *testing.T, token string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimLeft(strings.SplitN(token, "_", 2)[0], "abcdefghijklmnopqrstuvwxyz"), 10, 64)
	if err != nil {
		t.Fatalf("token %q: %v", token, err)
	}
	return n
}
