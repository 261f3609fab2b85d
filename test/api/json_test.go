package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/test/hstest"
)

// One parser: what two readers could understand differently is refused at every door.
func TestJ1_DuplicateKeys(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	untouched(t, c.anna, c.room, func() {
		c.refuseAll(t, `{"com.example.a":1,"com.example.a":2}`, "M_BAD_JSON")
		c.refuseAll(t, `{"com.example.deep":[{"b":{"a":1,"a":1}}]}`, "M_BAD_JSON")
		c.refuseAll(t, `{"com.example.a":1,"com.example.\u0061":2}`, "M_BAD_JSON")
		wants(t, "two bodies", c.send("m.room.message", `{"msgtype":"m.text","body":"a","body":"b"}`), 400, "M_BAD_JSON")
		wants(t, "two memberships", c.state("m.room.member", string(c.ben.ID), `{"membership":"ban","membership":"join"}`), 400, "M_BAD_JSON")
		wants(t, "two passwords", c.Do("POST", "/login", "", []byte(`{"type":"m.login.password","user":"anna","password":"x","password":"`+hstest.Password+`"}`)), 400, "M_BAD_JSON")
		wants(t, "two presets", c.anna.Try("POST", "/createRoom", []byte(`{"preset":"private_chat","preset":"public_chat"}`)), 400, "M_BAD_JSON")
		wants(t, "something after the object", c.send("m.room.message", `{"msgtype":"m.text","body":"a"}{"body":"b"}`), 400, "M_NOT_JSON")
	})
}

// Only a key in its exact case has a meaning.
func TestJ2_OtherCaseIsInert(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	body := `{"msgtype":"m.text","body":"right","Body":"wrong","SENDER":"@eve:acme.example","Content":{},"ROOM_ID":"!x:acme.example","Type":"m.room.name"}`
	sent := c.send("m.room.message", body)
	got := c.ben.Must("GET", at(c.room)+"/event/"+hstest.Esc(sent.String("event_id")), nil)
	if got.String("sender") != string(c.anna.ID) || got.String("room_id") != c.room || got.String("type") != "m.room.message" ||
		got.String("content", "body") != "right" || got.String("content", "SENDER") != "@eve:acme.example" {
		t.Errorf("event: %s", got.Raw)
	}
	untouched(t, c.anna, c.room, func() {
		wants(t, "body in another case", c.send("m.room.message", `{"msgtype":"m.text","BODY":"x"}`), 400, "M_BAD_JSON")
		a := c.state("m.room.member", string(c.ben.ID), `{"Membership":"ban"}`)
		if a.Status != 400 {
			t.Errorf("membership in another case: %d %s", a.Status, a.Raw)
		}
		for _, login := range []string{
			`{"type":"m.login.password","user":"anna","password":"wrong","Password":"` + hstest.Password + `","PASSWORD":"` + hstest.Password + `"}`,
			`{"type":"m.login.password","user":"anna","PASSWORD":"` + hstest.Password + `"}`,
		} {
			wants(t, "password in another case", c.Do("POST", "/login", "", []byte(login)), 403, "M_FORBIDDEN")
		}
		wants(t, "type in another case", c.Do("POST", "/login", "", []byte(`{"TYPE":"m.login.password","user":"anna","password":"`+hstest.Password+`"}`)), 400, "M_UNKNOWN")
		wants(t, "user_id in another case", c.anna.Try("POST", at(c.room)+"/kick", []byte(`{"User_id":"`+string(c.ben.ID)+`"}`)), 400, "M_MISSING_PARAM")
	})
	if a := c.anna.Must("POST", "/keys/upload", []byte(`{"Device_keys":{"user_id":"@eve:acme.example"},"ONE_TIME_KEYS":7}`)); len(a.JSON) != 1 {
		t.Errorf("keys in another case: %s", a.Raw)
	}
	made := c.anna.Must("POST", "/createRoom", []byte(`{"PRESET":"public_chat","Room_version":"1","Name":"x","Invite":["@ben:acme.example"]}`)).String("room_id")
	if a := c.anna.Must("GET", at(made)+"/state/m.room.join_rules", nil); a.String("join_rule") != "invite" {
		t.Errorf("preset in another case: %s", a.Raw)
	}
	wants(t, "name in another case", c.anna.Try("GET", at(made)+"/state/m.room.name", nil), 404, "M_NOT_FOUND")
}

