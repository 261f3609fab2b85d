package storage_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hansa/storage"
	"hansa/storage/storagetest"
)

func TestSearchDecisions(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		base := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC).UnixMilli()
		var list []storage.Decision
		for i := range 20 {
			list = append(list, storage.Decision{ID: fmt.Sprint("d", i), TS: base + int64(i), Tenant: []string{"acme.example", "globex.example"}[i%2],
				Point: []string{"room.invite", "contact"}[i/10], Subject: fmt.Sprintf("@u%d:x", i%4), Target: "@t:x", Room: "!r:x", Allow: i%5 == 0, Detail: []byte(`{}`)})
		}
		if err := db.Update(t.Context(), func(tx *storage.Tx) error { return tx.AppendDecisions(append([]storage.Decision(nil), list...)) }); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			filter storage.DecisionFilter
			limit  int
			want   []string
		}{
			{"newest", storage.DecisionFilter{}, 2, []string{"d19", "d18"}},
			{"next page", storage.DecisionFilter{Before: 19}, 2, []string{"d17", "d16"}},
			{"tenant", storage.DecisionFilter{Tenant: "acme.example"}, 2, []string{"d18", "d16"}},
			{"point and answer", storage.DecisionFilter{Point: "contact", Allow: "true"}, 9, []string{"d15", "d10"}},
			{"denied", storage.DecisionFilter{Allow: "false", Subject: "@u0:x", Target: "@t:x", Room: "!r:x"}, 2, []string{"d16", "d12"}},
			{"time", storage.DecisionFilter{Since: base + 3, Until: base + 5}, 9, []string{"d4", "d3"}},
			{"nobody", storage.DecisionFilter{Subject: "@nobody:x"}, 9, nil},
		} {
			var got []string
			err := db.Read(t.Context(), func(tx *storage.Tx) error {
				found, err := tx.SearchDecisions(c.filter, c.limit)
				for _, d := range found {
					got = append(got, d.ID)
				}
				return err
			})
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("%s: %v (-want +got)\n%s", c.name, err, diff)
			}
		}
	})
}
