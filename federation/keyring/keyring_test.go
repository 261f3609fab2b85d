package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/outbound"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const far = matrix.ServerName("far.example")

// world is a ring, its clock, and the servers that it can ask.
type world struct {
	*Ring
	t     *testing.T
	nowNS atomic.Int64
	mu    sync.Mutex
	// answers are the bodies by server and path; without one the server cannot be reached.
	answers map[string][]byte
	// notaries answer questions about many servers; what they return is their body.
	notaries map[matrix.ServerName]func(q federation.KeyQuery) []byte
	asked    []string
	denied   map[matrix.ServerName]error
}

func newWorld(t *testing.T, db *storage.DB, change ...func(*Deps)) *world {
	t.Helper()
	w := &world{t: t, answers: map[string][]byte{}, denied: map[matrix.ServerName]error{}}
	w.nowNS.Store(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	d := Deps{DB: db, Servers: w, Log: storagetest.Quiet(), Now: w.clock, Keys: map[matrix.ServerName]signing.Key{"acme.example": newKey(t)},
		Allowed: func(_ context.Context, s matrix.ServerName) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.denied[s]
		}}
	for _, fn := range change {
		fn(&d)
	}
	r, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	w.Ring = r
	return w
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) { fn(t, newWorld(t, db)) })
}

func (w *world) clock() time.Time         { return time.Unix(0, w.nowNS.Load()) }
func (w *world) pass(d time.Duration)     { w.nowNS.Add(int64(d)) }
func (w *world) ms(d time.Duration) int64 { return w.clock().Add(d).UnixMilli() }

// Do answers for the other servers.
func (w *world) Do(_ context.Context, server matrix.ServerName, r outbound.Request) (*outbound.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, string(server)+r.Path)
	if notary := w.notaries[server]; notary != nil && r.Method == http.MethodPost && r.Path == "/_matrix/key/v2/query" {
		var q federation.KeyQuery
		if err := json.Unmarshal(r.Body, &q); err != nil {
			return nil, err
		}
		body := notary(q)
		if int64(len(body)) > r.MaxBody {
			return nil, outbound.ErrTooLarge
		}
		return &outbound.Response{Status: 200, Body: body}, nil
	}
	body, ok := w.answers[string(server)+r.Path]
	if !ok {
		return nil, outbound.ErrUnreachable
	}
	return &outbound.Response{Status: 200, Body: body}, nil
}

func (w *world) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked)
}

func (w *world) serve(server matrix.ServerName, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[string(server)+"/_matrix/key/v2/server"] = body
}

func newKey(t testing.TB) signing.Key {
	t.Helper()
	k, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// says is the signed answer of a server with one current key.
func says(t testing.TB, server matrix.ServerName, key signing.Key, until int64, old map[string]federation.OldVerifyKey, more ...signing.Key) []byte {
	t.Helper()
	a := federation.ServerKeys{ServerName: server, ValidUntilTS: until, OldVerifyKeys: old, VerifyKeys: map[string]federation.VerifyKey{}}
	for _, k := range append(more, key) {
		a.VerifyKeys[string(k.ID)] = federation.VerifyKey{Key: k.Public().String()}
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, b, server, key)
}

func sign(t testing.TB, b []byte, server matrix.ServerName, key signing.Key) []byte {
	t.Helper()
	b, err := signing.SignJSON(b, server, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func old(k signing.Key, expired int64) map[string]federation.OldVerifyKey {
	return map[string]federation.OldVerifyKey{string(k.ID): {Key: k.Public().String(), ExpiredTS: expired}}
}

// event checks whether a key counts for an event, request whether it does for a request.
func (w *world) event(what string, k signing.Key, at int64, want bool) {
	w.t.Helper()
	got, err := w.PublicKey(context.Background(), far, k.ID, at)
	w.judge(what, k, got, err, want)
}

func (w *world) request(what string, k signing.Key, want bool) {
	w.t.Helper()
	got, err := w.RequestKey(context.Background(), far, k.ID)
	w.judge(what, k, got, err, want)
}

func (w *world) judge(what string, k signing.Key, got signing.PublicKey, err error, want bool) {
	w.t.Helper()
	if ok := err == nil && got == k.Public(); ok != want {
		w.t.Errorf("%s: %v, %v; want it to count: %v", what, got, err, want)
	}
	if err != nil && !errors.Is(err, ErrNoKey) {
		w.t.Errorf("%s: %v does not wrap ErrNoKey", what, err)
	}
}

func TestRing_AsksOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		k := newKey(t)
		w.serve(far, says(t, far, k, w.ms(time.Hour), nil))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { w.event("at the same time", k, w.ms(0), true) })
		}
		wg.Wait()
		w.request("later", k, true)
		if n := w.requests(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		again := newWorld(t, w.DB)
		again.event("after a restart", k, w.ms(0), true)
		if n := again.requests(); n != 0 {
			t.Errorf("%d requests after a restart", n)
		}
	})
}

