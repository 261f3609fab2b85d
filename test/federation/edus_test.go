package federation_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa/test/hstest"
)

func edu(typ string, content any) any { return object{"edu_type": typ, "content": content} }

func receipt(user any, event string, data object) object {
	return object{"m.read": object{fmt.Sprint(user): object{"event_ids": []string{event}, "data": data}}}
}

// nothingOf fails the test when a sync answer tells of any of some things; it waits for a message that comes after them.
func nothingOf(t *testing.T, u *hstest.User, g *guest, what ...string) {
	t.Helper()
	mark := "mark" + u.Txn()
	results(t, g.transaction(mark, raw(g.message(mark))))
	u.Until(mark, func(a hstest.Answer) bool {
		for _, w := range what {
			if strings.Contains(string(a.Raw), w) {
				t.Errorf("%s hears of %s: %s", u.ID, w, a.Raw)
			}
		}
		return has(string(g.room), mark)(a)
	})
}

func TestF97_TypingSpoof(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		carl := f.Servers[0].User("carl")
		carl.Join(string(g.room))
		secret := carl.CreateRoom(object{"preset": "private_chat"})
		carl.Sync(0)
		anna.Sync(0)
		typing := func(room, user any) any {
			return edu("m.typing", object{"room_id": room, "user_id": user, "typing": true})
		}
		results(t, g.transaction("t1", nil, typing(g.room, carl.ID), typing(g.room, "@other:outside.example"), typing(secret, g.id), typing("!none:one.example", g.id),
			typing(g.room, "@x:two.example"), typing(g.room, ""), typing("", g.id)))
		nothingOf(t, anna, g, "m.typing")
		nothingOf(t, carl, g, "m.typing")
		results(t, g.transaction("t2", nil, typing(g.room, g.id)))
		anna.Until("the guest's typing", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), `"user_ids":["`+string(g.id)) })
		results(t, g.transaction("t3", nil, edu("m.typing", object{"room_id": g.room, "user_id": g.id, "typing": false})))
		anna.Until("the end of it", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), `"user_ids":[]`) })
	})
}

// TestSpec40_F98_ReceiptSpoof sends receipts for others, elsewhere and of a wrong form, between good ones; none of them moves anything else.
func TestSpec40_F98_ReceiptSpoof(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		carl := f.Servers[0].User("carl")
		carl.Join(string(g.room))
		secret := carl.CreateRoom(object{"preset": "private_chat"})
		first, second, hidden := anna.Send(string(g.room), "one"), anna.Send(string(g.room), "two"), carl.Send(secret, "hidden")
		carl.Must("POST", "/rooms/"+hstest.Esc(string(g.room))+"/receipt/m.read/"+hstest.Esc(first), object{})
		anna.Until("carl's receipt", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "m.receipt") })
		room, ts := string(g.room), object{"ts": 1}
		results(t, g.transaction("t1", nil,
			edu("m.receipt", object{room: receipt(carl.ID, second, ts)}), edu("m.receipt", object{secret: receipt(g.id, hidden, ts)}), edu("m.receipt", object{room: receipt(g.id, hidden, ts)}),
			edu("m.receipt", object{room: receipt("@other:outside.example", second, ts)}), edu("m.receipt", object{room: receipt(g.id, "$none", ts)}),
			edu("m.receipt", object{room: receipt(g.id, second, object{"ts": 1, "thread_id": "$bad"})}), edu("m.receipt", object{room: receipt(g.id, second, object{"ts": 1, "thread_id": ""})}),
			edu("m.receipt", object{room: object{"m.read": object{string(g.id): object{"event_ids": []string{first, second}, "data": ts}}}}),
			edu("m.receipt", object{room: object{"m.read": object{string(g.id): object{"event_ids": []string{}, "data": ts}}}}),
			edu("m.receipt", object{room: object{"m.read.private": object{string(g.id): object{"event_ids": []string{second}, "data": ts}}}})))
		nothingOf(t, anna, g, "m.receipt")
		results(t, g.transaction("t2", nil, edu("m.receipt", object{room: receipt(g.id, second, object{"ts": 5, "thread_id": "main"}), "!none:one.example": receipt(g.id, second, ts)})))
		anna.Until("the guest's receipt", func(a hstest.Answer) bool {
			list, _ := a.Get("rooms", "join", room, "ephemeral", "events").([]any)
			text, err := json.Marshal(list)
			return err == nil && strings.Contains(string(text), string(g.id)) && strings.Contains(string(text), second) && strings.Contains(string(text), `"thread_id":"main"`)
		})
		a := anna.Must("GET", "/sync?timeout=0", nil)
		text, err := json.Marshal(a.Get("rooms", "join", room, "ephemeral", "events"))
		if err != nil || !strings.Contains(string(text), string(carl.ID)) || !strings.Contains(string(text), first) {
			t.Errorf("carl's receipt is gone: %s", text)
		}
	})
}

