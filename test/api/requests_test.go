package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"hansa/homeserver/clientapi"
	"hansa/test/hstest"
)

// aim is what a request is about: a person, and what is theirs.
type aim struct {
	user, device      string
	room, alias       string
	event, thread     string
	server, media     string
	filter, backup    string
	rule, since, text string
	// key is a public key of the user, keyObject the signed object that goes with it, as far as known.
	key       string
	keyObject any
	// server of the user, for lists of rooms.
	tenant string
}

// call is one request.
type call struct {
	method, path string
	body         any
	entry        clientapi.Entry
}

func (c call) String() string { return c.method + " " + c.path }

// counter makes transaction IDs.
type counter struct{ n int }

func (c *counter) next() string { c.n++; return fmt.Sprint("x", c.n) }

// calls makes the requests of one route about an aim: every path of the route with every sensible set of parameters, queries and bodies.
// A route or a parameter that is not known here ends the test: whoever adds one says here how it is called.
func calls(t *testing.T, e clientapi.Entry, a aim, txn *counter) []call {
	t.Helper()
	var out []call
	for i, path := range e.Paths {
		paths := fillPath(t, path, a, txn)
		if i > 0 {
			paths = paths[:1] // the same under another name
		}
		for _, p := range paths {
			for _, q := range queries(e, a) {
				bodies := bodiesOf(t, e, a)
				if i > 0 {
					bodies = bodies[:1]
				}
				for _, b := range bodies {
					out = append(out, call{e.Method, p + q, b, e})
				}
			}
		}
	}
	return out
}

// fillPath puts values into the parameters of a path.
func fillPath(t *testing.T, path string, a aim, txn *counter) []string {
	t.Helper()
	out := []string{""}
	seen := map[string]bool{}
	for _, seg := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		values := []string{seg}
		if name, ok := strings.CutPrefix(seg, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			seen[name] = true
			values = nil
			for _, v := range valuesOf(t, path, name, a, txn) {
				values = append(values, url.PathEscape(v))
			}
		}
		var next []string
		for _, p := range out {
			for _, v := range values {
				next = append(next, p+"/"+v)
			}
		}
		out = next
	}
	if strings.HasSuffix(path, "/state/{eventType}/{stateKey}") { // types go with keys
		out = slices.DeleteFunc(out, func(p string) bool {
			parts := strings.Split(p, "/")
			typ, key := parts[len(parts)-2], parts[len(parts)-1]
			return (typ == "m.room.member") != (key == url.PathEscape(a.user)) || typ == "org.example.state" != (key == "k") || typ != "org.example.state" && typ != "m.room.member" && key != ""
		})
	}
	return out
}

// valuesOf are the values that a parameter takes.
func valuesOf(t *testing.T, path, name string, a aim, txn *counter) []string {
	t.Helper()
	switch name {
	case "roomId":
		return []string{a.room}
	case "userId":
		return []string{a.user}
	case "eventId":
		return []string{a.event}
	case "roomAlias":
		return []string{a.alias}
	case "roomIdOrAlias":
		return []string{a.room, a.alias}
	case "deviceId":
		return []string{a.device}
	case "serverName":
		return []string{a.server}
	case "mediaId":
		return []string{a.media}
	case "fileName":
		return []string{"file.txt"}
	case "filterId":
		return []string{a.filter}
	case "version":
		return []string{a.backup}
	case "sessionId":
		return []string{"session"}
	case "appserviceId":
		return []string{"mail"}
	case "tag":
		return []string{"u.work"}
	case "type":
		return []string{"org.example.note", "m.direct"}
	case "keyName":
		return []string{"displayname", "avatar_url", "org.example.note"}
	case "kind":
		return []string{"content"}
	case "ruleId":
		return []string{a.rule}
	case "receiptType":
		return []string{"m.read", "m.read.private", "m.fully_read"}
	case "txnId":
		return []string{txn.next()}
	case "stateKey":
		return []string{"", a.user, "k"}
	case "eventType":
		switch {
		case strings.Contains(path, "/state/{eventType}/{stateKey}"):
			return []string{"m.room.create", "m.room.name", "m.room.member", "org.example.state", "m.room.power_levels"}
		case strings.Contains(path, "/state/"):
			return []string{"m.room.name", "m.room.topic", "m.room.canonical_alias"}
		case strings.Contains(path, "/sendToDevice/"):
			return []string{"m.room_key_request", "m.room.encrypted", "m.forwarded_room_key"}
		}
		return []string{"m.room.message", "m.reaction", "m.room.encrypted"}
	}
	t.Fatalf("%s: nobody has said here which values {%s} takes", path, name)
	return nil
}

