package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/storage"
)

func TestC162_UIABinding(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		k.add(NewUser{ID: bob})
		by, _ := k.login(anna, nil)
		other, _ := k.login(bob, nil)
		body := `{"devices":["A","B"]}`
		begin := func() string { return uiaSession(t, k.Confirm(ctx, by, proof("POST", "/delete_devices", body))) }
		finish := func(who Caller, method, uri, body, auth string) error {
			return k.Confirm(ctx, who, proof(method, uri, withAuth(body, auth)))
		}
		id := begin()
		right := passwordAuth(id, secret)
		for what, err := range map[string]error{
			"another user": finish(other, "POST", "/delete_devices", body, right),
			"other URI":    finish(by, "POST", "/account/deactivate", body, right),
			"other method": finish(by, "PUT", "/delete_devices", body, right),
			"other body":   finish(by, "POST", "/delete_devices", `{"devices":["A","C"]}`, right),
			"more body":    finish(by, "POST", "/delete_devices", `{"devices":["A","B"],"x":1}`, right),
			"no body":      finish(by, "POST", "/delete_devices", `{}`, right),
		} {
			wants(t, what, err, 403, matrix.CodeForbidden)
		}
		// The password of another user, or naming another user.
		err := finish(by, "POST", "/delete_devices", body, strings.Replace(right, `"user":"anna"`, `"user":"bob"`, 1))
		if e := wants(t, "naming another user", err, 401, matrix.CodeForbidden); e.Extra["session"] != id || e.Extra["flows"] == nil {
			t.Errorf("%+v", e)
		}
		wants(t, "wrong password", finish(by, "POST", "/delete_devices", body, passwordAuth(id, "wrong password")), 401, matrix.CodeForbidden)
		wants(t, "dummy", finish(by, "POST", "/delete_devices", body, `{"type":"m.login.dummy","session":"`+id+`"}`), 401, matrix.CodeUnrecognized)
		err = finish(by, "POST", "/delete_devices", body, `{"session":"`+id+`"}`) // asks how far it is
		if e := wants(t, "poll", err, 401, ""); e.Extra["session"] != id || len(e.Extra["completed"].([]string)) != 0 {
			t.Errorf("%+v", e)
		}
		must(t, finish(by, "POST", "/delete_devices", ` {"devices" : [ "A","B" ] }`, right)) // the same body, written otherwise
		again := finish(by, "POST", "/delete_devices", body, right)
		if e := wants(t, "replay", again, 401, matrix.CodeForbidden); e.Extra["session"] == id {
			t.Error("a session that was used goes on")
		}
		// The same session at the very same time.
		id = begin()
		var wg sync.WaitGroup
		var won atomic.Int64
		for range 8 {
			wg.Go(func() {
				if err := finish(by, "POST", "/delete_devices", body, passwordAuth(id, secret)); err == nil {
					won.Add(1)
				} else if s, _ := code(err); s != 401 {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("one authentication was good for %d requests", won.Load())
		}
		id = begin()
		k.pass(uiaLife)
		wants(t, "expired", finish(by, "POST", "/delete_devices", body, passwordAuth(id, secret)), 401, matrix.CodeForbidden)
		for _, id := range []string{"unknown", strings.Repeat("x", 1000)} {
			wants(t, "unknown session", finish(by, "POST", "/delete_devices", body, passwordAuth(id, secret)), 401, matrix.CodeForbidden)
		}
		for _, bad := range []string{`{"auth":1}`, `{"auth":{"type":7}}`, `{"auth":{"type":"a","type":"b"}}`, `{"auth":{}`, `[]`} {
			wants(t, bad, k.Confirm(ctx, by, proof("POST", "/delete_devices", bad)), 400, matrix.CodeBadJSON)
		}
		must(t, k.Confirm(ctx, by, proof("POST", "/delete_devices", withAuth(body, `{"type":"m.login.password","password":"`+secret+`"}`)))) // in one call
	})
}

func TestC162_SessionsAreBounded(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, nil)
		var ids []string
		for i := range 3 * uiaMax {
			k.pass(time.Millisecond)
			ids = append(ids, uiaSession(t, k.Confirm(ctx, by, proof("DELETE", fmt.Sprint("/devices/", i), ""))))
		}
		for i, id := range ids {
			h := sha256.Sum256([]byte(id))
			err := k.DB.Read(ctx, func(tx *storage.Tx) error { _, err := tx.LoadUIASession(h[:]); return err })
			if kept := i >= len(ids)-uiaMax; (err == nil) != kept {
				t.Errorf("session %d of %d: %v", i, len(ids), err)
			}
		}
		last := len(ids) - 1
		must(t, k.Confirm(ctx, by, proof("DELETE", fmt.Sprint("/devices/", last), withAuth("{}", passwordAuth(ids[last], secret)))))
	})
}