func TestF99_PresenceSpoof(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		carl := f.Servers[0].User("carl")
		carl.Join(string(g.room))
		anna.Sync(0)
		push := []any{object{"user_id": carl.ID, "presence": "online", "status_msg": "SPOOFED", "last_active_ago": 1}, object{"user_id": "@x:two.example", "presence": "online", "status_msg": "SPOOFED"},
			object{"user_id": g.id, "presence": "dancing", "status_msg": "SPOOFED"}, 7, object{"user_id": 7}}
		for i := range 200 {
			push = append(push, object{"user_id": fmt.Sprintf("@u%d:outside.example", i), "presence": "online", "last_active_ago": 0, "status_msg": "SPOOFED"})
		}
		results(t, g.transaction("t1", nil, edu("m.presence", object{"push": push})))
		nothingOf(t, anna, g, "SPOOFED")
		results(t, g.transaction("t2", nil, edu("m.presence", object{"push": []any{object{"user_id": g.id, "presence": "unavailable", "last_active_ago": 60000, "status_msg": "TEA"}}})))
		anna.Until("the guest's presence", func(a hstest.Answer) bool {
			text, err := json.Marshal(a.Get("presence", "events"))
			return err == nil && strings.Contains(string(text), "TEA") && strings.Contains(string(text), `"unavailable"`)
		})
		if a := anna.Must("GET", "/presence/"+hstest.Esc(string(g.id))+"/status", nil); a.String("status_msg") != "TEA" {
			t.Errorf("presence %s", a.Raw)
		}
	})
}

func TestF101_ToDeviceSpoof(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		anna.Sync(0)
		message := func(sender any, id string, n int) any {
			return edu("m.direct_to_device", object{"sender": sender, "type": "m.x", "message_id": id, "messages": object{string(anna.ID): object{"*": object{"n": n}}}})
		}
		results(t, g.transaction("t1", nil, message("@carl:one.example", "a", 1), message(anna.ID, "b", 2), message(g.id, "c", 3), message(g.id, "c", 4),
			edu("m.direct_to_device", object{"sender": g.id, "type": "m.x", "message_id": "d", "messages": object{string(anna.ID): object{"*": object{"big": strings.Repeat("x", 70<<10)}}}})))
		results(t, g.transaction("t2", nil, message(g.id, "c", 5), message(g.id, "e", 6)))
		var got []string
		anna.Until("messages", func(a hstest.Answer) bool {
			events, _ := a.Get("to_device", "events").([]any)
			for _, e := range events {
				got = append(got, fmt.Sprint(e.(object)["sender"], e.(object)["content"]))
			}
			return len(got) >= 2
		})
		if want := []string{string(g.id) + "map[n:3]", string(g.id) + "map[n:6]"}; !slices.Equal(got, want) {
			t.Errorf("messages %v, want %v", got, want)
		}
	})
}

