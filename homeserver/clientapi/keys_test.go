package clientapi_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"hansa/homeserver/clientapi"
	"hansa/homeserver/clientsync"
	"hansa/homeserver/e2ee"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// withKeys serves the endpoints of encryption in a house.
func withKeys(h *house) *house {
	log := storagetest.Quiet()
	keys := e2ee.New(e2ee.Deps{DB: h.db, Policy: h.engine, Parties: h.accounts, Stream: h.stream, Log: log})
	syncing := clientsync.New(clientsync.Deps{DB: h.db, Stream: h.stream, Policy: h.engine, Rooms: h.rooms, Parties: h.accounts, Keys: keys, Log: log})
	h.handler = clientapi.New(clientapi.Deps{DB: h.db, Stream: h.stream, Policy: h.engine, Accounts: h.accounts, Rooms: h.rooms, Members: h.members,
		Sync: syncing, E2EE: keys, Tenants: []clientapi.Tenant{{Name: acme}, {Name: globex}}, Log: log, Version: "test"}).Handler()
	return h
}

// phone is a logged-in device with keys.
type phone struct {
	*guest
	device  string
	private ed25519.PrivateKey
}

func seedKey(seed string) ed25519.PrivateKey {
	h := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(h[:])
}

func publicName(k ed25519.PrivateKey) string {
	return signing.EncodeBase64(k.Public().(ed25519.PublicKey))
}

// sealed returns an object with a signature of a user.
func sealed(user matrix.UserID, o map[string]any, id string, k ed25519.PrivateKey) map[string]any {
	delete(o, "signatures")
	b, err := json.Marshal(o)
	if err == nil {
		b, err = canonicaljson.Canonicalize(b, true)
	}
	if err != nil {
		panic(err)
	}
	o["signatures"] = map[string]any{string(user): map[string]string{id: signing.EncodeBase64(ed25519.Sign(k, b))}}
	return o
}

func (g *guest) phone() *phone {
	g.h.t.Helper()
	device, _ := g.ok("GET", "/account/whoami", nil).body["device_id"].(string)
	return &phone{g, device, seedKey(string(g.id) + device)}
}

func (p *phone) seal(o map[string]any) map[string]any {
	return sealed(p.id, o, "ed25519:"+p.device, p.private)
}

func (p *phone) deviceKeys() map[string]any {
	return p.seal(map[string]any{"user_id": p.id, "device_id": p.device, "algorithms": []string{"m.megolm.v1.aes-sha2"},
		"keys": map[string]string{"ed25519:" + p.device: publicName(p.private)}})
}

func (p *phone) oneTime(n int) map[string]any {
	out := map[string]any{}
	for i := range n {
		k := sha256.Sum256(fmt.Append(nil, p.id, p.device, i))
		out[fmt.Sprint("signed_curve25519:", i)] = p.seal(map[string]any{"key": signing.EncodeBase64(k[:])})
	}
	return out
}

// cross are the cross-signing keys of a user as a body.
func (p *phone) cross(seed string) (body map[string]any, master ed25519.PrivateKey) {
	master = seedKey(seed)
	key := func(usage string, k ed25519.PrivateKey) map[string]any {
		return map[string]any{"user_id": p.id, "usage": []string{usage}, "keys": map[string]string{"ed25519:" + publicName(k): publicName(k)}}
	}
	id := "ed25519:" + publicName(master)
	return map[string]any{"master_key": key("master", master), "self_signing_key": sealed(p.id, key("self_signing", seedKey(seed+"s")), id, master),
		"user_signing_key": sealed(p.id, key("user_signing", seedKey(seed+"u")), id, master)}, master
}

func (p *phone) ready(n int) *phone {
	p.h.t.Helper()
	p.ok("POST", "/keys/upload", map[string]any{"device_keys": p.deviceKeys(), "one_time_keys": p.oneTime(n)})
	return p
}

