// Package federation_test runs several servers in one process, which reach each other over TLS as strangers would.
package federation_test

import (
	"net/url"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// each runs a test with n servers on each database.
func each(t *testing.T, n int, fn func(t *testing.T, f *hstest.Federation)) {
	t.Helper()
	for _, db := range storagetest.Databases() {
		t.Run(db, func(t *testing.T) {
			t.Parallel()
			fn(t, hstest.NewFederation(t, n, func(_ int, o *hstest.Options) { o.Database = db }))
		})
	}
}

// via is the path of a join by way of a server.
func via(room string, s *hstest.Server) string {
	return "/join/" + hstest.Esc(room) + "?via=" + url.QueryEscape(string(s.Config.Tenants[0].Name))
}

// has tells whether a sync answer has a message of a room's timeline.
func has(room, body string) func(hstest.Answer) bool {
	return func(a hstest.Answer) bool {
		for _, e := range a.Timeline(room) {
			if c, ok := e["content"].(map[string]any); ok && c["body"] == body {
				return true
			}
		}
		return false
	}
}

// membership tells whether a sync answer says so of a user's membership.
func membership(room string, user matrix.UserID, want string) func(hstest.Answer) bool {
	return func(a hstest.Answer) bool {
		for _, e := range a.Timeline(room) {
			if c, ok := e["content"].(map[string]any); ok && e["type"] == "m.room.member" && e["state_key"] == string(user) && c["membership"] == want {
				return true
			}
		}
		state, _ := a.Get("rooms", "join", room, "state", "events").([]any)
		for _, v := range state {
			if e, ok := v.(map[string]any); ok && e["type"] == "m.room.member" && e["state_key"] == string(user) {
				if c, ok := e["content"].(map[string]any); ok && c["membership"] == want {
					return true
				}
			}
		}
		return false
	}
}

// versions are those room versions that a test goes through: all of them, on SQLite.
func versions(t *testing.T) []string {
	if strings.HasSuffix(t.Name(), "/postgres") {
		return []string{"1", "6", "11", "12"}
	}
	return matrix.RoomVersions()
}
