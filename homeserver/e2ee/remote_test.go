package e2ee

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const (
	elsewhere = matrix.ServerName("elsewhere.example")
	far2      = matrix.UserID("@far2:elsewhere.example")
	acme      = matrix.ServerName("acme.example")
)

// deviceIDs are the devices of a user in an answer, with their names.
func deviceIDs(k *Keys, user matrix.UserID) string {
	var out []string
	for _, d := range slices.Sorted(maps.Keys(k.DeviceKeys[user])) {
		name := ""
		if u := unsignedOf(k.DeviceKeys[user][d]); u.DisplayName != nil {
			name = *u.DisplayName
		}
		out = append(out, fmt.Sprintf("%s %s", d, name))
	}
	return strings.Join(out, ", ")
}

func (w *world) query(by *device, users ...matrix.UserID) *Keys {
	w.t.Helper()
	want := query{}
	for _, u := range users {
		want[u] = nil
	}
	k, err := w.QueryKeys(w.ctx, by.Caller, want)
	w.must(err)
	return k
}

func (w *world) calls(want string) {
	w.t.Helper()
	if got := w.peers.calls(); got != want {
		w.t.Errorf("asked of other servers: %q, want %q", got, want)
	}
}

// edu gives the service an EDU of another server.
func (w *world) edu(fn func(content jsontext.Value) error, content any) {
	w.t.Helper()
	w.must(fn(value(content)))
}

func (w *world) deviceList(u federation.DeviceListUpdate) {
	w.t.Helper()
	w.edu(func(c jsontext.Value) error { return w.ReceiveDeviceList(w.ctx, acme, elsewhere, c) }, u)
}

func TestQueryKeys_OtherServer(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A").ready(0)
		w.peers.put(far, 5, "F1", "F2")
		w.peers.put(far2, 7, "G")
		// Without a room in common nothing is kept, and the server is asked each time.
		for range 2 {
			k := w.query(a, far, anna)
			if got := deviceIDs(k, far); got != "F1 Phone F1, F2 Phone F2" || len(k.Failures) != 0 {
				w.t.Errorf("devices %q, failures %v", got, k.Failures)
			}
			if strings.Contains(string(value(k)), "evil") || strings.Contains(string(value(k)), string(far2)) {
				w.t.Errorf("an answer holds what nobody asked for: %s", value(k))
			}
			w.calls("query acme.example>elsewhere.example")
		}
		r := w.room("!r:acme.example")
		r.member(anna, "join")
		r.member(far, "join")
		for i, want := range []string{"devices acme.example>elsewhere.example", "", ""} {
			if got := deviceIDs(w.query(a, far), far); got != "F1 Phone F1, F2 Phone F2" {
				w.t.Errorf("devices %q", got)
			}
			if w.calls(want); i == 1 {
				w.restart()
			}
		}
		one, err := w.QueryKeys(w.ctx, a.Caller, query{far: {"F2", "F9"}})
		if w.must(err); deviceIDs(one, far) != "F2 Phone F2" {
			w.t.Errorf("one device: %s", value(one))
		}
		r.member(far, "leave")
		w.query(a, far)
		w.calls("query acme.example>elsewhere.example")
	})
}

// A user whom the server does not know keeps nobody from the keys of others, and is asked for again.
func TestQueryKeys_UnknownThere(t *testing.T) {
	each(t, func(w *world) {
		a, r := w.together()
		r.member(far2, "join")
		k := w.query(a, far, far2)
		if _, ok := k.DeviceKeys[far2]; ok || deviceIDs(k, far) != "F1 Phone F1" || len(k.Failures) != 0 {
			w.t.Errorf("answer %s", value(k))
		}
		w.peers.put(far2, 1, "G")
		if k := w.query(a, far, far2); deviceIDs(k, far2) != "G Phone G" {
			w.t.Errorf("answer %s", value(k))
		}
	})
}

