package e2ee

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/storage"
)

type signedObjects = map[matrix.UserID]map[string]jsontext.Value

func TestC179_CrossSigningReset(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "A").ready(0)
		first := newIdentity(anna, "first")
		if needed, err := w.NeedsAuth(w.ctx, d.Caller, first.body()); err != nil || needed {
			w.t.Errorf("the first upload needs confirmation: %t, %v", needed, err)
		}
		before := w.position()
		w.must(w.UploadCrossSigning(w.ctx, d.Caller, first.body(), false))
		if got := w.touched(before); !slices.Equal(got, []matrix.UserID{anna}) {
			w.t.Errorf("changed lists = %v", got)
		}
		// The same again is free and changes nothing; so is a part of it.
		before = w.position()
		w.must(w.UploadCrossSigning(w.ctx, d.Caller, first.body(), false))
		w.must(w.UploadCrossSigning(w.ctx, d.Caller, CrossSigning{SelfSigningKey: value(first.self)}, false))
		if got := w.touched(before); len(got) != 0 {
			w.t.Errorf("a repeated upload changed the lists of %v", got)
		}
		second := newIdentity(anna, "second")
		if needed, err := w.NeedsAuth(w.ctx, d.Caller, second.body()); err != nil || !needed {
			w.t.Errorf("a reset needs no confirmation: %v", err)
		}
		rotated := CrossSigning{UserSigningKey: value(first.key(newKey("other"), userSigning, first.msk))}
		for _, body := range []CrossSigning{second.body(), {MasterKey: value(second.master)}, rotated} {
			if err := w.UploadCrossSigning(w.ctx, d.Caller, body, false); !errors.Is(err, ErrAuthNeeded) {
				w.t.Errorf("upload without confirmation: %v", err)
			}
		}
		keys, err := w.QueryKeys(w.ctx, d.Caller, query{anna: nil})
		if w.must(err); !strings.Contains(string(keys.MasterKeys[anna]), name(first.msk)) {
			w.t.Errorf("the master key was replaced without confirmation")
		}
		sign := signedObjects{anna: {"A": value(signedBy(d.keys(), anna, map[string]ed25519.PrivateKey{"ed25519:" + name(first.ssk): first.ssk}))}}
		if failed, err := w.UploadSignatures(w.ctx, d.Caller, sign); err != nil || len(failed) != 0 {
			w.t.Fatalf("sign the device: %v, %v", failed, err)
		}
		before = w.position()
		w.must(w.UploadCrossSigning(w.ctx, d.Caller, CrossSigning{MasterKey: value(second.master)}, true))
		if got := w.touched(before); !slices.Equal(got, []matrix.UserID{anna}) {
			w.t.Errorf("changed lists = %v", got)
		}
		keys, err = w.QueryKeys(w.ctx, d.Caller, query{anna: nil})
		w.must(err)
		if s := string(value(keys)); strings.Contains(s, name(first.msk)) || strings.Contains(s, name(first.ssk)) || strings.Contains(s, name(first.usk)) {
			w.t.Errorf("something of the old identity is left: %s", s)
		}
	})
}

