package federation_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa/config"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
	"hansa/test/hstest"
)

type object = map[string]any

// pair is a room that users of two servers are in.
func pair(t *testing.T, f *hstest.Federation) (anna, bob *hstest.User, room string) {
	t.Helper()
	anna, bob = f.Servers[0].User("anna"), f.Servers[1].User("bob")
	room = anna.CreateRoom(object{"preset": "public_chat"})
	bob.Must("POST", via(room, f.Servers[0]), object{})
	anna.Until("bob's coming", membership(room, bob.ID, "join"))
	bob.Sync(0)
	return anna, bob, room
}

// quiet fails the test if a server was asked for anything but its keys.
func quiet(t *testing.T, o *hstest.Outsider) {
	t.Helper()
	for {
		select {
		case r := <-o.Requests:
			if !strings.Contains(r, "/key/v2/") {
				t.Errorf("a server that is no partner got %s", r)
			}
		default:
			return
		}
	}
}

// closed lets a server have only the named partners.
func closed(o *hstest.Options, partners ...string) {
	o.Change = func(c *config.Config) { c.Federation.DefaultPartners = partners }
}

func profilePath(user matrix.UserID, field string) string {
	return strings.TrimSuffix("/profile/"+hstest.Esc(string(user))+"/"+field, "/")
}

func TestF122_Profiles(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		anna.Must("PUT", profilePath(anna.ID, "displayname"), object{"displayname": "Änna"})
		anna.Must("PUT", profilePath(anna.ID, "org.example.note"), object{"org.example.note": object{"n": 1}})
		if a := bob.Must("GET", profilePath(anna.ID, ""), nil); a.String("displayname") != "Änna" || a.Get("org.example.note", "n") == nil {
			t.Errorf("profile %s", a.Raw)
		}
		if a := bob.Must("GET", profilePath(anna.ID, "displayname"), nil); len(a.JSON) != 1 || a.String("displayname") != "Änna" {
			t.Errorf("field %s", a.Raw)
		}
		for _, path := range []string{profilePath("@nobody:one.example", ""), profilePath(anna.ID, "avatar_url"), profilePath("@x:outside.example", "")} {
			if a := bob.Try("GET", path, nil); a.Status != 404 || a.Code() != "M_NOT_FOUND" {
				t.Errorf("%s: %d %s", path, a.Status, a.Raw)
			}
		}
		o := f.Outsider(hstest.Outside)
		for _, user := range []string{"@nobody:one.example", "@bob:two.example", "@x:outside.example"} {
			a := o.Do("GET", "one.example", "/_matrix/federation/v1/query/profile?user_id="+url.QueryEscape(user), nil)
			if a.Status != 404 || a.Code() != "M_NOT_FOUND" {
				t.Errorf("query for %s: %d %s", user, a.Status, a.Raw)
			}
		}
		a := o.Do("GET", "one.example", "/_matrix/federation/v1/query/profile?field=displayname&user_id="+url.QueryEscape(string(anna.ID)), nil)
		if a.Status != 200 || len(a.JSON) != 1 || a.String("displayname") != "Änna" {
			t.Errorf("query: %d %s", a.Status, a.Raw)
		}
	})
}