// Many users of one server are asked for in several requests.
func TestQueryKeys_Many(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A").ready(0)
		want, claims := query{}, map[matrix.UserID]map[matrix.DeviceID]string{}
		for i := range maxAsked + 1 {
			u := matrix.UserID(fmt.Sprintf("@u%d:elsewhere.example", i))
			w.peers.put(u, 1, "D")
			want[u], claims[u] = nil, map[matrix.DeviceID]string{"D": "signed_curve25519"}
		}
		k, err := w.QueryKeys(w.ctx, a.Caller, want)
		if w.must(err); len(k.DeviceKeys) != maxAsked+1 {
			w.t.Errorf("keys of %d users", len(k.DeviceKeys))
		}
		w.calls("query acme.example>elsewhere.example, query acme.example>elsewhere.example")
		c, err := w.ClaimKeys(w.ctx, a.Caller, claims)
		if w.must(err); len(c.OneTimeKeys) != maxAsked+1 || len(c.OneTimeKeys["@u0:elsewhere.example"]) != 1 {
			w.t.Errorf("claimed of %d users", len(c.OneTimeKeys))
		}
		w.calls("claim acme.example>elsewhere.example, claim acme.example>elsewhere.example")
	})
}

func TestQueryKeys_ServerDown(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A").ready(0)
		w.peers.put(far, 5, "F1")
		w.peers.down[elsewhere] = true
		k := w.query(a, anna, far)
		if f, ok := k.Failures[elsewhere]; !ok || len(f) != 0 || len(k.DeviceKeys[anna]) != 1 || k.DeviceKeys[far] != nil {
			w.t.Errorf("answer %s", value(k))
		}
		c, err := w.ClaimKeys(w.ctx, a.Caller, map[matrix.UserID]map[matrix.DeviceID]string{far: {"F1": "signed_curve25519"}})
		if w.must(err); c.Failures[elsewhere] == nil || len(c.OneTimeKeys) != 0 {
			w.t.Errorf("claim %s", value(c))
		}
	})
}

// Of users whom policy keeps away nothing is asked, and their server is as if it were down.
func TestP306_P307_KeysOfDeniedUsers(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A").ready(0)
		w.peers.put(far, 5, "F1")
		w.peers.put(far2, 5, "G")
		w.wall.deny(anna, far)
		k := w.query(a, far)
		c, err := w.ClaimKeys(w.ctx, a.Caller, map[matrix.UserID]map[matrix.DeviceID]string{far: {"F1": "signed_curve25519"}})
		if w.must(err); len(k.DeviceKeys) != 0 || k.Failures[elsewhere] == nil || len(c.OneTimeKeys) != 0 || c.Failures[elsewhere] == nil {
			w.t.Errorf("answers %s, %s", value(k), value(c))
		}
		w.calls("")
		k = w.query(a, far, far2) // one of two: the other is served
		if len(k.Failures) != 0 || k.DeviceKeys[far] != nil || deviceIDs(k, far2) != "G Phone G" {
			w.t.Errorf("answer %s", value(k))
		}
		w.calls("query acme.example>elsewhere.example")
	})
}

// together is a device of ours and the room that its user shares with somebody of another server.
func (w *world) together() (*device, *testRoom) {
	a := w.device(anna, "A").ready(0)
	w.peers.put(far, 5, "F1")
	r := w.room("!r:acme.example")
	r.member(anna, "join")
	r.member(far, "join")
	return a, r
}

// A kept list is not shown to whom policy keeps away.
func TestP306_KeptListOfDeniedUser(t *testing.T) {
	each(t, func(w *world) {
		a, _ := w.together()
		w.query(a, far)
		w.wall.deny(anna, far)
		if k := w.query(a, far); len(k.DeviceKeys) != 0 {
			w.t.Errorf("answer %s", value(k))
		}
	})
}

