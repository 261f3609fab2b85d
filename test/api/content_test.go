package api

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"hansa/test/hstest"
)

// Content of the wrong type is refused where it is no object, and as good as absent inside.
func TestJ19_WrongTypes(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat", "visibility": "public"})
		ben.Join(room)
		untouched(t, anna, room, func() {
			for _, content := range []string{`[]`, `"x"`, `null`, `true`, `7`} {
				for _, path := range []string{"/send/m.room.message/" + anna.Txn(), "/send/com.example.x/" + anna.Txn(), "/state/m.room.topic", "/state/m.room.member/" + hstest.Esc(string(ben.ID))} {
					wants(t, path+" "+content, anna.Try("PUT", at(room)+path, []byte(content)), 400, "M_BAD_JSON")
				}
				if content != "null" { // as good as absent, like every member
					wants(t, "creation_content "+content, anna.Try("POST", "/createRoom", []byte(`{"creation_content":`+content+`}`)), 400, "M_BAD_JSON")
				}
				wants(t, "initial_state "+content, anna.Try("POST", "/createRoom", []byte(`{"initial_state":[{"type":"x.y","content":`+content+`}]}`)), 400, "M_BAD_JSON")
			}
			for _, m := range []string{`{}`, `7`, `null`, `["join"]`, `"x"`} {
				a := anna.Try("PUT", at(room)+"/state/m.room.member/"+hstest.Esc(string(ben.ID)), []byte(`{"membership":`+m+`}`))
				if a.Status != 400 {
					t.Errorf("membership %s: %d %s, want 400", m, a.Status, a.Raw)
				}
			}
			wants(t, "body 12", anna.Try("PUT", at(room)+"/send/m.room.message/"+anna.Txn(), []byte(`{"msgtype":"m.text","body":12}`)), 400, "M_BAD_JSON")
			wants(t, "msgtype {}", anna.Try("PUT", at(room)+"/send/m.room.message/"+anna.Txn(), []byte(`{"msgtype":{},"body":"x"}`)), 400, "M_BAD_JSON")
		})
		odd := []string{`7`, `{}`, `[]`, `[7,null]`, `null`, `{"a":[{}]}`, `true`}
		types := map[string]string{"m.room.name": "name", "m.room.topic": "topic", "m.room.avatar": "url", "m.room.pinned_events": "pinned", "m.room.aliases": "aliases",
			"m.room.guest_access": "guest_access", "m.room.third_party_invite": "public_key", "m.room.server_acl": "allow", "m.space.child": "via",
			"m.room.tombstone": "replacement_room", "m.room.history_visibility": "history_visibility", "m.room.join_rules": "allow"}
		for typ, member := range types {
			for _, v := range odd {
				content := `{"` + member + `":` + v + `}`
				if typ == "m.room.join_rules" {
					content = `{"join_rule":"public","` + member + `":` + v + `}`
				}
				survives(t, typ+" "+v, anna.Try("PUT", at(room)+"/state/"+typ, []byte(content)))
			}
		}
		for _, v := range odd {
			for _, content := range []string{`{"membership":"join","displayname":` + v + `,"avatar_url":` + v + `,"reason":` + v + `,"is_direct":` + v + `,"third_party_invite":` + v + `,"join_authorised_via_users_server":` + v + `}`,
				`{"membership":"join","displayname":` + v + `}`} {
				survives(t, "membership "+v, ben.Try("PUT", at(room)+"/state/m.room.member/"+hstest.Esc(string(ben.ID)), []byte(content)))
			}
			anna.Must("PUT", at(room)+"/send/m.room.message/"+anna.Txn(), []byte(`{"msgtype":"m.text","body":"odd","m.mentions":`+v+`,"m.relates_to":`+v+`,"format":`+v+`,"formatted_body":`+v+`,"url":`+v+`,"info":`+v+`,"m.new_content":`+v+`}`))
			anna.Must("PUT", at(room)+"/send/m.room.encrypted/"+anna.Txn(), []byte(`{"algorithm":`+v+`,"ciphertext":`+v+`,"m.relates_to":{"rel_type":`+v+`,"event_id":`+v+`,"m.in_reply_to":`+v+`}}`))
		}
		look := func() {
			for _, u := range []*hstest.User{anna, ben} {
				for _, path := range []string{"/sync?timeout=0", `/sync?timeout=0&filter={"room":{"state":{"lazy_load_members":true},"timeline":{"contains_url":true}}}`, at(room) + "/state", at(room) + "/members", at(room) + "/joined_members",
					at(room) + "/messages?dir=b&limit=100", "/publicRooms", "/joined_rooms", "/pushrules/", at(room) + "/aliases"} {
					u.Must("GET", path, nil)
				}
				u.Must("POST", "/user_directory/search", []byte(`{"search_term":"ben"}`))
				u.Must("POST", "/publicRooms", []byte(`{"filter":{"generic_search_term":"x"}}`))
			}
		}
		look()
		s.Restart()
		look()
		goesOn(t, ben, room)
	})
}