// An agreement that does not cover everybody: each path between people whom it does not cover is as if the other were not there.
func TestR354_PartialAgreement(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		one, two := f.Servers[0], f.Servers[1]
		one.WritePolicy("one.example/pools.yaml", "research: {contact: closed}\n")
		one.ReloadPolicy()
		rita, bob := one.User("rita", "research"), two.User("bob")
		anna := one.User("anna")
		keys(t, rita)
		keys(t, bob)
		rita.Must("PUT", profilePath(rita.ID, "displayname"), object{"displayname": "CANARY"})
		bob.Must("PUT", profilePath(bob.ID, "displayname"), object{"displayname": "CANARY"})
		id := upload(t, rita, "text/plain", []byte("CANARY"))
		for _, c := range []struct {
			from *hstest.User
			to   *hstest.User
		}{{bob, rita}, {rita, bob}} {
			user := string(c.to.ID)
			if a := c.from.Try("GET", profilePath(c.to.ID, ""), nil); a.Status != 404 || strings.Contains(string(a.Raw), "CANARY") {
				t.Errorf("%s: profile: %d %s", c.from.ID, a.Status, a.Raw)
			}
			if a := c.from.Must("POST", "/keys/query", object{"device_keys": object{user: []string{}}}); strings.Contains(string(a.Raw), c.to.DeviceID) {
				t.Errorf("%s: keys: %s", c.from.ID, a.Raw)
			}
			if a := c.from.Must("POST", "/keys/claim", object{"one_time_keys": object{user: object{c.to.DeviceID: "signed_curve25519"}}}); strings.Contains(string(a.Raw), "signed_curve25519:one") {
				t.Errorf("%s: claim: %s", c.from.ID, a.Raw)
			}
			c.from.Must("PUT", "/sendToDevice/m.x/t1", object{"messages": object{user: object{"*": object{"n": "CANARY"}}}})
			if a := c.from.Try("GET", "/presence/"+hstest.Esc(user)+"/status", nil); a.Status != 404 && a.Status != 403 {
				t.Errorf("%s: presence: %d %s", c.from.ID, a.Status, a.Raw)
			}
		}
		if a := bob.Try("GET", "/_matrix/client/v1/media/download/one.example/"+id, nil); a.Status != 404 {
			t.Errorf("media: %d %s", a.Status, a.Raw)
		}
		// Somebody whom the agreement covers is served all the while; what was sent before this has been dealt with.
		bob.Must("PUT", "/sendToDevice/m.x/t2", object{"messages": object{string(anna.ID): object{"*": object{"n": 1}}}})
		anna.Until("a message", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "to_device") })
		anna.Must("PUT", "/sendToDevice/m.x/t3", object{"messages": object{string(bob.ID): object{"*": object{"n": 1}}}})
		bob.Until("a message", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "to_device") })
		for _, u := range []*hstest.User{rita, bob} {
			if a := u.Must("GET", "/sync?timeout=0", nil); strings.Contains(fmt.Sprint(a.Get("to_device")), "CANARY") {
				t.Errorf("%s got a message: %s", u.ID, a.Raw)
			}
		}
		o := f.Outsider(hstest.Outside)
		for _, path := range []string{"/query/profile?user_id=" + url.QueryEscape(string(rita.ID)), "/user/devices/" + hstest.Esc(string(rita.ID)), "/media/download/" + id} {
			if a := o.Do("GET", "one.example", "/_matrix/federation/v1"+path, nil); a.Status != 404 || a.Code() != "M_NOT_FOUND" {
				t.Errorf("%s: %d %s", path, a.Status, a.Raw)
			}
		}
		if a := o.Do("POST", "one.example", "/_matrix/federation/v1/user/keys/query", object{"device_keys": object{string(rita.ID): []string{}, string(bob.ID): []string{}}}); a.Status != 200 || len(a.Get("device_keys").(object)) != 0 {
			t.Errorf("keys/query: %d %s", a.Status, a.Raw)
		}
	})
}

// A server that is away gets what was sent to devices of its users, and the changes of device lists, when it is back.
func TestToDevice_WhileAway(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob, room := pair(t, f)
		keys(t, anna)
		bob.Until("anna's keys", changed(anna.ID))
		bob.Must("POST", "/keys/query", object{"device_keys": object{string(anna.ID): []string{}}})
		f.Servers[1].Stop()
		for i := range 5 {
			anna.Must("PUT", fmt.Sprintf("/sendToDevice/m.x/t%d", i), object{"messages": object{string(bob.ID): object{"*": object{"n": i}}}})
		}
		second := anna.On(f.Servers[0])
		second.Login("TABLET")
		keys(t, second)
		f.Servers[1].Restart()
		bob.Send(room, "back") // which makes the other server try again at once
		var got []string
		listed := false
		bob.Until("what was missed", func(a hstest.Answer) bool {
			events, _ := a.Get("to_device", "events").([]any)
			for _, e := range events {
				got = append(got, fmt.Sprint(e.(object)["content"]))
			}
			listed = listed || changed(anna.ID)(a)
			return len(got) >= 5 && listed
		})
		if want := []string{"map[n:0]", "map[n:1]", "map[n:2]", "map[n:3]", "map[n:4]"}; !slices.Equal(got, want) {
			t.Errorf("messages %v", got)
		}
		for deadline := time.Now().Add(time.Minute); ; bob.Sync(time.Second) {
			a := bob.Must("POST", "/keys/query", object{"device_keys": object{string(anna.ID): []string{}}})
			if a.Get("device_keys", string(anna.ID), "TABLET") != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the new device is not known: %s", a.Raw)
			}
		}
	})
}

