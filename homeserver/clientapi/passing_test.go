package clientapi_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"hansa/homeserver/clientapi"
	"hansa/homeserver/clientsync"
	"hansa/homeserver/ephemeral"
	"hansa/homeserver/push"
	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// eachPassing is eachHouse with what users show each other in passing, and with push rules.
func eachPassing(t *testing.T, files map[string]string, fn func(t *testing.T, h *house)) {
	eachHouse(t, files, func(t *testing.T, h *house) {
		log := storagetest.Quiet()
		typing := ephemeral.New(ephemeral.Deps{Policy: h.engine, Rooms: h.rooms, Parties: h.accounts})
		rules := push.New(h.db)
		syncing := clientsync.New(clientsync.Deps{DB: h.db, Stream: h.stream, Policy: h.engine, Rooms: h.rooms, Parties: h.accounts, Ephemeral: typing, Push: rules, Log: log})
		receipts := ephemeral.NewReceipts(ephemeral.ReceiptDeps{DB: h.db, Policy: h.engine, Rooms: h.rooms, Parties: h.accounts, Presence: typing, Visible: syncing.Visible})
		h.handler = clientapi.New(clientapi.Deps{DB: h.db, Stream: h.stream, Policy: h.engine, Accounts: h.accounts, Rooms: h.rooms, Members: h.members, Sync: syncing,
			Ephemeral: typing, Receipts: receipts, PushRules: rules, Tenants: []clientapi.Tenant{{Name: acme}, {Name: globex}}, Log: log, Version: "test"}).Handler()
		fn(t, h)
	})
}

// datum reads a stored account datum.
func (g *guest) datum(room, typ string) string {
	g.h.t.Helper()
	var content []byte
	err := g.h.db.Read(g.h.t.Context(), func(tx *storage.Tx) error {
		d, err := tx.LoadAccountDatum(g.id, matrix.RoomID(room), typ)
		content = d.Content
		if err == storage.ErrNotFound {
			return nil
		}
		return err
	})
	if err != nil {
		g.h.t.Fatal(err)
	}
	return string(content)
}

func (g *guest) say(room, body string) string {
	g.h.t.Helper()
	return g.ok("PUT", "/rooms/%s/send/m.room.message/%s", map[string]any{"msgtype": "m.text", "body": body}, room, body).eventID()
}

func TestC173_TypingOfOthers(t *testing.T) {
	eachPassing(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		room := anna.create(map[string]any{"preset": "public_chat"})
		put := func(g *guest, room string, user matrix.UserID, body string) answer {
			return g.do("PUT", "/rooms/%s/typing/%s", body, room, user)
		}
		on := `{"typing":true,"timeout":20000}`
		want(t, "own", put(anna, room, anna.id, on), 200, "")
		want(t, "own, no timeout", put(anna, room, anna.id, `{"typing":true}`), 200, "")
		want(t, "own, endless", put(anna, room, anna.id, `{"typing":true,"timeout":9007199254740991}`), 200, "")
		want(t, "end", put(anna, room, anna.id, `{"typing":false}`), 200, "")
		want(t, "another's", put(anna, room, bob.id, on), 403, "M_FORBIDDEN")
		want(t, "not in the room", put(bob, room, bob.id, on), 403, "M_FORBIDDEN")
		want(t, "unknown room", put(bob, "!never:acme.example", bob.id, on), 403, "M_FORBIDDEN")
		want(t, "no user", put(anna, room, "anna", on), 400, "M_INVALID_PARAM")
		want(t, "no room", put(anna, "room", anna.id, on), 400, "M_INVALID_PARAM")
		want(t, "nothing said", put(anna, room, anna.id, `{}`), 400, "M_MISSING_PARAM")
		want(t, "wrong type", put(anna, room, anna.id, `{"typing":"yes"}`), 400, "M_BAD_JSON")
		want(t, "wrong timeout", put(anna, room, anna.id, `{"typing":true,"timeout":"1"}`), 400, "M_BAD_JSON")
		want(t, "negative timeout", put(anna, room, anna.id, `{"typing":true,"timeout":-1}`), 400, "M_INVALID_PARAM")
		want(t, "no JSON", put(anna, room, anna.id, `typing`), 400, "M_NOT_JSON")
	})
}

