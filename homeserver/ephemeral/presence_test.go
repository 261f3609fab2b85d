package ephemeral

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/policy"
)

type shown struct {
	Presence string  `json:"presence"`
	Ago      *int64  `json:"last_active_ago"`
	Status   *string `json:"status_msg"`
	Active   *bool   `json:"currently_active"`
}

func presenceOf(t *testing.T, b []byte) (p shown) {
	t.Helper()
	if b == nil {
		return p
	}
	if err := json.Unmarshal(b, &p, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return p
}

func (s *Service) is(t *testing.T, user matrix.UserID) string {
	t.Helper()
	return presenceOf(t, s.Presence(user)).Presence
}

func TestPresence_IdleThenGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{})
		at := s.Version()
		s.touch(anna, "D", "", 30*time.Second)
		if got := s.PresenceSince(at); !slices.Equal(got, []matrix.UserID{anna}) || s.is(t, anna) != Online {
			t.Errorf("news of %v, anna is %s", got, s.is(t, anna))
		}
		if p := presenceOf(t, s.Presence(anna)); p.Active == nil || !*p.Active || p.Ago == nil || *p.Ago != 0 {
			t.Errorf("anna is %s", s.Presence(anna))
		}
		// A client that only asks for news is there, and idle after a while.
		at = s.Version()
		for range 5 {
			pass(30 * time.Second)
			s.touch(anna, "D", "", 30*time.Second)
		}
		if p := presenceOf(t, s.Presence(anna)); p.Presence != Online || *p.Active || *p.Ago != 150_000 {
			t.Errorf("anna is %s", s.Presence(anna))
		}
		if got := s.PresenceSince(at); len(got) != 1 {
			t.Errorf("not being active any more was not told: %v", got)
		}
		for range 8 {
			pass(30 * time.Second)
			s.touch(anna, "D", "", 30*time.Second)
		}
		at = s.Version()
		if got := s.is(t, anna); got != Unavailable {
			t.Errorf("anna is %s after doing nothing", got)
		}
		s.Active(anna)
		if got := s.is(t, anna); got != Online {
			t.Errorf("anna is %s after doing something", got)
		}
		pass(2 * time.Minute)
		synctest.Wait()
		if got := s.PresenceSince(at); !slices.Equal(got, []matrix.UserID{anna}) || s.is(t, anna) != Offline {
			t.Errorf("news of %v, anna is %s after going away", got, s.is(t, anna))
		}
		if got := s.PresenceSince(0); len(got) != 0 {
			t.Errorf("%v are not offline", got)
		}
		pass(2 * forgetAfter)
		synctest.Wait()
		if s.Presence(anna) != nil {
			t.Errorf("anna is still remembered: %s", s.Presence(anna))
		}
	})
}

// Changes of presence alone wake readers at most every few seconds.
func TestPresence_Coalesces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{})
		pass(time.Minute)
		s.touch(anna, "D", "", time.Minute)
		news, at := s.Changed(), s.Version()
		wakes := 0
		begin := time.Now()
		for i := range 200 {
			s.touch(matrix.UserID(fmt.Sprintf("@%d:acme.example", i)), "D", "", time.Minute)
			pass(100 * time.Millisecond)
			synctest.Wait()
			if isClosed(news) {
				wakes++
				news = s.Changed()
			}
			if i == 0 && (s.Version() != at || len(s.PresenceSince(at)) != 0) {
				t.Error("a change was visible before its time")
			}
		}
		if most := int(time.Since(begin)/coalesce) + 1; wakes < 2 || wakes > most {
			t.Errorf("woken %d times in %v, want at most %d", wakes, time.Since(begin), most)
		}
		pass(coalesce)
		synctest.Wait()
		if got := len(s.PresenceSince(at)); got != 200 {
			t.Errorf("news of %d users, want 200", got)
		}
		if got := len(s.PresenceSince(0)); got != 201 {
			t.Errorf("%d users are there, want 201", got)
		}
	})
}

