package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// things is everything that somebody keeps, as they see it themselves.
func things(t *testing.T, u *hstest.User, a aim) string {
	t.Helper()
	var out strings.Builder
	age := regexp.MustCompile(`"(age|last_seen_ts)":\d+`)
	esc, user := hstest.Esc, "/user/"+hstest.Esc(string(u.ID))
	for _, path := range []string{"/account/whoami", "/devices", "/profile/" + esc(string(u.ID)), user + "/account_data/org.example.note", user + "/account_data/m.direct",
		user + "/rooms/" + esc(a.room) + "/account_data/org.example.note", user + "/rooms/" + esc(a.room) + "/tags", user + "/filter/" + esc(a.filter), "/pushrules/", "/room_keys/version",
		"/room_keys/keys?version=" + esc(a.backup), "/joined_rooms", "/rooms/" + esc(a.room) + "/state"} {
		fmt.Fprintf(&out, "%s: %s\n", path, age.ReplaceAll(u.Must("GET", path, nil).Raw, nil))
	}
	fmt.Fprintf(&out, "keys: %s\n", u.Must("POST", "/keys/query", object{"device_keys": object{string(u.ID): []string{}}}).Raw)
	fmt.Fprintf(&out, "one-time keys: %s\n", u.Must("POST", "/keys/upload", object{}).Raw)
	fmt.Fprintf(&out, "media: %s\n", u.Must("GET", "/_matrix/client/v1/media/download/"+a.server+"/"+a.media, nil).Raw)
	return out.String()
}

// What belongs to somebody is theirs: another user of the same tenant, who may meet them and is in the same rooms, gets 403 or 404 on every
// route that names their user ID, devices, filters, data, rules or keys, and has no effect on any of it.
func TestC173_OtherUsersObjects(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: worldPolicy()}, func(t *testing.T, s *hstest.Server) {
		w := &camps{t: t, s: s, seen: map[string]bool{}, canaries: &canaries{t: t, shared: map[string]bool{}, labels: map[string]bool{}}}
		w.camp("staff", "acme.example", "pia", "paul", "", "", "")
		c := w.all[0]
		w.fill(c)
		owner, thief := c.owner, c.fellow
		a := c.aims[0]
		before := things(t, owner, a)
		owner.Sync(0)
		// Routes that name somebody and that everybody may call about everybody they may meet.
		read := []string{"GET /_matrix/client/v3/profile/{userId}", "GET /_matrix/client/v3/profile/{userId}/{keyName}", "GET /_matrix/client/v3/presence/{userId}/status"}
		own := []string{"{userId}", "{deviceId}", "{filterId}"}
		n := 0
		for _, e := range s.API.Table() {
			name := e.Method + " " + e.Paths[0]
			if slices.Contains(read, name) || !slices.ContainsFunc(own, func(p string) bool { return strings.Contains(e.Paths[0], p) }) {
				continue
			}
			for _, req := range calls(t, e, a, &w.txn) {
				n++
				got := thief.Try(req.method, req.path, req.body)
				if challenge := got.Status == 401 && got.Get("flows") != nil; challenge { // whoever then proves to be themselves still has no such device
					b, _ := req.body.(object)
					if b == nil {
						b = object{}
					}
					b["auth"] = object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": thief.ID}, "password": hstest.Password, "session": got.String("session")}
					got = thief.Try(req.method, req.path, b)
					if got.Status == 200 {
						continue // as if it had been deleted already; see below that it was not
					}
				}
				if got.Status != 403 && got.Status != 404 || got.Code() != "M_FORBIDDEN" && got.Code() != "M_NOT_FOUND" {
					t.Errorf("%s: %d %s, want 403 or 404", req, got.Status, got.Raw)
				}
				for _, k := range w.canaries.found(got.Raw, "staff", true) {
					if !w.canaries.shared[k.text] {
						t.Errorf("%s: the answer holds %q: %s", req, k.label, got.Raw)
					}
				}
			}
		}
		// Objects that are named in the body, or only by the session.
		for _, req := range []call{
			{method: "POST", path: "/delete_devices", body: object{"devices": []string{a.device}}},
			{method: "GET", path: "/room_keys/version/" + a.backup}, {method: "GET", path: "/room_keys/keys?version=" + a.backup},
			{method: "PUT", path: "/room_keys/keys?version=" + a.backup, body: object{"rooms": object{a.room: object{"sessions": object{"s": session("mine")}}}}},
			{method: "DELETE", path: "/room_keys/keys?version=" + a.backup}, {method: "DELETE", path: "/room_keys/version/" + a.backup},
			{method: "GET", path: "/pushrules/global/content/work"}, {method: "DELETE", path: "/pushrules/global/content/work"},
			{method: "PUT", path: "/_matrix/media/v3/upload/" + a.server + "/" + a.media, body: []byte("mine")},
			{method: "POST", path: "/keys/upload", body: object{"device_keys": object{"user_id": a.user, "device_id": a.device, "algorithms": []string{}, "keys": object{}, "signatures": object{}}}},
			{method: "POST", path: "/keys/device_signing/upload", body: object{"master_key": a.keyObject}},
			{method: "PUT", path: "/rooms/" + hstest.Esc(a.room) + "/redact/" + hstest.Esc(a.event) + "/" + thief.Txn(), body: object{}},
			{method: "PUT", path: "/rooms/" + hstest.Esc(a.room) + "/state/m.room.member/" + hstest.Esc(a.user), body: object{"membership": "join", "displayname": "mine"}},
			{method: "PUT", path: "/rooms/" + hstest.Esc(a.room) + "/state/org.example/" + hstest.Esc(a.user), body: object{"mine": "now"}},
			{method: "DELETE", path: "/directory/room/" + hstest.Esc(a.alias)},
		} {
			n++
			got := thief.Try(req.method, req.path, req.body)
			if got.Status == 401 && got.Get("flows") != nil {
				req.body.(object)["auth"] = object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": thief.ID}, "password": hstest.Password, "session": got.String("session")}
				got = thief.Try(req.method, req.path, req.body)
			} else if got.Status == 200 && req.method != "DELETE" || got.Status >= 500 {
				t.Errorf("%s: %d %s", req, got.Status, got.Raw)
			}
		}
		if after := things(t, owner, a); after != before {
			x, y := strings.Split(before, "\n"), strings.Split(after, "\n")
			for i := range x {
				if x[i] != y[i] {
					t.Errorf("something has changed:\nbefore %.600s\nafter  %.600s", x[i], y[i])
				}
			}
		}
		if got := owner.Sync(0); got.Get("rooms") != nil && !onlyStopped(got.Get("rooms")) || got.Get("account_data") != nil || got.Get("to_device") != nil {
			t.Errorf("the owner got something: %s", got.Raw)
		}
		if n < 50 {
			t.Errorf("%d requests", n)
		}
	})
}
