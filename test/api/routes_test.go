package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"hansa/policy"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// stageSet is a server with two people who know each other, and one request for each route, prepared so that it must succeed.
type stageSet struct {
	t         *testing.T
	s         *hstest.Server
	anna, ben *hstest.User
	n         int
	media     string // of ben
}

func newStageSet(t *testing.T) *stageSet {
	t.Helper()
	s := hstest.New(t, hstest.Options{Database: storagetest.Databases()[0], Policy: map[string]string{"operator/custom.yaml": "custom: {}\n"}})
	g := &stageSet{t: t, s: s, anna: s.User("anna"), ben: s.User("ben")}
	g.ben.Login("HANDSET")
	w := &camps{t: t, s: s, canaries: &canaries{t: t, shared: map[string]bool{}, labels: map[string]bool{}}}
	w.keys(&camp{name: "ben", owner: g.ben})
	g.anna.Login("TABLET")
	w.keys(&camp{name: "anna", owner: g.anna})
	g.media = upload(t, g.ben, "x.png", "image/png", w.picture())
	g.ben.Must("PUT", "/profile/"+hstest.Esc(string(g.ben.ID))+"/displayname", object{"displayname": "MARKBEN"})
	g.ben.Must("PUT", "/presence/"+hstest.Esc(string(g.ben.ID))+"/status", object{"presence": "online", "status_msg": "MARKBEN"})
	return g
}

func (g *stageSet) local() string { g.n++; return fmt.Sprint("n", g.n) }

// room makes a room of ben with a message in it that anna has joined, if so.
func (g *stageSet) room(join bool, more object) (id, event string) {
	g.t.Helper()
	body := object{"preset": "public_chat", "name": "MARKBEN"}
	for k, v := range more {
		body[k] = v
	}
	id = g.ben.CreateRoom(body)
	if join {
		g.anna.Join(id)
	}
	return id, g.ben.Send(id, "MARKBEN")
}

// own makes a room of anna with ben and a message of anna in it.
func (g *stageSet) own() (id, event string) {
	g.t.Helper()
	id = g.anna.CreateRoom(object{"preset": "public_chat"})
	g.ben.Join(id)
	return id, g.anna.Send(id, "x")
}

// asked is one request that must succeed as long as no rule forbids it.
type asked struct {
	method, path string
	body         any
	anonymous    bool
	// effect, where a denial is not an error, tells whether the request had its effect, from the answer or from what ben gets.
	effect func(a hstest.Answer) bool
	// hides says that a denial looks like something that does not exist.
	hides bool
}

func marked(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "MARKBEN") }

