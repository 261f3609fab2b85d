package account

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

const faye = matrix.UserID("@faye:far.example")

// status is an error with which another server answered.
type status int

func (s status) Error() string   { return fmt.Sprint("status ", int(s)) }
func (s status) HTTPStatus() int { return int(s) }

// peer is another server with one profile.
type peer struct {
	mu      sync.Mutex
	profile map[string]jsontext.Value // guarded by mu, like all below
	err     error
	calls   int
}

func (p *peer) Profile(_ context.Context, _, _ matrix.ServerName, _ matrix.UserID, field string) (map[string]jsontext.Value, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls++; field != "" {
		return nil, errors.New("one field only")
	}
	return p.profile, p.err
}

func (p *peer) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.calls
	p.calls = 0
	return n
}

func TestFetchProfile_Remembered(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		p := &peer{profile: map[string]jsontext.Value{"displayname": jsontext.Value(`"Faye"`), "avatar_url": jsontext.Value(`"https://track"`), "m.tz": jsontext.Value(`null`),
			"org.example.x": jsontext.Value(` {"a": 1}`), "Bad Name": jsontext.Value(`1`), "org.example.big": jsontext.Value(`"` + strings.Repeat("x", 100) + `"`)}}
		k.Remote = p
		unknown := matrix.NotFound("unknown")
		get := func(as matrix.ServerName, field string) (Profile, error) {
			return k.fetchProfile(t.Context(), as, faye, field, unknown)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if got, err := get(acme, ""); err != nil || len(got) != 3 || string(got["displayname"]) != `"Faye"` || string(got["org.example.x"]) != `{"a":1}` {
					t.Errorf("%v, %v", got, err)
				}
			})
		}
		wg.Wait()
		if n := p.asked(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if got, err := get(acme, "displayname"); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
		if _, err := get(acme, "avatar_url"); fmt.Sprint(code(err)) != "404M_NOT_FOUND" {
			t.Error(err)
		}
		_, _ = get(globex, "") // another tenant asks for itself
		if n := p.asked(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		k.pass(farFresh + time.Second)
		p.err = status(404)
		for range 2 {
			if _, err := get(acme, ""); !errors.Is(err, unknown) {
				t.Error(err)
			}
		}
		if n := p.asked(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		k.pass(farAbsent + time.Second)
		p.err = errors.New("down") // not remembered
		for range 2 {
			if _, err := get(acme, ""); !errors.Is(err, unknown) {
				t.Error(err)
			}
		}
		if n := p.asked(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		p.err = nil
		_, _ = get(acme, "")
		k.ForgetFar()
		_, _ = get(acme, "")
		if n := p.asked(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		for i := range 2 * maxFar {
			k.far.put(farKey{acme, matrix.UserID(fmt.Sprintf("@u%d:far.example", i))}, Profile{}, k.far.asking())
		}
		if len(k.far.profiles) > maxFar {
			t.Errorf("%d profiles are remembered", len(k.far.profiles))
		}
	})
}

// What nobody may know and what is not there are the same to another server, which is told only of users of the tenant that it asks.
func TestServeProfile_Absent(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		for _, user := range []matrix.UserID{anna, "@none:acme.example", "@gus:globex.example", faye} { // no agreement
			if p, err := k.ServeProfile(t.Context(), acme, "far.example", user, ""); p != nil || fmt.Sprint(code(err)) != "404M_NOT_FOUND" {
				t.Errorf("%s: %v, %v", user, p, err)
			}
		}
		if _, err := k.ServeProfile(t.Context(), "far.example", "far.example", faye, ""); fmt.Sprint(code(err)) != "404M_NOT_FOUND" {
			t.Error(err)
		}
	})
}
