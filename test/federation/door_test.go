package federation_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa/config"
	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// refusals counts the decisions about a server in the decision log.
func refusals(t *testing.T, s *hstest.Server, server string) (n int) {
	t.Helper()
	var list []storage.Decision
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) (err error) {
		list, err = tx.LoadDecisions("", 0, 10000)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if d.Subject == server {
			n++
			if d.Allow || strings.Contains(string(d.Detail), "canary") {
				t.Errorf("record %s: allow %v, %s", d.ID, d.Allow, d.Detail)
			}
		}
	}
	return n
}

// A server without an agreement: 403 on everything, whether what it names exists or not; its keys are not looked up, nothing is stored, and there
// is one record. With an agreement it works; suspended, it is refused in the very next request, on an open connection too.
func TestR333_R351_R353_StrangerAtTheDoor(t *testing.T) {
	t.Parallel()
	for _, db := range storagetest.Databases() {
		t.Run(db, func(t *testing.T) {
			t.Parallel()
			f := hstest.NewFederation(t, 1, func(_ int, o *hstest.Options) {
				o.Database = db
				o.Change = func(c *config.Config) { c.Federation.DefaultPartners = []string{} }
			})
			one := f.Servers[0]
			o := f.Outsider(hstest.Outside)
			anna := one.User("anna")
			room := anna.CreateRoom(object{"preset": "public_chat"})
			now := time.Now().UnixMilli()
			transaction := object{"origin": o.Name, "origin_server_ts": now, "pdus": []any{object{"room_id": room, "type": "canary", "sender": "@x:" + hstest.Outside}},
				"edus": []any{object{"edu_type": "m.direct_to_device", "content": object{"sender": "@x:" + hstest.Outside, "type": "canary", "message_id": "1",
					"messages": object{string(anna.ID): object{"*": object{}}}}}}}
			const fed = "/_matrix/federation/"
			requests := []struct {
				method, path string
				body         any
			}{
				{"PUT", fed + "v1/send/1", transaction},
				{"GET", fed + "v1/make_join/" + hstest.Esc(room) + "/@x:" + hstest.Outside + "?ver=12", nil},
				{"GET", fed + "v1/make_join/" + hstest.Esc("!absent:one.example") + "/@x:" + hstest.Outside + "?ver=12", nil},
				{"PUT", fed + "v2/send_join/" + hstest.Esc(room) + "/$x", object{}},
				{"GET", fed + "v1/make_knock/" + hstest.Esc(room) + "/@x:" + hstest.Outside + "?ver=12", nil},
				{"PUT", fed + "v1/send_knock/" + hstest.Esc(room) + "/$x", object{}},
				{"GET", fed + "v1/make_leave/" + hstest.Esc(room) + "/@x:" + hstest.Outside, nil},
				{"PUT", fed + "v2/invite/" + hstest.Esc(room) + "/$x", object{"room_version": "12", "event": object{"state_key": string(anna.ID), "type": "m.room.member"}}},
				{"PUT", fed + "v2/invite/" + hstest.Esc(room) + "/$x", object{"room_version": "12", "event": object{"state_key": "@absent:one.example", "type": "m.room.member"}}},
				{"GET", fed + "v1/query/profile?user_id=" + hstest.Esc(string(anna.ID)), nil},
				{"GET", fed + "v1/query/profile?user_id=@absent:one.example", nil},
				{"GET", fed + "v1/query/directory?room_alias=%23x:one.example", nil},
				{"GET", fed + "v1/publicRooms", nil},
				{"GET", fed + "v1/state/" + hstest.Esc(room) + "?event_id=$x", nil},
				{"GET", fed + "v1/backfill/" + hstest.Esc(room) + "?v=$x&limit=10", nil},
				{"POST", fed + "v1/get_missing_events/" + hstest.Esc(room), object{"earliest_events": []string{}, "latest_events": []string{}}},
				{"GET", fed + "v1/event/$x", nil},
				{"POST", fed + "v1/user/keys/query", object{"device_keys": object{string(anna.ID): []string{}}}},
				{"POST", fed + "v1/user/keys/claim", object{"one_time_keys": object{}}},
				{"GET", fed + "v1/user/devices/" + hstest.Esc(string(anna.ID)), nil},
				{"GET", fed + "v1/media/download/x", nil},
			}
			before := one.Stream.Position()
			var first string
			for _, r := range requests {
				a := o.Do(r.method, "one.example", r.path, r.body)
				if a.Status != http.StatusForbidden || a.Code() != "M_FORBIDDEN" || a.String("org.hansa.decision_id") == "" {
					t.Errorf("%s %s: %d %s, want 403", r.method, r.path, a.Status, a.Raw)
				}
				if first == "" {
					first = string(a.Raw)
				}
				if !strings.Contains(r.path, "leave") && string(a.Raw) != first {
					t.Errorf("%s %s: %s, want the same answer as to everything else: %s", r.method, r.path, a.Raw, first)
				}
			}
			if n := len(o.Requests); n != 0 {
				t.Errorf("%d requests were made of a server that is no partner: %s", n, <-o.Requests)
			}
			if after := one.Stream.Position(); after != before {
				t.Errorf("%d positions were written for a server that is no partner", after-before)
			}
			if n := refusals(t, one, hstest.Outside); n != 1 {
				t.Errorf("%d records, want one", n)
			}

			partner(t, one, "approve", hstest.Outside)
			if a := o.Do("PUT", "one.example", fed+"v1/send/2", object{"origin": o.Name, "origin_server_ts": now, "pdus": []any{}}); a.Status != 200 {
				t.Errorf("a partner: %d %s", a.Status, a.Raw)
			}
			partner(t, one, "suspend", hstest.Outside)
			if a := o.Do("PUT", "one.example", fed+"v1/send/3", object{"origin": o.Name, "origin_server_ts": now, "pdus": []any{}}); a.Status != 403 {
				t.Errorf("a suspended partner on an open connection: %d %s", a.Status, a.Raw)
			}
		})
	}
}

