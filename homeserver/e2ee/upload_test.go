package e2ee

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/storage"
)

func TestUploadKeys_StoresAndCounts(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "DEVICE")
		before := w.position()
		counts, err := d.upload(d.keys(), d.batch("k", 5), nil)
		w.must(err)
		if counts["signed_curve25519"] != 5 {
			w.t.Errorf("counts = %v", counts)
		}
		if got := w.touched(before); !slices.Equal(got, []matrix.UserID{anna}) {
			w.t.Errorf("changed lists = %v", got)
		}
		before = w.position()
		counts, err = d.upload(d.keys(), d.batch("k", 5), nil)
		w.must(err)
		if counts["signed_curve25519"] != 5 || len(w.touched(before)) != 0 {
			w.t.Errorf("a repeated upload changed something: %v, %v", counts, w.touched(before))
		}
		counts, err = d.upload(nil, nil, nil)
		if w.must(err); counts["signed_curve25519"] != 5 {
			w.t.Errorf("counts of an empty upload = %v", counts)
		}
		_, err = w.UploadKeys(w.ctx, Caller{UserID: anna}, Upload{})
		w.refused(err, 400, matrix.CodeInvalidParam)
		_, err = w.UploadKeys(w.ctx, Caller{UserID: anna, DeviceID: "GONE"}, Upload{OneTimeKeys: value(map[string]any{"curve25519:a": "x"})})
		w.refused(err, 401, matrix.CodeUnknownToken)
	})
}

// changed returns a copy of an object with one member set, or taken away when v is nil.
func changed(o map[string]any, key string, v any) map[string]any {
	c := maps.Clone(o)
	c[key] = v
	if v == nil {
		delete(c, key)
	}
	return c
}