func TestC186_Receipts(t *testing.T) {
	eachPassing(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		room := anna.create(map[string]any{"preset": "public_chat", "initial_state": []any{map[string]any{"type": "m.room.history_visibility",
			"content": map[string]any{"history_visibility": "joined"}}}})
		early := anna.say(room, "early")
		post := func(g *guest, typ, event string, body any) answer {
			return g.do("POST", "/rooms/%s/receipt/%s/%s", body, room, typ, event)
		}
		want(t, "outsider", post(bob, "m.read", early, `{}`), 403, "M_FORBIDDEN")
		want(t, "outsider's marker", bob.do("POST", "/rooms/%s/read_markers", map[string]any{"m.fully_read": early}, room), 403, "M_FORBIDDEN")
		bob.ok("POST", "/rooms/%s/join", `{}`, room)
		want(t, "before joining", post(bob, "m.read", early, `{}`), 403, "M_FORBIDDEN")
		late := anna.say(room, "late")
		for typ, body := range map[string]any{"m.read": `{}`, "m.read.private": "", "m.fully_read": `{"other":1}`} {
			want(t, typ, post(bob, typ, late, body), 200, "")
		}
		if got, want := bob.datum(room, "m.fully_read"), fmt.Sprintf(`{"event_id":%q}`, late); got != want {
			t.Errorf("marker %s, want %s", got, want)
		}
		want(t, "main timeline", post(bob, "m.read", late, `{"thread_id":"main"}`), 200, "")
		want(t, "thread of a number", post(bob, "m.read", late, `{"thread_id":7}`), 400, "M_INVALID_PARAM")
		want(t, "thread of null", post(bob, "m.read", late, `{"thread_id":null}`), 400, "M_INVALID_PARAM")
		want(t, "empty thread", post(bob, "m.read", late, `{"thread_id":""}`), 400, "M_INVALID_PARAM")
		want(t, "thread of a marker", post(bob, "m.fully_read", late, `{"thread_id":"main"}`), 400, "M_INVALID_PARAM")
		want(t, "foreign thread", post(bob, "m.read", late, map[string]any{"thread_id": early}), 400, "M_INVALID_PARAM")
		want(t, "unknown type", post(bob, "m.seen", late, `{}`), 400, "M_INVALID_PARAM")
		want(t, "no event", post(bob, "m.read", "late", `{}`), 400, "M_INVALID_PARAM")
		want(t, "never sent", post(bob, "m.read", "$never", `{}`), 403, "M_FORBIDDEN")
		last := anna.say(room, "last")
		want(t, "markers", bob.do("POST", "/rooms/%s/read_markers", map[string]any{"m.fully_read": last, "m.read": last, "m.read.private": last}, room), 200, "")
		want(t, "no markers", bob.do("POST", "/rooms/%s/read_markers", `{}`, room), 200, "")
		want(t, "marker of the wrong type", bob.do("POST", "/rooms/%s/read_markers", `{"m.read":1}`, room), 400, "M_BAD_JSON")
		var at []string
		err := h.db.Read(t.Context(), func(tx *storage.Tx) error {
			list, err := tx.LoadOwnReceipts(bob.id)
			for _, r := range list {
				at = append(at, r.Type+" "+r.ThreadID+" "+string(r.EventID))
			}
			return err
		})
		if all := strings.Join(at, ","); err != nil || len(at) != 3 || !strings.Contains(all, "m.read  "+last) || !strings.Contains(all, "m.read.private  "+last) ||
			!strings.Contains(all, "m.read main "+late) {
			t.Errorf("receipts %v, %v", at, err)
		}
		bob.ok("POST", "/rooms/%s/leave", `{}`, room)
		want(t, "after leaving", post(bob, "m.read", last, `{}`), 403, "M_FORBIDDEN")
	})
}