// What is no relation is an event like any other; a relation never reaches out of its room, and the same reaction is sent once.
func TestJ21_Relations(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room, other := anna.CreateRoom(map[string]any{"preset": "public_chat"}), anna.CreateRoom(nil)
		ben.Join(room)
		target, elsewhere := anna.Send(room, "target"), anna.Send(other, "secret of the other room")
		react := func(u *hstest.User, room, event, key string) hstest.Answer {
			return u.Try("PUT", at(room)+"/send/m.reaction/"+u.Txn(), map[string]any{"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": event, "key": key}})
		}
		first := react(ben, room, target, "+1")
		for what, a := range map[string]hstest.Answer{"first": first, "another key": react(ben, room, target, "-1"), "another user": react(anna, room, target, "+1"),
			"another target": react(ben, room, anna.Send(room, "another"), "+1")} {
			if a.Status != 200 {
				t.Errorf("%s: %d %s", what, a.Status, a.Raw)
			}
		}
		untouched(t, ben, room, func() {
			wants(t, "the same again", react(ben, room, target, "+1"), 400, "M_DUPLICATE_ANNOTATION")
		})
		s.Restart()
		wants(t, "the same after a restart", react(ben, room, target, "+1"), 400, "M_DUPLICATE_ANNOTATION")
		ben.Must("PUT", at(room)+"/redact/"+hstest.Esc(first.String("event_id"))+"/"+ben.Txn(), []byte(`{}`))
		if a := react(ben, room, target, "+1"); a.Status != 200 {
			t.Errorf("again after it was taken back: %d %s", a.Status, a.Raw)
		}
		for _, rel := range []string{`{"rel_type":7,"event_id":"` + target + `"}`, `{"rel_type":"m.annotation","event_id":7,"key":"x"}`, `{"rel_type":"m.annotation","event_id":"` + target + `","key":7}`,
			`{"rel_type":"m.annotation","event_id":"` + target + `"}`, `{"rel_type":"m.replace","event_id":"` + elsewhere + `"}`, `{"rel_type":"m.thread","event_id":"` + elsewhere + `"}`,
			`{"rel_type":"m.annotation","event_id":"` + elsewhere + `","key":"x"}`, `{"rel_type":"m.thread","event_id":"$never"}`, `{"m.in_reply_to":{"event_id":"` + elsewhere + `"}}`, `[]`} {
			ben.Must("PUT", at(room)+"/send/m.room.message/"+ben.Txn(), []byte(`{"msgtype":"m.text","body":"r","m.relates_to":`+rel+`}`))
		}
		previous := target
		for range 60 {
			previous = ben.Must("PUT", at(room)+"/send/m.room.message/"+ben.Txn(), map[string]any{"msgtype": "m.text", "body": "chain", "m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": previous}}).String("event_id")
		}
		for _, u := range []*hstest.User{anna, ben} {
			for _, path := range []string{"/sync?timeout=0", at(room) + "/messages?dir=b&limit=100", at(room) + "/event/" + hstest.Esc(target), at(room) + "/context/" + hstest.Esc(target)} {
				if a := u.Must("GET", path, nil); u == ben && strings.Contains(string(a.Raw), "secret of the other room") {
					t.Errorf("%s shows an event of another room", path)
				}
			}
		}
		goesOn(t, ben, room)
	})
}