func TestPresence_Devices(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Deps{})
		is := func(want string) {
			t.Helper()
			if got := s.is(t, anna); got != want {
				t.Errorf("anna is %s, want %s", got, want)
			}
		}
		s.touch(anna, "A", Offline, time.Minute)
		if s.Presence(anna) != nil {
			t.Error("a client that wants to stay unseen was seen")
		}
		s.touch(anna, "A", Unavailable, time.Minute)
		is(Unavailable)
		s.touch(anna, "B", Online, time.Minute)
		is(Online)
		s.touch(anna, "B", Offline, time.Minute)
		is(Unavailable)
		s.setPresence(anna, "A", Online, "at lunch")
		is(Online)
		s.setPresence(anna, "A", Unavailable, "at lunch")
		s.touch(anna, "A", "", time.Minute)
		is(Unavailable) // what was stated holds against a request that says nothing
		if p := presenceOf(t, s.Presence(anna)); p.Status == nil || *p.Status != "at lunch" || p.Active != nil {
			t.Errorf("anna is %s", s.Presence(anna))
		}
		s.Active(anna)
		is(Online)
		s.setPresence(anna, "A", Offline, "")
		is(Offline)
		pass(10 * time.Second)
		s.Active(anna)
		s.touch(anna, "A", "", time.Minute)
		is(Offline)
		if p := presenceOf(t, s.Presence(anna)); p.Status != nil || *p.Ago != 10_000 {
			t.Errorf("what anna does unseen is told: %s", s.Presence(anna))
		}
		for i := range 2 * maxPresentDevices {
			s.touch(anna, matrix.DeviceID(fmt.Sprint(i)), Online, time.Minute)
		}
		if n := len(s.presence.people[anna].devices); n > maxPresentDevices {
			t.Errorf("%d devices kept, want at most %d", n, maxPresentDevices)
		}
	})
}

func TestPresence_CanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil, nil)
	s := New(Deps{Policy: e, Parties: people{e}, NoPresence: true})
	p, _ := people{e}.Party(t.Context(), anna)
	by := Caller{User: anna, Device: "D", Party: p}
	wantCode(t, "set", s.SetPresence(t.Context(), by, anna, Online, nil), "")
	wantCode(t, "touch", s.Touch(t.Context(), by, Online, 0), "")
	wantCode(t, "touch with a word that means nothing", s.Touch(t.Context(), by, "sleeping", 0), "400 M_INVALID_PARAM")
	if s.Presence(anna) != nil || len(s.PresenceSince(0)) != 0 {
		t.Errorf("presence is kept: %s", s.Presence(anna))
	}
}

func TestC173_PresenceOfOthers(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil, nil)
	s := New(Deps{Policy: e, Parties: people{e}})
	p, _ := people{e}.Party(t.Context(), anna)
	by := Caller{User: anna, Device: "D", Party: p}
	long := strings.Repeat("a", maxStatus+1)
	wantCode(t, "of another user", s.SetPresence(t.Context(), by, bert, Online, nil), "403 M_FORBIDDEN")
	wantCode(t, "unknown presence", s.SetPresence(t.Context(), by, anna, "sleeping", nil), "400 M_INVALID_PARAM")
	wantCode(t, "long status", s.SetPresence(t.Context(), by, anna, Online, &long), "400 M_INVALID_PARAM")
	if b, err := s.GetPresence(t.Context(), by, anna); err != nil || s.Presence(anna) != nil || presenceOf(t, b).Presence != Offline {
		t.Errorf("own presence %s, %v", b, err)
	}
}