func TestC174_KeysUploadValidation(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "DEVICE")
		other := w.device(anna, "OTHER")
		keys := d.keys()
		raw := func(s string) jsontext.Value { return jsontext.Value(s) }
		deep := strings.Repeat(`{"a":`, 2000) + "1" + strings.Repeat("}", 2000)
		bad := map[string]Upload{
			"null":                    {DeviceKeys: raw("null")},
			"a list":                  {DeviceKeys: raw("[]")},
			"a string":                {DeviceKeys: raw(`"x"`)},
			"an empty object":         {DeviceKeys: raw("{}")},
			"another user":            {DeviceKeys: value(changed(keys, "user_id", string(bert)))},
			"a user of another type":  {DeviceKeys: value(changed(keys, "user_id", 7))},
			"another device":          {DeviceKeys: value(other.keys())},
			"no device":               {DeviceKeys: value(changed(keys, "device_id", nil))},
			"no algorithms":           {DeviceKeys: value(changed(keys, "algorithms", nil))},
			"algorithms as an object": {DeviceKeys: value(changed(keys, "algorithms", map[string]any{}))},
			"no keys":                 {DeviceKeys: value(changed(keys, "keys", nil))},
			"keys of another device":  {DeviceKeys: value(changed(keys, "keys", other.keys()["keys"]))},
			"keys that are numbers":   {DeviceKeys: value(changed(keys, "keys", map[string]any{"ed25519:DEVICE": 1}))},
			"a weak key":              {DeviceKeys: value(changed(keys, "keys", map[string]any{"ed25519:DEVICE": strings.Repeat("A", 43)}))},
			"a short key":             {DeviceKeys: value(changed(keys, "keys", map[string]any{"ed25519:DEVICE": "QUJD"}))},
			"no signatures":           {DeviceKeys: value(changed(keys, "signatures", nil))},
			"signatures null":         {DeviceKeys: raw(strings.Replace(string(value(changed(keys, "signatures", "X"))), `"X"`, "null", 1))},
			"signatures of others":    {DeviceKeys: value(changed(keys, "signatures", map[string]any{string(bert): map[string]string{"ed25519:DEVICE": "x"}}))},
			"a signature that is none": {DeviceKeys: value(changed(keys, "signatures",
				map[string]any{string(anna): map[string]string{"ed25519:DEVICE": "bm9uZQ"}}))},
			"signatures of a wrong type": {DeviceKeys: value(changed(keys, "signatures", map[string]any{string(anna): []int{1}}))},
			"a float":                    {DeviceKeys: value(changed(keys, "x", 1.5))},
			"garbage, nested":            {DeviceKeys: raw(`{"user_id":` + deep + `}`)},
			"duplicate keys":             {DeviceKeys: raw(`{"user_id":"a","user_id":"b"}`)},
			"one-time keys null":         {OneTimeKeys: raw("null")},
			"one-time keys as a list":    {OneTimeKeys: raw("[]")},
			"a one-time key null":        {OneTimeKeys: raw(`{"signed_curve25519:a":null}`)},
			"a key that is a number":     {OneTimeKeys: raw(`{"signed_curve25519:a":5}`)},
			"a signed key as a string":   {OneTimeKeys: raw(`{"signed_curve25519:a":"x"}`)},
			"a key without a signature":  {OneTimeKeys: value(map[string]any{"signed_curve25519:a": changed(d.oneTime("a"), "signatures", nil)})},
			"a key without a key":        {OneTimeKeys: value(map[string]any{"signed_curve25519:a": changed(d.oneTime("a"), "key", nil)})},
			"a key of another device":    {OneTimeKeys: value(map[string]any{"signed_curve25519:a": other.oneTime("a")})},
			"a name without an ID":       {OneTimeKeys: value(map[string]any{"signed_curve25519": d.oneTime("a")})},
			"a name without algorithm":   {OneTimeKeys: value(map[string]any{":a": d.oneTime("a")})},
			"a long name":                {OneTimeKeys: value(map[string]any{"a:" + strings.Repeat("x", 300): "k"})},
			"two fallback keys":          {FallbackKeys: value(map[string]any{"signed_curve25519:a": d.fallback("a"), "signed_curve25519:b": d.fallback("b")})},
			"fallback keys as a string":  {UnstableFallbackKeys: raw(`"x"`)},
		}
		before := w.position()
		for what, u := range bad {
			if u.OneTimeKeys == nil {
				u.OneTimeKeys = value(d.batch("fine", 1))
			}
			_, err := w.UploadKeys(w.ctx, d.Caller, u)
			if me := w.refused(err, 400, matrix.CodeInvalidParam, matrix.CodeBadJSON, matrix.CodeNotJSON); me.Status == 0 {
				w.t.Errorf("%s was not refused", what)
			}
		}
		_, err := w.UploadKeys(w.ctx, d.Caller, Upload{DeviceKeys: value(changed(keys, "x", strings.Repeat("x", 10<<20)))})
		w.refused(err, 413, matrix.CodeTooLarge)
		_, err = w.UploadKeys(w.ctx, d.Caller, Upload{OneTimeKeys: value(map[string]any{"a:b": strings.Repeat("x", 5000)})})
		w.refused(err, 413, matrix.CodeTooLarge)
		if w.position() != before {
			w.t.Error("a refused upload left something behind")
		}
	})
}

func TestC175_OneTimeKeysOtherBytes(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "DEVICE")
		_, err := d.upload(d.keys(), d.batch("k", 2), nil)
		w.must(err)
		mixed := map[string]any{"signed_curve25519:k0000": d.oneTime("something else"), "signed_curve25519:new": d.oneTime("new")}
		_, err = d.upload(nil, mixed, nil)
		w.refused(err, 400, matrix.CodeInvalidParam)
		counts, _, err := w.Counts(w.ctx, anna, "DEVICE")
		w.must(err)
		if counts["signed_curve25519"] != 2 {
			w.t.Errorf("counts = %v: part of a refused upload was stored", counts)
		}
		// The same bytes in another spelling are the same key, and new ones beside it are stored.
		spaced := jsontext.Value(" " + strings.Replace(string(value(map[string]any{"signed_curve25519:k0000": d.oneTime("k0000"),
			"signed_curve25519:new": d.oneTime("new")})), `":{`, `" : { `, -1))
		got, err := w.UploadKeys(w.ctx, d.Caller, Upload{OneTimeKeys: spaced})
		if w.must(err); got["signed_curve25519"] != 3 {
			w.t.Errorf("counts = %v", got)
		}
		_, err = d.upload(nil, d.batch("many", 10_000), nil)
		w.refused(err, 400, matrix.CodeInvalidParam)
		_, err = d.upload(nil, d.batch("many", maxOneTimeKeys-3), nil)
		w.must(err)
		_, err = d.upload(nil, d.batch("more", 1), nil)
		w.refused(err, 400, matrix.CodeInvalidParam)
	})
}

