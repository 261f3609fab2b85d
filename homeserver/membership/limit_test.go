package membership

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hansa/matrix"
)

func TestLimits_FillAndDrain(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := newLimits(true, func() time.Time { return now })
	count := func(n int) (let int) {
		for i := range n {
			if l.invite("@a:x", matrix.UserID(fmt.Sprint("@", i, ":x")), "") == nil {
				let++
			}
		}
		return let
	}
	if got := count(500); got != 200 {
		t.Errorf("%d invitations at once, want 200", got)
	}
	now = now.Add(time.Minute)
	if got := count(500); got != 30 {
		t.Errorf("%d invitations a minute later, want 30", got)
	}
	now = now.Add(-time.Hour) // a clock that jumps back lets nobody in, and locks nobody out for long
	if got := count(1); got != 0 {
		t.Errorf("%d invitations in the past", got)
	}
	var e *matrix.Error
	if err := l.invite("@a:x", "@b:x", ""); !errors.As(err, &e) || e.Status != 429 || e.Extra["retry_after_ms"].(int64) <= 0 {
		t.Errorf("refused with %v", err)
	}
	if l := newLimits(false, time.Now); l.invite("@a:x", "@b:x", "!r:x") != nil {
		t.Error("limits that are off limit")
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(10, time.Now)
		begin := time.Now()
		for range 31 {
			if err := p.wait(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(begin); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("31 in %v, want ten at once and then ten a second", d)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := p.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("wait = %v", err)
		}
	})
}