func TestUploadCrossSigning_Checks(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "A").ready(0)
		i, other := newIdentity(anna, "i"), newIdentity(bert, "o")
		stranger := newIdentity(anna, "stranger")
		clash := newKey("clash")
		w.device(anna, matrix.DeviceID(name(clash)))
		for what, c := range map[string]struct {
			body   CrossSigning
			status int
			code   string
		}{
			"no master key":            {CrossSigning{SelfSigningKey: value(i.self)}, 400, matrix.CodeMissingParam},
			"nothing":                  {CrossSigning{}, 400, matrix.CodeMissingParam},
			"null":                     {CrossSigning{MasterKey: jsontext.Value("null")}, 400, matrix.CodeBadJSON},
			"another user":             {CrossSigning{MasterKey: value(other.master)}, 400, matrix.CodeInvalidParam},
			"another usage":            {CrossSigning{MasterKey: value(changed(i.master, "usage", []string{"self_signing"}))}, 400, matrix.CodeInvalidParam},
			"two keys":                 {CrossSigning{MasterKey: value(changed(i.master, "keys", map[string]string{"ed25519:a": "a", "ed25519:b": "b"}))}, 400, matrix.CodeInvalidParam},
			"a name that differs":      {CrossSigning{MasterKey: value(changed(i.master, "keys", map[string]string{"ed25519:x": name(i.msk)}))}, 400, matrix.CodeInvalidParam},
			"a padded key":             {CrossSigning{MasterKey: value(changed(i.master, "keys", map[string]string{"ed25519:" + name(i.msk) + "=": name(i.msk) + "="}))}, 400, matrix.CodeInvalidParam},
			"one key for two things":   {CrossSigning{MasterKey: value(i.master), SelfSigningKey: value(i.key(i.msk, selfSigning, i.msk))}, 400, matrix.CodeInvalidParam},
			"an unsigned key":          {CrossSigning{MasterKey: value(i.master), SelfSigningKey: value(i.key(i.ssk, selfSigning, nil))}, 400, matrix.CodeInvalidSignature},
			"signed by another master": {CrossSigning{MasterKey: value(i.master), UserSigningKey: value(stranger.usr)}, 400, matrix.CodeInvalidSignature},
			"a wrong device signature": {CrossSigning{MasterKey: value(signedBy(i.master, anna, map[string]ed25519.PrivateKey{"ed25519:A": newKey("no")}))}, 400, matrix.CodeInvalidSignature},
			"the ID of a device":       {CrossSigning{MasterKey: value(i.key(clash, master, nil))}, 403, matrix.CodeForbidden},
		} {
			err := w.UploadCrossSigning(w.ctx, d.Caller, c.body, false)
			if w.refused(err, c.status, c.code); err == nil {
				w.t.Errorf("%s was accepted", what)
			}
		}
		keys, err := w.QueryKeys(w.ctx, d.Caller, query{anna: nil})
		if w.must(err); len(keys.MasterKeys) != 0 {
			w.t.Errorf("a refused key was stored: %s", keys.MasterKeys[anna])
		}
		body := i.body()
		body.MasterKey = value(signedBy(i.master, anna, map[string]ed25519.PrivateKey{"ed25519:A": d.key, "ed25519:unknown": newKey("u"), "ed25519:" + name(i.msk): i.msk}))
		w.must(w.UploadCrossSigning(w.ctx, d.Caller, body, false))
		keys, err = w.QueryKeys(w.ctx, d.Caller, query{anna: nil})
		w.must(err)
		if s := string(keys.MasterKeys[anna]); !strings.Contains(s, `"ed25519:A"`) || strings.Contains(s, "unknown") {
			w.t.Errorf("master key = %s", s)
		}
		for id, want := range map[string]bool{name(i.msk): true, name(i.usk): true, "A": false} {
			if is, err := w.IsKeyID(w.ctx, anna, matrix.DeviceID(id)); err != nil || is != want {
				w.t.Errorf("IsKeyID(%s) = %t, %v", id, is, err)
			}
		}
	})
}

func TestUploadCrossSigning_TwoFirstUploadsAtATime(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "A").ready(0)
		var wg sync.WaitGroup
		results := make(chan error, 8)
		for n := range 8 {
			wg.Go(func() {
				results <- w.UploadCrossSigning(w.ctx, d.Caller, newIdentity(anna, string(rune('a'+n))).body(), false)
			})
		}
		wg.Wait()
		close(results)
		stored := 0
		for err := range results {
			switch {
			case err == nil:
				stored++
			case !errors.Is(err, ErrAuthNeeded):
				w.t.Error(err)
			}
		}
		if stored != 1 {
			w.t.Errorf("%d of 8 first uploads were stored, want 1", stored)
		}
	})
}