// A message that mentions thousands is one notification for who is in the room, and nothing for anybody else.
func TestJ22_MentionsBomb(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	c.ben.Sync(0)
	var users []string
	for i := range 3500 {
		users = append(users, fmt.Sprintf(`"@u%d:x.example"`, i))
	}
	begin := time.Now()
	for _, mentions := range []string{
		`{"user_ids":[` + strings.Join(users[:1500], ",") + `,"` + string(c.ben.ID) + `","` + string(c.ben.ID) + `"]}`,
		`{"user_ids":[7,null,{},["` + string(c.ben.ID) + `"],` + strings.Join(users[:100], ",") + `],"room":"yes"}`,
		`{"room":7,"user_ids":"` + string(c.ben.ID) + `"}`,
	} {
		if a := c.send("m.room.message", `{"msgtype":"m.text","body":"`+strings.Repeat("@room ", 4000)+`","m.mentions":`+mentions+`}`); a.Status != 200 {
			t.Fatalf("send: %d %s", a.Status, a.Raw)
		}
	}
	wants(t, "20,000 mentions", c.send("m.room.message", `{"msgtype":"m.text","body":"x","m.mentions":{"user_ids":[`+strings.Join(append(users, users...), ",")+`]}}`), 413, "M_TOO_LARGE")
	end := c.anna.Send(c.room, "end")
	a := c.ben.Until("the end", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), end) })
	if n, h := a.Get("rooms", "join", c.room, "unread_notifications", "notification_count"), a.Get("rooms", "join", c.room, "unread_notifications", "highlight_count"); n != 5.0 || h != 1.0 {
		t.Errorf("counts are %v and %v, want 5 messages with 1 mention", n, h)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("mentions took %v", took)
	}
}

// What a room is made of is not the client's to say where the server must say it.
func TestJ23_CreateRoomTampering(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	for _, version := range []string{"10", "11", "12"} {
		id := c.anna.Must("POST", "/createRoom", map[string]any{"room_version": version,
			"creation_content": map[string]any{"room_version": 5, "creator": "@eve:acme.example", "m.federate": true}}).String("room_id")
		a := c.anna.Must("GET", at(id)+"/state/m.room.create", nil)
		if creator := a.Get("creator"); a.String("room_version") != version || creator != nil && creator != string(c.anna.ID) {
			t.Errorf("version %s: create event is %s", version, a.Raw)
		}
	}
	untouched(t, c.anna, c.room, func() {
		for _, body := range []string{`{"creation_content":{"additional_creators":5}}`, `{"initial_state":5}`, `{"initial_state":[5]}`, `{"power_level_content_override":5}`, `{"invite":5}`, `{"invite":[5]}`, `{"name":5}`,
			`{"power_level_content_override":{"users":{"@anna:acme.example":0}}}`, `{"room_version":"11","name":"x","power_level_content_override":{"users":{"@anna:acme.example":0}}}`,
			`{"initial_state":[{"type":"m.room.create","state_key":"","content":{}}]}`, `{"initial_state":[{"type":"m.room.member","state_key":"@ben:acme.example","content":{"membership":"join"}}]}`,
			`{"initial_state":[{"type":"m.room.topic","state_key":5,"content":{}}]}`} {
			a := c.anna.Try("POST", "/createRoom", []byte(body))
			if code := a.Code(); a.Status != 400 || code != "M_BAD_JSON" && code != "M_INVALID_ROOM_STATE" && code != "M_INVALID_PARAM" {
				t.Errorf("%s: %d %s", body, a.Status, a.Raw)
			}
		}
	})
}

