package chaos

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// lane is one thing after the other that somebody does.
type lane struct {
	*Storm
	name string
	who  *Person
	i    int // of who
	rng  *rand.Rand
	ctx  context.Context // of the storm
	n    int             // acts so far
	own  []*sentEvent    // acknowledged messages
}

// lanes are all that is done in the storm.
func (s *Storm) lanes() []func(context.Context) {
	var out []func(context.Context)
	add := func(kind string, people int, rest time.Duration, act func(*lane)) {
		if !slices.Contains(s.Kinds, kind) {
			return
		}
		for i := range min(people, len(s.people)) {
			out = append(out, func(ctx context.Context) { s.live(ctx, kind, i, rest, act) })
		}
	}
	add("send", s.People, s.Pause, (*lane).sendAct)
	add("device", s.People, s.Pause, (*lane).deviceAct)
	add("key", s.People, s.Pause, (*lane).keyAct)
	add("data", s.People, s.Pause, (*lane).dataAct)
	add("room", 3, 4*s.Pause, (*lane).roomAct)
	add("member", s.People, 2*s.Pause, (*lane).memberAct)
	add("media", 2, 3*s.Pause, (*lane).mediaAct)
	add("account", 1, 20*s.Pause, (*lane).accountAct)
	return out
}

func (s *Storm) live(ctx context.Context, kind string, i int, rest time.Duration, act func(*lane)) {
	name := fmt.Sprint(kind, "-", i)
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	l := &lane{Storm: s, name: name, who: s.people[i], i: i, rng: rand.New(rand.NewPCG(s.Seed, h.Sum64())), ctx: ctx}
	for {
		select {
		case <-s.stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(l.rng.Int64N(int64(rest)))):
		}
		act(l)
		l.n++
	}
}

// ask settles a request and complains about an answer that is not 200; it reports whether it was.
func (l *lane) ask(kind, method, path string, body any) (Answer, bool) {
	a, _, err := l.settle(l.ctx, kind, l.who, method, path, body)
	if err != nil {
		return a, false
	}
	if a.Status != 200 {
		l.complain("%s: %s %s: %v", l.name, method, path, a)
		return a, false
	}
	return a, true
}

func (l *lane) eventID(a Answer) string {
	var got struct {
		ID string `json:"event_id"`
	}
	if err := a.Into(&got); err != nil || got.ID == "" {
		l.complain("%s: no event ID in %v", l.name, a)
	}
	return got.ID
}

// sendAct sends a message; now and then it repeats an old one, redacts one, moves a receipt or writes state.
func (l *lane) sendAct() {
	room := l.rooms[l.rng.IntN(len(l.rooms))]
	pick := l.rng.IntN(100)
	if len(l.own) == 0 || pick < 70 {
		l.sendMessage(room)
		return
	}
	old := l.own[l.rng.IntN(len(l.own))]
	switch {
	case pick < 78:
		a, ok := l.ask("send", "PUT", roomPath(old.room, "/send/m.room.message/"+old.txn), message(old.body))
		if id := l.eventID(a); ok && id != old.id {
			l.complain("%s: transaction %s was acknowledged as %s, and again as %s", l.name, old.txn, old.id, id)
		}
	case pick < 84 && !old.redacted:
		a, ok := l.ask("redact", "PUT", roomPath(old.room, "/redact/"+esc(old.id)+"/r"+fmt.Sprint(l.n)), map[string]any{})
		if ok {
			id := l.eventID(a)
			l.ledger.write(func() {
				old.redacted = true
				l.ledger.redactions = append(l.ledger.redactions, redaction{old.room, old.id, id})
			})
		}
	case pick < 92:
		newest := l.own[len(l.own)-1]
		if _, ok := l.ask("receipt", "POST", roomPath(newest.room, "/receipt/m.read/"+esc(newest.id)), map[string]any{}); ok {
			l.ledger.write(func() { l.ledger.receipts[l.who.ID+newest.room] = receipt{newest.room, l.who.ID, newest.id} })
		}
	default:
		a, ok := l.ask("state", "PUT", roomPath(room, "/state/org.chaos.note/"+l.name), map[string]any{"n": l.n})
		if ok {
			id := l.eventID(a)
			l.ledger.write(func() { l.ledger.notes[l.name+room] = note{room, l.name, id, l.n} })
		}
	}
}

