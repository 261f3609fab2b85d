package keyring

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/matrix/signing"
)

// What was signed as one kind of object passes as no other, even where one object has the fields of both.
func TestK150_ContextConfusion(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	now := time.Now()
	v, _ := matrix.FindRoomVersion("11")
	body := fmt.Sprintf(`{"auth_events":["$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],"content":{"body":"x"},"depth":1,"hashes":{"sha256":""},"old_verify_keys":{},"origin_server_ts":1,"prev_events":["$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],`+
		`"room_id":"!r:far.example","sender":"@u:far.example","server_name":"far.example","type":"m.room.message","valid_until_ts":%d,"verify_keys":{%q:{"key":%q}}}`,
		now.Add(time.Hour).UnixMilli(), k.ID, k.Public())

	// An answer with keys that is an event, too.
	answer := sign(t, []byte(body), far, k)
	if _, err := parseAnswer(answer, far, far, now); err != nil {
		t.Fatalf("the answer itself: %v", err)
	}
	if e, err := event.Parse(v, answer); err == nil && signing.VerifyEvent(e, far, k.ID, k.Public()) == nil {
		t.Error("an answer with keys passes as an event")
	}
	// An event that is an answer with keys, too.
	e, err := event.Parse(v, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	e = signing.SignEvent(e, far, k)
	if err := signing.VerifyEvent(e, far, k.ID, k.Public()); err != nil {
		t.Fatalf("the event itself: %v", err)
	}
	if _, err := parseAnswer(event.Federation(e), far, far, now); !errors.Is(err, ErrBadAnswer) {
		t.Errorf("an event passes as an answer with keys: %v", err)
	}
	// Signatures of requests and of keys of devices on either.
	request, err := signing.SignRequest(k, "PUT", "/_matrix/federation/v1/send/1", far, "acme.example", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	_, sig, _ := strings.Cut(request, `sig="`)
	device := sign(t, []byte(`{"algorithms":[],"device_id":"D","keys":{"ed25519:D":"`+k.Public().String()+`"},"user_id":"@u:far.example"}`), far, k)
	signatures, _ := canonicaljson.Find(device, "signatures")
	for name, s := range map[string]string{
		"request": `{"far.example":{"` + string(k.ID) + `":"` + strings.TrimSuffix(sig, `"`) + `"}}`, "device": string(signatures),
	} {
		with := []byte(strings.TrimSuffix(body, "}") + `,"signatures":` + s + `}`)
		if _, err := parseAnswer(with, far, far, now); !errors.Is(err, ErrBadAnswer) {
			t.Errorf("with the signature of a %s the answer passes: %v", name, err)
		}
		if e, err := event.Parse(v, with); err == nil && signing.VerifyEvent(e, far, k.ID, k.Public()) == nil {
			t.Errorf("with the signature of a %s the event passes", name)
		}
	}
	x, err := signing.ParseXMatrix([]string{request})
	if err != nil {
		t.Fatal(err)
	}
	if object, err := canonicaljson.Canonicalize([]byte(body), true); err != nil || k.Public().Verify(object, x.Signatures[0].Signature) {
		t.Errorf("the signature of a request holds for its content (%v)", err)
	}
}