func TestK141_ValidUntilIsCapped(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		k := newKey(t)
		w.serve(far, says(t, far, k, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(), nil))
		w.event("within a week", k, w.ms(7*24*time.Hour-time.Minute), true)
		w.event("beyond a week", k, w.ms(7*24*time.Hour+time.Minute), false)
		w.event("where time does not count", k, 0, true)

		past := newKey(t)
		w.pass(time.Hour)
		w.serve(far, says(t, far, past, w.ms(-time.Hour), nil))
		w.event("before the end", past, w.ms(-2*time.Hour), true)
		w.event("after the end", past, w.ms(0), false)
		w.request("after the end", past, false)
	})
	for _, value := range []string{`"9999999999999"`, `null`, `1.5`, `{}`, ``, `99999999999999999999`} {
		k := newKey(t)
		member := `,"valid_until_ts":` + value
		if value == "" {
			member = ""
		}
		body := fmt.Sprintf(`{"server_name":"far.example","verify_keys":{%q:{"key":%q}}%s}`, k.ID, k.Public(), member)
		if b, err := signing.SignJSON([]byte(body), far, k); err == nil {
			body = string(b)
		}
		if _, err := parseAnswer([]byte(body), far, far, time.Now()); !errors.Is(err, ErrBadAnswer) {
			t.Errorf("valid_until_ts %s: %v, want ErrBadAnswer", value, err)
		}
	}
}

func TestK142_RetiredKey(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		before, now := newKey(t), newKey(t)
		w.serve(far, says(t, far, now, w.ms(time.Hour), old(before, w.ms(-time.Hour))))
		w.event("until it was retired", before, w.ms(-time.Hour), true)
		w.event("after it was retired", before, w.ms(-time.Hour+time.Millisecond), false)
		w.event("the new one", now, w.ms(0), true)
	})
}

func TestF89_OldKeysAreNotForRequests(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		before, now := newKey(t), newKey(t)
		w.serve(far, says(t, far, now, w.ms(time.Hour), old(before, w.ms(time.Hour))))
		w.request("an old key", before, false)
		w.request("the current key", now, true)
		w.pass(2 * time.Hour)
		w.mu.Lock()
		clear(w.answers)
		w.mu.Unlock()
		w.request("a key past its time", now, false)
		w.event("the same for an event of then", now, w.ms(-time.Hour-time.Minute), true)
	})
}

func TestRing_RotationIsNoticed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		first, second := newKey(t), newKey(t)
		w.serve(far, says(t, far, first, w.ms(24*time.Hour), nil))
		w.request("the first", first, true)
		w.pass(time.Second)
		w.serve(far, says(t, far, second, w.ms(24*time.Hour), old(first, w.ms(0))))
		w.request("the second", second, true)
		w.request("the first, retired", first, false)
		w.event("an event of before", first, w.ms(-time.Minute), true)
		third := newKey(t)
		w.pass(time.Minute)
		w.serve(far, says(t, far, third, w.ms(24*time.Hour), nil)) // the second is not published any more
		w.request("the third", third, true)
		w.request("the second, gone", second, false)
		w.event("an event of before by the second", second, w.ms(-time.Minute), true)
		w.event("an event of the future by the second", second, w.ms(time.Hour), false)
	})
}

func TestK143_KeyIDReuse(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		first := newKey(t)
		second := signing.Key{ID: first.ID, Private: newKey(t).Private}
		w.serve(far, says(t, far, first, w.ms(time.Hour), nil))
		w.event("the first", first, w.ms(0), true)
		changed := 2 * time.Hour
		w.pass(changed)
		w.serve(far, says(t, far, second, w.ms(time.Hour), nil))
		w.event("an event of the first's time", first, w.ms(-changed), true)
		w.request("the second", second, true)
		w.event("an event of now", second, w.ms(time.Minute), true)
		w.event("an event of then", first, w.ms(-changed+time.Minute), true)
		if w.requests() < 2 {
			t.Error("the second was not fetched")
		}
	})
}