// queries are the query strings with which a route is called.
func queries(e clientapi.Entry, a aim) []string {
	esc := url.QueryEscape
	switch p := e.Paths[0]; {
	case e.Method != "GET":
		if strings.Contains(p, "/room_keys/keys") {
			return []string{"?version=" + esc(a.backup)}
		}
		if strings.HasSuffix(p, "/publicRooms") {
			return []string{"", "?server=" + esc(a.tenant)}
		}
		return []string{""}
	case strings.HasSuffix(p, "/sync"):
		return []string{"?timeout=0", "?timeout=0&full_state=true", "?timeout=0&since=" + esc(a.since),
			"?timeout=0&filter=" + esc(`{"room":{"include_leave":true,"timeline":{"limit":100},"state":{"lazy_load_members":true}}}`)}
	case strings.HasSuffix(p, "/messages"):
		return []string{"?dir=b&limit=100", "?dir=f&limit=100", "?dir=b&from=" + esc(a.since)}
	case strings.HasSuffix(p, "/context/{eventId}"):
		return []string{"?limit=50"}
	case strings.HasSuffix(p, "/members"):
		return []string{"", "?membership=join", "?not_membership=leave", "?at=" + esc(a.since)}
	case strings.Contains(p, "/state/"):
		return []string{"", "?format=event"}
	case strings.HasSuffix(p, "/publicRooms"):
		return []string{"", "?server=" + esc(a.tenant)}
	case strings.HasSuffix(p, "/hierarchy"):
		return []string{"", "?suggested_only=true", "?max_depth=0", "?limit=1"}
	case strings.Contains(p, "/room_summary/"):
		return []string{"", "?via=" + esc(a.tenant), "?via=" + esc(a.server) + "&via=acme.example"}
	case strings.HasSuffix(p, "/keys/changes"):
		return []string{"?from=s0", "?from=" + esc(a.since)}
	case strings.Contains(p, "/room_keys/keys"):
		return []string{"?version=" + esc(a.backup)}
	case strings.HasSuffix(p, "/register/available"):
		return []string{"?username=" + esc(strings.TrimPrefix(strings.SplitN(a.user, ":", 2)[0], "@"))}
	case strings.HasSuffix(p, "/validity"):
		return []string{"?token=x"}
	case strings.Contains(p, "/thumbnail/"):
		return []string{"?width=32&height=32&method=crop&timeout_ms=0"}
	case strings.Contains(p, "/media/download/"), strings.Contains(p, "/media/v3/download/"):
		return []string{"?timeout_ms=0", "?timeout_ms=0&allow_remote=true&allow_redirect=true"}
	}
	return []string{""}
}

type object = map[string]any

