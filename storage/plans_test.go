package storage

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// What depends on a room alone is asked once a room. Asked once an event, it made a sync of a room with thousands of unread events take
// minutes, and all others wait for a connection.
func TestPlans_NothingIsAskedForEachEvent(t *testing.T) {
	t.Parallel()
	db, err := Open(context.Background(), Options{URL: "sqlite:" + filepath.Join(t.TempDir(), "hansa.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for name, q := range map[string]struct {
		text string
		args []any
	}{"timelines": {timelinesSQL(), []any{"[]", 0, 0, 0}}, "unread": {unreadSQL(), []any{"[]", "", 0}}} {
		rows, err := db.sql.Query("EXPLAIN QUERY PLAN "+db.d.query(q.text), q.args...)
		if err != nil {
			t.Fatal(err)
		}
		parent, step := map[int]int{}, map[int]string{}
		for rows.Next() {
			var id, up, unused int
			var text string
			if err := rows.Scan(&id, &up, &unused, &text); err != nil {
				t.Fatal(err)
			}
			parent[id], step[id] = up, text
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		for id, text := range step {
			if strings.HasPrefix(text, "CORRELATED") && !strings.HasPrefix(step[parent[id]], "MATERIALIZE") {
				t.Errorf("%s: %q stands below %q", name, text, step[parent[id]])
			}
		}
		if len(step) < 4 {
			t.Errorf("%s: the plan was not understood: %v", name, step)
		}
	}
}