func TestK145_NotaryPoisoning(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		good, notaryKey := newKey(t), newKey(t)
		forged := signing.Key{ID: good.ID, Private: newKey(t).Private}
		other := newKey(t)
		vouch := func(body []byte) {
			b, err := json.Marshal(federation.KeyQueryAnswer{ServerKeys: []jsontext.Value{body}})
			if err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.answers[string(notary)+"/_matrix/key/v2/query/far.example"] = b
		}
		w.serve(notary, says(t, notary, notaryKey, w.ms(time.Hour), nil))
		if _, err := w.RequestKey(context.Background(), notary, notaryKey.ID); err != nil {
			t.Fatal(err)
		}
		// The server cannot be reached: a notary that talks to us is asked.
		vouch(says(t, far, other, w.ms(time.Hour), nil))
		w.event("without the notary's signature", other, w.ms(0), false)
		w.pass(5 * time.Minute)
		vouch(sign(t, says(t, far, other, w.ms(time.Hour), nil), notary, notaryKey))
		w.event("by the notary", other, w.ms(0), true)
		w.request("by the notary, for a request", other, false)

		// What the server says itself counts from then on.
		w.pass(5 * time.Minute)
		w.serve(far, says(t, far, good, w.ms(time.Hour), nil))
		w.request("by the server", good, true)
		w.mu.Lock()
		delete(w.answers, "far.example/_matrix/key/v2/server")
		w.mu.Unlock()
		vouch(sign(t, says(t, far, forged, w.ms(100*time.Hour), nil), notary, notaryKey))
		w.pass(2 * time.Hour) // the server's word is over, and the notary has another one
		w.event("forged by the notary", forged, w.ms(0), false)
		w.event("the server's own, of its time", good, w.ms(-time.Hour-time.Minute), true)
		w.request("forged, for a request", forged, false)

		// The server answers garbage once.
		w.pass(5 * time.Minute)
		w.serve(far, []byte(`{"server_name":"far.example","valid_until_ts":1,"verify_keys":{}}`))
		w.event("after garbage", good, w.ms(-3*time.Hour), true)
	})
}

func TestK146_MalformedKeys(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	short := signing.EncodeBase64(make([]byte, 31))
	bad := map[string]string{"ed25519:": k.Public().String(), "ed25519:a/b": k.Public().String(), "ed448:a": k.Public().String(), "a": k.Public().String(), "": "", "ed25519:short": short,
		"ed25519:url": strings.NewReplacer("+", "-", "/", "_").Replace("+/" + k.Public().String()[2:]), "ed25519:zero": signing.EncodeBase64(make([]byte, 32)),
		"ed25519:small": signing.EncodeBase64(append([]byte{1}, make([]byte, 31)...)), "ed25519:policy_server": k.Public().String(), "ed25519:nothing": "", "ed25519:newline": k.Public().String()[:20] + "\n" + k.Public().String()[20:]}
	a := federation.ServerKeys{ServerName: far, ValidUntilTS: time.Now().Add(time.Hour).UnixMilli(), VerifyKeys: map[string]federation.VerifyKey{string(k.ID): {Key: k.Public().String()}},
		OldVerifyKeys: map[string]federation.OldVerifyKey{}}
	for name, value := range bad {
		a.VerifyKeys[name] = federation.VerifyKey{Key: value}
		a.OldVerifyKeys[name+"_old"] = federation.OldVerifyKey{Key: value, ExpiredTS: 0}
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseAnswer(sign(t, b, far, k), far, far, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.keys) != 1 || got.keys[0].KeyID != string(k.ID) {
		t.Errorf("%d keys are taken: %+v", len(got.keys), got.keys)
	}
}

func TestK147_AnswersMustBeSigned(t *testing.T) {
	t.Parallel()
	k, other := newKey(t), newKey(t)
	until := time.Now().Add(time.Hour).UnixMilli()
	good := says(t, far, k, until, nil)
	if _, err := parseAnswer(good, far, far, time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{
		"another server":     says(t, "near.example", k, until, nil),
		"changed":            bytes.Replace(good, []byte(`"valid_until_ts":1`), []byte(`"valid_until_ts":2`), 1),
		"by a stranger":      sign(t, []byte(`{"server_name":"far.example","valid_until_ts":9999999999999,"verify_keys":{"`+string(k.ID)+`":{"key":"`+k.Public().String()+`"}}}`), far, other),
		"63 bytes":           []byte(strings.Replace(string(good), `":"`, `":"`, 1)[:len(good)-10] + `"}}}`),
		"not signed":         []byte(`{"server_name":"far.example","valid_until_ts":9999999999999,"verify_keys":{"` + string(k.ID) + `":{"key":"` + k.Public().String() + `"}}}`),
		"duplicate":          append(bytes.TrimSuffix(good, []byte("}")), []byte(`,"server_name":"far.example"}`)...),
		"trailing":           append(bytes.Clone(good), []byte(`{}`)...),
		"empty":              nil,
		"array":              []byte(`[]`),
		"keys are a list":    []byte(`{"server_name":"far.example","valid_until_ts":1,"verify_keys":[]}`),
		"keys are strings":   []byte(`{"server_name":"far.example","valid_until_ts":1,"verify_keys":{"ed25519:a":"x"}}`),
		"too many":           says(t, far, k, until, nil, manyKeys(t, maxVerify)...),
		"other case":         bytes.Replace(good, []byte("verify_keys"), []byte("VERIFY_KEYS"), 2),
		"one signs, one not": falsely(t, k, other, until),
	} {
		if _, err := parseAnswer(body, far, far, time.Now()); !errors.Is(err, ErrBadAnswer) {
			t.Errorf("%s: %v, want ErrBadAnswer", name, err)
		}
	}
}

// falsely is an answer with two current keys, of which one has not signed what its signature says.
func falsely(t *testing.T, k, other signing.Key, until int64) []byte {
	t.Helper()
	b := says(t, far, k, until, nil, other)
	lie := sign(t, []byte(`{"server_name":"far.example"}`), far, other)
	var in struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := json.Unmarshal(lie, &in); err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(b, []byte(`"signatures":{"far.example":{`), []byte(`"signatures":{"far.example":{"`+string(other.ID)+`":"`+in.Signatures["far.example"][string(other.ID)]+`",`), 1)
}

func manyKeys(t *testing.T, n int) []signing.Key {
	t.Helper()
	out := make([]signing.Key, n)
	for i := range out {
		out[i] = newKey(t)
	}
	return out
}

func TestK149_PolicyServerKeyNeverCounts(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		k := newKey(t)
		ps := signing.Key{ID: signing.PolicyServerKeyID, Private: newKey(t).Private}
		w.serve(far, says(t, far, k, w.ms(time.Hour), old(ps, w.ms(time.Hour)), ps))
		w.event("the server's", k, w.ms(0), true)
		w.event("the policy server's", ps, w.ms(0), false)
		w.request("the policy server's", ps, false)
		if _, err := parseAnswer(says(t, far, ps, w.ms(time.Hour), nil), far, far, w.clock()); !errors.Is(err, ErrBadAnswer) {
			t.Errorf("an answer that only the policy server's key has signed: %v", err)
		}
	})
}