func TestKeys_LifeOfADevice(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		withKeys(h)
		anna, cleo := h.user("anna", acme).phone(), h.user("cleo", globex).phone().ready(1)
		up := anna.ok("POST", "/keys/upload", map[string]any{"device_keys": anna.deviceKeys(), "one_time_keys": anna.oneTime(2)})
		if up.raw != `{"one_time_key_counts":{"signed_curve25519":2}}` {
			t.Errorf("upload = %s", up)
		}
		q := cleo.ok("POST", "/keys/query", map[string]any{"device_keys": map[string]any{string(anna.id): []string{}}, "timeout": 10})
		if !strings.Contains(q.raw, publicName(anna.private)) || !strings.Contains(q.raw, `"failures":{}`) {
			t.Errorf("query = %s", q)
		}
		want := map[string]any{"one_time_keys": map[string]any{string(anna.id): map[string]string{anna.device: "signed_curve25519"}}}
		for i := range 3 {
			if c := cleo.ok("POST", "/keys/claim", want); strings.Contains(c.raw, fmt.Sprintf("signed_curve25519:%d", i)) != (i < 2) {
				t.Errorf("claim %d = %s", i, c)
			}
		}
		cleo.ok("PUT", "/sendToDevice/%s/%s", map[string]any{"messages": map[string]any{string(anna.id): map[string]any{"*": map[string]string{"a": "b"}}}}, "m/x", "t")
		if list := cleo.ok("GET", "/keys/changes?from=s0&to=s999", nil); list.raw != `{"changed":["`+string(cleo.id)+`"],"left":[]}` {
			t.Errorf("changes = %s", list)
		}
	})
}

func TestKeys_BadRequests(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		withKeys(h)
		anna := h.user("anna", acme).phone()
		for _, c := range []struct{ method, path, body, code string }{
			{"POST", "/keys/upload", `{"device_keys":null}`, "M_BAD_JSON"},
			{"POST", "/keys/upload", `{"one_time_keys":null}`, "M_BAD_JSON"},
			{"POST", "/keys/upload", `{"device_keys":{}}`, "M_INVALID_PARAM"},
			{"POST", "/keys/upload", `{"device_keys":{"user_id":"` + string(anna.id) + `","USER_ID":"@x:y"}}`, "M_INVALID_PARAM"},
			{"POST", "/keys/upload", `[]`, "M_BAD_JSON"},
			{"POST", "/keys/upload", `{`, "M_NOT_JSON"},
			{"POST", "/keys/query", `{}`, "M_MISSING_PARAM"},
			{"POST", "/keys/query", `{"device_keys":{"@a:b":{}}}`, "M_BAD_JSON"},
			{"POST", "/keys/query", `{"device_keys":{"@a:b":[1]}}`, "M_BAD_JSON"},
			{"POST", "/keys/query", `{"device_keys":{"nobody":[]}}`, "M_INVALID_PARAM"},
			{"POST", "/keys/claim", `{"one_time_keys":{"@a:b":[]}}`, "M_BAD_JSON"},
			{"POST", "/keys/claim", `{}`, "M_MISSING_PARAM"},
			{"POST", "/keys/signatures/upload", `{"@a:b":{"c":null}}`, "M_BAD_JSON"},
			{"POST", "/keys/device_signing/upload", `{"master_key":null}`, "M_BAD_JSON"},
			{"POST", "/keys/device_signing/upload", `{}`, "M_MISSING_PARAM"},
			{"GET", "/keys/changes", ``, "M_MISSING_PARAM"},
			{"GET", "/keys/changes?from=x", ``, "M_INVALID_PARAM"},
			{"PUT", "/sendToDevice/m.x/t", `{}`, "M_MISSING_PARAM"},
			{"PUT", "/sendToDevice/m.x/t", `{"messages":{"@a:b":{"*":1}}}`, "M_BAD_JSON"},
			{"POST", "/room_keys/version", `{"algorithm":"x"}`, "M_BAD_JSON"},
			{"PUT", "/room_keys/keys", `{"rooms":{}}`, "M_MISSING_PARAM"},
			{"PUT", "/room_keys/keys?version=1", `{}`, "M_MISSING_PARAM"},
			{"PUT", "/room_keys/keys/!r:x/s?version=1", `{"first_message_index":1.5}`, "M_BAD_JSON"},
		} {
			want(t, c.path+" "+c.body, anna.do(c.method, c.path, c.body), 400, c.code)
		}
	})
}

