package api

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
	"hansa/test/hstest"
)

// campPolicy keeps four camps apart: acme's research with globex's lab, which an agreement connects, acme's trading, and those
// who are in no pool in acme and in globex. Sales may meet marketing and suppliers, who may not meet each other.
func campPolicy() map[string]string {
	const rooms = "rooms: {history_visibility: [shared, invited, joined, world_readable]}\n"
	return map[string]string{
		"acme.example/pools.yaml": "research: {contact: closed}\ntrading: {contact: closed}\nsales: {contact: {with: [marketing, suppliers]}}\n" +
			"marketing: {contact: {with: [sales]}}\nsuppliers: {contact: {with: [sales]}}\n",
		"acme.example/partners.yaml":   `partners: {globex.example: {pools: [{ours: research, theirs: lab}], features: "*"}}` + "\n",
		"acme.example/rooms.yaml":      rooms,
		"globex.example/pools.yaml":    "lab: {contact: closed}\n",
		"globex.example/partners.yaml": `partners: {acme.example: {pools: [{ours: lab, theirs: research}], features: "*"}}` + "\n",
		"globex.example/rooms.yaml":    rooms,
	}
}

// canary is something that only the people of one camp may ever get to see.
type canary struct{ camp, label, text string }

// canaries are all that were planted. shared ones are for the whole camp, the others for their owner.
type canaries struct {
	t      testing.TB
	list   []canary
	shared map[string]bool
	labels map[string]bool
}

// plant makes a random string of 128 bits.
func (c *canaries) plant(camp, label string, shared bool) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	text := hex.EncodeToString(b[:])
	c.note(camp, label, text, shared)
	return text
}

// note makes a canary of something that the server or a key made.
func (c *canaries) note(camp, label, text string, shared bool) {
	c.t.Helper()
	if len(text) < 8 || c.labels[camp+label] {
		c.t.Fatalf("canary %s of %s: %q", label, camp, text)
	}
	c.labels[camp+label] = true
	c.list = append(c.list, canary{camp, label, text})
	c.shared[text] = shared
}

// found lists the canaries of other camps (or of the own one) in a text.
func (c *canaries) found(text []byte, camp string, own bool) []canary {
	var out []canary
	for _, k := range c.list {
		if (k.camp == camp) == own && bytes.Contains(text, []byte(k.text)) {
			out = append(out, k)
		}
	}
	return out
}

// camp is a group of people who may know each other and nobody else.
type camp struct {
	name          string
	owner, fellow *hstest.User
	// hidden is a member whose user ID is a canary; guest one of another tenant, if the camp has one.
	hidden, guest *hstest.User
	// aims are what outsiders aim at: one for each room.
	aims []aim
	// secret is the room that everything private happens in.
	secret string
}

// camps are the people of a server and what they planted.
type camps struct {
	t        *testing.T
	s        *hstest.Server
	canaries *canaries
	all      []*camp
	txn      counter
	seen     map[string]bool // canaries that somebody saw who may
}

func newCamps(t *testing.T, s *hstest.Server) *camps {
	t.Helper()
	w := &camps{t: t, s: s, seen: map[string]bool{}, canaries: &canaries{t: t, shared: map[string]bool{}, labels: map[string]bool{}}}
	w.camp("research", "acme.example", "rita", "rosa", "research", "@lena:globex.example", "lab")
	w.camp("trading", "acme.example", "theo", "tina", "trading", "", "")
	w.camp("staff", "acme.example", "pia", "paul", "", "", "")
	w.camp("abroad", "globex.example", "gina", "gus", "", "", "")
	for _, c := range w.all {
		w.fill(c)
	}
	return w
}

func (w *camps) camp(name, tenant, owner, fellow, pool, guest, guestPool string) {
	w.t.Helper()
	pools := []string{}
	if pool != "" {
		pools = append(pools, pool)
	}
	user := func(local string) *hstest.User { return w.s.User("@"+local+":"+tenant, pools...) }
	c := &camp{name: name, owner: user(owner), fellow: user(fellow)}
	c.hidden = user("h" + w.canaries.plant(name, "user ID of the hidden member", true))
	if guest != "" {
		c.guest = w.s.User(guest, guestPool)
	}
	w.all = append(w.all, c)
}

// people are the members of a camp.
func (c *camp) people() []*hstest.User {
	out := []*hstest.User{c.owner, c.fellow, c.hidden}
	if c.guest != nil {
		out = append(out, c.guest)
	}
	return out
}

