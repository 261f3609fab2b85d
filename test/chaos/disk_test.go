package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onSmallDisk prepares a server whose database is on a small disk of its own, and returns where this process sees that disk once the server
// runs. The disk is mounted for the server's process alone and goes with it. Where mounting is not allowed, as in most containers, the small
// /dev/shm of the container is taken.
func onSmallDisk(t *testing.T) (s *Server, disk func() string) {
	t.Helper()
	try := exec.Command("sh", "-c", "mount -t tmpfs -o size=1m none /mnt")
	try.SysProcAttr = namespace()
	if err := try.Run(); err == nil {
		s = newServer(t, "sqlite")
		data := filepath.Join(s.Dir, "data")
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		s.Wrap = fmt.Sprintf(`mount -t tmpfs -o size=24m none '%s' && exec "$@"`, data)
		return s, func() string { return fmt.Sprintf("/proc/%d/root%s", s.Pid(), data) }
	}
	const shm = "/dev/shm"
	var st syscall.Statfs_t
	if err := syscall.Statfs(shm, &st); err != nil || int64(st.Blocks)*st.Bsize > 512<<20 {
		t.Fatalf("no small disk: this process may not mount one (run it as root or allow user namespaces), and %s is none (%v)", shm, err)
	}
	dir, err := os.MkdirTemp(shm, "hansa-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a temporary folder
	return newServer(t, "sqlite:"+filepath.Join(dir, "hansa.db")), func() string { return dir }
}

// fill writes files until a disk is full and returns how to make room again.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for block := 1 << 20; block >= 512; {
		if _, err := f.Write(make([]byte, block)); err != nil {
			block /= 2
		}
	}
	if err := f.Close(); err != nil {
		t.Logf("close the filler: %v", err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// A full disk refuses writes with a sentence and harms nothing: reads and syncs go on, what was acknowledged is there, and as soon as there is
// room the server takes writes again, without a restart.
func TestD449_DatabaseDiskFull(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s, disk := onSmallDisk(t)
	if _, err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c := NewClient(s.URL)
	p, room := someone(t, c, "anna")
	var acked []string
	send := func(n int) Answer {
		txn := fmt.Sprint("m", n)
		a, err := c.Decided(ctx, "PUT", roomPath(room, "/send/m.room.message/"+txn), p.Token, message(txn+strings.Repeat(".", 2000)))
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == 200 {
			acked = append(acked, txn)
		}
		return a
	}
	n := 0
	for round := range 3 {
		for range 20 {
			if a := send(n); a.Status != 200 {
				t.Fatalf("round %d: with room on the disk: %v", round, a)
			}
			n++
		}
		free := fill(t, disk())
		refused := 0
		for range 300 {
			a := send(n)
			if a.Status == 200 {
				n++ // there was a little room in files that the database has already
				continue
			}
			if refused++; a.Status != 503 || a.Code() != "M_RESOURCE_LIMIT_EXCEEDED" || a.Header.Get("Retry-After") == "" {
				t.Fatalf("round %d: on a full disk a send is answered %v, want 503 M_RESOURCE_LIMIT_EXCEEDED with Retry-After", round, a)
			}
			if refused == 10 {
				break
			}
		}
		if refused == 0 {
			t.Fatal("the disk never was full")
		}
		for _, w := range []struct{ method, path string }{{"PUT", v3 + "/user/" + esc(p.ID) + "/account_data/x.y"}, {"POST", v3 + "/createRoom"}, {"POST", v3 + "/keys/upload"},
			{"PUT", v3 + "/sendToDevice/x.y/" + fmt.Sprint(n)}} {
			body := map[string]any{"x": strings.Repeat("x", 60000), "one_time_keys": map[string]any{fmt.Sprint("curve25519:", n): strings.Repeat("k", 3000)},
				"messages": map[string]any{p.ID: map[string]any{"*": map[string]any{"x": strings.Repeat("x", 60000)}}}}
			a, err := c.Decided(ctx, w.method, w.path, p.Token, body)
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != 200 && (a.Status != 503 || a.Code() != "M_RESOURCE_LIMIT_EXCEEDED") {
				t.Errorf("round %d: on a full disk %s %s is answered %v", round, w.method, w.path, a)
			}
		}
		for _, path := range []string{v3 + "/sync?timeout=0", roomPath(room, "/messages?dir=b"), roomPath(room, "/state"), v3 + "/account/whoami"} {
			if a, err := c.Decided(ctx, "GET", path, p.Token, nil); err != nil || a.Status != 200 {
				t.Errorf("round %d: on a full disk GET %s is answered %v, %v", round, path, a, err)
			}
		}
		free()
		if a := send(n); a.Status != 200 {
			t.Fatalf("round %d: with room again: %v", round, a)
		}
		n++
	}
	storm := NewStorm(Plan{}, s)
	whole, err := storm.history(ctx, p, room, "f", "", "")
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for i := range whole {
		if body := whole[i].field("body"); body != "" {
			have = append(have, strings.TrimRight(body, "."))
		}
	}
	if d := differ(have, acked); d != "" {
		t.Errorf("history and acknowledged: %s", d)
	}
}

// someone makes an account and a room.
func someone(t *testing.T, c *Client, name string) (*Person, string) {
	t.Helper()
	p, err := c.Register(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		RoomID string `json:"room_id"`
	}
	if err := c.Must(context.Background(), p, "POST", v3+"/createRoom", map[string]any{"preset": "public_chat"}, &got); err != nil {
		t.Fatal(err)
	}
	return p, got.RoomID
}

// Two processes on one file would each believe to be alone: the second one says so and ends.
func TestD447_SecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := newServer(t, "sqlite")
	if _, err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	other, err := NewServer(s.Binary, t.TempDir(), s.Database)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Launch(); err != nil {
		t.Fatal(err)
	}
	ended, err := other.Ended(time.Minute)
	other.Kill()
	if !ended || err == nil {
		t.Errorf("a second process on the same file: ended %v with %v, want an error", ended, err)
	}
	if want := "another process has the database open"; !strings.Contains(other.Log(), want) {
		t.Errorf("it says %q, want a sentence with %q", other.LogTail(), want)
	}
	if a, err := NewClient(s.URL).Do(ctx, "GET", "/_matrix/client/versions", "", nil); err != nil || a.Status != 200 {
		t.Errorf("the first process: %v, %v", a, err)
	}
	s.Kill()
	if _, err := s.Start(ctx); err != nil {
		t.Errorf("after SIGKILL the lock is not free: %v", err)
	}
}
