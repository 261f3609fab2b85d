package account

import (
	"context"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/storage"
)

func (k *kit) device(user matrix.UserID, id matrix.DeviceID) (d storage.Device) {
	k.t.Helper()
	must(k.t, k.DB.Read(context.Background(), func(tx *storage.Tx) (err error) {
		d, err = tx.LoadDevice(user, id)
		return err
	}))
	return d
}

func TestSeen_IsGatheredAndWrittenLater(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, nil)
		seen := func() storage.Device { return k.device(anna, by.DeviceID) }
		first := seen()
		if first.LastSeenIP != "192.0.2.1" || first.LastSeenAgent != "test" || first.LastSeenTS == 0 {
			t.Errorf("after login: %+v", first)
		}
		k.pass(time.Minute)
		k.Seen(by.Session, from("192.0.2.2"))
		must(t, k.FlushSeen(ctx))
		if d := seen(); d != first {
			t.Errorf("a minute later: %+v", d)
		}
		k.pass(5 * time.Minute)
		before := k.DB.Stats().Commits
		for range 100 {
			k.Seen(by.Session, from("192.0.2.3"))
		}
		must(t, k.FlushSeen(ctx))
		must(t, k.FlushSeen(ctx))
		if d := seen(); d.LastSeenIP != "192.0.2.3" || d.LastSeenTS != k.clock().UnixMilli() {
			t.Errorf("six minutes later: %+v", d)
		}
		if n := k.DB.Stats().Commits - before; n != 1 {
			t.Errorf("%d commits", n)
		}
		ctx2, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx2) }()
		k.pass(5 * time.Minute)
		k.Seen(by.Session, from("192.0.2.4"))
		stop()
		must(t, <-done)
		if d := seen(); d.LastSeenIP != "192.0.2.4" {
			t.Errorf("after the server stopped: %+v", d)
		}
		k.Seen(by.Session, from("192.0.2.5"))
		must(t, k.Logout(ctx, by))
		must(t, k.FlushSeen(ctx))
		if list, err := k.Devices(ctx, by); err != nil || len(list) != 0 {
			t.Errorf("a device came back: %v %v", list, err)
		}
	})
}

// A login tells where a device is now, whatever was noted of it before, and at whatever time: two logins may share a millisecond, and
// clocks are set back.
func TestSeen_OfALoginIsTheLast(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		login := func(ip string) Caller {
			t.Helper()
			a, err := k.Login(ctx, acme, from(ip), LoginRequest{Type: StagePassword, User: "anna", Password: secret, DeviceID: "D"})
			must(t, err)
			return k.caller(a.AccessToken)
		}
		want := func(what, ip string) {
			t.Helper()
			if d := k.device(anna, "D"); d.LastSeenIP != ip || d.LastSeenTS != k.clock().UnixMilli() {
				t.Errorf("%s: %s at %d, want %s at %d", what, d.LastSeenIP, d.LastSeenTS, ip, k.clock().UnixMilli())
			}
		}
		login("192.0.2.1")
		login("192.0.2.2")
		want("two logins in one millisecond", "192.0.2.2")
		k.pass(-time.Second)
		by := login("192.0.2.3")
		want("the clock was set back", "192.0.2.3")
		k.pass(time.Hour)
		k.Seen(by.Session, from("192.0.2.4"))
		k.pass(-time.Minute)
		login("192.0.2.5")
		must(t, k.FlushSeen(ctx))
		want("a use before the login is written after it", "192.0.2.5")
	})
}

// Of two uses the later is kept, whichever is noted and written first, and none is lost when the database is away.
func TestSeen_KeepsTheLatest(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, nil)
		use := func(ip string, after time.Duration) storage.Seen {
			return storage.Seen{UserID: anna, DeviceID: by.DeviceID, IP: ip, TS: k.clock().Add(after).UnixMilli()}
		}
		want := func(what, ip string) {
			t.Helper()
			must(t, k.FlushSeen(ctx))
			if d := k.device(anna, by.DeviceID); d.LastSeenIP != ip {
				t.Errorf("%s: %s, want %s", what, d.LastSeenIP, ip)
			}
		}
		k.gather(use("192.0.2.3", 2*time.Second))
		k.gather(use("192.0.2.2", time.Second)) // was noted first and had to wait
		want("noted in the wrong order", "192.0.2.3")
		k.gather(use("192.0.2.2", time.Second))
		want("written in the wrong order", "192.0.2.3")
		last := use("192.0.2.4", 3*time.Second)
		k.gather(last)
		must(t, k.DB.Close())
		if err := k.FlushSeen(ctx); err == nil || k.seen[deviceKey{anna, by.DeviceID}] != last {
			t.Errorf("the database is away: %v, and %v is kept", err, k.seen)
		}
	})
}