// fill makes the owner write into every field that there is.
func (w *camps) fill(c *camp) {
	w.t.Helper()
	o := c.owner
	shared := func(label string) string { return "Canary " + w.canaries.plant(c.name, label, true) }
	own := func(label string) string { return "Canary " + w.canaries.plant(c.name, label, false) }
	tenant := string(o.ID.Server())
	w.canaries.note(c.name, "device that no request names", o.DeviceID, false)
	o.Login("HANDSETOFTHEOWNER")
	w.profile(c, shared)
	mediaID := w.media(c, shared)
	o.Must("PUT", "/devices/"+o.DeviceID, object{"display_name": shared("device name")})
	key, keyObject := w.keys(c)
	base := aim{user: string(o.ID), device: o.DeviceID, server: tenant, media: mediaID, tenant: tenant, text: "canary", key: key, keyObject: keyObject, rule: "work", backup: "1"}
	base.filter = o.Must("POST", "/user/"+hstest.Esc(string(o.ID))+"/filter", object{"room": object{"timeline": object{"types": []string{own("filter")}}}}).String("filter_id")
	w.own(c, own)
	for _, kind := range []string{"secret", "open", "knock", "direct", "old", "restricted"} {
		a := base
		w.room(c, kind, &a, shared)
		c.aims = append(c.aims, a)
	}
	w.unknown(c, shared)
	w.passing(c, shared)
}

func (w *camps) profile(c *camp, shared func(string) string) {
	w.t.Helper()
	o, p := c.owner, "/profile/"+hstest.Esc(string(c.owner.ID))
	o.Must("PUT", p+"/displayname", object{"displayname": shared("display name")})
	o.Must("PUT", p+"/avatar_url", object{"avatar_url": "mxc://" + string(o.ID.Server()) + "/" + w.canaries.plant(c.name, "avatar", true)})
	o.Must("PUT", p+"/org.example.note", object{"org.example.note": object{"deep": []string{shared("profile field")}}})
	o.Must("PUT", p+"/m.tz", object{"m.tz": shared("time zone")})
	c.hidden.Must("PUT", "/profile/"+hstest.Esc(string(c.hidden.ID))+"/displayname", object{"displayname": shared("display name of the hidden member")})
}

// own plants what nobody but the owner sees.
func (w *camps) own(c *camp, own func(string) string) {
	w.t.Helper()
	o, p := c.owner, "/user/"+hstest.Esc(string(c.owner.ID))
	o.Must("PUT", p+"/account_data/org.example.note", object{"note": own("account data")})
	o.Must("PUT", p+"/account_data/m.direct", object{string(c.fellow.ID): []string{own("m.direct")}})
	o.Must("PUT", "/pushrules/global/content/work", object{"actions": []string{"notify"}, "pattern": own("push rule")})
	a := o.Must("POST", "/room_keys/version", object{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": object{"public_key": own("backup")}})
	version := a.String("version")
	o.Must("PUT", "/room_keys/keys?version="+version, object{"rooms": object{"!backup:" + string(o.ID.Server()): object{"sessions": object{"session": session(own("key in the backup"))}}}})
}

// room makes a room of a kind, with everything in it.
func (w *camps) room(c *camp, kind string, a *aim, shared func(string) string) {
	w.t.Helper()
	o := c.owner
	say := func(label string) string { return shared(kind + " room: " + label) }
	local := "known-" + c.name + "-" + kind
	var invite []string
	for _, u := range c.people()[1:] {
		invite = append(invite, string(u.ID))
	}
	body := object{"preset": "private_chat", "name": say("name"), "topic": say("topic"), "invite": invite}
	if kind != "direct" {
		body["room_alias_name"] = local
	}
	var state []any
	rule := func(r object) { state = append(state, object{"type": "m.room.join_rules", "content": r}) }
	switch kind {
	case "secret":
		state = append(state, object{"type": "m.room.history_visibility", "content": object{"history_visibility": "invited"}})
	case "open":
		body["preset"], body["visibility"] = "public_chat", "public"
		state = append(state, object{"type": "m.room.history_visibility", "content": object{"history_visibility": "world_readable"}},
			object{"type": "m.room.guest_access", "content": object{"guest_access": "can_join"}})
	case "knock":
		rule(object{"join_rule": "knock"})
	case "direct":
		body["preset"], body["is_direct"] = "trusted_private_chat", true
	case "old":
		body["preset"], body["room_version"], body["visibility"] = "public_chat", "6", "public"
	case "restricted":
		body["room_version"] = "10"
		rule(object{"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": c.aims[1].room}}})
	}
	body["initial_state"] = append(state, object{"type": "org.example.state", "state_key": "k", "content": object{"value": say("state")}},
		object{"type": "org.example.key", "state_key": w.canaries.plant(c.name, kind+" room: state key", true), "content": object{}},
		object{"type": "m.room.avatar", "content": object{"url": "mxc://" + a.server + "/" + w.canaries.plant(c.name, kind+" room: avatar", true)}})
	a.room = o.CreateRoom(body)
	a.alias = "#" + local + ":" + a.server
	for _, u := range c.people()[1:] {
		u.Must("POST", "/join/"+hstest.Esc(a.room), object{"reason": shared(kind + " room: reason of " + u.ID.Localpart()[:3])})
	}
	w.talk(c, kind, a, say)
	if kind == "secret" {
		c.secret = a.room
	}
}