func TestJ3_NaN(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	untouched(t, c.anna, c.room, func() {
		for _, n := range []string{"NaN", "Infinity", "-Infinity"} {
			c.refuseAll(t, `{"displayname":`+n+`}`, "M_NOT_JSON")
			wants(t, n, c.state("m.room.member", string(c.anna.ID), `{"membership":"join","displayname":`+n+`}`), 400, "M_NOT_JSON")
		}
	})
}

// Numbers that canonical JSON cannot say are refused, not rounded, in old rooms as well.
func TestJ5_Numbers(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	old := c.anna.CreateRoom(map[string]any{"room_version": "5"})
	for _, room := range []string{c.room, old} {
		untouched(t, c.anna, room, func() {
			for _, n := range []string{"1.0", "1e3", "-0", "1E+2", "0.5", "9007199254740992", "-9007199254740992", "1e400"} {
				wants(t, n, c.anna.Try("PUT", at(room)+"/send/com.example.n/"+c.anna.Txn(), []byte(`{"a":[{"n":`+n+`}]}`)), 400, "M_BAD_JSON")
				wants(t, n, c.anna.Try("PUT", at(room)+"/state/com.example.n", []byte(`{"n":`+n+`}`)), 400, "M_BAD_JSON")
				wants(t, n, c.anna.Try("PUT", at(room)+"/redact/"+hstest.Esc(c.event)+"/"+c.anna.Txn(), []byte(`{"n":`+n+`}`)), 400, "M_BAD_JSON")
				wants(t, n, c.anna.Try("POST", "/createRoom", []byte(`{"creation_content":{"n":`+n+`}}`)), 400, "M_BAD_JSON")
				wants(t, n, c.anna.Try("POST", "/createRoom", []byte(`{"initial_state":[{"type":"com.example.n","content":{"n":`+n+`}}]}`)), 400, "M_BAD_JSON")
				wants(t, n, c.anna.Try("PUT", at(room)+"/state/m.room.power_levels", []byte(`{"users_default":`+n+`}`)), 400, "M_BAD_JSON")
			}
		})
	}
	for _, n := range []string{"9007199254740991", "-9007199254740991", "0"} {
		id := c.send("com.example.n", `{"n":`+n+`}`).String("event_id")
		if a := c.ben.Must("GET", at(c.room)+"/event/"+hstest.Esc(id), nil); !strings.Contains(string(a.Raw), `"n":`+n+`}`) {
			t.Errorf("%s comes back as %s", n, a.Raw)
		}
	}
}