func TestK151_FetchAmplification(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		// 3,000 servers that do not exist.
		for i := range 3000 {
			_, err := w.RequestKey(context.Background(), matrix.ServerName(fmt.Sprintf("s%d.example", i)), "ed25519:a")
			if err == nil {
				t.Fatal("a key was found")
			}
		}
		if n := w.requests(); n > totalBurst {
			t.Errorf("%d requests in no time, want at most %d", n, totalBurst)
		}
		w.pass(time.Minute)
		// 3,000 key IDs of one server that exists.
		k := newKey(t)
		w.serve(far, says(t, far, k, w.ms(time.Hour), nil))
		before := w.requests()
		for i := range 3000 {
			_, _ = w.RequestKey(context.Background(), far, signing.KeyID(fmt.Sprintf("ed25519:k%d", i)))
			_, _ = w.PublicKey(context.Background(), far, signing.KeyID(fmt.Sprintf("ed25519:k%d", i)), 1)
		}
		if n := w.requests() - before; n > perServerBurst {
			t.Errorf("%d requests to one server, want at most %d", n, perServerBurst)
		}
		w.request("its real key", k, true)
	})
}

func TestK151_FailuresAreRemembered(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		k := newKey(t)
		for range 100 {
			w.request("a dead server", k, false)
		}
		if n := w.requests(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		for range 24 * 60 {
			w.pass(time.Minute)
			w.request("a dead server", k, false)
		}
		if n := w.requests(); n > 160 {
			t.Errorf("%d requests in a day", n)
		}
		w.serve(far, says(t, far, k, w.ms(time.Hour), nil))
		w.pass(maxBackoff)
		w.request("it is back", k, true)
	})
}

func TestRing_AsksNobodyWhomPolicyRefuses(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		k := newKey(t)
		w.serve(far, says(t, far, k, w.ms(time.Hour), nil))
		w.denied[far] = matrix.Forbidden("no agreement")
		w.request("refused", k, false)
		w.event("refused", k, w.ms(0), false)
		if n := w.requests(); n != 0 {
			t.Errorf("%d requests", n)
		}
		var m *matrix.Error
		if _, err := w.RequestKey(context.Background(), far, k.ID); !errors.As(err, &m) || m.Status != 403 {
			t.Errorf("the refusal is lost: %v", err)
		}
		w.mu.Lock()
		delete(w.denied, far)
		w.mu.Unlock()
		w.pass(denialAge)
		w.request("approved", k, true)
	})
}