func (l *lane) sendMessage(room string) {
	e := &sentEvent{room: room, lane: l.name, body: fmt.Sprint(l.name, "/", l.n), txn: fmt.Sprint("m", l.n), seq: l.n}
	a, ok := l.ask("send", "PUT", roomPath(room, "/send/m.room.message/"+e.txn), message(e.body))
	if ok {
		e.id = l.eventID(a)
		l.own = append(l.own, e)
		l.ledger.write(func() { l.ledger.events = append(l.ledger.events, e) })
	}
}

// deviceAct sends a to-device message.
func (l *lane) deviceAct() {
	to := l.people[l.rng.IntN(len(l.people))]
	kind := []string{"org.chaos.a", "org.chaos.b"}[l.rng.IntN(2)]
	body := map[string]any{"messages": map[string]any{to.ID: map[string]any{to.Device: map[string]any{"lane": l.name, "n": l.n}}}}
	if _, ok := l.ask("device", "PUT", fmt.Sprint(v3, "/sendToDevice/", kind, "/", l.name, "-", l.n), body); ok {
		l.ledger.write(func() { l.ledger.devices = append(l.ledger.devices, toDevice{l.name, kind, to.ID, l.n}) })
	}
}

// keyAct uploads one-time keys, or claims one of somebody.
func (l *lane) keyAct() {
	if l.rng.IntN(4) == 0 {
		keys, names := map[string]any{}, []string{}
		for i := range 4 {
			name := fmt.Sprintf("K%d-%d-%d", l.i, l.n, i)
			keys["curve25519:"+name] = "key of " + name
			names = append(names, name)
		}
		if _, ok := l.ask("upload", "POST", v3+"/keys/upload", map[string]any{"one_time_keys": keys}); ok {
			l.ledger.write(func() { l.ledger.keys[l.who.ID] = append(l.ledger.keys[l.who.ID], names...) })
		}
		return
	}
	l.claim(l.people[l.rng.IntN(len(l.people))])
}

// claim takes a key of somebody and returns its name, empty when there is none. Nobody knows what a claim without an answer took.
func (l *lane) claim(of *Person) string {
	a, err := l.once(l.ctx, "claim", l.who, "POST", v3+"/keys/claim", map[string]any{"one_time_keys": map[string]any{of.ID: map[string]any{of.Device: "curve25519"}}})
	if err != nil {
		l.ledger.write(func() { l.ledger.unsure[of.ID]++ })
		return ""
	}
	if a.Status != 200 {
		l.complain("%s: claim: %v", l.name, a)
		return ""
	}
	var got struct {
		Keys map[string]map[string]map[string]string `json:"one_time_keys"`
	}
	if err := a.Into(&got); err != nil {
		l.complain("%s: claim: %v", l.name, err)
		return ""
	}
	for name, value := range got.Keys[of.ID][of.Device] {
		name = name[len("curve25519:"):]
		if value != "key of "+name {
			l.complain("%s: the key %s of %s is %q", l.name, name, of.ID, value)
		}
		l.ledger.write(func() { l.ledger.claims[of.ID] = append(l.ledger.claims[of.ID], name) })
		return name
	}
	return ""
}

// dataAct raises an account datum, and goes on to the next value also where nobody knows what became of the last one.
func (l *lane) dataAct() {
	if l.rng.IntN(12) == 0 {
		name := fmt.Sprint("Name ", l.n)
		path := v3 + "/profile/" + esc(l.who.ID) + "/displayname"
		if _, ok := l.ask("data", "PUT", path, map[string]any{"displayname": name}); ok {
			l.ledger.write(func() { l.ledger.names[l.who.ID] = name })
		}
		return
	}
	path := v3 + "/user/" + esc(l.who.ID)
	if l.rng.IntN(3) == 0 {
		path += "/rooms/" + esc(l.rooms[l.rng.IntN(len(l.rooms))])
	}
	path += fmt.Sprint("/account_data/org.chaos.d", l.rng.IntN(3))
	var d *datum
	l.ledger.write(func() {
		if d = l.ledger.data[path]; d == nil {
			d = &datum{person: l.who.ID, path: path, acked: -1}
			l.ledger.data[path] = d
		}
		d.attempted = l.n
	})
	a, err := l.once(l.ctx, "data", l.who, "PUT", path, map[string]any{"n": l.n})
	switch {
	case err != nil:
	case a.Status != 200:
		l.complain("%s: PUT %s: %v", l.name, path, a)
	default:
		l.ledger.write(func() { d.acked = l.n })
	}
}