// People do not choose the time of their events.
func TestJ29_TimestampMassaging(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	now := time.Now().UnixMilli()
	for i, ts := range []string{"0", "1", "-1", "1152921504606846976", "x", ""} {
		var ids []string
		ids = append(ids, c.anna.Must("PUT", at(c.room)+"/send/m.room.message/"+c.anna.Txn()+"?ts="+ts, map[string]any{"msgtype": "m.text", "body": "x"}).String("event_id"))
		ids = append(ids, c.anna.Must("PUT", at(c.room)+"/state/m.room.topic?ts="+ts, map[string]any{"topic": fmt.Sprint(i)}).String("event_id"))
		made := c.anna.Must("POST", "/createRoom?ts="+ts, map[string]any{"name": "x"}).String("room_id")
		for _, e := range events(c.Server, made) {
			if e.OriginServerTS < now || e.OriginServerTS > now+120_000 {
				t.Errorf("ts=%s: %s of a new room is dated %d", ts, e.Type, e.OriginServerTS)
			}
		}
		for _, id := range ids {
			got, _ := c.ben.Must("GET", at(c.room)+"/event/"+hstest.Esc(id), nil).Get("origin_server_ts").(float64)
			if int64(got) < now || int64(got) > now+120_000 {
				t.Errorf("ts=%s: the event is dated %v, now is %d", ts, got, now)
			}
		}
	}
}

func TestJ31_HostileFilters(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	me := "/user/" + hstest.Esc(string(c.anna.ID))
	many := func(n int, format string) string {
		var b strings.Builder
		b.WriteByte('[')
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, format, i)
		}
		return b.String() + "]"
	}
	for what, f := range map[string]string{
		"limit -1":          `{"room":{"timeline":{"limit":-1}}}`,
		"limit as text":     `{"room":{"timeline":{"limit":"10"}}}`,
		"limit 1.5":         `{"room":{"timeline":{"limit":1.5}}}`,
		"limit 0":           `{"room":{"timeline":{"limit":0}}}`,
		"rooms no list":     `{"room":{"rooms":"x"}}`,
		"room no object":    `{"room":[]}`,
		"types of numbers":  `{"room":{"timeline":{"types":[7]}}}`,
		"senders no list":   `{"presence":{"senders":{}}}`,
		"lazy as text":      `{"room":{"state":{"lazy_load_members":"yes"}}}`,
		"100,000 rooms":     `{"room":{"rooms":` + many(100_000, `"!%d:x.example"`) + `}}`,
		"10,000 globs":      `{"room":{"timeline":{"types":` + many(10_000, `"*a*%d*b*"`) + `}}}`,
		"a glob of 60 KB":   `{"room":{"timeline":{"types":["` + strings.Repeat("*a", 30_000) + `"]}}}`,
		"unknown format":    `{"event_format":"x"}`,
		"fields of numbers": `{"event_fields":[7]}`,
	} {
		a := c.anna.Try("POST", me+"/filter", []byte(f))
		if a.Status != 400 && a.Status != 413 {
			t.Errorf("%s: %d %.200s, want 400", what, a.Status, a.Raw)
		}
		if code := a.Code(); code != "M_BAD_JSON" && code != "M_INVALID_PARAM" && code != "M_TOO_LARGE" {
			t.Errorf("%s: %s", what, code)
		}
		if len(f) < 1000 {
			if a := c.anna.Try("GET", "/sync?timeout=0&filter="+hstest.Esc(f), nil); a.Status != 400 {
				t.Errorf("%s, inline: %d %.100s", what, a.Status, a.Raw)
			}
		}
	}
	for what, f := range map[string]string{"a number": `7`, "a list": `[]`, "null": `null`, "unknown ID": `abc`, "no JSON": `{`, "duplicates": `{"room":{},"room":{}}`} {
		if a := c.anna.Try("GET", "/sync?timeout=0&filter="+hstest.Esc(f), nil); a.Status != 400 && a.Status != 404 {
			t.Errorf("filter of %s: %d %.100s", what, a.Status, a.Raw)
		}
	}
	for range 40 {
		c.anna.Send(c.room, "x")
	}
	for what, f := range map[string]string{"limit 10^12": `{"room":{"timeline":{"limit":1000000000000}}}`, "slow globs": `{"room":{"timeline":{"types":["*a*a*a*a*a*a*a*a*b","m.*"]}}}`, "unknown members": `{"room":{"com.example":7},"com.example":[]}`} {
		id := c.anna.Must("POST", me+"/filter", []byte(f)).String("filter_id")
		for _, param := range []string{id, f} {
			a := c.anna.Must("GET", "/sync?timeout=0&filter="+hstest.Esc(param), nil)
			if n := len(a.Timeline(c.room)); n > 1000 {
				t.Errorf("%s: %d events", what, n)
			}
		}
	}
	wants(t, "limit of messages", c.anna.Try("GET", at(c.room)+"/messages?dir=b&limit=-1", nil), 400, "M_INVALID_PARAM")
	wants(t, "filter of messages", c.anna.Try("GET", at(c.room)+"/messages?dir=b&filter="+hstest.Esc(`{"limit":"x"}`), nil), 400, "M_BAD_JSON")
	c.anna.Must("GET", at(c.room)+"/messages?dir=b&limit=99999999", nil)
	wants(t, "another's filter", c.ben.Try("GET", me+"/filter/0", nil), 403, "M_FORBIDDEN")
	goesOn(t, c.anna, c.room)
}

