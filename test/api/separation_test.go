package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// A third person whom both may meet is no bridge: two people whom policy keeps apart never get into one room, on no way, and see
// nothing of each other through the third one's rooms.
func TestLeak_ThirdPersonsRoomIsNoWayAround(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: campPolicy()}, func(t *testing.T, s *hstest.Server) {
		sid, mara, sue := s.User("sid", "sales"), s.User("mara", "marketing"), s.User("sue", "suppliers")
		esc := hstest.Esc
		type way struct {
			name string
			body object
			in   func(room string) // brings sue to the door
		}
		rule := func(r object) []any {
			return []any{object{"type": "m.room.join_rules", "content": r}}
		}
		lobby := sid.CreateRoom(object{"preset": "public_chat", "name": "space"})
		sue.Join(lobby) // alone with sid
		ways := []way{
			{"public room", object{"preset": "public_chat", "visibility": "public", "room_alias_name": "hall"}, func(room string) {
				refused(t, "join", sue.Try("POST", "/join/"+esc(room), object{}))
				is(t, "join by alias", sue.Try("POST", "/join/"+esc("#hall:acme.example"), object{}), 404, "M_NOT_FOUND")
			}},
			{"invitation", object{}, func(room string) {
				refused(t, "invite", sid.Try("POST", "/rooms/"+esc(room)+"/invite", object{"user_id": sue.ID}))
				refused(t, "invite as state", sid.Try("PUT", "/rooms/"+esc(room)+"/state/m.room.member/"+esc(string(sue.ID)), object{"membership": "invite"}))
			}},
			{"knock", object{"initial_state": rule(object{"join_rule": "knock"})}, func(room string) {
				refused(t, "knock", sue.Try("POST", "/knock/"+esc(room), object{"reason": "FROMSUE"}))
			}},
			{"restricted", object{"initial_state": rule(object{"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": lobby}}})}, func(room string) {
				refused(t, "restricted join", sue.Try("POST", "/join/"+esc(room), object{}))
			}},
		}
		for _, w := range ways {
			room := sid.CreateRoom(w.body)
			sid.Invite(room, mara)
			mara.Join(room)
			mara.Send(room, "FROMMARA in "+w.name)
			w.in(room)
			// Nobody is let in by order of the invitations either.
			a := sid.Try("POST", "/createRoom", object{"invite": []string{string(mara.ID), string(sue.ID)}})
			if a.Status == 200 {
				t.Errorf("a room for both was made: %s", a.Raw)
			}
			for _, path := range []string{"/messages?dir=b", "/state", "/members"} {
				is(t, w.name+path, sue.Try("GET", "/rooms/"+esc(room)+path, nil), 403, "M_FORBIDDEN")
			}
		}
		// Neither while one is only invited.
		pending := sid.CreateRoom(object{"preset": "public_chat", "invite": []string{string(mara.ID)}})
		refused(t, "join of a room to which the other is invited", sue.Try("POST", "/join/"+esc(pending), object{}))
		// What reaches each of them holds nothing of the other.
		for _, c := range []struct {
			who   *hstest.User
			never string
		}{{sue, "mara"}, {mara, "sue"}} {
			for _, q := range []string{"?timeout=0", "?timeout=0&full_state=true&filter=" + url.QueryEscape(`{"room":{"include_leave":true}}`)} {
				a := c.who.Must("GET", "/sync"+q, nil)
				text := strings.ToLower(string(a.Raw)) // a name alone may be a part of an ID, which is random
				if strings.Contains(text, "@"+c.never+":") || strings.Contains(text, "from"+c.never) {
					t.Errorf("%s hears of %s: %s", c.who.ID, c.never, a.Raw)
				}
			}
		}
	})
}

// parted are two people who share a room, and the policies that let them and keep them apart.
type parted struct {
	t                           *testing.T
	s                           *hstest.Server
	anna, ben                   *hstest.User
	room, old, file, benEvent   string
	policyFile, apart, together string
}

const (
	poolsTogether = "left: {contact: {with: [right]}}\nright: {contact: {with: [left]}}\n"
	poolsApart    = "left: {contact: closed}\nright: {contact: closed}\n"
)

