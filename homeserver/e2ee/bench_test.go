package e2ee

import (
	"context"
	"fmt"
	"testing"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// benchWorld is a service on SQLite with one device that has keys.
func benchWorld(b *testing.B) (*Service, *device) {
	b.Helper()
	ctx := context.Background()
	st, db, err := stream.Open(ctx, stream.Options{Storage: storage.Options{URL: storagetest.URL(b, "sqlite"), Log: storagetest.Quiet()}, Log: storagetest.Quiet()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	s := New(Deps{DB: db, Policy: &wall{denied: map[[2]string]bool{}}, Parties: census{}, Stream: st, Log: storagetest.Quiet()})
	d := &device{Caller: Caller{UserID: anna, DeviceID: "DEVICE"}, label: "x", key: newKey("x")}
	err = db.Update(ctx, func(tx *storage.Tx) error {
		if _, err := tx.InsertUser(&storage.User{ID: anna, Tenant: anna.Server(), Kind: "user"}); err != nil {
			return err
		}
		_, err := tx.PutDevice(storage.Device{UserID: anna, DeviceID: "DEVICE"})
		return err
	})
	if err == nil {
		_, err = s.UploadKeys(ctx, d.Caller, Upload{DeviceKeys: value(d.keys()), OneTimeKeys: value(d.batch("k", 50))})
	}
	if err != nil {
		b.Fatal(err)
	}
	return s, d
}

// BenchmarkCounts is what every response of /sync pays.
func BenchmarkCounts(b *testing.B) {
	s, d := benchWorld(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Counts(b.Context(), d.UserID, d.DeviceID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkQueryKeys(b *testing.B) {
	s, d := benchWorld(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.QueryKeys(b.Context(), d.Caller, query{anna: nil}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSendToDevice(b *testing.B) {
	s, d := benchWorld(b)
	n := 0
	for b.Loop() {
		n++
		if err := s.SendToDevice(b.Context(), d.Caller, "m.room.encrypted", fmt.Sprint(n), Messages{anna: {"DEVICE": content(n)}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClaimFallback(b *testing.B) {
	s, d := benchWorld(b)
	for range 50 {
		if _, err := s.ClaimKeys(b.Context(), d.Caller, one(anna, "DEVICE")); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := s.UploadKeys(b.Context(), d.Caller, Upload{FallbackKeys: value(map[string]any{"signed_curve25519:f": d.fallback("f")})}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := s.ClaimKeys(b.Context(), d.Caller, map[matrix.UserID]map[matrix.DeviceID]string{anna: {"DEVICE": "signed_curve25519"}})
		if err != nil || len(c.OneTimeKeys) != 1 {
			b.Fatal(c, err)
		}
	}
}