// New identifiers keep to the grammar; malformed ones are refused wherever they come in.
func TestJ33_IdentifierGrammar(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	long := strings.Repeat("x", 300)
	untouched(t, c.anna, c.room, func() {
		for _, name := range []string{"", "a b", "ä", "а", "a:b", "@a", "A\u0000", "a\u202eb", long, strings.Repeat("x", 250), "a#b"} {
			body := map[string]any{"username": name, "password": hstest.Password, "auth": map[string]any{"type": "m.login.dummy"}}
			if name == "" {
				continue // the server chooses a name
			}
			wants(t, "register "+name, c.Do("POST", "/register", "", body), 400, "M_INVALID_USERNAME")
			wants(t, "available "+name, c.Do("GET", "/register/available?username="+hstest.Esc(name), "", nil), 400, "M_INVALID_USERNAME")
		}
		for _, id := range []string{"", "ben", "@ben", "@ben:", "ben:acme.example", "@ben:acme.example:99999", "@ben:[::1", "@ben:a b", "@ben:acme_example", "@" + long + ":acme.example", "#ben:acme.example", "@be\u0000n:acme.example"} {
			for _, act := range []string{"invite", "kick", "ban", "unban"} {
				wants(t, act+" "+id, c.anna.Try("POST", at(c.room)+"/"+act, map[string]any{"user_id": id}), 400, "M_INVALID_PARAM")
			}
			wants(t, "createRoom with "+id, c.anna.Try("POST", "/createRoom", map[string]any{"invite": []string{id}}), 400, "M_INVALID_PARAM")
			if id != "" {
				wants(t, "profile of "+id, c.anna.Try("GET", "/profile/"+hstest.Esc(id), nil), 400, "M_INVALID_PARAM")
				wants(t, "presence of "+id, c.anna.Try("GET", "/presence/"+hstest.Esc(id)+"/status", nil), 400, "M_INVALID_PARAM")
				wants(t, "keys of "+id, c.anna.Try("POST", "/keys/query", map[string]any{"device_keys": map[string]any{id: []string{}}}), 400, "M_INVALID_PARAM")
			}
		}
		for _, id := range []string{"room", "!room", "!room:", "!room:acme.example:99999", "!room:[::1", "!" + long + ":acme.example", "!" + strings.Repeat("x", 42), "!" + strings.Repeat("x", 44), "@room:acme.example", "#a:", "#:acme.example", "#a b:x y"} {
			wants(t, "join "+id, c.anna.Try("POST", "/join/"+hstest.Esc(id), []byte(`{}`)), 400, "M_INVALID_PARAM")
			wants(t, "knock "+id, c.anna.Try("POST", "/knock/"+hstest.Esc(id), []byte(`{}`)), 400, "M_INVALID_PARAM")
			if !strings.HasPrefix(id, "#") {
				wants(t, "messages of "+id, c.anna.Try("GET", "/rooms/"+hstest.Esc(id)+"/messages?dir=b", nil), 400, "M_INVALID_PARAM")
			}
		}
		for _, name := range []string{"", "a:b", "a\u0000", long} {
			wants(t, "alias name "+name, c.anna.Try("POST", "/createRoom", map[string]any{"room_alias_name": name}), 400, "M_INVALID_PARAM")
		}
		for _, id := range []string{"x", "$", "$" + long} {
			wants(t, "event "+id, c.anna.Try("GET", at(c.room)+"/event/"+hstest.Esc(id), nil), 400, "M_INVALID_PARAM")
		}
		wants(t, "long device ID", c.Do("POST", "/login", "", map[string]any{"type": "m.login.password", "user": "anna", "password": hstest.Password, "device_id": long}), 400, "M_INVALID_PARAM")
		wants(t, "long transaction ID", c.anna.Try("PUT", at(c.room)+"/send/com.example.x/"+long, []byte(`{}`)), 400, "M_INVALID_PARAM")
	})
	// Remote users with names from before there was a grammar can be talked about.
	for _, id := range []string{"@:far.example", "@a b:far.example", "@Ünï#!:far.example"} {
		if a := c.anna.Try("POST", at(c.room)+"/ban", map[string]any{"user_id": id}); a.Status != 200 && a.Code() != "M_FORBIDDEN" {
			t.Errorf("ban of %s: %d %s", id, a.Status, a.Raw)
		}
	}
}