// talk fills the timeline and everything beside it.
func (w *camps) talk(c *camp, kind string, a *aim, say func(string) string) {
	w.t.Helper()
	o, f, room := c.owner, c.fellow, "/rooms/"+hstest.Esc(a.room)
	send := func(u *hstest.User, typ, label string, content object) string {
		id := u.Must("PUT", room+"/send/"+typ+"/"+u.Txn(), content).String("event_id")
		if label != "" {
			w.canaries.note(c.name, kind+" room: event ID of "+label, id, true)
		}
		return id
	}
	a.thread = send(o, "m.room.message", "", object{"msgtype": "m.text", "body": say("message"), "format": "org.matrix.custom.html", "formatted_body": say("html")})
	a.event = a.thread
	send(o, "m.room.message", "a reply", object{"msgtype": "m.text", "body": say("reply"), "m.relates_to": object{"rel_type": "m.thread", "event_id": a.thread}})
	send(f, "m.reaction", "a reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": a.event, "key": say("reaction")}})
	send(o, "m.room.encrypted", "something encrypted", object{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": say("ciphertext")})
	gone := send(o, "m.room.message", "something redacted", object{"msgtype": "m.text", "body": "gone"})
	o.Must("PUT", room+"/redact/"+hstest.Esc(gone)+"/"+o.Txn(), object{"reason": say("reason of a redaction")})
	own := func(label string) string {
		return "Canary " + w.canaries.plant(c.name, kind+" room: "+label, false)
	}
	data := "/user/" + hstest.Esc(string(o.ID)) + room
	o.Must("PUT", data+"/account_data/org.example.note", object{"note": own("account data")})
	o.Must("PUT", data+"/tags/u.work", object{"order": 0.1, "org.example": own("tag")})
	o.Must("PUT", data+"/tags/u."+w.canaries.plant(c.name, kind+" room: name of a tag", false), object{})
	f.Must("POST", room+"/read_markers", object{"m.fully_read": a.event, "m.read": a.event})
	o.Must("POST", room+"/receipt/m.read/"+hstest.Esc(a.event), object{"thread_id": "main"})
}

// unknown makes rooms and aliases whose very names are canaries: no outsider's request names them.
func (w *camps) unknown(c *camp, shared func(string) string) {
	w.t.Helper()
	o := c.owner
	id := o.CreateRoom(object{"preset": "public_chat", "visibility": "public", "name": shared("name of the unknown room"),
		"room_alias_name": w.canaries.plant(c.name, "alias of the unknown room", true)})
	w.canaries.note(c.name, "ID of the unknown room", id, true)
	c.fellow.Join(id)
	w.canaries.note(c.name, "event ID in the unknown room", o.Send(id, shared("message in the unknown room")), true)
	space := o.CreateRoom(object{"creation_content": object{"type": "m.space"}, "invite": []string{string(c.fellow.ID)}})
	w.canaries.note(c.name, "ID of the space", space, true)
	c.fellow.Join(space)
	o.Must("PUT", "/rooms/"+hstest.Esc(space)+"/state/m.space.child/"+hstest.Esc(id), object{"via": []string{string(o.ID.Server())}, "order": shared("order in the space")})
}

// passing plants what is not kept: typing, presence, to-device messages.
func (w *camps) passing(c *camp, shared func(string) string) {
	w.t.Helper()
	o := c.owner
	o.Must("PUT", "/presence/"+hstest.Esc(string(o.ID))+"/status", object{"presence": "online", "status_msg": shared("status message")})
	o.Must("PUT", "/rooms/"+hstest.Esc(c.secret)+"/typing/"+hstest.Esc(string(o.ID)), object{"typing": true, "timeout": 120000})
	request := shared("to-device message")
	o.Must("PUT", "/sendToDevice/m.room_key_request/"+o.Txn(), object{"messages": object{string(c.fellow.ID): object{"*": object{"request_id": request}}}})
	for _, k := range w.canaries.found(c.fellow.Sync(0).Raw, c.name, true) { // it is delivered once
		w.seen[k.text] = true
	}
}

// media uploads a picture and a text, and returns the ID of the text.
func (w *camps) media(c *camp, shared func(string) string) string {
	w.t.Helper()
	picture := upload(w.t, c.owner, "picture.png", "image/png", w.picture())
	w.canaries.note(c.name, "ID of the picture", picture, true)
	id := upload(w.t, c.owner, "file "+w.canaries.plant(c.name, "name of a file", true)+".txt", "text/plain", []byte(shared("content of a file")))
	w.album(c, id, picture)
	return id
}

// picture is a PNG.
func (w *camps) picture() []byte {
	w.t.Helper()
	var b bytes.Buffer
	img := image.NewRGBA(image.Rect(0, 0, 40, 40))
	img.Set(1, 1, color.White)
	if err := png.Encode(&b, img); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

// album shows files in messages, as people do.
func (w *camps) album(c *camp, files ...string) {
	w.t.Helper()
	id := c.owner.CreateRoom(object{"invite": []string{string(c.fellow.ID)}})
	c.fellow.Join(id)
	for _, f := range files {
		c.owner.Must("PUT", "/rooms/"+hstest.Esc(id)+"/send/m.room.message/"+c.owner.Txn(), object{"msgtype": "m.file", "body": "file", "url": "mxc://" + string(c.owner.ID.Server()) + "/" + f})
	}
}

// upload stores a file and returns its media ID.
func upload(t testing.TB, u *hstest.User, name, typ string, content []byte) string {
	t.Helper()
	req, err := http.NewRequest("POST", u.S.URL+"/_matrix/media/v3/upload?filename="+url.QueryEscape(name), bytes.NewReader(content))
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
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		URI string `json:"content_uri"`
	}
	if resp.StatusCode != 200 || json.Unmarshal(raw, &body) != nil {
		t.Fatalf("upload: %d %s", resp.StatusCode, raw)
	}
	return body.URI[strings.LastIndex(body.URI, "/")+1:]
}

func seedKey(seed string) ed25519.PrivateKey {
	h := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(h[:])
}

// keySeed is what the keys of a session are made of.
func keySeed(u *hstest.User) string { return string(u.ID) + u.DeviceID }

func publicName(k ed25519.PrivateKey) string {
	pub, _ := k.Public().(ed25519.PublicKey)
	return signing.EncodeBase64(pub)
}

// sealed returns an object with a signature of a user.
func sealed(t testing.TB, user matrix.UserID, o object, id string, k ed25519.PrivateKey) object {
	t.Helper()
	b, err := json.Marshal(o)
	if err == nil {
		b, err = canonicaljson.Canonicalize(b, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	o["signatures"] = object{string(user): object{id: signing.EncodeBase64(ed25519.Sign(k, b))}}
	return o
}

// keys uploads all the keys that there are, and returns the master key.
func (w *camps) keys(c *camp) (master string, masterObject object) {
	w.t.Helper()
	o := c.owner
	mine := "ed25519:" + o.DeviceID
	seed := keySeed(o)
	device := seedKey(seed)
	one := object{}
	for i := range 5 {
		name, k := w.canaries.plant(c.name, fmt.Sprint("ID of one-time key ", i), i == 0), publicName(seedKey(seed+fmt.Sprint(i)))
		w.canaries.note(c.name, fmt.Sprint("one-time key ", i), k, i == 0)
		one["signed_curve25519:"+name] = sealed(w.t, o.ID, object{"key": k}, mine, device)
	}
	fallback := sealed(w.t, o.ID, object{"key": publicName(seedKey(seed + "fallback")), "fallback": true}, mine, device)
	w.canaries.note(c.name, "device key", publicName(device), true)
	w.canaries.note(c.name, "fallback key", publicName(seedKey(seed+"fallback")), false)
	o.Must("POST", "/keys/upload", object{"device_keys": sealed(w.t, o.ID, object{"user_id": o.ID, "device_id": o.DeviceID, "algorithms": []string{"m.megolm.v1.aes-sha2"},
		"keys": object{mine: publicName(device)}}, mine, device), "one_time_keys": one,
		"fallback_keys": object{"signed_curve25519:" + w.canaries.plant(c.name, "ID of the fallback key", false): fallback}})
	cross := func(usage string) object {
		k := publicName(seedKey(seed + usage))
		if usage != "master" { // that one is in requests of outsiders
			w.canaries.note(c.name, usage+" key", k, usage != "user_signing")
		}
		return object{"user_id": o.ID, "usage": []string{usage}, "keys": object{"ed25519:" + k: k}}
	}
	top := seedKey(seed + "master")
	id := "ed25519:" + publicName(top)
	masterObject = cross("master")
	o.Must("POST", "/keys/device_signing/upload", object{"master_key": masterObject, "self_signing_key": sealed(w.t, o.ID, cross("self_signing"), id, top),
		"user_signing_key": sealed(w.t, o.ID, cross("user_signing"), id, top)})
	o.Must("POST", "/keys/signatures/upload", object{string(o.ID): object{publicName(top): sealed(w.t, o.ID, masterObject, mine, device)}})
	return publicName(top), masterObject
}
