package e2ee

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"hansa/matrix"
)

type claims = map[matrix.UserID]map[matrix.DeviceID]string

func one(user matrix.UserID, device matrix.DeviceID) claims {
	return claims{user: {device: "signed_curve25519"}}
}

// claimed returns the names of the keys in an answer.
func claimed(c *Claimed) []string {
	var out []string
	for u, devices := range c.OneTimeKeys {
		for d, keys := range devices {
			for k := range keys {
				out = append(out, fmt.Sprintf("%s %s %s", u, d, k))
			}
		}
	}
	slices.Sort(out)
	return out
}

func TestClaimKeys_InUploadOrder(t *testing.T) {
	each(t, func(w *world) {
		d, b := w.device(anna, "DEVICE"), w.device(bert, "B")
		for _, id := range []string{"z", "a", "m"} {
			_, err := d.upload(nil, map[string]any{"signed_curve25519:" + id: d.oneTime(id)}, nil)
			w.must(err)
		}
		for _, id := range []string{"z", "a", "m"} {
			c, err := w.ClaimKeys(w.ctx, b.Caller, one(anna, "DEVICE"))
			w.must(err)
			want := string(value(d.oneTime(id)))
			if got := string(value(c.OneTimeKeys[anna]["DEVICE"]["signed_curve25519:"+id])); got != want {
				w.t.Errorf("claimed %s, want %s", got, want)
			}
		}
		c, err := w.ClaimKeys(w.ctx, b.Caller, one(anna, "DEVICE"))
		if w.must(err); len(c.OneTimeKeys) != 0 || len(c.Failures) != 0 {
			w.t.Errorf("claimed %v from a device without keys", claimed(c))
		}
	})
}