// bodiesOf are the bodies with which a route is called.
func bodiesOf(t *testing.T, e clientapi.Entry, a aim) []any {
	t.Helper()
	if e.Method == "GET" {
		return []any{nil}
	}
	local := strings.TrimPrefix(strings.SplitN(a.user, ":", 2)[0], "@")
	user := object{"user_id": a.user, "reason": "please"}
	key := strings.TrimPrefix(strings.TrimPrefix(e.Paths[0], "/_matrix/client/"), "v3")
	switch e.Method + " " + key {
	case "POST /login":
		return []any{object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": a.user}, "password": "wrong"}}
	case "POST /refresh":
		return []any{object{"refresh_token": "wrong"}}
	case "POST /register":
		return []any{object{"username": local, "password": hstest.Password}}
	case "POST /_synapse/admin/v1/register":
		return []any{object{"nonce": "x", "username": local, "password": "x", "mac": "x"}}
	case "POST /account/password":
		return []any{object{"new_password": "something-else-9"}}
	case "POST /delete_devices":
		return []any{object{"devices": []string{a.device}}}
	case "PUT /devices/{deviceId}":
		return []any{object{"display_name": "mine now"}}
	case "PUT /profile/{userId}/{keyName}":
		return []any{object{"displayname": "mine now", "avatar_url": "mxc://acme.example/x", "org.example.note": "x"}}
	case "PUT /user/{userId}/account_data/{type}", "PUT /user/{userId}/rooms/{roomId}/account_data/{type}":
		return []any{object{"mine": "now"}}
	case "POST /user/{userId}/filter":
		return []any{object{"room": object{"timeline": object{"limit": 3}}}}
	case "POST /createRoom":
		return []any{object{"invite": []string{a.user}}, object{"invite": []string{a.user}, "is_direct": true, "preset": "trusted_private_chat"},
			object{"room_version": "10", "creation_content": object{"predecessor": object{"room_id": a.room, "event_id": a.event}}},
			object{"initial_state": []any{object{"type": "m.room.join_rules", "content": object{"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": a.room}}}},
				object{"type": "m.space.child", "state_key": a.room, "content": object{"via": []string{a.tenant}}}}}}
	case "POST /rooms/{roomId}/upgrade":
		return []any{object{"new_version": "11"}}
	case "POST /rooms/{roomId}/invite", "POST /rooms/{roomId}/kick", "POST /rooms/{roomId}/ban", "POST /rooms/{roomId}/unban":
		return []any{user}
	case "PUT /rooms/{roomId}/send/{eventType}/{txnId}":
		return []any{object{"msgtype": "m.text", "body": "hello", "m.relates_to": object{"rel_type": "m.thread", "event_id": a.event}, "m.mentions": object{"user_ids": []string{a.user}}}}
	case "PUT /rooms/{roomId}/redact/{eventId}/{txnId}":
		return []any{object{"reason": "mine"}}
	case "PUT /rooms/{roomId}/state/{eventType}/{stateKey}":
		return []any{object{"membership": "invite", "name": "mine now"}, object{"membership": "join"}, object{"membership": "ban"}}
	case "PUT /directory/room/{roomAlias}":
		return []any{object{"room_id": a.room}}
	case "PUT /directory/list/room/{roomId}":
		return []any{object{"visibility": "private"}, object{"visibility": "public"}}
	case "POST /publicRooms":
		return []any{object{"limit": 500}, object{"filter": object{"generic_search_term": a.text}}}
	case "POST /user_directory/search":
		return []any{object{"search_term": a.text, "limit": 100}, object{"search_term": local}, object{"search_term": a.user}, object{"search_term": "@"}}
	case "PUT /rooms/{roomId}/typing/{userId}":
		return []any{object{"typing": true, "timeout": 60000}}
	case "POST /rooms/{roomId}/receipt/{receiptType}/{eventId}":
		return []any{object{}, object{"thread_id": a.thread}}
	case "POST /rooms/{roomId}/read_markers":
		return []any{object{"m.fully_read": a.event, "m.read": a.event, "m.read.private": a.event}}
	case "PUT /presence/{userId}/status":
		return []any{object{"presence": "online", "status_msg": "mine now"}}
	case "PUT /pushrules/global/{kind}/{ruleId}":
		return []any{object{"actions": []string{"notify"}, "pattern": "x"}}
	case "PUT /pushrules/global/{kind}/{ruleId}/enabled":
		return []any{object{"enabled": false}}
	case "PUT /pushrules/global/{kind}/{ruleId}/actions":
		return []any{object{"actions": []string{"notify"}}}
	case "PUT /user/{userId}/rooms/{roomId}/tags/{tag}":
		return []any{object{"order": 0.5}}
	case "POST /keys/upload":
		return []any{object{}}
	case "POST /keys/query":
		return []any{object{"device_keys": object{a.user: []string{}}}, object{"device_keys": object{a.user: []string{a.device}}}}
	case "POST /keys/claim":
		return []any{object{"one_time_keys": object{a.user: object{a.device: "signed_curve25519"}}}}
	case "POST /keys/device_signing/upload":
		return []any{object{}}
	case "POST /keys/signatures/upload":
		return []any{object{a.user: object{a.device: a.keyObject}}, object{a.user: object{a.key: a.keyObject}}}
	case "PUT /sendToDevice/{eventType}/{txnId}":
		return []any{object{"messages": object{a.user: object{"*": object{"hello": "there"}, a.device: object{"hello": "you"}}}}}
	case "POST /room_keys/version":
		return []any{object{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": object{"public_key": "x"}}}
	case "PUT /room_keys/version/{version}":
		return []any{object{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": object{"public_key": "mine now"}, "version": a.backup}}
	case "PUT /room_keys/keys":
		return []any{object{"rooms": object{a.room: object{"sessions": object{"session": session("mine")}}}}}
	case "PUT /room_keys/keys/{roomId}":
		return []any{object{"sessions": object{"session": session("mine")}}}
	case "PUT /room_keys/keys/{roomId}/{sessionId}":
		return []any{session("mine")}
	case "POST /_matrix/media/v3/upload", "PUT /_matrix/media/v3/upload/{serverName}/{mediaId}":
		return []any{[]byte("mine now")}
	case "POST /_matrix/media/v1/create", "POST /logout", "POST /logout/all", "POST /account/deactivate", "POST /rooms/{roomId}/join", "POST /join/{roomIdOrAlias}",
		"POST /knock/{roomIdOrAlias}", "POST /rooms/{roomId}/leave", "POST /rooms/{roomId}/forget",
		"POST v1/appservice/{appserviceId}/ping":
		return []any{object{}}
	}
	if e.Method == "DELETE" {
		return []any{nil}
	}
	t.Fatalf("%s %s: nobody has said here which body it takes", e.Method, e.Paths[0])
	return nil
}

// session is a session in a backup.
func session(data string) object {
	return object{"first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": object{"ciphertext": data}}
}