func TestC179_ResetOverHTTP(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		withKeys(h)
		anna := h.user("anna", acme).phone().ready(0)
		first, _ := anna.cross("first")
		anna.ok("POST", "/keys/device_signing/upload", first)
		anna.ok("POST", "/keys/device_signing/upload", first)
		second, master := anna.cross("second")
		a := anna.do("POST", "/keys/device_signing/upload", second)
		session, _ := a.body["session"].(string)
		if a.status != 401 || session == "" || !strings.Contains(a.raw, "m.login.password") {
			t.Fatalf("reset without proof = %s", a)
		}
		if q := anna.ok("POST", "/keys/query", map[string]any{"device_keys": map[string]any{string(anna.id): []string{}}}); strings.Contains(q.raw, publicName(master)) {
			t.Errorf("the key was replaced without proof: %s", q)
		}
		second["auth"] = map[string]any{"type": "m.login.password", "session": session, "password": "wrong horse", "identifier": map[string]any{"type": "m.id.user", "user": anna.id}}
		if a = anna.do("POST", "/keys/device_signing/upload", second); a.status == 200 {
			t.Fatalf("a wrong password was accepted: %s", a)
		}
		second["auth"].(map[string]any)["password"] = "correct horse battery"
		anna.ok("POST", "/keys/device_signing/upload", second)
		if q := anna.ok("POST", "/keys/query", map[string]any{"device_keys": map[string]any{string(anna.id): []string{}}}); !strings.Contains(q.raw, publicName(master)) {
			t.Errorf("the key was not replaced: %s", q)
		}
	})
}

// TestP306_P307_P309_KeysOfAClosedPool asks the real engine: who is outside of a closed pool learns nothing of those inside.
func TestP306_P307_P309_KeysOfAClosedPool(t *testing.T) {
	eachHouse(t, pools(), func(t *testing.T, h *house) {
		withKeys(h)
		anna, olga := h.user("anna", acme, "vault").phone().ready(3), h.user("olga", acme).phone().ready(1)
		cross, master := anna.cross("anna")
		anna.ok("POST", "/keys/device_signing/upload", cross)
		own, _ := olga.cross("olga")
		olga.ok("POST", "/keys/device_signing/upload", own)
		for _, who := range []string{string(anna.id), "@nobody:acme.example"} {
			q := olga.ok("POST", "/keys/query", map[string]any{"device_keys": map[string]any{who: []string{}}})
			if q.raw != `{"device_keys":{},"master_keys":{},"self_signing_keys":{},"user_signing_keys":{},"failures":{}}` {
				t.Errorf("query of %s = %s", who, q)
			}
			c := olga.ok("POST", "/keys/claim", map[string]any{"one_time_keys": map[string]any{who: map[string]string{anna.device: "signed_curve25519"}}})
			if c.raw != `{"one_time_keys":{},"failures":{}}` {
				t.Errorf("claim of %s = %s", who, c)
			}
			object := sealed(olga.id, cross["master_key"].(map[string]any), "ed25519:"+publicName(seedKey("olgau")), seedKey("olgau"))
			s := olga.ok("POST", "/keys/signatures/upload", map[string]any{who: map[string]any{publicName(master): object}})
			if !strings.Contains(s.raw, "M_NOT_FOUND") {
				t.Errorf("signature on %s = %s", who, s)
			}
			for _, typ := range []string{"m.room_key_request", "m.forwarded_room_key"} {
				olga.ok("PUT", "/sendToDevice/%s/%s", map[string]any{"messages": map[string]any{who: map[string]any{"*": map[string]string{"a": "b"}}}}, typ, who)
			}
		}
		if up := anna.ok("POST", "/keys/upload", "{}"); up.raw != `{"one_time_key_counts":{"signed_curve25519":3}}` {
			t.Errorf("a key was burnt: %s", up)
		}
		if n := h.waiting(string(anna.id), anna.device); n != 0 {
			t.Errorf("%d messages wait for anna", n)
		}
	})
}

