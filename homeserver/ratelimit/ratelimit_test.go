package ratelimit_test

import (
	"fmt"
	"testing"
	"time"

	"hansa/homeserver/ratelimit"
)

func TestC157_LimitsAreBoundedAndFair(t *testing.T) {
	t.Parallel()
	const most = 50_000
	at := time.UnixMilli(1_800_000_000_000)
	b := ratelimit.New(3, time.Second, func() time.Time { return at })
	for range 3 {
		if _, ok := b.Take("victim"); !ok {
			t.Fatal("refused too early")
		}
	}
	if wait, ok := b.Take("victim"); ok || wait != time.Second {
		t.Errorf("the fourth try waits %v", wait)
	}
	for i := range 3 * most {
		b.Take(fmt.Sprint("noise", i))
	}
	if b.Len() > most {
		t.Errorf("%d buckets", b.Len())
	}
	if _, ok := b.Take("victim"); ok {
		t.Error("noise has filled the victim's bucket again")
	}
	at = at.Add(-24 * time.Hour)
	if wait, _ := b.Take("victim"); wait > 3*time.Second {
		t.Errorf("a clock that jumped back makes it wait %v", wait)
	}
	b.GiveBack("victim")
	if _, ok := b.Take("victim"); !ok {
		t.Error("what was given back is not there")
	}
}