func newParted(t *testing.T, s *hstest.Server, a, b *hstest.User, file, together, apart string) *parted {
	t.Helper()
	p := &parted{t: t, s: s, anna: a, ben: b, policyFile: file, together: together, apart: apart}
	s.WritePolicy(file, together)
	s.ReloadPolicy()
	p.room = a.CreateRoom(object{"name": "Shared", "invite": []string{string(b.ID)}})
	b.Join(p.room)
	p.old = a.Send(p.room, "OLDANNA")
	p.benEvent = b.Send(p.room, "OLDBEN")
	p.file = upload(t, a, "OLDFILE.txt", "text/plain", []byte("OLDANNA"))
	a.Must("PUT", p.path()+"/send/m.room.message/"+a.Txn(), object{"msgtype": "m.file", "body": "file", "url": "mxc://" + string(a.ID.Server()) + "/" + p.file})
	for _, u := range []*hstest.User{a, b} {
		u.Must("PUT", "/profile/"+hstest.Esc(string(u.ID))+"/displayname", object{"displayname": "NAME" + u.ID.Localpart()})
		u.Must("PUT", "/presence/"+hstest.Esc(string(u.ID))+"/status", object{"presence": "online", "status_msg": "STATUS" + u.ID.Localpart()})
	}
	w := &camps{t: t, s: s, canaries: &canaries{t: t, shared: map[string]bool{}, labels: map[string]bool{}}}
	a.Login("PHONE")
	w.keys(&camp{name: "a", owner: a})
	b.Until("the other's new name", func(hstest.Answer) bool {
		return strings.Contains(string(b.Must("GET", p.path()+"/members", nil).Raw), "NAME"+a.ID.Localpart())
	})
	return p
}

func (p *parted) path() string { return "/rooms/" + hstest.Esc(p.room) }

func (p *parted) set(policy string) {
	p.t.Helper()
	p.s.WritePolicy(p.policyFile, policy)
	p.s.ReloadPolicy()
}

// reads checks what ben gets of anna on every surface. open says whether policy lets them meet.
func (p *parted) reads(open bool, text string) {
	p.t.Helper()
	b, a := p.ben, p.anna
	user := hstest.Esc(string(a.ID))
	status := func(what string, got hstest.Answer, refusal int) {
		p.t.Helper()
		if open && got.Status != 200 || !open && got.Status != refusal {
			p.t.Errorf("%s while open is %v: %d %.300s", what, open, got.Status, got.Raw)
		}
		if !open && (strings.Contains(string(got.Raw), "OLD") || strings.Contains(string(got.Raw), "NAME"+a.ID.Localpart())) {
			p.t.Errorf("%s holds something of %s: %.300s", what, a.ID, got.Raw)
		}
	}
	for path, refusal := range map[string]int{"/messages?dir=b": 403, "/messages?dir=f": 403, "/state": 403, "/members": 403, "/joined_members": 403, "/state/m.room.name": 403,
		"/state/m.room.member/" + user: 403, "/aliases": 403, "/event/" + hstest.Esc(p.old): 404, "/context/" + hstest.Esc(p.old): 404} {
		status(path, b.Try("GET", p.path()+path, nil), refusal)
	}
	status("profile", b.Try("GET", "/profile/"+user, nil), 404)
	status("presence", b.Try("GET", "/presence/"+user+"/status", nil), 404)
	status("media", b.Try("GET", "/_matrix/client/v1/media/download/"+string(a.ID.Server())+"/"+p.file, nil), 404)
	status("receipt", b.Try("POST", p.path()+"/receipt/m.read/"+hstest.Esc(p.old), object{}), 403)
	has := func(what string, got bool) {
		p.t.Helper()
		if got != open {
			p.t.Errorf("%s: %v while open is %v", what, got, open)
		}
	}
	has("keys", len(b.Must("POST", "/keys/query", object{"device_keys": object{string(a.ID): []string{}}}).Get("device_keys").(map[string]any)) > 0)
	found := func() bool {
		return strings.Contains(string(b.Must("POST", "/user_directory/search", object{"search_term": "name" + a.ID.Localpart()}).Raw), string(a.ID))
	}
	if open { // the directory may hear of a new name later
		hstest.Await(p.t, string(a.ID)+" in the directory", found)
	}
	has("directory", found())
	full := b.Must("GET", "/sync?timeout=0&full_state=true&filter="+url.QueryEscape(`{"room":{"timeline":{"limit":100}}}`), nil)
	has("sync: message", strings.Contains(string(full.Raw), text))
	has("sync: name", strings.Contains(string(full.Raw), "NAME"+a.ID.Localpart()))
	has("sync: presence", strings.Contains(string(full.Raw), "STATUS"+a.ID.Localpart()))
}