func TestQueryKeys_BadAnswers(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A").ready(0)
		good := farDevice(far, "GOOD")
		wrongUser, wrongDevice := farDevice(far2, "W").keys(), farDevice(far, "OTHER").keys()
		float := good.keys()
		float["x"] = 1.5
		w.peers.users[far] = &federation.Devices{UserID: far, StreamID: 1, Devices: []federation.Device{
			{DeviceID: "W", Keys: value(wrongUser)}, {DeviceID: "X", Keys: value(wrongDevice)}, {DeviceID: "GOOD", Keys: value(good.keys())},
			{DeviceID: "FLOAT", Keys: value(float)}, {DeviceID: "TEXT", Keys: jsontext.Value(`"x"`)}, {DeviceID: "", Keys: jsontext.Value(`{}`)}},
			MasterKey: jsontext.Value(`{"user_id":"@far:elsewhere.example","usage":["master"],"keys":{}}`)}
		w.peers.users["@far:third.example"] = w.peers.users[far]
		r := w.room("!r:acme.example")
		for range 2 {
			if k := w.query(a, far); deviceIDs(k, far) == "" || len(k.DeviceKeys[far]) != 1 || len(k.MasterKeys) != 0 {
				w.t.Errorf("answer %s", value(k))
			}
			r.member(anna, "join")
			r.member(far, "join")
		}
	})
}

// Users sign the master keys of others whose lists are kept, and see their own signatures.
func TestUploadSignatures_OtherServer(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A").ready(0)
		ia := w.identity(a, "anna")
		msk, ssk := newKey("farmaster"), newKey("farself")
		masterKey := signedBy(map[string]any{"user_id": string(far), "usage": []string{"master"}, "keys": map[string]string{"ed25519:" + name(msk): name(msk)}}, far,
			map[string]ed25519.PrivateKey{"ed25519:" + name(msk): msk})
		self := func(by ed25519.PrivateKey) jsontext.Value {
			return value(signedBy(map[string]any{"user_id": string(far), "usage": []string{"self_signing"}, "keys": map[string]string{"ed25519:" + name(ssk): name(ssk)}}, far,
				map[string]ed25519.PrivateKey{"ed25519:" + name(msk): by}))
		}
		w.peers.put(far, 5, "F1")
		w.peers.users[far].MasterKey, w.peers.users[far].SelfSigningKey = value(masterKey), self(ssk) // signed by the wrong key
		r := w.room("!r:acme.example")
		r.member(anna, "join")
		r.member(far, "join")
		if k := w.query(a, far); k.MasterKeys[far] == nil || k.SelfSigningKeys[far] != nil {
			w.t.Errorf("answer %s", value(k))
		}
		failed, err := w.UploadSignatures(w.ctx, a.Caller, signedObjects{far: {name(msk): value(signedBy(masterKey, anna,
			map[string]ed25519.PrivateKey{"ed25519:" + name(ia.usk): ia.usk}))}})
		if w.must(err); len(failed) != 0 {
			w.t.Fatal(failed)
		}
		if k := w.query(a, far); !strings.Contains(string(k.MasterKeys[far]), name(ia.usk)) || !strings.Contains(string(k.MasterKeys[far]), string(far)) {
			w.t.Errorf("signatures: %s", k.MasterKeys[far])
		}
		signingKeys := func(u federation.SigningKeyUpdate) {
			w.edu(func(c jsontext.Value) error { return w.ReceiveSigningKey(w.ctx, acme, elsewhere, c) }, u)
		}
		before := w.position()
		signingKeys(federation.SigningKeyUpdate{UserID: far, MasterKey: value(masterKey), SelfSigningKey: self(msk)})
		if k := w.query(a, far); k.SelfSigningKeys[far] == nil || !strings.Contains(string(k.MasterKeys[far]), name(ia.usk)) || !slices.Contains(w.touched(before), far) {
			w.t.Errorf("after the update: %s, touched %v", value(k), w.touched(before))
		}
		before = w.position()
		signingKeys(federation.SigningKeyUpdate{UserID: far, MasterKey: value(masterKey), SelfSigningKey: self(msk)})
		signingKeys(federation.SigningKeyUpdate{UserID: anna, MasterKey: value(masterKey)})
		if len(w.touched(before)) != 0 {
			w.t.Errorf("touched %v", w.touched(before))
		}
		other := newKey("othermaster")
		signingKeys(federation.SigningKeyUpdate{UserID: far, MasterKey: value(signedBy(map[string]any{"user_id": string(far), "usage": []string{"master"},
			"keys": map[string]string{"ed25519:" + name(other): name(other)}}, far, nil))})
		if k := w.query(a, far); !strings.Contains(string(k.MasterKeys[far]), name(other)) || k.SelfSigningKeys[far] != nil || strings.Contains(string(value(k)), name(ia.usk)) {
			w.t.Errorf("after another master key: %s", value(k))
		}
	})
}