func TestP301_PresenceByHTTP(t *testing.T) {
	eachPassing(t, pools(), func(t *testing.T, h *house) {
		anna, bob, vera, gina := h.user("anna", acme), h.user("bob", acme), h.user("vera", acme, "vault"), h.user("gina", globex)
		for _, g := range []*guest{anna, bob, vera, gina} {
			g.ok("PUT", "/presence/%s/status", map[string]any{"presence": "online", "status_msg": "canary"}, g.id)
		}
		get := func(g *guest, user matrix.UserID) answer { return g.do("GET", "/presence/%s/status", nil, user) }
		if a := get(anna, bob.id); a.status != 200 || a.body["presence"] != "online" || a.body["status_msg"] != "canary" || a.body["currently_active"] != true {
			t.Errorf("bob is %s", a)
		}
		nobody := get(anna, "@nobody:acme.example")
		want(t, "nobody", nobody, 404, "M_NOT_FOUND")
		for _, pair := range [][2]*guest{{anna, vera}, {vera, anna}, {anna, gina}, {gina, anna}, {gina, vera}} {
			if a := get(pair[0], pair[1].id); !a.decided() || sameBut(a.String()) != sameBut(nobody.String()) {
				t.Errorf("%s asks for %s: %s, want the answer for nobody", pair[0].id, pair[1].id, a)
			}
		}
		put := func(user matrix.UserID, body string) answer { return anna.do("PUT", "/presence/%s/status", body, user) }
		want(t, "another's", put(bob.id, `{"presence":"offline"}`), 403, "M_FORBIDDEN")
		want(t, "no user", put("bob", `{"presence":"offline"}`), 400, "M_INVALID_PARAM")
		want(t, "nothing", put(anna.id, `{}`), 400, "M_MISSING_PARAM")
		want(t, "unknown", put(anna.id, `{"presence":"asleep"}`), 400, "M_INVALID_PARAM")
		want(t, "wrong type", put(anna.id, `{"presence":1}`), 400, "M_BAD_JSON")
		want(t, "offline", put(anna.id, `{"presence":"offline","status_msg":null}`), 200, "")
		if a := get(anna, anna.id); a.body["presence"] != "offline" || a.body["status_msg"] != nil {
			t.Errorf("anna is %s", a)
		}
	})
}

func TestC190_PushRulesByHTTP(t *testing.T) {
	eachPassing(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		before := bob.ok("GET", "/pushrules/", nil).raw
		for _, path := range []string{"/pushrules", "/_matrix/client/r0/pushrules/"} {
			if got := bob.ok("GET", path, nil).raw; got != before {
				t.Errorf("%s: %s", path, got)
			}
		}
		rule := func(kind, id string) string { return "/pushrules/global/" + kind + "/" + id }
		put := func(path string, body any) answer { return anna.do("PUT", path, body) }
		want(t, "content", put(rule("content", "cake"), `{"pattern":"cake","actions":["notify",{"set_tweak":"highlight"}]}`), 200, "")
		want(t, "room", put(rule("room", "%%21a:acme.example"), `{"actions":[]}`), 200, "")
		want(t, "sender", put(rule("sender", "@x:acme.example"), `{"actions":["dont_notify"]}`), 200, "")
		want(t, "override", put(rule("override", "a"), `{"actions":[],"conditions":[]}`), 200, "")
		want(t, "next to it", put(rule("override", "b")+"?after=a", `{"actions":[],"conditions":[]}`), 200, "")
		want(t, "next to nothing", put(rule("override", "c")+"?before=nope", `{"actions":[]}`), 400, "M_UNKNOWN")
		want(t, "no actions", put(rule("override", "c"), `{}`), 400, "M_MISSING_PARAM")
		want(t, "the server's name", put(rule("override", ".m.rule.c"), `{"actions":[]}`), 400, "M_INVALID_PARAM")
		want(t, "slash", put(rule("override", "a%%2Fb"), `{"actions":[]}`), 400, "M_INVALID_PARAM")
		want(t, "unknown kind", put(rule("overide", "c"), `{"actions":[]}`), 400, "M_INVALID_PARAM")
		want(t, "unknown scope", put("/pushrules/device/override/c", `{"actions":[]}`), 404, "M_UNRECOGNIZED")
		want(t, "long pattern", put(rule("content", "c"), map[string]any{"pattern": strings.Repeat("*a", 30_000), "actions": []string{}}), 400, "M_INVALID_PARAM")

		if a := anna.ok("GET", rule("content", "cake"), nil); a.raw != `{"rule_id":"cake","default":false,"enabled":true,"pattern":"cake","actions":["notify",{"set_tweak":"highlight"}]}` {
			t.Errorf("rule %s", a)
		}
		want(t, "off", put(rule("content", "cake")+"/enabled", `{"enabled":false}`), 200, "")
		want(t, "neither", put(rule("content", "cake")+"/enabled", `{}`), 400, "M_MISSING_PARAM")
		want(t, "unknown, off", put(rule("content", "pie")+"/enabled", `{"enabled":false}`), 404, "M_NOT_FOUND")
		if a := anna.ok("GET", rule("content", "cake")+"/enabled", nil); a.raw != `{"enabled":false}` {
			t.Errorf("enabled %s", a)
		}
		want(t, "actions", put(rule("underride", ".m.rule.message")+"/actions", `{"actions":["notify",{"set_tweak":"sound","value":"bing"}]}`), 200, "")
		want(t, "bad actions", put(rule("underride", ".m.rule.message")+"/actions", `{"actions":["explode"]}`), 400, "M_INVALID_PARAM")
		if a := anna.ok("GET", rule("underride", ".m.rule.message")+"/actions", nil); a.raw != `{"actions":["notify",{"set_tweak":"sound","value":"bing"}]}` {
			t.Errorf("actions %s", a)
		}
		for path, status := range map[string]int{rule("content", "pie"): 404, rule("pie", "cake"): 400, rule("content", "pie") + "/enabled": 404, rule("content", "pie") + "/actions": 404} {
			if a := anna.do("GET", path, nil); a.status != status {
				t.Errorf("%s: %s", path, a)
			}
		}
		want(t, "delete", anna.do("DELETE", rule("sender", "@x:acme.example"), ""), 200, "")
		want(t, "delete again", anna.do("DELETE", rule("sender", "@x:acme.example"), ""), 404, "M_NOT_FOUND")
		want(t, "delete a default", anna.do("DELETE", rule("underride", ".m.rule.message"), ""), 400, "M_INVALID_PARAM")

		all := anna.ok("GET", "/pushrules/", nil)
		if got := anna.datum("", "m.push_rules"); got != all.raw {
			t.Errorf("told %s, want %s", got, all.raw)
		}
		var global map[string][]struct {
			ID string `json:"rule_id"`
		}
		if err := json.Unmarshal([]byte(anna.ok("GET", "/pushrules/global/", nil).raw), &global); err != nil || len(global["override"]) != 12 ||
			global["override"][1].ID != "a" || global["override"][2].ID != "b" || len(global["room"]) != 1 || len(global["sender"]) != 0 {
			t.Errorf("rules %v, %v", global, err)
		}
		if got := bob.ok("GET", "/pushrules/", nil).raw; got != before || bob.datum("", "m.push_rules") != "" {
			t.Errorf("bob's rules %s", got)
		}
	})
}