func TestF137_F138_Directory(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		room := anna.CreateRoom(object{"preset": "public_chat", "name": "Hall", "topic": "of all", "room_alias_name": "hall-😀", "visibility": "public"})
		anna.CreateRoom(object{"preset": "public_chat", "name": "Hidden"})
		alias := "#hall-😀:one.example"
		a := bob.Must("GET", "/directory/room/"+hstest.Esc(alias), nil)
		if servers, _ := a.Get("servers").([]any); a.String("room_id") != room || !slices.Contains(servers, any("one.example")) {
			t.Errorf("alias %s", a.Raw)
		}
		bob.Must("POST", "/join/"+hstest.Esc(alias), object{})
		for _, none := range []string{"#none:one.example", "#%F0%9F:one.example", "#a%2Fb:one.example"} {
			if a := bob.Try("GET", "/directory/room/"+hstest.Esc(none), nil); a.Status != 404 {
				t.Errorf("%s: %d %s", none, a.Status, a.Raw)
			}
		}
		for _, q := range []struct {
			method, path string
			body         any
			want         int
		}{{"GET", "/publicRooms?server=one.example", nil, 1}, {"POST", "/publicRooms?server=one.example", object{"filter": object{"generic_search_term": "hall"}, "limit": 1 << 30}, 1},
			{"POST", "/publicRooms?server=one.example", object{"filter": object{"generic_search_term": "nothing"}}, 0}} {
			a := bob.Must(q.method, q.path, q.body)
			if chunk, _ := a.Get("chunk").([]any); len(chunk) != q.want || q.want == 1 && !strings.Contains(string(a.Raw), room) {
				t.Errorf("%s %v: %s", q.path, q.body, a.Raw)
			}
		}
		o := f.Outsider(hstest.Outside)
		for _, alias := range []string{"#none:one.example", "#hall:two.example", "#x:outside.example", "#😀%00:one.example"} {
			if a := o.Do("GET", "one.example", "/_matrix/federation/v1/query/directory?room_alias="+url.QueryEscape(alias), nil); a.Status != 404 && a.Status != 400 {
				t.Errorf("query for %s: %d %s", alias, a.Status, a.Raw)
			}
		}
		if a := o.Do("GET", "one.example", "/_matrix/federation/v1/publicRooms?limit=1000000000&since=x", nil); a.Status != 400 {
			t.Errorf("a token of nobody: %d %s", a.Status, a.Raw)
		}
		if a := o.Do("POST", "one.example", "/_matrix/federation/v1/publicRooms", object{"limit": 1000000000}); a.Status != 200 || strings.Contains(string(a.Raw), "Hidden") {
			t.Errorf("list: %d %s", a.Status, a.Raw)
		}
	})
}

// upload uploads content and returns its media ID.
func upload(t *testing.T, u *hstest.User, typ string, content []byte) string {
	t.Helper()
	req, err := http.NewRequest("POST", u.S.URL+"/_matrix/media/v3/upload?filename=a+name.png", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	req.Header.Set("Content-Type", typ)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("upload: %d %s %v", resp.StatusCode, raw, err)
	}
	uri := ""
	var body struct {
		URI string `json:"content_uri"`
	}
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatal(err)
	}
	uri = body.URI
	return uri[strings.LastIndex(uri, "/")+1:]
}

func TestMedia(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		var picture bytes.Buffer
		if err := png.Encode(&picture, image.NewRGBA(image.Rect(0, 0, 300, 200))); err != nil {
			t.Fatal(err)
		}
		big := make([]byte, 3<<20)
		_, _ = rand.Read(big)
		for _, content := range [][]byte{picture.Bytes(), big, {}} {
			id := upload(t, anna, "image/png", content)
			for range 2 {
				a := bob.Must("GET", "/_matrix/client/v1/media/download/one.example/"+id, nil)
				if !bytes.Equal(a.Raw, content) || a.Header.Get("Content-Type") != "image/png" || !strings.Contains(a.Header.Get("Content-Disposition"), "a name.png") {
					t.Errorf("%d bytes of %d, %v", len(a.Raw), len(content), a.Header)
				}
			}
		}
		id := upload(t, anna, "image/png", picture.Bytes())
		a := bob.Must("GET", "/_matrix/client/v1/media/thumbnail/one.example/"+id+"?width=32&height=32", nil)
		if _, err := png.Decode(bytes.NewReader(a.Raw)); err != nil {
			t.Errorf("thumbnail: %v", err)
		}
		for _, path := range []string{"one.example/none", "outside.example/x"} {
			if a := bob.Try("GET", "/_matrix/client/v1/media/download/"+path, nil); a.Status != 404 && a.Status != 502 {
				t.Errorf("%s: %d %s", path, a.Status, a.Raw)
			}
		}
	})
}

// phone is a device with keys of its own.
type phone struct {
	*hstest.User
	key ed25519.PrivateKey
}

// seal signs an object.
func seal(t *testing.T, o object, user matrix.UserID, name string, key ed25519.PrivateKey) object {
	t.Helper()
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	message, err := canonicaljson.Canonicalize(raw, true)
	if err != nil {
		t.Fatal(err)
	}
	o["signatures"] = object{string(user): object{"ed25519:" + name: signing.EncodeBase64(ed25519.Sign(key, message))}}
	return o
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) string {
	return signing.EncodeBase64(key.Public().(ed25519.PublicKey))
}

