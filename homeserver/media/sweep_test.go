package media

import (
	"context"
	"errors"
	"testing"
	"time"

	"hansa/storage"
)

func TestSweep_RemovesWhatNothingRefersTo(t *testing.T) {
	each(t, func(t *testing.T, k *kit) {
		at := k.upload(anna, "image/png", pngOf(t, halves(100, 100)))
		_, _, err := k.thumb(anna, at, 32, 32, "crop")
		must(t, err)
		d, err := k.store.create()
		must(t, errors.Join(err, d.Close()))
		for _, name := range []string{newID() + ".abcdefgh", at.ID + ".other", at.ID + ".crop-32x32.other"} {
			d, err := k.store.create()
			must(t, err)
			must(t, d.keep(acme, name))
		}
		must(t, k.sweep(t.Context()))
		if n := len(k.files()); n != 6 {
			t.Errorf("%d files, want 6: young ones stay", n)
		}
		k.pass(25 * time.Hour)
		must(t, k.sweep(t.Context()))
		if n := len(k.files()); n != 2 {
			t.Errorf("%d files, want 2: %v", n, k.files())
		}
		if _, err := k.read(anna, at); err != nil {
			t.Error(err)
		}
		_, _, err = k.thumb(anna, at, 32, 32, "crop")
		must(t, err)
		// A database that knows none of many files is the wrong one.
		for range 12 {
			d, err := k.store.create()
			must(t, err)
			must(t, d.keep(globex, newID()+".x"))
		}
		k.pass(25 * time.Hour)
		must(t, k.sweep(t.Context()))
		if n := len(k.files()); n != 14 {
			t.Errorf("%d files, want 14: nothing is removed below a wrong database", n)
		}
	})
}

func TestRun_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	k := one(t)
	k.upload(anna, "", []byte("x"))
	must(t, k.DB.Update(t.Context(), func(tx *storage.Tx) error { return k.DeleteUserMedia(tx, anna) }))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	for len(k.files()) > 0 && ctx.Err() == nil {
		select {
		case <-done:
			t.Fatal("it ended too early")
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	must(t, <-done)
}