func TestC173_Tags(t *testing.T) {
	eachPassing(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		const path = "/user/%s/rooms/%s/tags"
		room := anna.create(map[string]any{})
		want(t, "put", anna.do("PUT", path+"/%s", `{"order":0.25}`, anna.id, room, "m.favourite"), 200, "")
		want(t, "put with a slash", anna.do("PUT", path+"/%s", `{}`, anna.id, room, "u.a/b"), 200, "")
		if a := anna.ok("GET", path, nil, anna.id, room); a.raw != `{"tags":{"m.favourite":{"order":0.25},"u.a/b":{}}}` || anna.datum(room, "m.tag") != a.raw {
			t.Errorf("tags %s, told %s", a, anna.datum(room, "m.tag"))
		}
		want(t, "another's", anna.do("GET", path, nil, bob.id, room), 403, "M_FORBIDDEN")
		want(t, "put another's", anna.do("PUT", path+"/%s", `{}`, bob.id, room, "u.x"), 403, "M_FORBIDDEN")
		want(t, "delete another's", anna.do("DELETE", path+"/%s", "", bob.id, room, "u.x"), 403, "M_FORBIDDEN")
		want(t, "no room", anna.do("PUT", path+"/%s", `{}`, anna.id, "room", "u.x"), 400, "M_INVALID_PARAM")
		want(t, "no object", anna.do("PUT", path+"/%s", `[]`, anna.id, room, "u.x"), 400, "M_BAD_JSON")
		want(t, "twice", anna.do("PUT", path+"/%s", `{"order":1,"order":2}`, anna.id, room, "u.x"), 400, "M_BAD_JSON")
		want(t, "long name", anna.do("PUT", path+"/%s", `{}`, anna.id, room, strings.Repeat("u", 256)), 400, "M_INVALID_PARAM")
		want(t, "delete", anna.do("DELETE", path+"/%s", "", anna.id, room, "m.favourite"), 200, "")
		want(t, "delete again", anna.do("DELETE", path+"/%s", "", anna.id, room, "m.favourite"), 200, "")
		if a := anna.ok("GET", path, nil, anna.id, room); a.raw != `{"tags":{"u.a/b":{}}}` {
			t.Errorf("tags %s", a)
		}
		if a := bob.ok("GET", path, nil, bob.id, room); a.raw != `{"tags":{}}` {
			t.Errorf("bob's tags %s", a)
		}
	})
}

// sameBut leaves the id of the decision out of an answer: every answer has its own.
func sameBut(answer string) string {
	return regexp.MustCompile(`"org.hansa.decision_id":"[^"]*"`).ReplaceAllString(answer, "")
}
