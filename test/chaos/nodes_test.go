package chaos

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"hansa/storage"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// A token may be of a position that this process has not heard of: another node wrote it, or its own commit a moment ago is in the database
// and not yet in memory. Only the database can say that a token is of no server.
func TestSync_TakesPositionsThatAreInTheDatabaseOnly(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	s := hstest.New(t, hstest.Options{Database: url})
	anna := s.User("anna")
	other := storagetest.Open(t, storage.Options{URL: url})
	for i := range 5 {
		if err := other.Update(context.Background(), func(tx *storage.Tx) error { return tx.Announce("chaos", fmt.Sprint(i)) }); err != nil {
			t.Fatal(err)
		}
		var pos int64
		if err := other.Read(context.Background(), func(tx *storage.Tx) (err error) { pos, err = tx.Position(); return err }); err != nil {
			t.Fatal(err)
		}
		if a := anna.Try("GET", fmt.Sprint("/sync?timeout=0&since=s", pos), nil); a.Status != 200 || !strings.HasPrefix(a.String("next_batch"), "s") {
			t.Errorf("a sync since position %d, which another node has just written, is answered %d %s", pos, a.Status, a.Raw)
		}
	}
	if a := anna.Try("GET", "/sync?timeout=0&since=s99999999", nil); a.Status != 400 || a.Code() != "M_INVALID_PARAM" {
		t.Errorf("a token of no server is answered %d %s", a.Status, a.Raw)
	}
}
