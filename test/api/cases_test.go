package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/storage"
	"hansa/test/hstest"
)

// wants checks an answer that refuses: the status, the errcode and that there is a sentence for people.
func wants(t testing.TB, what string, a hstest.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Code() != code {
		t.Errorf("%s: %d %.200s; want %d %s", what, a.Status, a.Raw, status, code)
	} else if a.String("error") == "" {
		t.Errorf("%s: no sentence for people: %s", what, a.Raw)
	}
}

// survives checks that a server answers, whatever it says, with something that is neither a fault of its own nor nothing.
func survives(t testing.TB, what string, a hstest.Answer) {
	t.Helper()
	if a.Status >= 500 || a.Status < 200 {
		t.Errorf("%s: %d %.200s; want no fault of the server", what, a.Status, a.Raw)
	}
}

// events are all events of a room, hidden ones included, as the database has them.
func events(s *hstest.Server, room string) []*storage.Event {
	var list []*storage.Event
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) (err error) {
		list, err = tx.LoadPage(matrix.RoomID(room), -1<<62, storage.Forward, 10000)
		return err
	})
	if err != nil {
		panic(err)
	}
	return list
}

// rooms is how many rooms there are.
func rooms(s *hstest.Server) int {
	n := 0
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) error {
		list, _, err := tx.LoadRoomsAfter(0, 10000)
		n = len(list)
		return err
	})
	if err != nil {
		panic(err)
	}
	return n
}

// untouched runs attempts that must leave nothing in a room, and checks that the room goes on afterwards.
func untouched(t testing.TB, u *hstest.User, room string, attempts func()) {
	t.Helper()
	before, all := len(events(u.S, room)), rooms(u.S)
	attempts()
	if n := len(events(u.S, room)); n != before {
		t.Errorf("%d events came into the room by requests that were refused", n-before)
	}
	if n := rooms(u.S); n != all {
		t.Errorf("%d rooms were made by requests that were refused", n-all)
	}
	goesOn(t, u, room)
}

// goesOn checks that a message passes through a room as ever.
func goesOn(t testing.TB, u *hstest.User, room string) {
	t.Helper()
	id := u.Send(room, "still here")
	if a := u.Must("GET", at(room)+"/event/"+hstest.Esc(id), nil); a.String("content", "body") != "still here" {
		t.Errorf("the room does not go on: %s", a.Raw)
	}
	u.Must("GET", "/sync?timeout=0", nil)
}

// at is the path of a room.
func at(room string) string { return "/rooms/" + hstest.Esc(room) }

// door is an endpoint that takes a JSON object from clients.
type door struct {
	method, path string
	// optional bodies may be left out.
	optional bool
}

func (d door) String() string { return d.method + " " + strings.Split(d.path, "?")[0] }

// doors are the endpoints that take JSON objects, with the parameters of a user in a room.
func doors(u *hstest.User, room, event string) []door {
	me, in := "/user/"+hstest.Esc(string(u.ID)), at(room)
	return []door{
		{"POST", "/login", false},
		{"POST", "/refresh", false},
		{"POST", "/register", false},
		{"POST", "/_synapse/admin/v1/register", false},
		{"POST", "/createRoom", false},
		{"PUT", in + "/send/m.room.message/" + u.Txn(), false},
		{"PUT", in + "/send/com.example.other/" + u.Txn(), false},
		{"PUT", in + "/state/m.room.topic", false},
		{"PUT", in + "/state/m.room.member/" + hstest.Esc(string(u.ID)), false},
		{"PUT", in + "/state/m.room.power_levels", false},
		{"PUT", in + "/redact/" + hstest.Esc(event) + "/" + u.Txn(), true},
		{"POST", in + "/invite", false},
		{"POST", in + "/kick", false},
		{"POST", in + "/ban", false},
		{"POST", in + "/unban", false},
		{"POST", in + "/upgrade", false},
		{"POST", in + "/receipt/m.read/" + hstest.Esc(event), true},
		{"POST", in + "/read_markers", false},
		{"PUT", in + "/typing/" + hstest.Esc(string(u.ID)), false},
		{"PUT", me + "/account_data/com.example.thing", false},
		{"PUT", me + in + "/account_data/com.example.thing", false},
		{"PUT", me + in + "/tags/u.work", false},
		{"POST", me + "/filter", false},
		{"PUT", "/profile/" + hstest.Esc(string(u.ID)) + "/displayname", false},
		{"PUT", "/presence/" + hstest.Esc(string(u.ID)) + "/status", false},
		{"PUT", "/pushrules/global/content/rule", false},
		{"PUT", "/pushrules/global/override/.m.rule.master/enabled", false},
		{"PUT", "/devices/" + hstest.Esc(u.DeviceID), false},
		{"POST", "/delete_devices", false},
		{"POST", "/account/password", false},
		{"POST", "/keys/upload", false},
		{"POST", "/keys/query", false},
		{"POST", "/keys/claim", false},
		{"POST", "/keys/signatures/upload", false},
		{"POST", "/keys/device_signing/upload", false},
		{"POST", "/room_keys/version", false},
		{"PUT", "/sendToDevice/m.room_key_request/" + u.Txn(), false},
		{"POST", "/user_directory/search", false},
		{"POST", "/publicRooms", true},
		{"PUT", "/directory/list/room/" + hstest.Esc(room), true},
		{"PUT", "/directory/room/" + hstest.Esc("#lobby:acme.example"), false},
	}
}

// scene is a server with anna, who has made a room, and ben, who is in it.
type scene struct {
	*hstest.Server
	anna, ben   *hstest.User
	room, event string
}

func newScene(t testing.TB, o hstest.Options) *scene {
	t.Helper()
	s := hstest.New(t, o)
	c := &scene{Server: s, anna: s.User("anna"), ben: s.User("ben")}
	c.room = c.anna.CreateRoom(map[string]any{"preset": "public_chat"})
	c.ben.Join(c.room)
	c.event = c.anna.Send(c.room, "first")
	return c
}

// send puts an event of any type into the room, as anna.
func (c *scene) send(typ, body string) hstest.Answer {
	return c.anna.Try("PUT", at(c.room)+"/send/"+typ+"/"+c.anna.Txn(), []byte(body))
}

// state sets state of the room, as anna.
func (c *scene) state(typ, key, body string) hstest.Answer {
	return c.anna.Try("PUT", at(c.room)+"/state/"+hstest.Esc(typ)+"/"+hstest.Esc(key), []byte(body))
}

// do makes a request and reads the answer.
func do(t testing.TB, req *http.Request) hstest.Answer {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := hstest.Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Raw, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal(a.Raw, &a.JSON) // not every answer is an object
	return a
}

// hosted makes a request to one of the hosted domains, without a token.
func hosted(t testing.TB, s *hstest.Server, host, method, path, body string) hstest.Answer {
	t.Helper()
	req, err := http.NewRequest(method, s.URL+prefixed(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	return do(t, req)
}

// refuseAll sends one body to every door and wants the same refusal from each.
func (c *scene) refuseAll(t testing.TB, body, code string) {
	t.Helper()
	for _, d := range doors(c.anna, c.room, c.event) {
		wants(t, fmt.Sprintf("%s with %.60q", d, body), c.anna.Try(d.method, d.path, []byte(body)), 400, code)
	}
}