// waiting counts the to-device messages of a device.
func (h *house) waiting(user, device string) int {
	h.t.Helper()
	var n int
	err := h.db.Read(context.Background(), func(tx *storage.Tx) error {
		list, err := tx.LoadToDevice(matrix.UserID(user), matrix.DeviceID(device), 0, 1<<60, 100)
		n = len(list)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func TestRoomKeys_OverHTTP(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		withKeys(h)
		anna, bert := h.user("anna", acme), h.user("bert", acme)
		want(t, "no backup", anna.do("GET", "/room_keys/version", nil), 404, "M_NOT_FOUND")
		create := map[string]any{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": map[string]string{"public_key": "x"}}
		one := anna.ok("POST", "/room_keys/version", create).body["version"]
		session := map[string]any{"first_message_index": 1, "forwarded_count": 0, "is_verified": true, "session_data": map[string]string{"c": "d"}}
		put := anna.ok("PUT", "/room_keys/keys/%s/%s?version="+fmt.Sprint(one), session, "!r:acme.example", "s/1+=")
		if put.raw != `{"count":1,"etag":"1"}` {
			t.Errorf("put = %s", put)
		}
		anna.ok("PUT", "/room_keys/keys/%s?version="+fmt.Sprint(one), map[string]any{"sessions": map[string]any{"s2": session}}, "!r:acme.example")
		anna.ok("PUT", "/room_keys/keys?version="+fmt.Sprint(one), map[string]any{"rooms": map[string]any{"!q:acme.example": map[string]any{"sessions": map[string]any{"s3": session}}}})
		if v := anna.ok("GET", "/room_keys/version/"+fmt.Sprint(one), nil); v.body["count"] != 3.0 || v.body["etag"] != "3" || v.body["version"] != one {
			t.Errorf("version = %s", v)
		}
		if g := anna.ok("GET", "/room_keys/keys/%s/%s?version="+fmt.Sprint(one), nil, "!r:acme.example", "s/1+="); g.body["is_verified"] != true {
			t.Errorf("get = %s", g)
		}
		if g := anna.ok("GET", "/_matrix/client/unstable/room_keys/keys?version="+fmt.Sprint(one), nil); strings.Count(g.raw, "session_data") != 3 {
			t.Errorf("get all = %s", g)
		}
		if g := anna.ok("GET", "/room_keys/keys/%s?version="+fmt.Sprint(one), nil, "!none:x"); g.raw != `{"sessions":{}}` {
			t.Errorf("get of another room = %s", g)
		}
		want(t, "another user's backup", bert.do("GET", "/room_keys/keys?version="+fmt.Sprint(one), nil), 404, "M_NOT_FOUND")
		two := anna.ok("POST", "/room_keys/version", create).body["version"]
		old := anna.do("PUT", "/room_keys/keys/%s/%s?version="+fmt.Sprint(one), session, "!r:acme.example", "s4")
		if want(t, "an old version", old, 403, "M_WRONG_ROOM_KEYS_VERSION"); old.body["current_version"] != two {
			t.Errorf("current_version = %v, want %v", old.body["current_version"], two)
		}
		create["version"] = two
		want(t, "another version in the body", anna.do("PUT", "/room_keys/version/"+fmt.Sprint(one), create), 400, "M_INVALID_PARAM")
		if d := anna.ok("DELETE", "/room_keys/keys/%s?version="+fmt.Sprint(one), nil, "!r:acme.example"); d.body["count"] != 1.0 {
			t.Errorf("delete = %s", d)
		}
		anna.ok("DELETE", "/room_keys/version/"+fmt.Sprint(one), nil)
		want(t, "a deleted version", anna.do("GET", "/room_keys/keys?version="+fmt.Sprint(one), nil), 404, "M_NOT_FOUND")
	})
}