// TestSpec37_DeviceListUpdates follows a list by updates, and fetches it where one was missed.
func TestSpec37_DeviceListUpdates(t *testing.T) {
	each(t, func(w *world) {
		a, _ := w.together()
		before := w.position()
		w.deviceList(federation.DeviceListUpdate{UserID: far, DeviceID: "F1", StreamID: 5}) // nothing kept: clients hear all the same
		w.deviceList(federation.DeviceListUpdate{UserID: far2, DeviceID: "G", StreamID: 5}) // shares no room
		if got := w.touched(before); !slices.Equal(got, []matrix.UserID{far}) {
			w.t.Errorf("touched %v", got)
		}
		devices := func(want, calls string) {
			w.t.Helper()
			if got := deviceIDs(w.query(a, far), far); got != want {
				w.t.Errorf("devices %q, want %q", got, want)
			}
			w.calls(calls)
		}
		devices("F1 Phone F1", "devices acme.example>elsewhere.example")
		update := func(id matrix.DeviceID, stream int64, prev ...int64) federation.DeviceListUpdate {
			return federation.DeviceListUpdate{UserID: far, DeviceID: id, DisplayName: "New " + string(id), StreamID: stream, PrevID: prev,
				Keys: value(farDevice(far, id).keys())}
		}
		before = w.position()
		w.deviceList(update("F2", 6, 5))
		devices("F1 Phone F1, F2 New F2", "")
		if got := w.touched(before); !slices.Equal(got, []matrix.UserID{far}) {
			w.t.Errorf("touched %v", got)
		}
		w.deviceList(update("F3", 6, 5)) // known already
		w.deviceList(update("F3", 4))
		gone := update("F1", 8, 6)
		gone.Deleted, gone.Keys = true, nil
		w.deviceList(gone)
		devices("F2 New F2", "")
		w.deviceList(federation.DeviceListUpdate{UserID: far, DeviceID: "F2", StreamID: 9, PrevID: []int64{8}, Keys: jsontext.Value(`{"broken":true}`)})
		devices("", "")
		// One is missed.
		w.peers.put(far, 20, "F7", "F8")
		before = w.position()
		w.deviceList(update("F8", 20, 19))
		if got := w.touched(before); len(got) != 0 {
			w.t.Errorf("touched %v before the list is there", got)
		}
		w.must(w.refetch(w.ctx))
		if got := w.touched(before); !slices.Equal(got, []matrix.UserID{far}) {
			w.t.Errorf("touched %v", got)
		}
		w.calls("devices acme.example>elsewhere.example")
		devices("F7 Phone F7, F8 Phone F8", "")
		w.deviceList(update("F9", 21, 20)) // the answer is where updates go on
		devices("F7 Phone F7, F8 Phone F8, F9 New F9", "")
	})
}