func TestC161_NoPasswordInUIASessions(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, nil)
		next := "the next password of anna"
		body := `{"new_password":"` + next + `","logout_devices":false}`
		err := k.ChangePassword(ctx, by, proof("POST", "/account/password", body), next, false)
		id := uiaSession(t, err)
		_ = k.ChangePassword(ctx, by, proof("POST", "/account/password", withAuth(body, passwordAuth(id, "not the password"))), next, false)
		_, err = k.register(acme, "carl", "", func(r *RegisterRequest) { r.Password = next })
		uiaSession(t, err)
		text := dump(t, k)
		sum := sha256.Sum256([]byte(next))
		whole := sha256.Sum256([]byte(body))
		for _, s := range []string{next, secret, "not the password", id, hex.EncodeToString([]byte(next)), hex.EncodeToString(sum[:]), hex.EncodeToString(whole[:])} {
			if strings.Contains(text, s) {
				t.Errorf("the database holds %q", s)
			}
		}
		if !strings.Contains(text, "from 192.0.2.1") {
			t.Error("the dump has not seen the sessions")
		}
		must(t, k.ChangePassword(ctx, by, proof("POST", "/account/password", withAuth(body, passwordAuth(id, secret))), next, false))
	})
}

func TestUIA_FlowsOfManyStages(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		step := func(auth string) ([]done, error) {
			body := `{"x":1}`
			if auth != "" {
				body = withAuth(body, auth)
			}
			return k.challenge(ctx, &challenge{Proof: proof("POST", "/x", body), tenant: acme, client: from("192.0.2.1"),
				flows: [][]string{{"a", "b"}, {"a", "c", "d"}},
				check: func(_ context.Context, a *auth_) (string, error) {
					if a.Token == "bad" {
						return "", matrix.Forbidden("no")
					}
					if a.Token == "broken" {
						return "", errors.New("broken")
					}
					return "left by " + a.Type, nil
				}})
		}
		completed := func(err error) string { return fmt.Sprint(asMatrix(err).Extra["completed"]) }
		_, err := step("")
		id := uiaSession(t, err)
		in := func(typ, token string) string {
			return fmt.Sprintf(`{"type":"%s","session":"%s","token":"%s"}`, typ, id, token)
		}
		_, err = step(in("b", ""))
		wants(t, "out of order", err, 401, matrix.CodeUnrecognized)
		_, err = step(in("a", "bad"))
		wants(t, "failed", err, 401, matrix.CodeForbidden)
		if _, err = step(in("a", "broken")); err == nil || asMatrix(err) != nil {
			t.Errorf("a fault is told as %v", err)
		}
		_, err = step(in("a", ""))
		if wants(t, "first stage", err, 401, ""); completed(err) != "[a]" {
			t.Error(completed(err))
		}
		_, err = step(in("a", "bad")) // a stage that is done is not tried again
		if wants(t, "first stage again", err, 401, ""); completed(err) != "[a]" {
			t.Error(completed(err))
		}
		_, err = step(in("d", ""))
		wants(t, "out of order", err, 401, matrix.CodeUnrecognized)
		_, err = step(in("c", ""))
		wants(t, "second stage", err, 401, "")
		_, err = step(in("b", ""))
		wants(t, "of the other flow", err, 401, matrix.CodeUnrecognized)
		got, err := step(in("d", ""))
		must(t, err)
		if fmt.Sprint(got) != "[{a left by a} {c left by c} {d left by d}]" {
			t.Errorf("left %v", got)
		}
		_, err = step(`{"type":"a"}`) // begins with a stage, without a session
		id = uiaSession(t, err)
		if completed(err) != "[a]" {
			t.Error(completed(err))
		}
		_, err = step(in("b", ""))
		must(t, err)
	})
}

type auth_ = auth // the name of a variable above

func TestUIA_GuessingIsLimited(t *testing.T) {
	each(t, nil, func(k *kit, d *Deps) { d.Limits.Enabled = true }, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, nil)
		id := uiaSession(t, k.Confirm(ctx, by, proof("DELETE", "/devices/A", "")))
		limited := 0
		for range 50 {
			err := k.Confirm(ctx, by, proof("DELETE", "/devices/A", withAuth("{}", passwordAuth(id, "wrong password"))))
			if s, _ := code(err); s == 429 {
				limited++
			} else if s != 401 {
				t.Fatal(err)
			}
		}
		if limited < 25 {
			t.Errorf("%d of 50 guesses were refused", limited)
		}
	})
}
