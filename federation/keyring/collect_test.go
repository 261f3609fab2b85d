package keyring

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/signing"
)

const notary = matrix.ServerName("notary.example")

// fleet is many servers that do not answer, and a notary that knows their keys.
type fleet struct {
	*world
	key  signing.Key // of the notary
	keys map[matrix.ServerName]signing.Key
	want map[matrix.ServerName]map[signing.KeyID]int64
	// sizes are those of the questions to the notary, and least the earliest times that keys were wanted for.
	sizes []int
	least []int64
}

// newFleet makes n servers that do not answer. change may alter, leave out (nil) or add to what the notary says of one.
func newFleet(t *testing.T, w *world, n int, change func(server matrix.ServerName, said []byte) [][]byte) *fleet {
	t.Helper()
	w.t = t
	f := &fleet{world: w, key: newKey(t), keys: map[matrix.ServerName]signing.Key{}, want: map[matrix.ServerName]map[signing.KeyID]int64{}}
	w.serve(notary, says(t, notary, f.key, w.ms(time.Hour), nil))
	for i := range n {
		server, k := matrix.ServerName(fmt.Sprintf("dead%d.example", i)), newKey(t)
		f.keys[server], f.want[server] = k, map[signing.KeyID]int64{k.ID: w.ms(-time.Minute)}
	}
	w.notaries = map[matrix.ServerName]func(federation.KeyQuery) []byte{notary: func(q federation.KeyQuery) []byte {
		f.sizes = append(f.sizes, len(q.ServerKeys))
		answer := federation.KeyQueryAnswer{ServerKeys: []jsontext.Value{}}
		for server, criteria := range q.ServerKeys {
			for _, c := range criteria {
				f.least = append(f.least, c.MinimumValidUntilTS)
			}
			said := [][]byte{says(t, server, f.keys[server], w.ms(time.Hour), nil)}
			if change != nil {
				said = change(server, said[0])
			}
			for _, b := range said {
				answer.ServerKeys = append(answer.ServerKeys, sign(t, b, notary, f.key))
			}
		}
		b, err := json.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		return b
	}}
	return f
}

// found collects, and counts the servers whose keys are known then.
func (f *fleet) found() (n int) {
	f.t.Helper()
	find := f.Collect(context.Background(), notary, f.want)
	for server, k := range f.keys {
		got, err := find(server, k.ID, f.ms(-time.Minute))
		if err == nil && got != k.Public() {
			f.t.Errorf("another key of %s", server)
		}
		if err == nil {
			n++
		}
	}
	return n
}

// questions counts what was asked of the notary about others, one by one and about many.
func (w *world) questions() (single, many int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.asked {
		if a == string(notary)+"/_matrix/key/v2/query" {
			many++
		} else if strings.Contains(a, "/query/") {
			single++
		}
	}
	return single, many
}

func TestCollect_SilentServersInFewQuestions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const dead, alive = 120, 30
		f := newFleet(t, w, dead, nil)
		for i := range alive {
			server, k := matrix.ServerName(fmt.Sprintf("live%d.example", i)), newKey(t)
			f.keys[server], f.want[server] = k, map[signing.KeyID]int64{k.ID: w.ms(-time.Minute)}
			w.serve(server, says(t, server, k, w.ms(time.Hour), nil))
		}
		if n := f.found(); n != dead+alive {
			t.Errorf("the keys of %d servers were found, want %d", n, dead+alive)
		}
		single, many := w.questions()
		if single != 0 || many != 3 {
			t.Errorf("the notary was asked %d times about one server and %d times about many; want 0 and 3", single, many)
		}
		if n := w.requests(); n != dead+alive+1+3 {
			t.Errorf("%d requests, want one to each server, one for the notary's own keys, three for those of others", n)
		}
		for i, n := range f.sizes {
			if n > maxQuery {
				t.Errorf("question %d is about %d servers", i, n)
			}
		}
		for _, ts := range f.least {
			if ts != w.ms(-time.Minute) {
				t.Errorf("keys are wanted for %d, want the time of what they signed, %d", ts, w.ms(-time.Minute))
				break
			}
		}
		// Nothing is asked twice.
		before := w.requests()
		if n := f.found(); n != dead+alive || w.requests() != before {
			t.Errorf("again: %d servers, %d more requests", n, w.requests()-before)
		}
	})
}

