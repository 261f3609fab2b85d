package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"hansa/config"
)

const (
	// timerSlack is by how much the system may let a timer be late, to wake a process less often; kernelSlack is what it is if nobody says.
	timerSlack  = 2 * time.Millisecond
	kernelSlack = 50 * time.Microsecond
	// slackMark is in the environment of a process that was begun anew with it: whatever became of it, once is enough.
	slackMark = "HANSA_TIMERSLACK"
)

// relaxTimers begins a node that uses PostgreSQL anew with timers that may be some milliseconds late. Go's runtime looks after its threads every 20 us
// while they work now and again, as those of a node do that shares its processors with others: half of the switches between processes came from
// that, and a tenth of what the machine could do. The thread that looks is there before main, and takes its slack from what the process was begun
// with. With SQLite the server waits for the disk inside system calls, which the runtime has to notice soon. Whoever has set a slack
// (TimerSlackNSec of systemd) has the last word. It returns where nothing is to be done, or can be.
func relaxTimers(ctx context.Context, cfg *config.Config, log *logrus.Entry) {
	database, err := cfg.ReadDatabase() // where it cannot be read, those who need it say so
	if own, _ := ctx.Value(ownProcess{}).(bool); !own || err != nil || strings.HasPrefix(database, "sqlite:") || os.Getenv(slackMark) != "" {
		return
	}
	if ctx.Err() != nil { // told to stop already; the new program would not know
		return
	}
	if err := beginAnew(); err != nil {
		log.WithField("pkg", "hansa").WithError(err).Info("timers stay as exact as the system makes them")
	}
}

func beginAnew() error {
	runtime.LockOSThread() // the slack is the thread's, and goes with the one that begins the program anew
	defer runtime.UnlockOSThread()
	if slack, err := timerSlackNow(); err != nil || slack != kernelSlack {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack.Nanoseconds()), 0, 0, 0); err != nil {
		return fmt.Errorf("set the slack of timers: %w", err)
	}
	err = syscall.Exec(program, os.Args, append([]string{slackMark + "=" + timerSlack.String()}, os.Environ()...)) // the first of a name counts
	return errors.Join(fmt.Errorf("begin %s anew: %w", program, err), unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(kernelSlack.Nanoseconds()), 0, 0, 0))
}

// timerSlackNow is the slack of the calling thread.
func timerSlackNow() (time.Duration, error) {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	return time.Duration(ns), err
}
