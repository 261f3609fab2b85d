package storage_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"hansa/storage"
	"hansa/storage/storagetest"
)

// A URL that does not say how much TLS is wanted does not send what is stored, and the password, in the clear.
func TestPostgres_TLSUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(storagetest.URL(t, "postgres"))
	must(t, err)
	q := u.Query()
	if q.Get("sslmode") != "disable" {
		t.Fatalf("the test expects a PostgreSQL without TLS, not %q", q.Get("sslmode"))
	}
	q.Del("sslmode")
	u.RawQuery = q.Encode()
	db, err := storage.Open(context.Background(), storage.Options{URL: u.String(), Log: storagetest.Quiet()})
	if err == nil {
		_ = db.Close()
		t.Fatal("it has connected without TLS")
	}
	if !strings.Contains(err.Error(), "TLS") {
		t.Errorf("it says %q, and nothing of TLS", err)
	}
}