// writes lets anna do everything that would reach ben.
func (p *parted) writes(open bool) {
	p.t.Helper()
	a, b := p.anna, p.ben
	say := func(what string, got hstest.Answer) {
		p.t.Helper()
		if !open {
			refused(p.t, what, got)
		} else if got.Status != 200 {
			p.t.Errorf("%s: %d %s", what, got.Status, got.Raw)
		}
	}
	say("message", a.Try("PUT", p.path()+"/send/m.room.message/"+a.Txn(), object{"msgtype": "m.text", "body": "NEWTEXT"}))
	say("encrypted message", a.Try("PUT", p.path()+"/send/m.room.encrypted/"+a.Txn(), object{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "NEWTEXT"}))
	say("state", a.Try("PUT", p.path()+"/state/m.room.topic", object{"topic": "NEWTEXT"}))
	say("redaction", a.Try("PUT", p.path()+"/redact/"+hstest.Esc(p.old)+"/"+a.Txn(), object{"reason": "NEWTEXT"}))
	say("typing", a.Try("PUT", p.path()+"/typing/"+hstest.Esc(string(a.ID)), object{"typing": true}))
	say("receipt", a.Try("POST", p.path()+"/receipt/m.read/"+hstest.Esc(p.benEvent), object{}))
	say("name in the room", a.Try("PUT", p.path()+"/state/m.room.member/"+hstest.Esc(string(a.ID)), object{"membership": "join", "displayname": fmt.Sprint("NEWTEXT", a.Txn())}))
	a.Must("PUT", "/sendToDevice/m.room_key/"+a.Txn(), object{"messages": object{string(b.ID): object{"*": object{"key": "NEWTEXT"}}}})
	a.Must("PUT", "/presence/"+hstest.Esc(string(a.ID))+"/status", object{"presence": "online", "status_msg": "STATUS" + a.ID.Localpart() + " NEWTEXT"})
	a.Must("PUT", "/profile/"+hstest.Esc(string(a.ID))+"/org.example.note", object{"org.example.note": "NEWTEXT"})
}

// Two people who share a room and whom an edit of the policy separates get nothing of each other from then on, neither what is new nor what
// is old, and are told so when they write; as soon as the policy is restored, it flows again. An edit of a pool, an ended agreement.
func TestLeak_SeparatedByAnEdit(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		const active, ended = `partners: {globex.example: {pools: "*", features: "*"}}` + "\n", `partners: {globex.example: {pools: "*", features: "*", state: suspended}}` + "\n"
		for name, p := range map[string]func() *parted{
			"pools": func() *parted {
				s.WritePolicy("acme.example/pools.yaml", poolsTogether)
				s.ReloadPolicy()
				return newParted(t, s, s.User("anna", "left"), s.User("ben", "right"), "acme.example/pools.yaml", poolsTogether, poolsApart)
			},
			"agreement": func() *parted {
				s.WritePolicy("globex.example/partners.yaml", `partners: {acme.example: {pools: "*", features: "*"}}`+"\n")
				return newParted(t, s, s.User("carl"), s.User("@dora:globex.example"), "acme.example/partners.yaml", active, ended)
			},
		} {
			t.Run(name, func(t *testing.T) {
				p := p()
				p.t = t
				a, b := p.anna, p.ben
				p.reads(true, "OLDANNA")
				b.Sync(0)
				mark := b.Since
				p.set(p.apart)
				p.reads(false, "OLDANNA")
				p.writes(false)
				quiet := b.Sync(0)
				for _, text := range []string{"NEWTEXT", "OLD", string(a.ID)} {
					if strings.Contains(string(quiet.Raw), text) {
						t.Errorf("sync after the separation holds %s: %s", text, quiet.Raw)
					}
				}
				if quiet.Get("to_device") != nil {
					t.Errorf("to-device messages after the separation: %s", quiet.Raw)
				}
				refused(t, "ben's answer", b.Try("PUT", p.path()+"/send/m.room.message/"+b.Txn(), object{"msgtype": "m.text", "body": "x"}))
				p.set(p.together)
				p.reads(true, "OLDANNA")
				p.writes(true)
				got := b.Until("the new message", func(x hstest.Answer) bool { return strings.Contains(string(x.Raw), "NEWTEXT") })
				if got.Get("rooms", "join", p.room) == nil {
					t.Errorf("the room does not come back: %s", got.Raw)
				}
				again := b.Must("GET", "/sync?timeout=0&since="+url.QueryEscape(mark), nil)
				if !strings.Contains(string(again.Raw), "NEWTEXT") {
					t.Errorf("sync from before the separation lacks what is new: %s", again.Raw)
				}
				b.Must("POST", p.path()+"/leave", object{}) // and leaving works in the end
			})
		}
	})
}