func TestUploadSignatures_ChecksEach(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.device(anna, "A").ready(0), w.device(bert, "B").ready(0)
		old := w.device(anna, "OLD")
		ia, ib := w.identity(a, "anna"), w.identity(b, "bert")
		by := func(o map[string]any, id string, key ed25519.PrivateKey) jsontext.Value {
			return value(signedBy(o, anna, map[string]ed25519.PrivateKey{id: key}))
		}
		before := w.position()
		failed, err := w.UploadSignatures(w.ctx, a.Caller, signedObjects{
			anna: {
				"A":          by(a.keys(), "ed25519:"+name(ia.ssk), ia.ssk),
				name(ia.msk): by(ia.master, "ed25519:A", a.key),
				"OLD":        by(old.keys(), "ed25519:"+name(ia.ssk), ia.ssk), // has no keys
				name(ia.ssk): by(ia.self, "ed25519:"+name(ia.msk), newKey("wrong")),
			},
			bert: {
				name(ib.msk): by(ib.master, "ed25519:"+name(ia.ssk), ia.ssk), // not the user-signing key
				name(ib.ssk): by(ib.self, "ed25519:"+name(ia.usk), ia.usk),   // not a master key
				"B":          by(b.keys(), "ed25519:"+name(ia.usk), ia.usk),
			},
			far: {"x": by(map[string]any{"a": 1}, "ed25519:A", a.key)},
		})
		w.must(err)
		want := map[signedKey]string{{anna, "OLD"}: matrix.CodeNotFound, {anna, name(ia.ssk)}: matrix.CodeInvalidSignature,
			{bert, name(ib.msk)}: matrix.CodeInvalidSignature, {bert, name(ib.ssk)}: matrix.CodeNotFound, {bert, "B"}: matrix.CodeNotFound, {far, "x"}: matrix.CodeNotFound}
		got := 0
		for u, keys := range failed {
			for k, f := range keys {
				if got++; want[signedKey{u, k}] != f.Code {
					w.t.Errorf("failure of %s %s = %v, want %q", u, k, f, want[signedKey{u, k}])
				}
			}
		}
		if got != len(want) {
			w.t.Errorf("failures = %v", failed)
		}
		if lists := w.touched(before); !slices.Equal(lists, []matrix.UserID{anna}) {
			w.t.Errorf("changed lists = %v", lists)
		}
		keys, err := w.QueryKeys(w.ctx, b.Caller, query{anna: nil})
		w.must(err)
		if s := string(keys.DeviceKeys[anna]["A"]); !strings.Contains(s, "ed25519:"+name(ia.ssk)) {
			w.t.Errorf("the device lacks the new signature: %s", s)
		}
		if s := string(keys.MasterKeys[anna]); !strings.Contains(s, `"ed25519:A"`) {
			w.t.Errorf("the master key lacks the new signature: %s", s)
		}
		// An object that is not the stored one, and signatures that are there already.
		failed, err = w.UploadSignatures(w.ctx, a.Caller, signedObjects{anna: {"A": by(changed(a.keys(), "algorithms", []string{}), "ed25519:"+name(ia.ssk), ia.ssk)}})
		if w.must(err); failed[anna]["A"].Code != matrix.CodeInvalidParam {
			w.t.Errorf("failures = %v", failed)
		}
		before = w.position()
		failed, err = w.UploadSignatures(w.ctx, a.Caller, signedObjects{anna: {"A": by(a.keys(), "ed25519:"+name(ia.ssk), ia.ssk)}})
		if w.must(err); len(failed) != 0 || w.position() != before {
			w.t.Errorf("a repeated signature: %v", failed)
		}
		for _, bad := range []string{"null", "[]", `{"signatures":7}`, `{"signatures":{"@a:b":[]}}`} {
			_, err = w.UploadSignatures(w.ctx, a.Caller, signedObjects{anna: {"A": jsontext.Value(bad)}})
			w.refused(err, 400, matrix.CodeBadJSON)
		}
	})
}

func TestP309_SignaturesOnDenied(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.device(anna, "A").ready(0), w.device(bert, "B").ready(0)
		ia, ib := w.identity(a, "anna"), w.identity(b, "bert")
		object := value(signedBy(ib.master, anna, map[string]ed25519.PrivateKey{"ed25519:" + name(ia.usk): ia.usk}))
		w.wall.deny(anna, bert)
		failed, err := w.UploadSignatures(w.ctx, a.Caller, signedObjects{bert: {name(ib.msk): object}, ghost: {name(ib.msk): object}})
		w.must(err)
		if f := failed[bert][name(ib.msk)]; f.Code != matrix.CodeNotFound || f != failed[ghost][name(ib.msk)] {
			w.t.Errorf("failures = %v: denied differs from unknown", failed)
		}
		w.must(w.DB.Read(w.ctx, func(tx *storage.Tx) error {
			sigs, err := tx.LoadKeySignatures([]matrix.UserID{bert}, anna)
			for _, s := range sigs {
				if s.SignerID == anna {
					w.t.Errorf("stored %v", s)
				}
			}
			return err
		}))
	})
}

func TestUploadSignatures_OnOthersReachOwnDevices(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.device(anna, "A").ready(0), w.device(bert, "B").ready(0)
		ia, ib := w.identity(a, "anna"), w.identity(b, "bert")
		before := w.position()
		failed, err := w.UploadSignatures(w.ctx, a.Caller, signedObjects{bert: {name(ib.msk): value(signedBy(ib.master, anna,
			map[string]ed25519.PrivateKey{"ed25519:" + name(ia.usk): ia.usk}))}})
		if w.must(err); len(failed) != 0 {
			w.t.Fatal(failed)
		}
		entries, _, err := w.Stream.Read(w.ctx, before)
		if w.must(err); len(entries) != 1 || entries[0].Name != storage.NoticeSignatures || entries[0].Ref != string(anna) {
			w.t.Errorf("entries = %v", entries)
		}
		for viewer, want := range map[matrix.UserID][]matrix.UserID{anna: {bert}, bert: {}, cleo: {}} {
			got, err := w.KeyChanges(w.ctx, viewer, before)
			if w.must(err); !slices.Equal(got.Changed, want) {
				w.t.Errorf("%s hears of %v, want %v", viewer, got, want)
			}
		}
		w.wall.deny(anna, bert)
		w.wall.deny(bert, anna)
		got, err := w.KeyChanges(w.ctx, anna, before)
		if w.must(err); len(got.Changed) != 0 {
			w.t.Errorf("anna hears of %v, whom policy keeps from her", got)
		}
	})
}