// A server that does not answer is asked again later, and what comes in while a list is fetched is not lost.
func TestSpec37_FetchFailsOrIsOvertaken(t *testing.T) {
	each(t, func(w *world) {
		a, _ := w.together()
		w.query(a, far)
		w.peers.down[elsewhere] = true
		w.deviceList(federation.DeviceListUpdate{UserID: far, DeviceID: "F8", StreamID: 20, PrevID: []int64{19}})
		w.must(w.refetch(w.ctx))
		w.peers.calls()
		w.must(w.refetch(w.ctx)) // not at once
		w.calls("")
		if k := w.query(a, far); k.Failures[elsewhere] == nil {
			w.t.Errorf("a list that is not known to be right was shown: %s", value(k))
		}
		w.peers.down[elsewhere] = false
		w.peers.put(far, 20, "F8")
		w.peers.before = func() {
			w.peers.put(far, 21, "F8", "F9")
			w.deviceList(federation.DeviceListUpdate{UserID: far, DeviceID: "F9", StreamID: 21, PrevID: []int64{20}})
		}
		w.query(a, far)
		w.must(w.refetch(w.ctx))
		w.peers.calls()
		if got := deviceIDs(w.query(a, far), far); got != "F8 Phone F8, F9 Phone F9" {
			w.t.Errorf("devices %q", got)
		}
		w.calls("")
	})
}

// Keys of servers are answered about by nobody else.
func TestDeviceList_OfOtherOrigin(t *testing.T) {
	each(t, func(w *world) {
		a, _ := w.together()
		w.query(a, far)
		before := w.position()
		for _, content := range []string{`{"user_id":"@far:elsewhere.example","device_id":"F1","stream_id":6,"deleted":true}`, `null`, `[]`, `{}`,
			`{"user_id":7,"device_id":"x","stream_id":1}`, `{"user_id":"@x:third.example","device_id":"","stream_id":1}`,
			`{"user_id":"far:third.example","device_id":"D","stream_id":1}`, `{"user_id":"@anna:acme.example","device_id":"A","stream_id":1,"deleted":true}`} {
			w.must(w.ReceiveDeviceList(w.ctx, acme, "third.example", jsontext.Value(content)))
			w.must(w.ReceiveSigningKey(w.ctx, acme, "third.example", jsontext.Value(content)))
		}
		if got := w.touched(before); len(got) != 0 || deviceIDs(w.query(a, far), far) != "F1 Phone F1" {
			w.t.Errorf("touched %v, devices %q", got, deviceIDs(w.query(a, far), far))
		}
	})
}

func TestF123_ForeignDeviceQueries(t *testing.T) {
	each(t, func(w *world) {
		a, c := w.device(anna, "A").ready(3), w.device(cleo, "C").ready(3)
		w.device(bert, "B").ready(3)
		w.identity(a, "anna")
		w.peers.put(far, 5, "F1")
		w.wall.denied[[2]string{string(elsewhere), string(bert)}] = true
		k, err := w.ServeQuery(w.ctx, acme, elsewhere, query{anna: nil, bert: nil, cleo: nil, far2: nil, "@x:third.example": nil, ghost: nil})
		w.must(err)
		if len(k.DeviceKeys) != 1 || len(k.DeviceKeys[anna]) != 1 || len(k.MasterKeys) != 1 || len(k.SelfSigningKeys) != 1 || strings.Contains(string(value(k)), "user_signing") {
			w.t.Errorf("answer %s", value(k))
		}
		want := map[matrix.UserID]map[matrix.DeviceID]string{far2: {"G": "signed_curve25519"}}
		for _, u := range []matrix.UserID{anna, bert, cleo, ghost} {
			want[u] = map[matrix.DeviceID]string{"A": "signed_curve25519", "B": "signed_curve25519", "C": "signed_curve25519"}
		}
		claimed, err := w.ServeClaim(w.ctx, acme, elsewhere, want)
		if w.must(err); len(claimed.OneTimeKeys) != 1 || len(claimed.OneTimeKeys[anna]) != 1 {
			w.t.Errorf("claimed %s", value(claimed))
		}
		if n, _, err := w.Counts(w.ctx, cleo, "C"); err != nil || n["signed_curve25519"] != 3 {
			w.t.Errorf("a key of another tenant's user was burnt: %v %v", n, err)
		}
		_ = c
		d, err := w.ServeDevices(w.ctx, acme, elsewhere, anna)
		if w.must(err); d.UserID != anna || len(d.Devices) != 1 || d.Devices[0].DisplayName != "Laptop A" || d.MasterKey == nil || d.SelfSigningKey == nil {
			w.t.Errorf("devices %s", value(d))
		}
		var first string
		for _, u := range []matrix.UserID{bert, cleo, ghost, far, "@x:third.example"} {
			_, err := w.ServeDevices(w.ctx, acme, elsewhere, u)
			if me := w.refused(err, 404, matrix.CodeNotFound); first != "" && fmt.Sprint(me) != first {
				w.t.Errorf("%s: another answer: %v", u, me)
			} else {
				first = fmt.Sprint(me)
			}
		}
		w.calls("")
		w.wall.fault = errors.New("broken")
		_, err = w.ServeQuery(w.ctx, acme, elsewhere, query{anna: nil})
		w.refused(err, 503, matrix.CodeUnknown)
		_, err = w.ServeClaim(w.ctx, acme, elsewhere, want)
		w.refused(err, 503, matrix.CodeUnknown)
	})
}