// request prepares a request for a route. Each call prepares new rooms, so that one request does not spoil another.
func (g *stageSet) request(name string) (asked, bool) {
	g.t.Helper()
	esc, v3 := hstest.Esc, "/_matrix/client/v3"
	method, path, _ := strings.Cut(name, " ")
	anna, ben := string(g.anna.ID), string(g.ben.ID)
	room := func(suffix string) string { id, _ := g.room(true, nil); return "/rooms/" + esc(id) + suffix }
	mine := func(suffix string) string { id, _ := g.own(); return "/rooms/" + esc(id) + suffix }
	q := asked{method: method}
	member := func(suffix string, body any) { q.path, q.body = room(suffix), body }
	switch strings.TrimPrefix(path, v3) {
	case "/login":
		q.path, q.anonymous, q.body = "/login", true, object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": anna}, "password": hstest.Password}
	case "/refresh":
		a := g.s.Do("POST", "/login", "", object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": anna}, "password": hstest.Password, "refresh_token": true})
		q.path, q.anonymous, q.body = "/refresh", true, object{"refresh_token": a.String("refresh_token")}
	case "/register":
		q.path, q.anonymous, q.body = "/register", true, object{"username": g.local(), "password": hstest.Password, "auth": object{"type": "m.login.dummy"}}
	case "/account/password", "/account/deactivate":
		u := g.s.User(g.local())
		q.path, q.body = strings.TrimPrefix(path, v3), object{"new_password": hstest.Password + "2", "auth": object{"type": "m.login.password", "password": hstest.Password,
			"identifier": object{"type": "m.id.user", "user": u.ID}}}
		q.effect = func(a hstest.Answer) bool { return a.Status == 200 }
		token := u.Token
		q.path = "\x00" + token + "\x00" + q.path
	case "/profile/{userId}":
		q.path, q.hides = "/profile/"+esc(ben), true
	case "/profile/{userId}/{keyName}":
		if q.path = "/profile/" + esc(ben) + "/displayname"; method == "GET" {
			q.hides = true
		} else {
			q.path, q.body = "/profile/"+esc(anna)+"/displayname", object{"displayname": g.local()}
		}
	case "/sync":
		g.room(true, nil)
		q.path, q.effect = "/sync?timeout=0&full_state=true", marked
	case "/rooms/{roomId}/messages":
		q.path = room("/messages?dir=b")
	case "/rooms/{roomId}/context/{eventId}", "/rooms/{roomId}/event/{eventId}":
		id, event := g.room(true, nil)
		q.path = "/rooms/" + esc(id) + strings.TrimPrefix(strings.TrimSuffix(strings.TrimPrefix(path, v3), "{eventId}"), "/rooms/{roomId}") + esc(event)
		q.hides = true
	case "/createRoom":
		q.path, q.body = "/createRoom", object{}
	case "/rooms/{roomId}/upgrade":
		q.path, q.body = mine("/upgrade"), object{"new_version": "11"}
	case "/rooms/{roomId}/join":
		id, _ := g.room(false, nil)
		q.path, q.body = "/rooms/"+esc(id)+"/join", object{}
	case "/join/{roomIdOrAlias}":
		id, _ := g.room(false, nil)
		q.path, q.body = "/join/"+esc(id), object{}
	case "/knock/{roomIdOrAlias}":
		id, _ := g.room(false, object{"initial_state": []any{object{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
		q.path, q.body = "/knock/"+esc(id), object{}
	case "/rooms/{roomId}/leave":
		member("/leave", object{})
	case "/rooms/{roomId}/forget":
		q.path, q.body = room("/forget"), object{}
		g.anna.Must("POST", strings.TrimSuffix(q.path, "/forget")+"/leave", object{})
	case "/rooms/{roomId}/invite":
		q.path, q.body = "/rooms/"+esc(g.anna.CreateRoom(nil))+"/invite", object{"user_id": ben}
	case "/rooms/{roomId}/kick", "/rooms/{roomId}/ban":
		q.path, q.body = mine(strings.TrimPrefix(path, v3+"/rooms/{roomId}")), object{"user_id": ben}
	case "/rooms/{roomId}/unban":
		q.path, q.body = mine("/unban"), object{"user_id": ben}
		g.anna.Must("POST", strings.TrimSuffix(q.path, "unban")+"ban", q.body)
	case "/rooms/{roomId}/state", "/rooms/{roomId}/members", "/rooms/{roomId}/joined_members", "/rooms/{roomId}/aliases":
		q.path = room(strings.TrimPrefix(path, v3+"/rooms/{roomId}"))
	case "/rooms/{roomId}/state/{eventType}/{stateKey}":
		if method == "GET" {
			q.path = room("/state/m.room.name/")
		} else {
			q.path, q.body = mine("/state/m.room.topic/"), object{"topic": "x"}
		}
	case "/rooms/{roomId}/send/{eventType}/{txnId}":
		member("/send/m.room.message/"+g.anna.Txn(), object{"msgtype": "m.text", "body": "x"})
	case "/rooms/{roomId}/redact/{eventId}/{txnId}":
		id, event := g.own()
		q.path, q.body = "/rooms/"+esc(id)+"/redact/"+esc(event)+"/"+g.anna.Txn(), object{}
	case "/directory/room/{roomAlias}":
		local := g.local()
		q.path = "/directory/room/" + esc("#"+local+":acme.example")
		switch method {
		case "GET":
			g.room(false, object{"room_alias_name": local, "visibility": "public"})
			q.hides = true
		case "DELETE":
			g.anna.CreateRoom(object{"room_alias_name": local})
		default:
			q.body = object{"room_id": g.anna.CreateRoom(nil)}
		}
	case "/directory/list/room/{roomId}":
		if method == "GET" {
			id, _ := g.room(false, object{"visibility": "public"})
			q.path, q.hides = "/directory/list/room/"+esc(id), true
		} else {
			q.path, q.body = "/directory/list/room/"+esc(g.anna.CreateRoom(nil)), object{"visibility": "public"}
		}
	case "/publicRooms":
		g.room(false, object{"visibility": "public"})
		if q.path, q.effect = "/publicRooms", marked; method == "POST" {
			q.body = object{"filter": object{"generic_search_term": "mark"}}
		}
	case "/_matrix/client/v1/rooms/{roomId}/hierarchy":
		id, _ := g.room(false, nil)
		space := g.anna.CreateRoom(object{"creation_content": object{"type": "m.space"}})
		g.anna.Must("PUT", "/rooms/"+esc(space)+"/state/m.space.child/"+esc(id), object{"via": []string{"acme.example"}})
		q.path, q.effect = "/_matrix/client/v1/rooms/"+esc(space)+"/hierarchy", marked
	case "/_matrix/client/v1/room_summary/{roomIdOrAlias}":
		id, _ := g.room(false, nil)
		q.path, q.hides = "/_matrix/client/v1/room_summary/"+esc(id), true
	case "/user_directory/search":
		q.path, q.body, q.effect = "/user_directory/search", object{"search_term": "markben"}, marked
	case "/rooms/{roomId}/typing/{userId}":
		member("/typing/"+esc(anna), object{"typing": true})
	case "/rooms/{roomId}/receipt/{receiptType}/{eventId}", "/rooms/{roomId}/read_markers":
		id, event := g.room(true, nil)
		if q.path, q.body = "/rooms/"+esc(id)+"/read_markers", any(object{"m.read": event}); strings.Contains(path, "receiptType") {
			q.path, q.body = "/rooms/"+esc(id)+"/receipt/m.read/"+esc(event), object{}
		}
	case "/presence/{userId}/status":
		if q.path = "/presence/" + esc(ben) + "/status"; method == "GET" {
			q.hides = true
		} else {
			q.path, q.body = "/presence/"+esc(anna)+"/status", object{"presence": "online"}
		}
	case "/keys/query":
		q.path, q.body, q.effect = "/keys/query", object{"device_keys": object{ben: []string{}}}, func(a hstest.Answer) bool { return a.Get("device_keys", ben, "HANDSET") != nil }
	case "/keys/claim":
		q.path, q.body = "/keys/claim", object{"one_time_keys": object{ben: object{"HANDSET": "signed_curve25519"}}}
		q.effect = func(a hstest.Answer) bool { return a.Get("one_time_keys", ben, "HANDSET") != nil }
	case "/keys/changes":
		since := g.anna.Must("GET", "/sync?timeout=0", nil).String("next_batch")
		g.room(true, nil)
		q.path, q.effect = "/keys/changes?from="+url.QueryEscape(since), func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), ben) }
	case "/keys/signatures/upload":
		q.path, q.body = "/keys/signatures/upload", g.signature()
		q.effect = func(a hstest.Answer) bool { return a.Get("failures", ben) == nil }
	case "/sendToDevice/{eventType}/{txnId}":
		mark := g.local() + "todevice"
		q.path, q.body = "/sendToDevice/m.room_key_request/"+g.anna.Txn(), object{"messages": object{ben: object{"*": object{"x": mark}}}}
		q.effect = func(hstest.Answer) bool {
			return strings.Contains(string(g.ben.Must("GET", "/sync?timeout=0", nil).Raw), mark)
		}
	default:
		return g.mediaRequest(method, path)
	}
	return q, true
}

// mediaRequest is request for media, and for the paths that others made.
func (g *stageSet) mediaRequest(method, path string) (asked, bool) {
	q := asked{method: method}
	one := strings.NewReplacer("{serverName}", "acme.example", "{mediaId}", g.media, "{fileName}", "x.png").Replace(path)
	switch {
	case path == "/_synapse/admin/v1/register":
		return q, false // wants a shared secret; see TestC171_SharedSecretRegistration
	case path == "/_matrix/client/v1/appservice/{appserviceId}/ping":
		return q, false // wants an as_token; see TestB433_Ping
	case path == "/_matrix/media/v3/upload":
		q.path, q.body = path, []byte("content")
	case strings.HasPrefix(path, "/_matrix/media/v3/upload/"):
		uri := g.anna.Must("POST", "/_matrix/media/v1/create", object{}).String("content_uri")
		q.path, q.body = "/_matrix/media/v3/upload/"+strings.TrimPrefix(uri, "mxc://"), []byte("content")
	case strings.Contains(path, "/thumbnail/"):
		q.path, q.hides = one+"?width=32&height=32", true
	case strings.Contains(path, "/download/"):
		q.path, q.hides = one, true
	default:
		g.t.Errorf("%s %s: nobody has said here how it is called", method, path)
		return q, false
	}
	return q, true
}

// signature is anna's signature on ben's master key.
func (g *stageSet) signature() object {
	g.t.Helper()
	keys, _ := g.anna.Must("POST", "/keys/query", object{"device_keys": object{string(g.ben.ID): []string{}}}).Get("master_keys", string(g.ben.ID)).(map[string]any)
	delete(keys, "signatures")
	name := ""
	for id := range keys["keys"].(map[string]any) {
		name = strings.TrimPrefix(id, "ed25519:")
	}
	user := seedKey(keySeed(g.anna) + "user_signing")
	return object{string(g.ben.ID): object{name: sealed(g.t, g.anna.ID, keys, "ed25519:"+publicName(user), user)}}
}

func (g *stageSet) do(q asked) hstest.Answer {
	g.t.Helper()
	token := g.anna.Token
	path := q.path
	if rest, ok := strings.CutPrefix(path, "\x00"); ok {
		token, path, _ = strings.Cut(rest, "\x00")
	}
	if q.anonymous {
		token = ""
	}
	return g.s.Do(q.method, path, token, q.body)
}

// Every route that names a decision point asks it: with a rule of the operator that denies just that point, the same request that is answered
// otherwise is refused, with the rule's own reason, or has no effect.
func TestE263_EveryPointIsAsked(t *testing.T) {
	t.Parallel()
	g := newStageSet(t)
	byPoint := map[policy.Point][]string{}
	for _, e := range g.s.API.Table() {
		if e.Point != "" {
			byPoint[e.Point] = append(byPoint[e.Point], e.Method+" "+e.Paths[0])
		}
	}
	// Points that are asked besides the one that is named.
	byPoint[policy.RoomRead] = append(byPoint[policy.RoomRead], "GET /_matrix/client/v3/rooms/{roomId}/messages", "GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}",
		"GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}")
	points := 0
	for point, names := range byPoint {
		slices.Sort(names)
		names = slices.Compact(names)
		var before, after []asked
		var asking []string
		for _, name := range names {
			a, ok := g.request(name)
			if !ok {
				continue
			}
			b, _ := g.request(name)
			before, after, asking = append(before, a), append(after, b), append(asking, name)
		}
		for i, q := range before {
			if a := g.do(q); a.Status != 200 || q.effect != nil && !q.effect(a) {
				t.Errorf("%s without a rule: %d %.500s", asking[i], a.Status, a.Raw)
			}
		}
		file := "operator/marker.rego"
		g.s.WritePolicy(file, fmt.Sprintf("package operator.%s\n\ndeny contains {\"code\": \"marker\", \"message\": \"Marked.\"}\n", point))
		g.s.ReloadPolicy()
		for i, q := range after {
			points++
			a := g.do(q)
			reason := strings.Contains(string(a.Raw), `"marker"`)
			switch {
			case a.Status >= 500:
				t.Errorf("%s with %s denied: %d %.500s", asking[i], point, a.Status, a.Raw)
			case q.effect != nil && a.Status == 200:
				if q.effect(a) {
					t.Errorf("%s with %s denied has its effect: %.500s", asking[i], point, a.Raw)
				}
			case q.hides:
				if a.Status != 404 || a.Code() != "M_NOT_FOUND" {
					t.Errorf("%s with %s denied: %d %.500s, want 404", asking[i], point, a.Status, a.Raw)
				}
			case point == policy.Contact: // closes whole rooms, as if they did not exist
				if a.Status != 403 {
					t.Errorf("%s with %s denied: %d %.500s, want 403", asking[i], point, a.Status, a.Raw)
				}
			case a.Status != 403 || a.Code() != "M_FORBIDDEN" || !reason || a.String("org.hansa.decision_id") == "":
				t.Errorf("%s with %s denied: %d %.500s, want 403 with the rule's reason", asking[i], point, a.Status, a.Raw)
			}
		}
		g.s.WritePolicy(file, "package operator.custom_nothing\n")
		g.s.ReloadPolicy()
	}
	if points < 55 {
		t.Errorf("%d routes were asked", points)
	}
}

// What a rule reads of names in the path is what the handler does it with, encoded slashes and all.
func TestE255_RulesSeeDecodedNames(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{Policy: map[string]string{
		"operator/send.rego":     "package operator.event.send\n\ndeny contains {\"code\": \"marker\", \"message\": \"No.\"} if input.event.type == \"a/b\"\n",
		"operator/state.rego":    "package operator.room.state\n\ndeny contains {\"code\": \"marker\", \"message\": \"No.\"} if input.event.state_key == \"c/../d\"\n",
		"operator/todevice.rego": "package operator.todevice.send\n\ndeny contains {\"code\": \"marker\", \"message\": \"No.\"} if input.event.type == \"a/b\"\n",
	}})
	anna, ben := s.User("anna"), s.User("ben")
	room := "/rooms/" + hstest.Esc(anna.CreateRoom(nil))
	for path, denied := range map[string]bool{"/send/a%2Fb/1": true, "/send/a%2fb/2": true, "/send/%61%2Fb/3": true, "/send/a%252Fb/4": false, "/send/ab/5": false,
		"/state/x/c%2F..%2Fd": true, "/state/x/c%2F%2E%2E%2Fd": true, "/state/x/d": false, "/state/x/c%252F..%252Fd": false} {
		if a := anna.Try("PUT", room+path, object{"x": fmt.Sprint(path)}); (a.Status == 403) != denied || denied && !strings.Contains(string(a.Raw), "marker") || !denied && a.Status != 200 {
			t.Errorf("%s: %d %s, denied should be %v", path, a.Status, a.Raw, denied)
		}
	}
	is(t, "a real slash", anna.Try("PUT", room+"/send/a/b/1", object{}), 404, "M_UNRECOGNIZED")
	// The handler stores the decoded name.
	if a := anna.Must("GET", room+"/state/x/c%252F..%252Fd", nil); a.String("x") == "" {
		t.Errorf("state under a name with an encoded percent sign: %s", a.Raw)
	}
	for typ, arrives := range map[string]bool{"a%2Fb": false, "a%252Fb": true} {
		anna.Must("PUT", "/sendToDevice/"+typ+"/"+anna.Txn(), object{"messages": object{string(ben.ID): object{"*": object{"x": "y"}}}})
		if got := ben.Sync(0).Get("to_device") != nil; got != arrives {
			t.Errorf("to-device message of type %s arrives: %v", typ, got)
		}
	}
}