func TestUploadKeys_NewIdentityEndsOldOneTimeKeys(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "DEVICE").ready(3)
		d.key, d.label = newKey("reinstalled"), "reinstalled"
		counts, err := d.upload(d.keys(), d.batch("k", 2), nil)
		w.must(err)
		if counts["signed_curve25519"] != 2 {
			w.t.Errorf("counts = %v, want only the keys of the new identity", counts)
		}
		_, unused, err := w.Counts(w.ctx, anna, "DEVICE")
		if w.must(err); len(unused) != 0 {
			w.t.Errorf("unused fallback keys = %v, want none of the old identity", unused)
		}
	})
}

func TestCounts_FollowTheLog(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "DEVICE").ready(3)
		b := w.device(bert, "B")
		check := func(n int, fallback ...string) {
			w.t.Helper()
			counts, unused, err := w.Counts(w.ctx, anna, "DEVICE")
			if w.must(err); counts["signed_curve25519"] != n || !slices.Equal(unused, fallback) {
				w.t.Errorf("counts = %v, unused %v; want %d, %v", counts, unused, n, fallback)
			}
		}
		check(3, "signed_curve25519")
		reads := w.DB.Stats().Reads
		check(3, "signed_curve25519")
		if n := w.DB.Stats().Reads - reads; n != 0 {
			w.t.Errorf("counts that did not change cost %d reads", n)
		}
		for range 3 {
			_, err := w.ClaimKeys(w.ctx, b.Caller, map[matrix.UserID]map[matrix.DeviceID]string{anna: {"DEVICE": "signed_curve25519"}})
			w.must(err)
		}
		check(0, "signed_curve25519")
		_, err := w.ClaimKeys(w.ctx, b.Caller, map[matrix.UserID]map[matrix.DeviceID]string{anna: {"DEVICE": "signed_curve25519"}})
		w.must(err)
		check(0)
		_, err = d.upload(nil, d.batch("fresh", 7), map[string]any{"signed_curve25519:f2": d.fallback("f2")})
		w.must(err)
		check(7, "signed_curve25519")
		w.update(func(tx *storage.Tx) error { return w.DropDevices(tx, anna, []matrix.DeviceID{"DEVICE"}) })
		check(0)
	})
}

func TestDropDevices_ForgetsKeys(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "DEVICE").ready(3)
		w.device(anna, "STAYS").ready(1)
		before := w.position()
		w.update(func(tx *storage.Tx) error {
			if _, err := tx.DeleteDevices(anna, []matrix.DeviceID{"DEVICE"}); err != nil {
				return err
			}
			return w.DropDevices(tx, anna, []matrix.DeviceID{"DEVICE"})
		})
		if got := w.touched(before); !slices.Equal(got, []matrix.UserID{anna}) {
			w.t.Errorf("changed lists = %v", got)
		}
		keys, err := w.QueryKeys(w.ctx, d.Caller, map[matrix.UserID][]matrix.DeviceID{anna: nil})
		if w.must(err); len(keys.DeviceKeys[anna]) != 1 {
			w.t.Errorf("devices = %v", fmt.Sprint(keys.DeviceKeys[anna]))
		}
		claimed, err := w.ClaimKeys(w.ctx, d.Caller, map[matrix.UserID]map[matrix.DeviceID]string{anna: {"DEVICE": "signed_curve25519"}})
		if w.must(err); len(claimed.OneTimeKeys) != 0 {
			w.t.Errorf("claimed = %v", claimed.OneTimeKeys)
		}
		w.update(func(tx *storage.Tx) error { return w.DropUser(tx, anna) })
		keys, err = w.QueryKeys(w.ctx, d.Caller, map[matrix.UserID][]matrix.DeviceID{anna: nil})
		if w.must(err); len(keys.DeviceKeys[anna]) != 0 {
			w.t.Errorf("devices = %v", fmt.Sprint(keys.DeviceKeys[anna]))
		}
	})
}