func (w *world) messages(user matrix.UserID, device matrix.DeviceID) []string {
	w.t.Helper()
	var out []string
	w.must(w.DB.Read(w.ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadToDevice(user, device, 0, 1<<60, 1000)
		for _, m := range list {
			out = append(out, fmt.Sprintf("%s %s %s", m.Sender, m.Type, m.Content))
		}
		return err
	}))
	return out
}

func TestF101_ToDeviceSpoof(t *testing.T) {
	each(t, func(w *world) {
		w.device(anna, "A1")
		w.device(anna, "A2")
		w.device(bert, "B")
		w.device(cleo, "C")
		receive := func(content string) error {
			return w.ReceiveToDevice(w.ctx, acme, elsewhere, jsontext.Value(content))
		}
		message := func(sender, id, to, content string) string {
			return fmt.Sprintf(`{"sender":%q,"type":"m.x","message_id":%q,"messages":{%s:%s}}`, sender, id, to, content)
		}
		all := `"@anna:acme.example":{"*":{"n":1}},"@cleo:globex.example":{"*":{"n":1}},"@bert:acme.example":{"B":{"n":1}},"@far:elsewhere.example":{"x":{}},"@none:acme.example"`
		w.wall.deny(far, bert)
		for range 3 { // the same message, repeated
			w.must(receive(message(string(far), "m1", all, `{"*":{}}`)))
		}
		for _, bad := range []string{message("@x:third.example", "m2", `"@anna:acme.example"`, `{"*":{}}`), message(string(anna), "m3", `"@anna:acme.example"`, `{"*":{}}`),
			message("far:elsewhere.example", "m4", `"@anna:acme.example"`, `{"*":{}}`), message(string(far), "", `"@anna:acme.example"`, `{"*":{}}`),
			message(string(far), strings.Repeat("x", 33), `"@anna:acme.example"`, `{"*":{}}`), message(string(far), "m5", `"@anna:acme.example"`, `{"*":"text"}`),
			message(string(far), "m6", `"@anna:acme.example"`, `{"*":{"big":"`+strings.Repeat("x", 64<<10)+`"}}`), message(string(far), "m7", `"@anna:acme.example"`, `[]`),
			`null`, `{}`, `[]`, `{"sender":7}`, `{"sender":"@far:elsewhere.example","type":"m.x","message_id":"m8","messages":null}`} {
			w.must(receive(bad))
		}
		for who, want := range map[[2]string][]string{{string(anna), "A1"}: {`@far:elsewhere.example m.x {"n":1}`}, {string(anna), "A2"}: {`@far:elsewhere.example m.x {"n":1}`},
			{string(bert), "B"}: nil, {string(cleo), "C"}: nil} {
			if got := w.messages(matrix.UserID(who[0]), matrix.DeviceID(who[1])); !slices.Equal(got, want) {
				w.t.Errorf("%v has %v, want %v", who, got, want)
			}
		}
		w.must(receive(message(string(far), strings.Repeat("ä", 32), `"@anna:acme.example"`, `{"A1":{"n":2}}`)))
		w.wall.fault = errors.New("broken")
		w.refused(receive(message(string(far), "m9", `"@anna:acme.example"`, `{"A1":{"n":3}}`)), 503, matrix.CodeUnknown)
		w.wall.fault = nil
		w.must(receive(message(string(far), "m9", `"@anna:acme.example"`, `{"A1":{"n":3}}`))) // sent again, not lost
		if got := w.messages(anna, "A1"); len(got) != 3 || !strings.HasSuffix(got[2], `{"n":3}`) {
			w.t.Errorf("A1 has %v", got)
		}
	})
}