func TestAnyTenant(t *testing.T) {
	t.Parallel()
	undecided := matrix.Errorf(503, matrix.CodeUnknown, "later")
	for _, c := range []struct {
		out, in map[matrix.ServerName]error
		want    int
	}{
		{map[matrix.ServerName]error{}, nil, 0},
		{map[matrix.ServerName]error{"a": matrix.Forbidden("no"), "b": matrix.Forbidden("no")}, map[matrix.ServerName]error{"a": matrix.Forbidden("no")}, 0},
		{map[matrix.ServerName]error{"a": matrix.Forbidden("no"), "b": undecided}, map[matrix.ServerName]error{"a": matrix.Forbidden("no"), "b": matrix.Forbidden("no")}, 503},
		{map[matrix.ServerName]error{"a": matrix.Forbidden("no"), "b": matrix.Forbidden("no")}, map[matrix.ServerName]error{"a": matrix.Forbidden("no"), "b": matrix.Forbidden("no")}, 403},
	} {
		ask := func(m map[matrix.ServerName]error) func(context.Context, matrix.ServerName, matrix.ServerName) error {
			return func(_ context.Context, as, _ matrix.ServerName) error { return m[as] }
		}
		err := AnyTenant([]matrix.ServerName{"b", "a"}, ask(c.out), ask(c.in))(context.Background(), far)
		var m *matrix.Error
		if got := errors.As(err, &m); got != (c.want != 0) || got && m.Status != c.want {
			t.Errorf("%v, want status %d", err, c.want)
		}
	}
	if err := AnyTenant(nil)(context.Background(), far); err == nil {
		t.Error("without tenants everything is allowed")
	}
}

func TestK155_KeyCacheBounds(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := newWorld(t, db, func(d *Deps) { d.CacheServers, d.MaxRows = 50, 300 })
		w.t = t
		k := newKey(t)
		for i := range 1000 {
			server := matrix.ServerName(fmt.Sprintf("s%d.example", i))
			a, err := parseAnswer(says(t, server, k, w.ms(time.Hour), nil), server, server, w.clock())
			if err != nil {
				t.Fatal(err)
			}
			if err := w.store(context.Background(), []*answer{a}, true); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Millisecond)
		}
		if w.servers.used.Len() != 50 {
			t.Errorf("%d servers in memory, want 50", w.servers.used.Len())
		}
		var newest, oldest []storage.ServerKey
		err := db.View(context.Background(), func(tx *storage.Tx) (err error) {
			if newest, err = tx.LoadServerKeys("s999.example"); err == nil {
				oldest, err = tx.LoadServerKeys("s10.example")
			}
			return err
		})
		if err != nil || len(newest) != 1 || len(oldest) != 0 {
			t.Errorf("rows of the newest and the oldest: %d, %d, %v", len(newest), len(oldest), err)
		}
		w.mu.Lock()
		clear(w.answers)
		w.mu.Unlock()
		if _, err := w.PublicKey(context.Background(), "s10.example", k.ID, w.ms(0)); err == nil {
			t.Error("a key that was let go counts")
		}
		if _, err := w.PublicKey(context.Background(), "s900.example", k.ID, w.ms(0)); err != nil {
			t.Errorf("a key that only the database has: %v", err)
		}
	})
}

func TestK155_MemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := newLRU(1000)
	for i := range 1000000 {
		l.put(fmt.Sprint(i%100000), i)
	}
	if len(l.byKey) != 1000 || l.used.Len() != 1000 {
		t.Errorf("%d and %d entries", len(l.byKey), l.used.Len())
	}
}

func FuzzAnswer(f *testing.F) {
	k := newKey(f)
	f.Add(says(f, far, k, 9999999999999, old(newKey(f), 5)))
	f.Add([]byte(`{"server_name":"far.example","valid_until_ts":1,"verify_keys":{"ed25519:a":{"key":"x"}},"signatures":{"far.example":{"ed25519:a":"x"}}}`))
	f.Add([]byte(`{}`))
	now := time.Now()
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAnswer(body, far, far, now)
		if err != nil {
			return
		}
		if a.validUntil > now.Add(maxValidity).UnixMilli() {
			t.Errorf("valid until %d", a.validUntil)
		}
		for _, key := range a.keys {
			if _, err := signing.ParsePublicKey(signing.EncodeBase64(key.Public)); err != nil || key.KeyID == string(signing.PolicyServerKeyID) {
				t.Errorf("key %s: %v", key.KeyID, err)
			}
		}
	})
}