// Another name for a server that is refused is another stranger, whatever address it comes from.
func TestR346_R369_AnotherName(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, func(_ int, o *hstest.Options) {
		o.Change = func(c *config.Config) { c.Federation.DefaultPartners = []string{} }
	})
	one := f.Servers[0]
	partner(t, one, "approve", hstest.Outside)
	good, evil := f.Outsider(hstest.Outside), f.Outsider(hstest.Stranger)
	body := object{"origin": good.Name, "origin_server_ts": time.Now().UnixMilli(), "pdus": []any{}}
	for name, c := range map[string]struct {
		claims matrix.ServerName
		want   int
	}{"itself": {hstest.Stranger, 403}, "the partner": {hstest.Outside, 401}} {
		forged := *evil
		forged.Name = c.claims
		if a := forged.Do("PUT", "one.example", "/_matrix/federation/v1/send/1", body); a.Status != c.want {
			t.Errorf("a stranger that says it is %s: %d %s, want %d", name, a.Status, a.Raw, c.want)
		}
	}
	if a := good.Do("PUT", "one.example", "/_matrix/federation/v1/send/2", body); a.Status != 200 {
		t.Errorf("the partner: %d %s", a.Status, a.Raw)
	}
	if n := len(evil.Requests); n != 0 {
		t.Errorf("%d requests were made of the stranger", n)
	}
}

// A suspension on one node holds on the others within a second.
func TestR357_SuspensionOnEveryNode(t *testing.T) {
	t.Parallel()
	if !slices.Contains(storagetest.Databases(), "postgres") {
		t.Fatal("several nodes need PostgreSQL")
	}
	first := hstest.New(t, hstest.Options{Database: "postgres", Tenants: []string{"one.example"}})
	second := hstest.New(t, hstest.Options{NodeOf: first})
	ctx := context.Background()
	// agrees waits until the second node answers as wanted, and tells how long that took.
	agrees := func(want int) time.Duration {
		t.Helper()
		start := time.Now()
		limit, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for {
			changed := second.Policy.Changed()
			err := second.Door.Inbound(ctx, "one.example", "two.example")
			var refused *matrix.Error
			if want == 200 && err == nil || errors.As(err, &refused) && refused.Status == want {
				return time.Since(start)
			}
			select {
			case <-changed:
			case <-limit.Done():
				t.Fatalf("the other node says %v, want %d", err, want)
			}
		}
	}
	agrees(403)
	best := time.Hour // the machine may be busy with something else now and then
	for range 3 {
		partner(t, first, "approve", "two.example")
		agrees(200)
		partner(t, first, "suspend", "two.example")
		best = min(best, agrees(403))
	}
	if best > time.Second {
		t.Errorf("a suspension took %v to reach the other node, want a second at most", best)
	}
}