// roomAct makes a room with an alias, and finds out by the alias whether a request without an answer has made it.
func (l *lane) roomAct() {
	alias := fmt.Sprint(l.name, "-", l.n)
	invited := l.people[(l.i+1+l.rng.IntN(len(l.people)-1))%len(l.people)]
	body := map[string]any{"preset": "private_chat", "name": alias, "topic": "t", "room_alias_name": alias, "invite": []string{invited.ID},
		"initial_state": []any{map[string]any{"type": "org.chaos.mark", "state_key": "", "content": map[string]any{"alias": alias}}}}
	var got struct {
		RoomID string `json:"room_id"`
	}
	for got.RoomID == "" {
		a, err := l.once(l.ctx, "create", l.who, "POST", v3+"/createRoom", body)
		if l.ctx.Err() != nil {
			return
		}
		if err != nil {
			if a, _, err = l.settle(l.ctx, "resolve", l.who, "GET", v3+"/directory/room/"+esc("#"+alias+":"+Tenant), nil); err != nil {
				return
			}
			if a.Status == 404 {
				continue // it was not made
			}
		}
		if err := a.Into(&got); err != nil || a.Status != 200 || got.RoomID == "" {
			l.complain("%s: make %s: %v", l.name, alias, a)
			return
		}
	}
	l.ledger.write(func() { l.ledger.made = append(l.ledger.made, madeRoom{got.RoomID, alias, invited.ID, l.i}) })
}

// memberAct joins or leaves a door room.
func (l *lane) memberAct() {
	if l.i == 0 {
		return // made them
	}
	door := l.doors[l.rng.IntN(len(l.doors))]
	var m *moves
	was := "leave"
	l.ledger.write(func() {
		if m = l.ledger.moves[l.who.ID+door]; m == nil {
			m = &moves{person: l.who.ID, door: door}
			l.ledger.moves[l.who.ID+door] = m
		}
		if len(m.list) > 0 {
			was = m.list[len(m.list)-1]
		}
	})
	verb := "join"
	if was == "join" {
		verb = "leave"
	}
	a, tries, err := l.settle(l.ctx, "member", l.who, "POST", roomPath(door, "/"+verb), map[string]any{})
	if err != nil {
		return
	}
	if a.Status != 200 && !(verb == "leave" && tries > 1 && a.Status == 403) { // who has left already may not leave again
		l.complain("%s: %s: %v", l.name, verb, a)
		return
	}
	l.ledger.write(func() { m.list = append(m.list, verb) })
}

// mediaAct uploads a file.
func (l *lane) mediaAct() {
	data := bytes.Repeat([]byte(fmt.Sprintf("%s/%d;", l.name, l.n)), 1+l.rng.IntN(2000))
	a, err := l.once(l.ctx, "media", l.who, "POST", "/_matrix/media/v3/upload", data)
	var got struct {
		URI string `json:"content_uri"`
	}
	switch {
	case err != nil:
	case a.Status == 404 && a.Code() == "M_UNRECOGNIZED": // a server without media
	case a.Status != 200 || a.Into(&got) != nil || got.URI == "":
		l.complain("%s: upload: %v", l.name, a)
	default:
		l.ledger.write(func() { l.ledger.media = append(l.ledger.media, upload{got.URI, data}) })
	}
}

// accountAct logs in on a new device, logs it out again, or makes an account.
func (l *lane) accountAct() {
	if l.n%4 == 3 {
		name := fmt.Sprint("new", l.n)
		a, tries, err := l.settle(l.ctx, "register", &Person{}, "POST", v3+"/register",
			map[string]any{"username": name, "password": Password, "auth": map[string]any{"type": "m.login.dummy"}})
		if err == nil && a.Status != 200 && !(tries > 1 && a.Code() == "M_USER_IN_USE") {
			l.complain("%s: register %s: %v", l.name, name, a)
		} else if err == nil {
			l.ledger.write(func() { l.ledger.people = append(l.ledger.people, name) })
		}
		return
	}
	a, _, err := l.settle(l.ctx, "login", &Person{}, "POST", v3+"/login", map[string]any{"type": "m.login.password", "password": Password,
		"identifier": map[string]any{"type": "m.id.user", "user": l.who.ID}})
	if err != nil {
		return
	}
	p, err := a.person(l.who.Name)
	if err != nil || a.Status != 200 {
		l.complain("%s: login: %v", l.name, a)
		return
	}
	l.ledger.write(func() { l.ledger.live[p.Token] = true })
	if l.n%2 == 1 {
		a, tries, err := l.settle(l.ctx, "logout", p, "POST", v3+"/logout", map[string]any{})
		if err != nil {
			return
		}
		if a.Status != 200 && !(tries > 1 && a.Status == 401) {
			l.complain("%s: logout: %v", l.name, a)
		}
		l.ledger.write(func() { l.ledger.live[p.Token] = false })
	}
}