// keys uploads the keys of a device.
func keys(t *testing.T, u *hstest.User) *phone {
	t.Helper()
	p := &phone{u, newKey(t)}
	d := u.DeviceID
	device := seal(t, object{"user_id": u.ID, "device_id": d, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
		"keys": object{"ed25519:" + d: public(p.key), "curve25519:" + d: public(newKey(t))}}, u.ID, d, p.key)
	u.Must("POST", "/keys/upload", object{"device_keys": device,
		"one_time_keys": object{"signed_curve25519:one": seal(t, object{"key": public(newKey(t))}, u.ID, d, p.key)}})
	return p
}

// changed tells whether a sync answer says that a user's keys changed.
func changed(user matrix.UserID) func(hstest.Answer) bool {
	return func(a hstest.Answer) bool {
		list, _ := a.Get("device_lists", "changed").([]any)
		return slices.Contains(list, any(string(user)))
	}
}

func TestEncryption(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob, _ := pair(t, f)
		pa := keys(t, anna)
		bob.Until("anna's keys", changed(anna.ID))
		query := func(want ...string) hstest.Answer {
			t.Helper()
			var a hstest.Answer
			for deadline := time.Now().Add(time.Minute); ; {
				a = bob.Must("POST", "/keys/query", object{"device_keys": object{string(anna.ID): []string{}}})
				found, _ := a.Get("device_keys", string(anna.ID)).(object)
				if len(found) == len(want) || time.Now().After(deadline) {
					for _, d := range want {
						if found[d] == nil {
							t.Errorf("device %s is missing: %s", d, a.Raw)
						}
					}
					return a
				}
				bob.Sync(time.Second)
			}
		}
		query(anna.DeviceID)
		second := anna.On(f.Servers[0])
		second.Login("TABLET")
		keys(t, second)
		bob.Until("anna's tablet", changed(anna.ID))
		query(anna.DeviceID, second.DeviceID)
		// One-time keys are given out once.
		claim := object{"one_time_keys": object{string(anna.ID): object{anna.DeviceID: "signed_curve25519"}}}
		if a := bob.Must("POST", "/keys/claim", claim); a.Get("one_time_keys", string(anna.ID), anna.DeviceID, "signed_curve25519:one") == nil {
			t.Errorf("claim: %s", a.Raw)
		}
		if a := bob.Must("POST", "/keys/claim", claim); len(a.Get("one_time_keys").(object)) != 0 {
			t.Errorf("claimed again: %s", a.Raw)
		}
		// Messages to devices, to one and to all.
		bob.Must("PUT", "/sendToDevice/m.room.encrypted/t1", object{"messages": object{string(anna.ID): object{anna.DeviceID: object{"n": 1}}}})
		bob.Must("PUT", "/sendToDevice/m.room.encrypted/t2", object{"messages": object{string(anna.ID): object{"*": object{"n": 2}}}})
		var got []any
		anna.Until("messages", func(a hstest.Answer) bool {
			events, _ := a.Get("to_device", "events").([]any)
			got = append(got, events...)
			return len(got) >= 2
		})
		if len(got) != 2 || fmt.Sprint(got[0].(object)["content"]) != "map[n:1]" || fmt.Sprint(got[1].(object)["content"]) != "map[n:2]" || got[0].(object)["sender"] != string(bob.ID) {
			t.Errorf("messages %v", got)
		}
		// Cross-signing keys, and a device that goes.
		m, s := newKey(t), newKey(t)
		cross := func(usage string, key ed25519.PrivateKey) object {
			return object{"user_id": anna.ID, "usage": []string{usage}, "keys": object{"ed25519:" + public(key): public(key)}}
		}
		anna.Must("POST", "/keys/device_signing/upload", object{"master_key": seal(t, cross("master", m), anna.ID, anna.DeviceID, pa.key),
			"self_signing_key": seal(t, cross("self_signing", s), anna.ID, public(m), m), "user_signing_key": seal(t, cross("user_signing", newKey(t)), anna.ID, public(m), m)})
		bob.Until("anna's master key", changed(anna.ID))
		hstest.Await(t, "anna's cross-signing keys", func() bool { // the change that bob was told of may be an earlier one, of the tablet
			a := query(anna.DeviceID, second.DeviceID)
			if a.Get("user_signing_keys", string(anna.ID)) != nil {
				t.Errorf("keys %s", a.Raw)
			}
			return a.Get("master_keys", string(anna.ID)) != nil && a.Get("self_signing_keys", string(anna.ID)) != nil
		})
		second.Must("POST", "/logout", object{})
		bob.Until("the tablet to go", changed(anna.ID))
		query(anna.DeviceID)
	})
}