func TestJ34_AccountDataAndProfileLimits(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	me := "/user/" + hstest.Esc(string(c.anna.ID))
	for _, typ := range []string{"m.push_rules", "m.fully_read"} {
		for _, room := range []string{"", at(c.room)} {
			wants(t, "PUT "+room+typ, c.anna.Try("PUT", me+room+"/account_data/"+typ, []byte(`{}`)), 405, "M_BAD_JSON")
		}
	}
	before := c.anna.Must("GET", "/pushrules/", nil)
	wants(t, "large datum", c.anna.Try("PUT", me+"/account_data/com.example.x", map[string]any{"x": strings.Repeat("x", 1<<20)}), 413, "M_TOO_LARGE")
	wants(t, "nothing was stored", c.anna.Try("GET", me+"/account_data/com.example.x", nil), 404, "M_NOT_FOUND")
	profile := "/profile/" + hstest.Esc(string(c.anna.ID))
	wants(t, "profile of 70 KiB", c.anna.Try("PUT", profile+"/com.example.x", map[string]any{"com.example.x": strings.Repeat("x", 70<<10)}), 400, "M_PROFILE_TOO_LARGE")
	key := "com." + strings.Repeat("k", 252)
	wants(t, "key of 256 bytes", c.anna.Try("PUT", profile+"/"+key, map[string]any{key: 1}), 400, "M_KEY_TOO_LARGE")
	if a := c.anna.Must("GET", profile, nil); len(a.JSON) > 2 {
		t.Errorf("profile after what was refused: %s", a.Raw)
	}
	for i := range 400 {
		a := c.anna.Try("PUT", me+fmt.Sprint("/account_data/com.example.", i), map[string]any{"x": strings.Repeat("x", 60<<10)})
		if a.Status == 200 {
			continue
		}
		if a.Code() != "M_USER_LIMIT_EXCEEDED" && a.Code() != "M_TOO_LARGE" {
			t.Errorf("account data without end: %d %s", a.Status, a.Raw)
		}
		c.ben.Must("PUT", "/user/"+hstest.Esc(string(c.ben.ID))+"/account_data/com.example.x", map[string]any{"x": 1})
		break
	}
	if after := c.anna.Must("GET", "/pushrules/", nil); !bytes.Equal(before.Raw, after.Raw) {
		t.Error("push rules changed")
	}
	goesOn(t, c.anna, c.room)
}