// A server that answers speaks for itself: the notary is not asked about it, and is not heard where it was not asked.
func TestK145_NotaryCannotSpeakForOneThatAnswers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		good, forged := newKey(t), newKey(t)
		f := newFleet(t, w, 1, func(_ matrix.ServerName, said []byte) [][]byte {
			return [][]byte{said, says(t, far, forged, w.ms(time.Hour), nil)}
		})
		w.serve(far, says(t, far, good, w.ms(time.Hour), nil))
		f.want[far] = map[signing.KeyID]int64{good.ID: 0}
		find := f.Collect(context.Background(), notary, f.want)
		if k, err := find(far, good.ID, 0); err != nil || k != good.Public() {
			t.Errorf("its own key: %v, %v", k, err)
		}
		if _, err := find(far, forged.ID, 0); err == nil {
			t.Error("a key that nobody asked for is taken from the notary")
		}
		if len(f.sizes) != 1 || f.sizes[0] != 1 {
			t.Errorf("the notary was asked about %v servers, want one", f.sizes)
		}
		// Servers that were spared a question have not had their chance: nobody else may speak for them.
		w.budgetOf("victim.example").bucket = bucket{last: w.clock()}
		victim := newKey(t)
		f.keys["victim.example"] = victim
		find = f.Collect(context.Background(), notary, map[matrix.ServerName]map[signing.KeyID]int64{"victim.example": {victim.ID: 0}})
		if _, err := find("victim.example", victim.ID, 0); err == nil {
			t.Error("the notary speaks for a server that was not asked")
		}
	})
}

func TestCollect_NotaryThatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f *fleet) func(matrix.ServerName, []byte) [][]byte
		want   int
	}{
		"leaves some out": {func(*fleet) func(matrix.ServerName, []byte) [][]byte {
			return func(s matrix.ServerName, said []byte) [][]byte {
				if s == "dead0.example" || s == "dead1.example" {
					return nil
				}
				return [][]byte{said}
			}
		}, 8},
		"wrong keys": {func(f *fleet) func(matrix.ServerName, []byte) [][]byte {
			return func(s matrix.ServerName, said []byte) [][]byte {
				if s == "dead0.example" { // not signed by the key that it tells of
					k := f.keys[s]
					return [][]byte{sign(f.t, []byte(fmt.Sprintf(`{"server_name":%q,"valid_until_ts":%d,"verify_keys":{%q:{"key":%q}}}`, s, f.ms(time.Hour), k.ID, k.Public())), s, newKey(f.t))}
				}
				if s == "dead1.example" { // another key under the same ID
					k := newKey(f.t)
					return [][]byte{says(f.t, s, signing.Key{ID: "ed25519:other", Private: k.Private}, f.ms(time.Hour), nil)}
				}
				return [][]byte{said}
			}
		}, 8},
		"more than it was asked for": {func(*fleet) func(matrix.ServerName, []byte) [][]byte {
			return func(_ matrix.ServerName, said []byte) [][]byte { return [][]byte{said, said, said, said, said} }
		}, 0},
		"huge": {func(*fleet) func(matrix.ServerName, []byte) [][]byte {
			return func(_ matrix.ServerName, said []byte) [][]byte {
				return [][]byte{said, []byte(`{"pad":"` + strings.Repeat("x", maxBatchBody) + `"}`)}
			}
		}, 0},
		"over before the event": {func(f *fleet) func(matrix.ServerName, []byte) [][]byte {
			return func(s matrix.ServerName, _ []byte) [][]byte {
				return [][]byte{says(f.t, s, f.keys[s], f.ms(-time.Hour), nil)}
			}
		}, 0},
		"retired before the event": {func(f *fleet) func(matrix.ServerName, []byte) [][]byte {
			return func(s matrix.ServerName, _ []byte) [][]byte {
				return [][]byte{says(f.t, s, newKey(f.t), f.ms(time.Hour), old(f.keys[s], f.ms(-time.Hour)))}
			}
		}, 0},
		"retired after the event": {func(f *fleet) func(matrix.ServerName, []byte) [][]byte {
			return func(s matrix.ServerName, _ []byte) [][]byte {
				return [][]byte{says(f.t, s, newKey(f.t), f.ms(time.Hour), old(f.keys[s], f.ms(0)))}
			}
		}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				var f *fleet
				f = newFleet(t, w, 10, func(s matrix.ServerName, said []byte) [][]byte { return c.change(f)(s, said) })
				if n := f.found(); n != c.want {
					t.Errorf("the keys of %d servers were found, want %d", n, c.want)
				}
				if single, _ := w.questions(); single != 0 {
					t.Errorf("%d questions about single servers", single)
				}
			})
		})
	}
}

// An answer that the notary has not signed counts for nothing.
func TestCollect_NotaryMustSign(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		f := newFleet(t, w, 3, nil)
		f.key = newKey(t)
		if n := f.found(); n != 0 {
			t.Errorf("the keys of %d servers were found without the signature of the notary", n)
		}
	})
}