func TestJ7_DeepNesting(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	begin := time.Now()
	untouched(t, c.anna, c.room, func() {
		c.refuseAll(t, `{"a":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`}`, "M_BAD_JSON")
		c.refuseAll(t, strings.Repeat("[", 10000), "M_BAD_JSON")
		wants(t, "open lists", c.send("m.room.message", strings.Repeat("[", 100_000)), 400, "M_BAD_JSON")
		wants(t, "open objects", c.send("m.room.message", strings.Repeat(`{"a":`, 100_000)), 400, "M_BAD_JSON")
		wants(t, "deep objects", c.send("m.room.message", strings.Repeat(`{"a":`, 9999)+"1"+strings.Repeat("}", 9999)), 400, "M_BAD_JSON")
	})
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("deep nesting took %v", took)
	}
	if a := c.send("com.example.deep", strings.Repeat(`{"a":`, 99)+`"["`+strings.Repeat("}", 99)); a.Status != 200 {
		t.Errorf("99 levels: %s", a.Raw)
	}
}

func TestJ9_LoneSurrogates(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	untouched(t, c.anna, c.room, func() {
		c.refuseAll(t, `{"com.example.a":"\ud800"}`, "M_BAD_JSON")
		c.refuseAll(t, `{"\udc00\ud800":1}`, "M_BAD_JSON")
		c.refuseAll(t, "{\"com.example.a\":\"\xff\"}", "M_BAD_JSON")
		wants(t, "in the body", c.send("m.room.message", `{"msgtype":"m.text","body":"\ud83d"}`), 400, "M_BAD_JSON")
		wants(t, "in the display name", c.anna.Try("PUT", "/profile/"+hstest.Esc(string(c.anna.ID))+"/displayname", []byte(`{"displayname":"\udfff"}`)), 400, "M_BAD_JSON")
	})
	id := c.send("m.room.message", `{"msgtype":"m.text","body":"\ud83d\ude00"}`).String("event_id")
	if a := c.ben.Must("GET", at(c.room)+"/event/"+hstest.Esc(id), nil); a.String("content", "body") != "😀" {
		t.Errorf("a pair of surrogates came back as %s", a.Raw)
	}
}

// NUL is a character like any other in text, though PostgreSQL has no place for it, and part of no identifier.
func TestJ10_NUL(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		const nul = `a\u0000b`
		id := anna.Must("POST", "/createRoom", []byte(`{"preset":"public_chat","visibility":"public","name":"`+nul+`","topic":"`+nul+`"}`)).String("room_id")
		ben.Join(id)
		me := "/user/" + hstest.Esc(string(anna.ID))
		for path, body := range map[string]string{
			"PUT " + at(id) + "/send/m.room.message/n1":                      `{"msgtype":"m.text","body":"` + nul + `","` + nul + `":1}`,
			"PUT " + at(id) + "/send/m.room.message/" + "n%002":              `{"msgtype":"m.text","body":"transaction"}`,
			"PUT " + at(id) + "/state/m.room.topic":                          `{"topic":"` + nul + `"}`,
			"PUT " + at(id) + "/state/m.room.name":                           `{"name":"` + nul + `"}`,
			"PUT " + at(id) + "/redact/$x%00y/n3":                            `{}`,
			"PUT /profile/" + hstest.Esc(string(anna.ID)) + "/displayname":   `{"displayname":"` + nul + `"}`,
			"PUT /profile/" + hstest.Esc(string(anna.ID)) + "/com.example.x": `{"com.example.x":{"` + nul + `":"` + nul + `"}}`,
			"PUT /presence/" + hstest.Esc(string(anna.ID)) + "/status":       `{"presence":"online","status_msg":"` + nul + `"}`,
			"PUT /devices/" + hstest.Esc(anna.DeviceID):                      `{"display_name":"` + nul + `"}`,
			"PUT /devices/x%00y":                                             `{"display_name":"x"}`,
			"PUT " + me + "/account_data/com.example.a":                      `{"x":"` + nul + `"}`,
			"PUT " + me + "/account_data/com.example%00b":                    `{"x":1}`,
			"PUT " + me + at(id) + "/account_data/com.example%00b":           `{"x":1}`,
			"PUT " + me + at(id) + "/tags/u.a%00b":                           `{}`,
			"POST " + me + "/filter":                                         `{"room":{"rooms":["` + nul + `"],"timeline":{"types":["` + nul + `"]}}}`,
			"PUT /pushrules/global/content/x":                                `{"actions":[],"pattern":"` + nul + `"}`,
			"PUT /pushrules/global/content/x%00y":                            `{"actions":[],"pattern":"x"}`,
			"PUT /pushrules/global/override/o":                               `{"actions":[],"conditions":[{"kind":"event_match","key":"` + nul + `","pattern":"` + nul + `"}]}`,
			"POST /user_directory/search":                                    `{"search_term":"` + nul + `"}`,
			"POST /publicRooms":                                              `{"filter":{"generic_search_term":"` + nul + `"}}`,
			"POST /keys/query":                                               `{"device_keys":{"@ben:acme.example":["` + nul + `"]}}`,
			"POST /keys/claim":                                               `{"one_time_keys":{"@ben:acme.example":{"` + nul + `":"signed_curve25519"}}}`,
			"POST /keys/upload":                                              `{"one_time_keys":{"signed_curve25519:` + nul + `":{"key":"x"}}}`,
			"PUT /sendToDevice/com.example.x/t%00t":                          `{"messages":{"@ben:acme.example":{"` + nul + `":{"a":"` + nul + `"}}}}`,
			"PUT /sendToDevice/com.example%00x/tt":                           `{"messages":{"@ben:acme.example":{"*":{"a":"` + nul + `"}}}}`,
			"POST /room_keys/version":                                        `{"algorithm":"` + nul + `","auth_data":{"a":"` + nul + `"}}`,
			"PUT /room_keys/keys/!r%00:x/s%00?version=1":                     `{"first_message_index":1,"forwarded_count":0,"is_verified":true,"session_data":{"a":"` + nul + `"}}`,
			"POST /login":                              `{"type":"m.login.password","user":"` + nul + `","password":"` + nul + `"}`,
			"POST /register":                           `{"username":"` + nul + `","password":"Correct-horse-9","auth":{"type":"m.login.dummy"}}`,
			"POST " + at(id) + "/leave?x=%00":          `{"reason":"` + nul + `"}`,
			"POST " + at(id) + "/receipt/m.read/$x%00": `{}`,
			"GET " + me + "/filter/x%00":               ``,
			"GET " + me + "/account_data/x%00":         ``,
			"GET " + at(id) + "/event/$x%00":           ``,
			"GET " + at(id) + "/context/$x%00":         ``,
			"GET " + at(id) + "/state/x%00y/z%00":      ``,
			"GET /profile/@x%00:acme.example":          ``,
			"GET /register/available?username=x%00":    ``,
			"GET /sync?since=%00&filter=%00":           ``,
			"GET /sync?filter=x%00":                    ``,
			"GET /_matrix/client/v1/register/m.login.registration_token/validity?token=%00": ``,
		} {
			method, path, _ := strings.Cut(path, " ")
			var raw any
			if body != "" {
				raw = []byte(body)
			}
			survives(t, method+" "+path, anna.Try(method, path, raw))
		}
		anna.Try("POST", "/join/"+hstest.Esc(id), []byte(`{}`))
		for what, a := range map[string]hstest.Answer{
			"state key":  anna.Try("PUT", at(id)+"/state/com.example.x/a%00b", []byte(`{}`)),
			"event type": anna.Try("PUT", at(id)+"/send/com.example%00x/n9", []byte(`{}`)),
			"room ID":    anna.Try("POST", "/join/!a%00b:acme.example", []byte(`{}`)),
			"alias":      anna.Try("PUT", "/directory/room/%23a%00b:acme.example", []byte(`{"room_id":"`+id+`"}`)),
			"new alias":  anna.Try("POST", "/createRoom", []byte(`{"room_alias_name":"`+nul+`"}`)),
			"invite":     anna.Try("POST", at(id)+"/invite", []byte(`{"user_id":"@`+nul+`:acme.example"}`)),
		} {
			wants(t, what, a, 400, "M_INVALID_PARAM")
		}
		a := ben.Must("GET", at(id)+"/messages?dir=b&limit=100", nil)
		if !strings.Contains(string(a.Raw), `"body":"a\u0000b"`) {
			t.Errorf("a body with NUL does not come back: %s", a.Raw)
		}
		s.Restart()
		goesOn(t, ben, id)
	})
}

// The largest event that is accepted has at most 65,536 bytes in its federation form, signature included.
func TestJ11_SizeLimit(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	key, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1", "5", "12"} {
		room := c.anna.CreateRoom(map[string]any{"room_version": version})
		send := func(n int) hstest.Answer {
			return c.anna.Try("PUT", at(room)+"/send/m.room.message/"+c.anna.Txn(), []byte(`{"msgtype":"m.text","body":"`+strings.Repeat("x", n)+`"}`))
		}
		low, high := 64000, 66000
		for high-low > 1 {
			mid := (low + high) / 2
			if a := send(mid); a.Status == 200 {
				low = mid
			} else {
				wants(t, fmt.Sprint(mid), a, 413, "M_TOO_LARGE")
				high = mid
			}
		}
		for _, e := range events(c.Server, room) {
			if n := len(event.Federation(signing.SignEvent(e.Event, "acme.example", key))); n > 65536 {
				t.Errorf("version %s: an event of %d bytes was made", version, n)
			}
		}
		if low < 64800 {
			t.Errorf("version %s: only %d bytes of text are accepted", version, low)
		}
		wants(t, "state", c.anna.Try("PUT", at(room)+"/state/m.room.topic", []byte(`{"topic":"`+strings.Repeat("x", 66000)+`"}`)), 413, "M_TOO_LARGE")
		// Escapes and spaces do not count, only what they stand for.
		if a := c.anna.Try("PUT", at(room)+"/send/m.room.message/"+c.anna.Txn(), []byte(`{"msgtype":"m.text",`+strings.Repeat(" ", 70000)+`"body":"`+strings.Repeat(`\u0078`, 60000)+`"}`)); a.Status != 200 {
			t.Errorf("version %s: white space counts: %d %.100s", version, a.Status, a.Raw)
		}
	}
	untouched(t, c.anna, c.room, func() {
		wants(t, "name of a new room", c.anna.Try("POST", "/createRoom", map[string]any{"name": strings.Repeat("x", 70000)}), 413, "M_TOO_LARGE")
		wants(t, "long type", c.anna.Try("PUT", at(c.room)+"/send/"+strings.Repeat("t", 256)+"/"+c.anna.Txn(), []byte(`{}`)), 400, "M_INVALID_PARAM")
		wants(t, "body of 2 MiB", c.send("m.room.message", `{"msgtype":"m.text","body":"`+strings.Repeat("x", 2<<20)+`"}`), 413, "M_TOO_LARGE")
	})
}

// raw writes bytes to the server and returns the first answer and whether the connection was closed after it.
func raw(t testing.TB, s *hstest.Server, write func(w io.Writer) error) (answer *http.Response, body string, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- write(conn) }()
	rd := bufio.NewReader(conn)
	answer, err = http.ReadResponse(rd, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("answer: %v", err)
	}
	if answer.Close {
		_, err = io.Copy(io.Discard, rd)
		var timeout net.Error
		closed = !(errors.As(err, &timeout) && timeout.Timeout())
	}
	_ = conn.Close()
	<-wrote // what could not be written does not matter
	return answer, string(b), closed
}

func head(path, token string, more ...string) string {
	return "PUT /_matrix/client/v3" + path + " HTTP/1.1\r\nHost: acme.example\r\nAuthorization: Bearer " + token + "\r\n" + strings.Join(more, "\r\n") + "\r\n\r\n"
}

// A body is what it is, not what its headers say; nothing is decompressed.
func TestJ25_BodySizeLies(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	path := at(c.room) + "/send/m.room.message/"
	chunk := "10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n"
	untouched(t, c.anna, c.room, func() {
		a, body, _ := raw(t, c.Server, func(w io.Writer) error {
			_, err := io.WriteString(w, head(path+"1", c.anna.Token, "Content-Length: 10")+`{"msgtype":"m.text","body":"`+strings.Repeat("x", 1000))
			return err
		})
		if a.StatusCode != 400 || !strings.Contains(body, "M_NOT_JSON") {
			t.Errorf("more than Content-Length: %d %s", a.StatusCode, body)
		}
		a, body, closed := raw(t, c.Server, func(w io.Writer) error {
			_, err := io.WriteString(w, head(path+"2", c.anna.Token, "Content-Length: 1073741824"))
			return err
		})
		if a.StatusCode != 413 || !strings.Contains(body, "M_TOO_LARGE") || !closed {
			t.Errorf("1 GiB announced: %d %s, closed %v", a.StatusCode, body, closed)
		}
		written := 0
		a, body, closed = raw(t, c.Server, func(w io.Writer) error {
			if _, err := io.WriteString(w, head(path+"3", c.anna.Token, "Transfer-Encoding: chunked")); err != nil {
				return err
			}
			for ; written < 10_000; written++ {
				if _, err := io.WriteString(w, chunk); err != nil {
					return err
				}
			}
			return nil
		})
		if a.StatusCode != 413 || !strings.Contains(body, "M_TOO_LARGE") || !closed || written == 10_000 {
			t.Errorf("chunks without end: %d %s, closed %v after %d chunks", a.StatusCode, body, closed, written)
		}
		var bomb bytes.Buffer
		z := gzip.NewWriter(&bomb)
		if _, err := z.Write(bytes.Repeat([]byte(" "), 10<<20)); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		for _, encoding := range []string{"gzip", "deflate", "br", "gzip, identity"} {
			req, err := http.NewRequest("PUT", c.URL+"/_matrix/client/v3"+path+"4", bytes.NewReader(bomb.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+c.anna.Token)
			req.Header.Set("Content-Encoding", encoding)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body) // an empty answer fails the test all the same
			_ = resp.Body.Close()
			if resp.StatusCode != 415 || !strings.Contains(string(b), "M_NOT_JSON") {
				t.Errorf("Content-Encoding %s: %d %s", encoding, resp.StatusCode, b)
			}
		}
		a, body, _ = raw(t, c.Server, func(w io.Writer) error {
			_, err := io.WriteString(w, head(path+"5", c.anna.Token, "Content-Length: 5", "Content-Length: 50")+"{}   ")
			return err
		})
		if a.StatusCode != 400 {
			t.Errorf("two lengths: %d %s", a.StatusCode, body)
		}
	})
}

// Forms are refused before anything of them is read.
func TestJ26_Multipart(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	untouched(t, c.anna, c.room, func() {
		for _, d := range doors(c.anna, c.room, c.event) {
			req, err := http.NewRequest(d.method, c.URL+prefixed(d.path), strings.NewReader("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+c.anna.Token)
			req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body) // an empty answer fails the test all the same
			_ = resp.Body.Close()
			if resp.StatusCode != 415 || !strings.Contains(string(b), "M_NOT_JSON") {
				t.Errorf("%s: %d %s, want 415 M_NOT_JSON", d, resp.StatusCode, b)
			}
		}
		for _, ct := range []string{"multipart/form-data; boundary=x", "Multipart/Form-Data; boundary=x", "multipart/mixed"} {
			a, body, _ := raw(t, c.Server, func(w io.Writer) error {
				_, err := io.WriteString(w, head(at(c.room)+"/send/m.room.message/1", c.anna.Token, "Content-Length: 209715200", "Content-Type: "+ct))
				return err
			})
			if a.StatusCode != 415 || !strings.Contains(body, "M_NOT_JSON") {
				t.Errorf("%s of 200 MB: %d %s", ct, a.StatusCode, body)
			}
		}
	})
}

func prefixed(path string) string {
	if strings.HasPrefix(path, "/_") {
		return path
	}
	return "/_matrix/client/v3" + path
}

func TestJ27_EmptyNullOrArray(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	untouched(t, c.anna, c.room, func() {
		for _, body := range []string{`null`, `[]`, `"x"`, `7`, `true`, `[{"body":"x"}]`} {
			c.refuseAll(t, body, "M_BAD_JSON")
		}
		c.refuseAll(t, `{`, "M_NOT_JSON")
		c.refuseAll(t, `x`, "M_NOT_JSON")
		for _, d := range doors(c.anna, c.room, c.event) {
			if d.optional {
				continue
			}
			for _, body := range []any{nil, []byte(""), []byte(" \n")} {
				wants(t, fmt.Sprintf("%s with %q", d, body), c.anna.Try(d.method, d.path, body), 400, "M_NOT_JSON")
			}
		}
	})
	for _, d := range doors(c.anna, c.room, c.event) {
		if d.optional {
			c.anna.Must(d.method, d.path, []byte(" "))
			c.anna.Must(d.method, d.path, nil)
		}
	}
	for _, path := range []string{at(c.room) + "/leave", "/join/" + hstest.Esc(c.room), at(c.room) + "/leave", at(c.room) + "/join", at(c.room) + "/leave", at(c.room) + "/forget", "/logout"} {
		c.ben.Must("POST", path, nil)
	}
}