// A redaction takes away what it may, in its own room, and leaves what the room stands on.
func TestJ35_RedactionShape(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna := s.User("anna")
		for _, version := range []string{"1", "9", "10", "11", "12"} {
			room, other := anna.CreateRoom(map[string]any{"room_version": version}), anna.CreateRoom(map[string]any{"room_version": version})
			elsewhere := anna.Send(other, "elsewhere")
			untouched(t, anna, room, func() {
				for what, body := range map[string]string{"missing": `{}`, "int": `{"redacts":5}`, "no ID": `{"redacts":"x"}`, "null": `{"redacts":null}`} {
					wants(t, version+" redacts "+what, anna.Try("PUT", at(room)+"/send/m.room.redaction/"+anna.Txn(), []byte(body)), 400, "M_INVALID_PARAM")
				}
				for what, id := range map[string]string{"unknown": "$" + strings.Repeat("x", 43), "other room": elsewhere} {
					wants(t, version+" redacts "+what, anna.Try("PUT", at(room)+"/redact/"+hstest.Esc(id)+"/"+anna.Txn(), []byte(`{}`)), 404, "M_NOT_FOUND")
					wants(t, version+" redacts "+what, anna.Try("PUT", at(room)+"/send/m.room.redaction/"+anna.Txn(), map[string]any{"redacts": id}), 404, "M_NOT_FOUND")
				}
			})
			if a := anna.Must("GET", at(other)+"/event/"+hstest.Esc(elsewhere), nil); a.String("content", "body") != "elsewhere" {
				t.Errorf("version %s: an event of another room was redacted", version)
			}
			var create string
			for _, e := range events(s, room) {
				if e.Type == "m.room.create" {
					create = string(e.ID)
				}
			}
			wants(t, version+" redacts the create event", anna.Try("PUT", at(room)+"/redact/"+hstest.Esc(create)+"/"+anna.Txn(), []byte(`{}`)), 403, "M_FORBIDDEN")
			target := anna.Send(room, "gone")
			redaction := anna.Must("PUT", at(room)+"/redact/"+hstest.Esc(target)+"/"+anna.Txn(), []byte(`{"reason":"why"}`)).String("event_id")
			again := anna.Must("PUT", at(room)+"/redact/"+hstest.Esc(redaction)+"/"+anna.Txn(), []byte(`{}`)).String("event_id")
			for range 2 {
				c := anna.Must("GET", at(room)+"/state/m.room.create", nil)
				if version != "1" && c.String("room_version") != version {
					t.Errorf("version %s: create event is %s", version, c.Raw)
				}
				if a := anna.Must("GET", at(room)+"/event/"+hstest.Esc(target), nil); a.String("content", "body") != "" {
					t.Errorf("version %s: a redacted event still says %s", version, a.Raw)
				}
				if a := anna.Must("GET", at(room)+"/event/"+hstest.Esc(again), nil); a.Status != 200 {
					t.Errorf("version %s: %s", version, a.Raw)
				}
				goesOn(t, anna, room)
				s.Restart()
			}
		}
	})
}

// Who has no power in a room takes back their own words only, also where the others are of the same server.
func TestRedact_OnlyOnesOwn(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	bens := c.ben.Send(c.room, "ben's")
	untouched(t, c.anna, c.room, func() {
		wants(t, "somebody else's", c.ben.Try("PUT", at(c.room)+"/redact/"+hstest.Esc(c.event)+"/"+c.ben.Txn(), []byte(`{}`)), 403, "M_FORBIDDEN")
		wants(t, "by sending", c.ben.Try("PUT", at(c.room)+"/send/m.room.redaction/"+c.ben.Txn(), map[string]any{"redacts": c.event}), 403, "M_FORBIDDEN")
	})
	if a := c.anna.Must("GET", at(c.room)+"/event/"+hstest.Esc(c.event), nil); a.String("content", "body") != "first" {
		t.Errorf("the message is now %s", a.Raw)
	}
	c.ben.Must("PUT", at(c.room)+"/redact/"+hstest.Esc(bens)+"/"+c.ben.Txn(), []byte(`{}`))
}