// Whoever has been parted can still leave, and the room then lives on for the others.
func TestLeak_LeavingASeparatedRoom(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		s.WritePolicy("acme.example/pools.yaml", poolsTogether)
		s.ReloadPolicy()
		anna, ben, cora := s.User("anna", "left"), s.User("ben", "right"), s.User("cora", "left")
		room := anna.CreateRoom(object{"preset": "public_chat"})
		ben.Join(room)
		cora.Join(room)
		s.WritePolicy("acme.example/pools.yaml", poolsApart)
		s.ReloadPolicy()
		send := func(u *hstest.User) hstest.Answer {
			return u.Try("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/"+u.Txn(), object{"msgtype": "m.text", "body": "AFTER"})
		}
		refused(t, "anna", send(anna))
		refused(t, "cora", send(cora))
		dora := s.User("dora", "left")
		other := dora.CreateRoom(object{"preset": "public_chat"})
		s.WritePolicy("acme.example/pools.yaml", poolsTogether)
		s.ReloadPolicy()
		ben.Join(other)
		ben.Sync(0)
		s.WritePolicy("acme.example/pools.yaml", poolsApart)
		s.ReloadPolicy()
		dora.Must("POST", "/rooms/"+hstest.Esc(other)+"/kick", object{"user_id": ben.ID, "reason": "WORDS"})
		if a := ben.Sync(0); a.Get("rooms", "leave", other) == nil || strings.Contains(string(a.Raw), "WORDS") || strings.Contains(string(a.Raw), string(dora.ID)) {
			t.Errorf("ben must learn that he was removed, and neither by whom nor why: %s", a.Raw)
		}
		ben.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", object{})
		if a := send(anna); a.Status != 200 {
			t.Errorf("after ben has left: %d %s", a.Status, a.Raw)
		}
		cora.Until("anna's message", func(a hstest.Answer) bool { return strings.Contains(bodies(a.Timeline(room)), "AFTER") })
		if a := ben.Sync(0); strings.Contains(string(a.Raw), "AFTER") || strings.Contains(string(a.Raw), string(cora.ID)) {
			t.Errorf("ben hears of the room: %s", a.Raw)
		}
	})
}

// What was sent before two people were parted, and not yet delivered, reaches the reader when policy lets them meet again: either in the
// timeline, or by telling that the timeline has a gap, which /messages closes.
func TestP359_NothingIsLostOverASeparation(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		set := func(text string) {
			s.WritePolicy("acme.example/pools.yaml", text)
			s.ReloadPolicy()
		}
		set(poolsTogether)
		anna, ben := s.User("anna", "left"), s.User("ben", "right")
		for _, restart := range []bool{false, true} {
			room := anna.CreateRoom(object{"preset": "public_chat"})
			ben.Join(room)
			ben.Sync(0)
			anna.Send(room, "BEFORE")
			anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic", object{"topic": "BEFORE"})
			set(poolsApart)
			if a := ben.Sync(0); strings.Contains(string(a.Raw), "BEFORE") {
				t.Errorf("while parted: %s", a.Raw)
			}
			ben.Sync(0)
			if restart {
				s.Restart()
			}
			set(poolsTogether)
			anna.Send(room, "AFTER")
			a := ben.Until("what is new", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "AFTER") })
			switch {
			case strings.Contains(bodies(a.Timeline(room)), "BEFORE"):
			case a.Get("rooms", "join", room, "timeline", "limited") != true:
				t.Errorf("restart %v: the timeline has a hole and does not say so: %s", restart, a.Raw)
			default:
				from := a.String("rooms", "join", room, "timeline", "prev_batch")
				if m := ben.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&from="+url.QueryEscape(from), nil); !strings.Contains(string(m.Raw), "BEFORE") {
					t.Errorf("restart %v: the gap cannot be closed: %s", restart, m.Raw)
				}
			}
			if !strings.Contains(string(a.Raw), `"topic":"BEFORE"`) {
				t.Errorf("restart %v: the state has a hole: %s", restart, a.Raw)
			}
		}
	})
}
