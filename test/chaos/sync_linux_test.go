package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/sirupsen/logrus"

	"hansa/config"
	"hansa/homeserver"
)

// asChild tells this test's binary to be a server whose disk fails at SIGUSR1.
const asChild = "CHAOS_DISK_FAILS=yes"

// failsNow is what the child says when every fsync fails from then on.
const failsNow = "no fsync works any more"

// child is a server like that of `hansa serve -c FILE`.
func child() error {
	at := slices.Index(os.Args, "-c")
	if at < 0 || at+1 >= len(os.Args) {
		return errors.New("no -c FILE")
	}
	cfg, err := config.Load(os.Args[at+1], nil)
	if err != nil {
		return err
	}
	l := logrus.New()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := homeserver.New(ctx, cfg, homeserver.Deps{Log: logrus.NewEntry(l), Version: "test", PolicyDeadline: time.Minute})
	if err != nil {
		return err
	}
	fail := make(chan os.Signal, 1)
	signal.Notify(fail, syscall.SIGUSR1)
	go func() {
		<-fail
		if err := refuseSync(); err != nil {
			l.Fatal(err)
		}
		fmt.Fprintln(os.Stderr, failsNow)
	}()
	return s.Run(ctx)
}

// refuseSync makes fsync and fdatasync of this process answer EIO, in all threads and for good, as a disk does that has lost a write.
func refuseSync() error {
	type instruction struct {
		code   uint16
		jt, jf uint8
		k      uint32
	}
	const load, jump, ret, allow, refuse = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000
	program := []instruction{{load, 0, 0, 0}, {jump, 2, 0, syscall.SYS_FSYNC}, {jump, 1, 0, syscall.SYS_FDATASYNC}, {ret, 0, 0, allow},
		{ret, 0, 0, refuse | uint32(syscall.EIO)}}
	seccomp := map[string]uintptr{"amd64": 317, "arm64": 277, "riscv64": 277}[runtime.GOARCH]
	runtime.LockOSThread()
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, 38, 1, 0, 0, 0, 0); e != 0 { // PR_SET_NO_NEW_PRIVS
		return fmt.Errorf("prctl: %w", e)
	}
	list := struct {
		n       uint16
		program *instruction
	}{uint16(len(program)), &program[0]}
	if r, _, e := syscall.RawSyscall(seccomp, 1, 1, uintptr(unsafe.Pointer(&list))); e != 0 || r != 0 { // SECCOMP_SET_MODE_FILTER, TSYNC
		return fmt.Errorf("seccomp: %w (%d)", e, r)
	}
	return nil
}

// Nothing is acknowledged that the disk has not confirmed: when fsync fails there is no 200, the server gives up instead of trying again as if
// nothing had happened, and a new process has everything that was acknowledged. That also shows that every 200 waits for an fsync.
func TestD445_D451_NoAnswerWithoutSync(t *testing.T) {
	t.Parallel()
	type deed func(c *Client, p *Person, room, txn string) (Answer, error)
	do := func(method, path string, body any) func(*Client, *Person) (Answer, error) {
		return func(c *Client, p *Person) (Answer, error) {
			return c.Decided(context.Background(), method, path, p.Token, body)
		}
	}
	say := func(c *Client, p *Person, room, txn string) (Answer, error) {
		return do("PUT", roomPath(room, "/send/m.room.message/"+txn), message(txn))(c, p)
	}
	for name, act := range map[string]deed{
		"event": say,
		"room": func(c *Client, p *Person, _, txn string) (Answer, error) {
			return do("POST", v3+"/createRoom", map[string]any{"name": txn})(c, p)
		},
		"to-device": func(c *Client, p *Person, _, txn string) (Answer, error) {
			return do("PUT", v3+"/sendToDevice/x.y/"+txn, map[string]any{"messages": map[string]any{p.ID: map[string]any{"*": map[string]any{}}}})(c, p)
		},
		"keys": func(c *Client, p *Person, _, txn string) (Answer, error) {
			return do("POST", v3+"/keys/upload", map[string]any{"one_time_keys": map[string]any{"curve25519:" + txn: "key"}})(c, p)
		},
		"account data": func(c *Client, p *Person, _, txn string) (Answer, error) {
			return do("PUT", v3+"/user/"+esc(p.ID)+"/account_data/x.y", map[string]any{"n": txn})(c, p)
		},
		"upload": func(c *Client, p *Person, _, txn string) (Answer, error) {
			return do("POST", "/_matrix/media/v3/upload", []byte(txn))(c, p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			s := newServer(t, "sqlite")
			program := s.Binary
			s.Binary, s.Env = os.Args[0], []string{asChild}
			if _, err := s.Start(ctx); err != nil {
				t.Fatal(err)
			}
			c := NewClient(s.URL)
			p, room := someone(t, c, "anna")
			for i := range 5 {
				if a, err := say(c, p, room, fmt.Sprint(i)); err != nil || a.Status != 200 {
					t.Fatalf("with a sound disk: %v, %v", a, err)
				}
			}
			if a, err := act(c, p, room, "sound"); err != nil || a.Status != 200 {
				t.Fatalf("with a sound disk: %v, %v", a, err)
			}
			if err := syscall.Kill(s.Pid(), syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			for try := 0; !strings.Contains(s.Log(), failsNow); try++ {
				if try == 3000 {
					t.Fatal("the disk does not fail")
				}
				<-time.After(10 * time.Millisecond)
			}
			for txn, act := range map[string]deed{"failing": act, "failed": say} {
				if a, err := act(c, p, room, txn); err == nil && a.Status == 200 {
					t.Errorf("with a disk that fails: %v", a)
				}
			}
			if ended, _ := s.Ended(10 * time.Second); !ended && answers(ctx, c.http, s.Admin+"/readyz") {
				t.Error("a server whose disk has failed says that it is ready")
			}
			s.Kill()
			s.Binary, s.Env = program, nil
			if _, err := s.Start(ctx); err != nil {
				t.Fatal(err)
			}
			whole, err := NewStorm(Plan{}, s).history(ctx, p, room, "f", "", "")
			if err != nil {
				t.Fatal(err)
			}
			var have string
			for i := range whole {
				have += whole[i].field("body")
			}
			if !strings.HasPrefix(have, "01234") {
				t.Errorf("of what was acknowledged there is %q", have)
			}
		})
	}
}
