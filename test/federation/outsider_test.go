package federation_test

import (
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/test/hstest"
)

// guest is a user of an outsider, a server whose events are made by hand, in a room of the first server.
type guest struct {
	t       testing.TB
	o       *hstest.Outsider
	to      matrix.ServerName
	id      matrix.UserID
	room    matrix.RoomID
	version *matrix.RoomVersion
	join    *event.Event
	auth    []matrix.EventID // for a message
	rules   []matrix.EventID // for the join of another user
	last    *event.Event
}

// enter lets a user of an outsider join a room of one.example.
func enter(t testing.TB, o *hstest.Outsider, name, room, version string) *guest {
	t.Helper()
	v, _ := matrix.FindRoomVersion(version)
	g := &guest{t: t, o: o, to: "one.example", id: matrix.UserID("@" + name + ":" + string(o.Name)), room: matrix.RoomID(room), version: v}
	a := o.Do("GET", g.to, "/_matrix/federation/v1/make_join/"+hstest.Esc(room)+"/"+hstest.Esc(string(g.id))+"?ver="+version, nil)
	if a.Status != 200 {
		t.Fatalf("make_join: %d %s", a.Status, a.Raw)
	}
	var template struct {
		Event struct {
			Auth  json.RawMessage `json:"auth_events"`
			Prev  json.RawMessage `json:"prev_events"`
			Depth int64           `json:"depth"`
		} `json:"event"`
	}
	if err := json.Unmarshal(a.Raw, &template); err != nil {
		t.Fatal(err)
	}
	key := string(g.id)
	g.join = g.build(event.Draft{Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"join"}`), Depth: template.Event.Depth,
		AuthEvents: references(t, template.Event.Auth), PrevEvents: references(t, template.Event.Prev)})
	a = o.Do("PUT", g.to, "/_matrix/federation/v2/send_join/"+hstest.Esc(room)+"/"+hstest.Esc(string(g.join.ID)), event.Federation(g.join))
	if a.Status != 200 {
		t.Fatalf("send_join: %d %s", a.Status, a.Raw)
	}
	var answer struct {
		State []json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(a.Raw, &answer); err != nil {
		t.Fatal(err)
	}
	g.last, g.auth = g.join, []matrix.EventID{g.join.ID}
	for _, raw := range answer.State {
		e, err := event.Parse(v, raw)
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == "m.room.power_levels" || e.Type == "m.room.create" && !v.RoomIDHash {
			g.auth = append(g.auth, e.ID)
		}
		if e.Type == "m.room.power_levels" || e.Type == "m.room.join_rules" || e.Type == "m.room.create" && !v.RoomIDHash {
			g.rules = append(g.rules, e.ID)
		}
	}
	return g
}

// references reads a list of event IDs in either form.
func references(t testing.TB, raw json.RawMessage) []matrix.EventID {
	t.Helper()
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	var out []matrix.EventID
	for _, r := range list {
		var id string
		if json.Unmarshal(r, &id) != nil {
			var pair []any
			if err := json.Unmarshal(r, &pair); err != nil {
				t.Fatal(err)
			}
			id, _ = pair[0].(string)
		}
		out = append(out, matrix.EventID(id))
	}
	return out
}

// build makes a signed event of the guest.
func (g *guest) build(d event.Draft) *event.Event {
	g.t.Helper()
	d.RoomID, d.Sender, d.OriginServerTS = g.room, g.id, time.Now().UnixMilli()
	if !g.version.EventIDHash {
		d.EventID = matrix.EventID("$" + rand.Text() + ":" + string(g.o.Name))
	}
	e, err := event.Build(g.version, d)
	if err != nil {
		g.t.Fatal(err)
	}
	return signing.SignEvent(e, g.o.Name, g.o.Key)
}

// message makes the guest's next message.
func (g *guest) message(body string) *event.Event {
	g.t.Helper()
	content, err := json.Marshal(map[string]any{"msgtype": "m.text", "body": body})
	if err != nil {
		g.t.Fatal(err)
	}
	g.last = g.build(event.Draft{Type: "m.room.message", Content: content, Depth: g.last.Depth + 1, AuthEvents: g.auth, PrevEvents: []matrix.EventID{g.last.ID}})
	return g.last
}

// friend makes the join of another user of the guest's server.
func (g *guest) friend(name string) *event.Event {
	g.t.Helper()
	me := g.id
	g.id = matrix.UserID("@" + name + ":" + string(g.o.Name))
	key := string(g.id)
	g.last = g.build(event.Draft{Type: "m.room.member", StateKey: &key, Content: []byte(`{"displayname":"Friend ` + name + `","membership":"join"}`),
		Depth: g.last.Depth + 1, AuthEvents: g.rules, PrevEvents: []matrix.EventID{g.last.ID}})
	g.id = me
	return g.last
}

// transaction sends PDUs and EDUs.
func (g *guest) transaction(txn string, pdus []json.RawMessage, edus ...any) hstest.Answer {
	g.t.Helper()
	if pdus == nil {
		pdus = []json.RawMessage{}
	}
	return g.o.Do("PUT", g.to, "/_matrix/federation/v1/send/"+txn, map[string]any{"origin": g.o.Name, "origin_server_ts": time.Now().UnixMilli(), "pdus": pdus, "edus": edus})
}

func raw(events ...*event.Event) []json.RawMessage {
	var out []json.RawMessage
	for _, e := range events {
		out = append(out, event.Federation(e))
	}
	return out
}

// results are the errors of a transaction's answer by event ID; an event that was taken in has an empty one.
func results(t *testing.T, a hstest.Answer) map[matrix.EventID]string {
	t.Helper()
	if a.Status != 200 {
		t.Fatalf("transaction: %d %s", a.Status, a.Raw)
	}
	var answer struct {
		PDUs map[matrix.EventID]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	if err := json.Unmarshal(a.Raw, &answer); err != nil {
		t.Fatal(err)
	}
	out := map[matrix.EventID]string{}
	for id, r := range answer.PDUs {
		out[id] = r.Error
	}
	return out
}