// What is denied looks the same as what does not exist, and is not recorded with each look.
func TestP301_Presence(t *testing.T) {
	t.Parallel()
	rec := &refused{}
	e := newEngine(t, rec, pools())
	s := New(Deps{Policy: e, Parties: people{e}})
	by := func(u matrix.UserID) Caller {
		p, _ := people{e}.Party(t.Context(), u)
		return Caller{User: u, Device: "D", Party: p}
	}
	secret := "canary"
	for _, u := range []matrix.UserID{anna, bert, carl, gina} {
		wantCode(t, string(u), s.SetPresence(t.Context(), by(u), u, Online, &secret), "")
	}
	if b, err := s.GetPresence(t.Context(), by(anna), bert); err != nil || !strings.Contains(string(b), secret) {
		t.Errorf("a colleague's presence is %s, %v", b, err)
	}
	_, absent := s.GetPresence(t.Context(), by(anna), "@nobody:acme.example")
	wantCode(t, "nobody", absent, "404 M_NOT_FOUND")
	for _, pair := range [][2]matrix.UserID{{anna, carl}, {carl, anna}, {anna, gina}, {gina, anna}, {gina, carl}} {
		_, err := s.GetPresence(t.Context(), by(pair[0]), pair[1])
		if err == nil || err.Error() != absent.Error() {
			t.Errorf("%s asks for %s: %v, want the same as for nobody", pair[0], pair[1], err)
		}
		if s.MayRead(t.Context(), by(pair[0]).Party, pair[1]) {
			t.Errorf("%s is shown %s", pair[0], pair[1])
		}
	}
	before := rec.count()
	for range 100 {
		s.MayRead(t.Context(), by(anna).Party, carl)
	}
	if !s.MayRead(t.Context(), by(anna).Party, bert) || !s.MayRead(t.Context(), by(carl).Party, carl) {
		t.Error("who may be shown is not")
	}
	if n := rec.count() - before; n > 0 {
		t.Errorf("%d looks were recorded", n)
	}
}

// An agreement that does not name presence does not show it, though the two may talk.
func TestP301_PresenceOutsideAgreement(t *testing.T) {
	t.Parallel()
	partner := func(features string) string {
		return `partners: {NAME: {direction: both, pools: "*", features: ` + features + `}}` + "\n"
	}
	for features, want := range map[string]bool{`[messages]`: false, `[messages, presence]`: true} {
		rec := &refused{}
		e := newEngine(t, rec, map[string]string{
			"acme.example/partners.yaml":   strings.Replace(partner(features), "NAME", "globex.example", 1),
			"globex.example/partners.yaml": strings.Replace(partner(features), "NAME", "acme.example", 1),
		})
		s := New(Deps{Policy: e, Parties: people{e}})
		a, _ := people{e}.Party(t.Context(), anna)
		g, _ := people{e}.Party(t.Context(), gina)
		if !e.Contact(a, g) {
			t.Fatalf("%s: anna and gina have no contact", features)
		}
		for range 10 {
			if got := s.MayRead(t.Context(), a, gina); got != want {
				t.Errorf("with %s presence shown: %v, want %v", features, got, want)
			}
		}
		if rec.count() > 1 {
			t.Errorf("%d denials recorded", rec.count())
		}
	}
}

// Whom policy does not let have presence stays unseen, also by merely asking for news.
func TestTouch_AsksPolicy(t *testing.T) {
	t.Parallel()
	rec := &refused{}
	e := newEngine(t, rec, map[string]string{"acme.example/presence.rego": `# METADATA
# title: Anna has no presence
package tenants["acme.example"].presence.write

deny contains {"code": "unseen", "message": "You have no presence."} if input.subject.id == "@anna:acme.example"
`})
	s := New(Deps{Policy: e, Parties: people{e}})
	for _, u := range []matrix.UserID{anna, bert} {
		p, _ := people{e}.Party(t.Context(), u)
		for range 50 {
			wantCode(t, string(u), s.Touch(t.Context(), Caller{User: u, Device: "D", Party: p}, "", time.Minute), "")
		}
	}
	if s.Presence(anna) != nil || s.is(t, bert) != Online {
		t.Errorf("anna %s, bert %s", s.Presence(anna), s.Presence(bert))
	}
	if n := rec.count(); n != 1 {
		t.Errorf("%d denials recorded, want 1", n)
	}
	p, _ := people{e}.Party(t.Context(), anna)
	wantCode(t, "set", s.SetPresence(t.Context(), Caller{User: anna, Party: p}, anna, Online, nil), "403 M_FORBIDDEN")
}

var _ policy.Recorder = (*refused)(nil)