func TestClaimKeys_ManyAtATimeGetEachKeyOnce(t *testing.T) {
	each(t, func(w *world) {
		const devices, keys, claimers = 3, 40, 12
		want := claims{anna: {}}
		for i := range devices {
			id := matrix.DeviceID(fmt.Sprint("D", i))
			_, err := w.device(anna, id).upload(nil, w.device(anna, id).batch("k", keys), nil)
			w.must(err)
			want[anna][id] = "signed_curve25519"
		}
		b := w.device(bert, "B")
		var mu sync.Mutex
		seen := map[string]int{}
		var wg sync.WaitGroup
		errs := make(chan error, claimers)
		for range claimers {
			wg.Go(func() {
				for range keys {
					c, err := w.ClaimKeys(w.ctx, b.Caller, want)
					if err != nil {
						errs <- err
						return
					}
					mu.Lock()
					for _, k := range claimed(c) {
						seen[k]++
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			w.t.Error(err)
		}
		for k, n := range seen {
			if n != 1 {
				w.t.Errorf("%s was given out %d times", k, n)
			}
		}
		if len(seen) != devices*keys {
			w.t.Errorf("%d keys were given out, want %d", len(seen), devices*keys)
		}
	})
}

func TestClaimKeys_RepeatedUploadBringsNothingBack(t *testing.T) {
	each(t, func(w *world) {
		d, b := w.device(anna, "DEVICE"), w.device(bert, "B")
		_, err := d.upload(nil, d.batch("k", 2), nil)
		w.must(err)
		first, err := w.ClaimKeys(w.ctx, b.Caller, one(anna, "DEVICE"))
		w.must(err)
		counts, err := d.upload(nil, d.batch("k", 2), nil) // the client did not hear the answer and tries again
		w.must(err)
		if counts["signed_curve25519"] != 1 {
			w.t.Errorf("counts = %v, want 1", counts)
		}
		second, err := w.ClaimKeys(w.ctx, b.Caller, one(anna, "DEVICE"))
		w.must(err)
		third, err := w.ClaimKeys(w.ctx, b.Caller, one(anna, "DEVICE"))
		w.must(err)
		if len(claimed(second)) != 1 || slices.Equal(claimed(first), claimed(second)) || len(claimed(third)) != 0 {
			w.t.Errorf("claimed %v, %v, %v", claimed(first), claimed(second), claimed(third))
		}
	})
}

func TestC177_FallbackKeepsWorking(t *testing.T) {
	each(t, func(w *world) {
		d, b := w.device(anna, "DEVICE").ready(2), w.device(bert, "B")
		before := w.position()
		for i := range 50 {
			c, err := w.ClaimKeys(w.ctx, b.Caller, one(anna, "DEVICE"))
			w.must(err)
			got := claimed(c)
			if len(got) != 1 || (i >= 2) != (got[0] == "@anna:acme.example DEVICE signed_curve25519:fb") {
				w.t.Fatalf("claim %d gave %v", i, got)
			}
		}
		if n := w.position() - before; n != 3 {
			w.t.Errorf("50 claims took %d positions: draining costs writes", n)
		}
		// The same key again stays used; a new one is not.
		_, err := d.upload(nil, nil, map[string]any{"signed_curve25519:fb": d.fallback("fb")})
		w.must(err)
		if _, unused, err := w.Counts(w.ctx, anna, "DEVICE"); err != nil || len(unused) != 0 {
			w.t.Errorf("unused = %v, %v; want none", unused, err)
		}
		_, err = w.UploadKeys(w.ctx, d.Caller, Upload{UnstableFallbackKeys: value(map[string]any{"signed_curve25519:f2": d.fallback("f2")})})
		w.must(err)
		if _, unused, err := w.Counts(w.ctx, anna, "DEVICE"); err != nil || !slices.Equal(unused, []string{"signed_curve25519"}) {
			w.t.Errorf("unused = %v, %v", unused, err)
		}
	})
}

func TestP307_ClaimOfDeniedBurnsNoKey(t *testing.T) {
	each(t, func(w *world) {
		w.device(anna, "DEVICE").ready(3)
		b := w.device(bert, "B")
		c := w.device(cleo, "C").ready(1)
		w.wall.deny(bert, anna)
		want := claims{anna: {"DEVICE": "signed_curve25519"}, cleo: {"C": "signed_curve25519"}, ghost: {"X": "signed_curve25519"},
			far: {"Y": "signed_curve25519"}}
		got, err := w.ClaimKeys(w.ctx, b.Caller, want)
		w.must(err)
		if names := claimed(got); !slices.Equal(names, []string{"@cleo:globex.example C signed_curve25519:k0000"}) {
			w.t.Errorf("claimed %v", names)
		}
		if keys := slices.Collect(maps.Keys(got.Failures)); !slices.Equal(keys, []matrix.ServerName{"elsewhere.example"}) || len(got.Failures["elsewhere.example"]) != 0 {
			w.t.Errorf("failures = %v", got.Failures)
		}
		counts, unused, err := w.Counts(w.ctx, anna, "DEVICE")
		if w.must(err); counts["signed_curve25519"] != 3 || len(unused) != 1 {
			w.t.Errorf("counts = %v, %v: a key was burnt", counts, unused)
		}
		// Denied and unknown look the same.
		denied, err := w.ClaimKeys(w.ctx, b.Caller, one(anna, "DEVICE"))
		w.must(err)
		unknown, err := w.ClaimKeys(w.ctx, b.Caller, one(ghost, "DEVICE"))
		w.must(err)
		if string(value(denied)) != string(value(unknown)) {
			w.t.Errorf("denied %s, unknown %s", value(denied), value(unknown))
		}
		w.wall.fault = errors.New("engine")
		_, err = w.ClaimKeys(w.ctx, c.Caller, one(bert, "B"))
		w.refused(err, 503, matrix.CodeUnknown)
	})
}

func TestClaimKeys_BadRequests(t *testing.T) {
	each(t, func(w *world) {
		b := w.device(bert, "B")
		_, err := w.ClaimKeys(w.ctx, b.Caller, claims{"anna": {"DEVICE": "signed_curve25519"}})
		w.refused(err, 400, matrix.CodeInvalidParam)
		got, err := w.ClaimKeys(w.ctx, b.Caller, claims{anna: {"a\x00b": "x\x00y", "": ""}})
		if w.must(err); len(got.OneTimeKeys) != 0 {
			w.t.Errorf("claimed %v", claimed(got))
		}
	})
}
