package keyring

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const acme = matrix.ServerName("acme.example")

// published is what a ring says about the keys of acme.example, read as another server would.
func published(t *testing.T, r *Ring, now time.Time) (*answer, federation.ServerKeys) {
	t.Helper()
	b, err := r.OwnKeys(acme)
	if err != nil {
		t.Fatal(err)
	}
	a, err := parseAnswer(b, acme, acme, now)
	if err != nil {
		t.Fatal(err)
	}
	var keys federation.ServerKeys
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	return a, keys
}

func TestK153_KeysDiffer(t *testing.T) {
	t.Parallel()
	seen := map[signing.PublicKey]bool{}
	for range 1000 {
		seen[newKey(t).Public()] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different keys of 1000", len(seen))
	}
}

func TestOwnKeys_AreSignedAndRenewed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if err := w.Register(context.Background()); err != nil {
			t.Fatal(err)
		}
		_, first := published(t, w.Ring, w.clock())
		if len(first.VerifyKeys) != 1 || len(first.OldVerifyKeys) != 0 || first.ValidUntilTS != w.ms(ownValidity) {
			t.Errorf("published: %+v", first)
		}
		w.pass(ownRefresh)
		if _, second := published(t, w.Ring, w.clock()); second.ValidUntilTS != w.ms(ownValidity) {
			t.Errorf("valid until %d after an hour, want %d", second.ValidUntilTS, w.ms(ownValidity))
		}
		var m *matrix.Error
		if _, err := w.OwnKeys("stranger.example"); !errors.As(err, &m) || m.Status != 404 {
			t.Errorf("keys of a stranger: %v", err)
		}
	})
}

func TestK154_OwnKeyRotation(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		first, second, third := newKey(t), newKey(t), newKey(t)
		start := func(keys ...signing.Key) (*world, error) {
			w := newWorld(t, db, func(d *Deps) {
				d.Keys = map[matrix.ServerName]signing.Key{acme: keys[0]}
				d.Others = map[matrix.ServerName][]signing.Key{acme: keys[1:]}
			})
			return w, w.Register(ctx)
		}
		if _, err := start(first); err != nil {
			t.Fatal(err)
		}
		if _, err := start(first); err != nil {
			t.Errorf("a second node with the same key: %v", err)
		}
		if _, err := start(second); err == nil || !strings.Contains(err.Error(), string(first.ID)) {
			t.Errorf("a node with another key starts: %v", err)
		}
		reused := second
		reused.ID = first.ID
		if _, err := start(reused, first); err == nil {
			t.Error("a new key with the old ID is accepted")
		}
		w, err := start(second, first)
		if err != nil {
			t.Fatal(err)
		}
		a, keys := published(t, w.Ring, w.clock())
		if _, ok := keys.VerifyKeys[string(second.ID)]; !ok || len(keys.VerifyKeys) != 1 {
			t.Errorf("current keys: %v", keys.VerifyKeys)
		}
		if got := keys.OldVerifyKeys[string(first.ID)]; got.Key != first.Public().String() || got.ExpiredTS != w.ms(ownGrace) {
			t.Errorf("the old key is published as %+v", got)
		}
		// What either key has signed so far, and what the other nodes sign until they are started again, verifies.
		for _, c := range []struct {
			key  signing.Key
			at   int64
			want bool
		}{{first, w.ms(-time.Hour), true}, {first, w.ms(time.Minute), true}, {second, w.ms(0), true}, {first, w.ms(time.Hour), false}} {
			if k, _ := forEvent(a.keys, c.key.ID, c.at); (k != nil) != c.want {
				t.Errorf("key %s at %d counts: %v, want %v", c.key.ID, c.at, k != nil, c.want)
			}
			if _, err := w.PublicKey(ctx, acme, c.key.ID, c.at); (err == nil) != c.want {
				t.Errorf("our own look-up of %s at %d: %v", c.key.ID, c.at, err)
			}
		}
		if _, err := w.RequestKey(ctx, acme, first.ID); err == nil {
			t.Error("the old key counts for requests")
		}
		// The old line may go later; what was signed with it still verifies.
		w, err = start(second)
		if err != nil {
			t.Fatal(err)
		}
		if _, keys = published(t, w.Ring, w.clock()); keys.OldVerifyKeys[string(first.ID)].ExpiredTS != w.ms(ownGrace) {
			t.Errorf("the old key without its line: %+v", keys.OldVerifyKeys)
		}
		// Keys that come with a file from another server are old from the beginning.
		if w, err = start(second, third); err != nil {
			t.Fatal(err)
		}
		if _, keys = published(t, w.Ring, w.clock()); len(keys.OldVerifyKeys) != 2 {
			t.Errorf("old keys: %+v", keys.OldVerifyKeys)
		}
	})
}

func TestQuery_Notary(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		k := newKey(t)
		w.serve(far, says(t, far, k, w.ms(time.Hour), nil))
		ask := func(criteria map[string]federation.KeyCriteria, servers ...matrix.ServerName) int {
			t.Helper()
			want := map[matrix.ServerName]map[string]federation.KeyCriteria{}
			for _, s := range servers {
				want[s] = criteria
			}
			list, err := w.Query(ctx, acme, want)
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range list {
				name, _ := canonicaljson.String(func() []byte { v, _ := canonicaljson.Find(raw, "server_name"); return v }())
				if _, err := parseAnswer(raw, matrix.ServerName(name), far, w.clock()); err != nil {
					t.Errorf("answer about %s: %v", name, err)
				}
				if err := signing.VerifyJSON(raw, acme, w.Keys[acme].ID, w.Keys[acme].Public()); err != nil {
					t.Errorf("our signature on the answer about %s: %v", name, err)
				}
			}
			return len(list)
		}
		if n := ask(nil, far, acme, "dead.example", "not a server"); n != 2 {
			t.Errorf("%d answers, want 2", n)
		}
		before := w.requests()
		ask(map[string]federation.KeyCriteria{string(k.ID): {MinimumValidUntilTS: w.ms(time.Minute)}}, far)
		if n := w.requests() - before; n != 0 {
			t.Errorf("%d requests for what is known", n)
		}
		w.serve(far, says(t, far, k, w.ms(5*time.Hour), nil))
		ask(map[string]federation.KeyCriteria{"": {MinimumValidUntilTS: w.ms(2 * time.Hour)}}, far)
		if n := w.requests() - before; n != 1 {
			t.Errorf("%d requests for a longer time, want 1", n)
		}
		w.mu.Lock()
		clear(w.answers)
		w.mu.Unlock()
		w.pass(10 * time.Hour)
		if n := ask(map[string]federation.KeyCriteria{"ed25519:unknown": {}}, far); n != 1 {
			t.Errorf("%d answers about a server that is away, want what is known", n)
		}
		many := map[matrix.ServerName]map[string]federation.KeyCriteria{}
		for i := range maxQuery + 1 {
			many[matrix.ServerName("s"+strings.Repeat("x", i)+".example")] = nil
		}
		if _, err := w.Query(ctx, acme, many); err == nil {
			t.Error("a question about too many servers is answered")
		}
		if _, err := w.Query(ctx, "stranger.example", nil); err == nil {
			t.Error("a stranger answers")
		}
	})
}