func TestEphemera(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob, room := pair(t, f)
		ephemeral := func(typ, what string) func(hstest.Answer) bool {
			return func(a hstest.Answer) bool {
				raw, _ := json.Marshal(a.Get("rooms", "join", room, "ephemeral", "events"))
				return strings.Contains(string(raw), typ) && strings.Contains(string(raw), what)
			}
		}
		path := "/rooms/" + hstest.Esc(room)
		anna.Must("PUT", path+"/typing/"+hstest.Esc(string(anna.ID)), object{"typing": true, "timeout": 60000})
		bob.Until("anna's typing", ephemeral("m.typing", string(anna.ID)))
		anna.Must("PUT", path+"/typing/"+hstest.Esc(string(anna.ID)), object{"typing": false})
		bob.Until("the end of it", ephemeral("m.typing", `"user_ids":[]`))
		event := anna.Send(room, "read this")
		bob.Until("words", has(room, "read this"))
		bob.Must("POST", path+"/receipt/m.read/"+hstest.Esc(event), object{})
		anna.Until("bob's receipt", ephemeral("m.receipt", string(bob.ID)))
		anna.Must("PUT", "/presence/"+hstest.Esc(string(anna.ID))+"/status", object{"presence": "online", "status_msg": "at work"})
		bob.Until("anna's presence", func(a hstest.Answer) bool {
			raw, _ := json.Marshal(a.Get("presence"))
			return strings.Contains(string(raw), "at work")
		})
	})
}

// What is asked about users, aliases, lists and media of a server that is no partner never leaves the house.
func TestP291_P297_P306_R349_NotDialled(t *testing.T) {
	t.Parallel()
	for _, db := range []string{"sqlite"} {
		t.Run(db, func(t *testing.T) {
			f := hstest.NewFederation(t, 1, func(_ int, o *hstest.Options) { o.Database = db; closed(o, "two.example") })
			o := f.Outsider(hstest.Outside)
			anna := f.Servers[0].User("anna")
			keys(t, anna)
			x := "@x:" + hstest.Outside
			for path, status := range map[string]int{profilePath(matrix.UserID(x), ""): 404, profilePath(matrix.UserID(x), "displayname"): 404,
				"/directory/room/" + hstest.Esc("#x:"+hstest.Outside): 404, "/publicRooms?server=" + hstest.Outside: 403,
				"/_matrix/client/v1/media/download/" + hstest.Outside + "/x":                     404,
				"/_matrix/client/v1/media/thumbnail/" + hstest.Outside + "/x?width=32&height=32": 404,
				"/_matrix/media/v3/download/" + hstest.Outside + "/x?allow_remote=true":          404,
				"/presence/" + hstest.Esc(x) + "/status":                                         404,
			} {
				if a := anna.Try("GET", path, nil); a.Status != status {
					t.Errorf("%s: %d %s", path, a.Status, a.Raw)
				}
			}
			for path, body := range map[string]object{"/keys/query": {"device_keys": object{x: []string{}}}, "/keys/claim": {"one_time_keys": object{x: object{"D": "signed_curve25519"}}}} {
				if a := anna.Must("POST", path, body); a.Get("failures", hstest.Outside) == nil || len(a.Get("failures", hstest.Outside).(object)) != 0 || strings.Contains(string(a.Raw), x) {
					t.Errorf("%s: %s", path, a.Raw)
				}
			}
			anna.Must("PUT", "/sendToDevice/m.x/t1", object{"messages": object{x: object{"*": object{"secret": 1}}}})
			for _, path := range []string{"/query/profile?user_id=" + url.QueryEscape(string(anna.ID)), "/publicRooms", "/user/devices/" + hstest.Esc(string(anna.ID)), "/media/download/x"} {
				if a := o.Do("GET", "one.example", "/_matrix/federation/v1"+path, nil); a.Status != 403 {
					t.Errorf("%s: %d %s", path, a.Status, a.Raw)
				}
			}
			quiet(t, o)
		})
	}
}