// Whoever shares no room for a while hears of no changes, and has the right keys all the same when they meet again.
func TestEncryption_ApartAndTogetherAgain(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob, room := pair(t, f)
		keys(t, anna)
		bob.Until("anna's keys", changed(anna.ID))
		query := object{"device_keys": object{string(anna.ID): []string{}}}
		bob.Must("POST", "/keys/query", query)
		bob.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", object{})
		bob.Until("being told that anna is out of sight", func(a hstest.Answer) bool {
			list, _ := a.Get("device_lists", "left").([]any)
			return slices.Contains(list, any(string(anna.ID)))
		})
		anna.Until("bob's leaving", membership(room, bob.ID, "leave"))
		second := anna.On(f.Servers[0])
		second.Login("TABLET")
		keys(t, second)
		anna.Must("DELETE", "/devices/"+hstest.Esc(anna.DeviceID), object{"auth": object{"type": "m.login.password", "password": hstest.Password,
			"identifier": object{"type": "m.id.user", "user": string(anna.ID)}, "session": anna.Try("DELETE", "/devices/"+hstest.Esc(anna.DeviceID), object{}).String("session")}})
		bob.Must("POST", via(room, f.Servers[0]), object{})
		bob.Until("anna again", changed(anna.ID))
		for deadline := time.Now().Add(time.Minute); ; bob.Sync(time.Second) {
			a := bob.Must("POST", "/keys/query", query)
			found, _ := a.Get("device_keys", string(anna.ID)).(object)
			if len(found) == 1 && found["TABLET"] != nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the keys are not right: %s", a.Raw)
			}
		}
	})
}

// An agreement about messages alone: presence stays at home, profiles, files and rooms are not found, in either direction.
func TestP301_R354_FeaturesThatAreNotAgreed(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		one.WritePolicy("one.example/partners.yaml", "partners: {two.example: {features: [messages], pools: \"*\"}}\n")
		one.ReloadPolicy()
		anna, bob, room := pair(t, f)
		canary := "CANARY"
		id := upload(t, anna, "text/plain", []byte(canary))
		anna.Must("PUT", "/directory/room/"+hstest.Esc("#hall:one.example"), object{"room_id": room})
		for _, u := range []*hstest.User{anna, bob} {
			u.Must("PUT", "/presence/"+hstest.Esc(string(u.ID))+"/status", object{"presence": "online", "status_msg": canary})
		}
		for path, want := range map[string]int{profilePath(anna.ID, ""): 404, "/_matrix/client/v1/media/download/one.example/" + id: 404, "/directory/room/" + hstest.Esc("#hall:one.example"): 404} {
			if a := bob.Try("GET", path, nil); a.Status != want || strings.Contains(string(a.Raw), canary) {
				t.Errorf("%s: %d %s", path, a.Status, a.Raw)
			}
		}
		if a := bob.Try("GET", "/publicRooms?server=one.example", nil); a.Status == 200 {
			t.Errorf("list: %d %s", a.Status, a.Raw)
		}
		for path, want := range map[string]int{profilePath(bob.ID, ""): 404, "/_matrix/client/v1/media/download/two.example/x": 404, "/directory/room/" + hstest.Esc("#hall:two.example"): 404,
			"/publicRooms?server=two.example": 403} {
			if a := anna.Try("GET", path, nil); a.Status != want {
				t.Errorf("%s: %d %s", path, a.Status, a.Raw)
			}
		}
		// What is agreed goes on, and by then presence would have come.
		for _, u := range []*hstest.User{anna, bob} {
			other := bob
			if u == bob {
				other = anna
			}
			u.Must("PUT", "/rooms/"+hstest.Esc(room)+"/typing/"+hstest.Esc(string(u.ID)), object{"typing": true, "timeout": 60000})
			u.Send(room, "words of "+u.ID.Localpart())
			other.Until("words", func(a hstest.Answer) bool {
				if strings.Contains(fmt.Sprint(a.Get("presence")), canary+" ") || strings.Contains(fmt.Sprint(a.Get("presence")), "@"+u.ID.Localpart()) {
					t.Errorf("%s hears of presence: %v", other.ID, a.Get("presence"))
				}
				return has(room, "words of "+u.ID.Localpart())(a)
			})
		}
	})
}