func TestSendToDevice_OtherServers(t *testing.T) {
	each(t, func(w *world) {
		a := w.device(anna, "A")
		w.device(bert, "B")
		send := func(txn string, m Messages) error { return w.SendToDevice(w.ctx, a.Caller, "m.x", txn, m) }
		third := matrix.UserID("@x:third.example")
		w.wall.deny(anna, far2)
		m := Messages{bert: {"B": value(1)}, far: {"F1": jsontext.Value(`{"b":1,  "a":{"c":2}}`), "*": jsontext.Value(`{}`)}, far2: {"*": jsontext.Value(`{"secret":1}`)}, third: {"*": jsontext.Value(`{}`)}}
		m[bert]["B"] = jsontext.Value(`{"n":1}`)
		for range 2 {
			w.must(send("t1", m))
		}
		got := w.outbox.take()
		if len(got) != 1 || len(w.messages(bert, "B")) != 1 { // third.example is local to the census
			w.t.Fatalf("sent %v", got)
		}
		var c federation.ToDevice
		w.must(json.Unmarshal(got[0].content, &c))
		if got[0].as != acme || got[0].to != elsewhere || got[0].typ != federation.EDUToDevice || got[0].key != "" || c.MessageID == "" || c.Sender != anna || c.Type != "m.x" ||
			string(c.Messages[far]["F1"]) != `{"a":{"c":2},"b":1}` || len(c.Messages) != 1 || len(c.Messages[far]) != 2 {
			w.t.Errorf("sent %s", got[0].content)
		}
		big := jsontext.Value(`{"x":"` + strings.Repeat("x", 30<<10) + `"}`)
		w.must(send("t2", Messages{far: {"F1": big, "F2": big, "F3": big}, "@y:elsewhere.example": {"Y": big}}))
		got = w.outbox.take()
		count := 0
		for _, s := range got {
			var c federation.ToDevice
			if w.must(json.Unmarshal(s.content, &c)); len(s.content) > maxEDU {
				w.t.Errorf("an EDU of %d bytes", len(s.content))
			}
			for _, devices := range c.Messages {
				count += len(devices)
			}
		}
		if len(got) != 2 || count != 4 {
			w.t.Errorf("%d EDUs with %d messages", len(got), count)
		}
		w.refused(send("t3", Messages{far: {"F1": jsontext.Value(`{"x":"` + strings.Repeat("x", maxMessage-20) + `"}`)}}), 413, matrix.CodeTooLarge)
		w.refused(send("t4", Messages{far: {"F1": jsontext.Value(`{"x":1.5}`)}, bert: {"B": jsontext.Value(`{}`)}}), 400, matrix.CodeBadJSON)
		if len(w.outbox.take()) != 0 || len(w.messages(bert, "B")) != 1 {
			w.t.Error("part of a refused request was sent")
		}
		if slices.Contains(w.wall.asked, policy.KeysQuery) {
			w.t.Error("another point was asked")
		}
	})
}
