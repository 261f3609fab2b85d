package account

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

func TestJ34_AccountDataAndProfileLimits(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, nil)
		put := func(room matrix.RoomID, typ, content string) error {
			return k.PutAccountData(ctx, by, anna, room, typ, jsontext.Value(content))
		}
		for _, room := range []matrix.RoomID{"", "!r:acme.example"} {
			for _, typ := range []string{"m.push_rules", "m.fully_read"} {
				wants(t, typ, put(room, typ, `{}`), 405, matrix.CodeBadJSON)
			}
			must(t, put(room, "m.direct", ` { "@bob:acme.example" : ["!a:acme.example"] }`))
			got, err := k.GetAccountData(ctx, by, anna, room, "m.direct")
			if must(t, err); string(got) != `{"@bob:acme.example":["!a:acme.example"]}` {
				t.Errorf("got %s", got)
			}
		}
		_, err := k.GetAccountData(ctx, by, anna, "!other:acme.example", "m.direct")
		wants(t, "not there", err, 404, matrix.CodeNotFound)
		for _, bad := range []string{`[]`, `1`, `null`, `"x"`, `{"a":1,"a":2}`, `{`, ``, `{"a":"` + "\xff" + `"}`} {
			wants(t, bad, put("", "org.x", bad), 400, matrix.CodeBadJSON)
		}
		wants(t, "too large", put("", "org.x", `{"a":"`+strings.Repeat("x", maxAccountDatum)+`"}`), 413, matrix.CodeTooLarge)
		wants(t, "long type", put("", strings.Repeat("x", 256), `{}`), 400, matrix.CodeInvalidParam)
		must(t, k.DB.Update(ctx, func(tx *storage.Tx) error {
			return tx.PutAccountData(storage.AccountData{UserID: anna, Type: "org.huge", Content: []byte(`{"a":"` + strings.Repeat("x", maxAccountData-200) + `"}`)})
		}))
		must(t, put("", "org.x", `{}`))
		wants(t, "too much", put("", "org.y", `{"a":"`+strings.Repeat("x", 300)+`"}`), 403, matrix.CodeUserLimitExceeded)

		set := func(field, value string) error {
			return k.SetProfile(ctx, by, anna, field, jsontext.Value(value))
		}
		wants(t, "key of 256 bytes", set("org."+strings.Repeat("a", 252), `1`), 400, matrix.CodeKeyTooLarge)
		must(t, set("org."+strings.Repeat("a", 251), `1`))
		wants(t, "70 KiB", set("org.x", `"`+strings.Repeat("x", 70*1024)+`"`), 400, matrix.CodeProfileTooLarge)
		must(t, set("org.x", `"`+strings.Repeat("x", 40*1024)+`"`))
		must(t, set("org.x", `"`+strings.Repeat("y", 41*1024)+`"`)) // what it replaces does not count
		wants(t, "together", set("org.y", `"`+strings.Repeat("y", 30*1024)+`"`), 400, matrix.CodeProfileTooLarge)
		must(t, k.DeleteProfile(ctx, by, anna, "org.x"))
		must(t, set("org.y", `"`+strings.Repeat("y", 30*1024)+`"`))
		for _, field := range []string{"", "x", "Org.x", "org.", ".x", "org x.y", "m.tz\x00", "displayName", "1.a"} {
			wants(t, fmt.Sprintf("field %q", field), set(field, `1`), 400, matrix.CodeInvalidParam)
		}
	})
}

func TestProfile_ValuesAndNotices(t *testing.T) {
	files := map[string]string{"acme.example/profiles.yaml": "profiles:\n  locked: [m.tz]\n"}
	each(t, files, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna, DisplayName: "Anna A."})
		by, _ := k.login(anna, nil)
		k.heard()
		k.policy.points()
		set := func(field, value string) error { return k.SetProfile(ctx, by, anna, field, jsontext.Value(value)) }
		must(t, set("displayname", `"Anna"`))
		if got := k.heard(); len(got) != 1 || got[0] != "profile "+string(anna) {
			t.Errorf("heard %v", got)
		}
		if got := k.policy.points(); len(got) != 1 || got[0] != policy.ProfileWrite {
			t.Errorf("asked %v", got)
		}
		must(t, set("avatar_url", `"mxc://acme.example/abc"`))
		must(t, set("org.x.list", `[1, null, {"a": 1.50}]`))
		wants(t, "locked by policy", set("m.tz", `"Europe/Berlin"`), 403, matrix.CodeForbidden)
		for value, want := range map[string]string{`1`: matrix.CodeBadJSON, `null`: matrix.CodeBadJSON, `[]`: matrix.CodeBadJSON, `{}`: matrix.CodeBadJSON,
			``: matrix.CodeBadJSON, `"`: matrix.CodeBadJSON, `"a" "b"`: matrix.CodeBadJSON, "\"\xff\"": matrix.CodeBadJSON,
			`"` + strings.Repeat("x", 513) + `"`: matrix.CodeInvalidParam} {
			wants(t, value, set("displayname", value), 400, want)
		}
		wants(t, "duplicate members", set("org.x.y", `{"a":1,"a":2}`), 400, matrix.CodeBadJSON)
		for _, url := range []string{"http://x/y", "mxc://", "mxc://acme.example", "mxc://acme.example/", "mxc://acme.example/a/b", "mxc://a b/c", "x"} {
			wants(t, url, set("avatar_url", `"`+url+`"`), 400, matrix.CodeInvalidParam)
		}
		p, err := k.ReadProfile(ctx, by, anna, "")
		must(t, err)
		if len(p) != 3 || p.String("displayname") != "Anna" || string(p["org.x.list"]) != `[1,null,{"a":1.50}]` {
			t.Errorf("profile %s", p)
		}
		p, err = k.ReadProfile(ctx, by, anna, "displayname")
		if must(t, err); len(p) != 1 || string(p["displayname"]) != `"Anna"` {
			t.Errorf("member %s", p)
		}
		must(t, set("displayname", `""`)) // clients remove it like that
		must(t, k.DeleteProfile(ctx, by, anna, "org.x.list"))
		must(t, k.DeleteProfile(ctx, by, anna, "org.x.list"))
		_, err = k.ReadProfile(ctx, by, anna, "displayname")
		wants(t, "removed", err, 404, matrix.CodeNotFound)
		all, err := k.LoadProfiles(ctx, []matrix.UserID{anna, bob})
		if must(t, err); len(all) != 1 || all[anna].String("avatar_url") != "mxc://acme.example/abc" {
			t.Errorf("profiles %s", all)
		}
	})
}

func TestReadProfile_AsksThePolicy(t *testing.T) {
	files := map[string]string{"acme.example/pools.yaml": "research:\n  users: [\"@anna:acme.example\"]\n  contact: closed\nsales:\n  users: [\"@bob:acme.example\"]\n  contact: closed\n"}
	each(t, files, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		for _, u := range []matrix.UserID{anna, bob, "@rita:acme.example", "@gus:globex.example"} {
			k.add(NewUser{ID: u, DisplayName: "canary of " + u.Localpart()})
		}
		must(t, k.SetPools(ctx, Operator(""), "@rita:acme.example", []string{"research"}))
		by, _ := k.login(anna, nil)
		k.policy.points()
		p, err := k.ReadProfile(ctx, by, "@rita:acme.example", "")
		if must(t, err); p.String("displayname") != "canary of rita" {
			t.Errorf("profile %s", p)
		}
		if got := k.policy.points(); len(got) != 1 || got[0] != policy.ProfileRead {
			t.Errorf("asked %v", got)
		}
		for _, u := range []matrix.UserID{bob, "@gus:globex.example", "@eve:elsewhere.example", "@nobody:acme.example"} {
			for _, field := range []string{"", "displayname", "org.nothing"} {
				_, err := k.ReadProfile(ctx, by, u, field)
				e := wants(t, string(u), err, 404, matrix.CodeNotFound)
				if e.Extra["org.hansa.decision_id"] == "" || strings.Contains(fmt.Sprint(e), "canary") {
					t.Errorf("%s: %+v", u, e)
				}
			}
		}
		_, err = k.ReadProfile(ctx, Caller{}, "@rita:acme.example", "")
		wants(t, "without a session", err, 401, matrix.CodeMissingToken)
	})
}

func TestC173_OtherUsersObjects(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		k.add(NewUser{ID: bob})
		by, _ := k.login(anna, nil)
		his, _ := k.login(bob, func(r *LoginRequest) { r.DeviceID = "HIS" })
		obj := jsontext.Value(`{"displayname":"x","a":1}`)
		must(t, k.PutAccountData(ctx, his, bob, "", "org.x", obj))
		filter, err := k.PutFilter(ctx, his, bob, obj)
		must(t, err)
		for what, err := range map[string]error{
			"profile":           k.SetProfile(ctx, by, bob, "displayname", obj),
			"profile removal":   k.DeleteProfile(ctx, by, bob, "displayname"),
			"account data":      k.PutAccountData(ctx, by, bob, "", "org.x", obj),
			"room account data": k.PutAccountData(ctx, by, bob, "!r:acme.example", "org.x", obj),
			"read account data": second(k.GetAccountData(ctx, by, bob, "", "org.x")),
			"filter":            second(k.PutFilter(ctx, by, bob, obj)),
			"read filter":       second(k.GetFilter(ctx, by, bob, filter)),
			"nobody's":          k.PutAccountData(ctx, Caller{}, bob, "", "org.x", obj),
		} {
			wants(t, what, err, 403, matrix.CodeForbidden)
		}
		name := "mine"
		for what, err := range map[string]error{
			"device":        second(k.Device(ctx, by, "HIS")),
			"device rename": k.RenameDevice(ctx, by, "HIS", &name),
			"filter by id":  second(k.GetFilter(ctx, by, anna, filter)),
		} {
			wants(t, what, err, 404, matrix.CodeNotFound)
		}
		must(t, k.DeleteDevices(ctx, by, proof("POST", "/delete_devices", withAuth("{}", passwordAuth("", secret)[:0]+`{"type":"m.login.password","password":"`+secret+`"}`)),
			[]matrix.DeviceID{"HIS"}))
		if d, err := k.Device(ctx, his, "HIS"); err != nil || d.DisplayName != "" {
			t.Errorf("his device: %+v %v", d, err)
		}
		for action, err := range map[string]error{
			"add":     second(k.Add(ctx, AdminOf(by, "", ""), NewUser{ID: "@new:acme.example"})),
			"lock":    k.Lock(ctx, AdminOf(by, "", ""), bob, true),
			"passwd":  k.SetPassword(ctx, AdminOf(by, "", ""), bob, secret),
			"wipe":    k.Wipe(ctx, AdminOf(by, "", ""), bob),
			"pools":   k.SetPools(ctx, AdminOf(by, "", ""), anna, []string{"sales"}),
			"list":    second(k.List(ctx, AdminOf(by, "", ""), acme, "", 10)),
			"find":    second(k.Find(ctx, AdminOf(by, "", ""), bob)),
			"nobody":  k.Lock(ctx, Actor{}, bob, true),
			"suspend": k.Suspend(ctx, AdminOf(by, "", ""), bob, true),
			"token":   k.AddRegistrationToken(ctx, AdminOf(by, "", ""), acme, "x", 1, k.clock()),
		} {
			wants(t, action, err, 403, matrix.CodeForbidden)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestAdmin_OfOneTenant(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna, Admin: true})
		k.add(NewUser{ID: "@gus:globex.example"})
		by, _ := k.login(anna, nil)
		admin := AdminOf(by, "joined the company", "")
		acc, err := k.Add(ctx, admin, NewUser{ID: bob, Password: secret, DisplayName: "Bob", Pools: []string{"sales"}, Groups: []string{"b", "a"}})
		must(t, err)
		if acc.UserID != bob || acc.Kind != "user" || !acc.HasPassword || fmt.Sprint(acc.Groups) != "[a b]" || acc.CreatedTS != k.clock().UnixMilli() {
			t.Errorf("account %+v", acc)
		}
		k.login(bob, nil)
		must(t, k.Lock(ctx, admin, bob, true))
		got, err := k.Find(ctx, admin, bob)
		if must(t, err); !got.Locked {
			t.Error("not locked")
		}
		for what, err := range map[string]error{
			"lock":  k.Lock(ctx, admin, "@gus:globex.example", true),
			"add":   second(k.Add(ctx, admin, NewUser{ID: "@new:globex.example"})),
			"list":  second(k.List(ctx, admin, globex, "", 10)),
			"pools": k.SetPools(ctx, admin, "@gus:globex.example", []string{"x"}),
		} {
			wants(t, what+" in another tenant", err, 403, matrix.CodeForbidden)
		}
		wants(t, "list of no tenant", second(k.List(ctx, admin, "elsewhere.example", "", 10)), 404, matrix.CodeNotFound)
		wants(t, "add to no tenant", second(k.Add(ctx, admin, NewUser{ID: "@x:elsewhere.example"})), 404, matrix.CodeNotFound)
		wants(t, "lock of nobody", k.Lock(ctx, admin, "@nobody:acme.example", true), 404, matrix.CodeNotFound)
		wants(t, "password of nobody", k.SetPassword(ctx, admin, "@nobody:acme.example", secret), 404, matrix.CodeNotFound)
		wants(t, "wipe of nobody", k.Wipe(ctx, admin, "@nobody:acme.example"), 404, matrix.CodeNotFound)
		wants(t, "find of nobody", second(k.Find(ctx, admin, "@nobody:acme.example")), 404, matrix.CodeNotFound)
		for _, n := range []NewUser{{ID: "@x:acme.example", Kind: "king"}, {ID: "@x:acme.example", Pools: []string{""}}, {ID: "@x:acme.example", Roles: []string{"\xff"}},
			{ID: "@x:acme.example", Attributes: map[string]string{"": "x"}}, {ID: "@x:acme.example", DisplayName: "\xff"}} {
			wants(t, fmt.Sprintf("%+v", n), second(k.Add(ctx, admin, n)), 400, matrix.CodeInvalidParam)
		}
		for i := range 5 {
			k.add(NewUser{ID: matrix.UserID(fmt.Sprintf("@page%d:acme.example", i))})
		}
		var all []matrix.UserID
		for after := matrix.UserID(""); ; {
			page, err := k.List(ctx, Operator(""), acme, after, 3)
			must(t, err)
			if len(page) == 0 {
				break
			}
			for _, a := range page {
				all = append(all, a.UserID)
			}
			after = page[len(page)-1].UserID
		}
		if len(all) != 7 || all[0] != anna || all[6] != "@page4:acme.example" {
			t.Errorf("list %v", all)
		}
		if ok, err := k.Exists(ctx, bob); !ok || err != nil {
			t.Errorf("bob exists: %v %v", ok, err)
		}
		if ok, err := k.Exists(ctx, "@nobody:acme.example"); ok || err != nil {
			t.Errorf("nobody exists: %v %v", ok, err)
		}
	})
}

func TestDevices_ListRenameDelete(t *testing.T) {
	each(t, nil, func(k *kit, d *Deps) {
		d.OnDrop = append(d.OnDrop, func(_ *storage.Tx, _ matrix.UserID, list []matrix.DeviceID) error {
			k.tell(list)
			return nil
		})
		d.IsKeyID = func(_ context.Context, _ matrix.UserID, id matrix.DeviceID) (bool, error) { return id == "KEY", nil }
	}, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, func(r *LoginRequest) { r.DeviceID, r.InitialDeviceDisplayName = "A", "phone" })
		k.login(anna, func(r *LoginRequest) { r.DeviceID, r.InitialDeviceDisplayName = "B", "desk" })
		_, b := k.login(anna, func(r *LoginRequest) { r.DeviceID, r.InitialDeviceDisplayName = "B", "not this name" })
		for what, r := range map[string]LoginRequest{"long ID": {DeviceID: strings.Repeat("x", 256)}, "long name": {InitialDeviceDisplayName: strings.Repeat("x", 257)}} {
			r.Type, r.User, r.Password = StagePassword, "anna", secret
			_, err := k.Login(ctx, acme, from("192.0.2.1"), r)
			wants(t, what, err, 400, matrix.CodeInvalidParam)
		}
		_, err := k.Login(ctx, acme, from("192.0.2.1"), LoginRequest{Type: StagePassword, User: "anna", Password: secret, DeviceID: "KEY"})
		wants(t, "ID of a key", err, 403, matrix.CodeForbidden)
		list, err := k.Devices(ctx, by)
		if must(t, err); len(list) != 2 || list[0].DisplayName != "phone" || list[1].DisplayName != "desk" || list[1].LastSeenIP != "192.0.2.1" {
			t.Errorf("devices %+v", list)
		}
		k.heard()
		name := "tablet \x00"
		must(t, k.RenameDevice(ctx, by, "A", &name))
		must(t, k.RenameDevice(ctx, by, "A", nil))
		if got := k.heard(); len(got) != 1 || got[0] != "devices "+string(anna) {
			t.Errorf("heard %v", got)
		}
		if d, err := k.Device(ctx, by, "A"); err != nil || d.DisplayName != name {
			t.Errorf("device %+v %v", d, err)
		}
		long := strings.Repeat("x", 257)
		wants(t, "long name", k.RenameDevice(ctx, by, "A", &long), 400, matrix.CodeInvalidParam)
		wants(t, "no device", k.RenameDevice(ctx, by, "C", nil), 404, matrix.CodeNotFound)
		must(t, k.DB.Update(ctx, func(tx *storage.Tx) error {
			return tx.PutToDevice([]storage.ToDevice{{UserID: anna, DeviceID: "B", Sender: bob, Type: "m.x", Content: []byte(`{}`)}})
		}))
		ok := `{"type":"m.login.password","password":"` + secret + `"}`
		wants(t, "unconfirmed", k.DeleteDevices(ctx, by, proof("DELETE", "/devices/B", "{}"), []matrix.DeviceID{"B"}), 401, "")
		must(t, k.DeleteDevices(ctx, by, proof("DELETE", "/devices/B", withAuth("{}", ok)), []matrix.DeviceID{"B"}))
		must(t, k.DeleteDevices(ctx, by, proof("DELETE", "/devices/B", withAuth("{}", ok)), []matrix.DeviceID{"B", "NONE"}))
		_, err = k.Authenticate(ctx, b.AccessToken)
		wants(t, "session of a removed device", err, 401, matrix.CodeUnknownToken)
		must(t, k.DB.Read(ctx, func(tx *storage.Tx) error {
			list, err := tx.LoadToDevice(anna, "B", 0, 1<<60, 10)
			if len(list) != 0 {
				t.Errorf("messages wait for a removed device: %v", list)
			}
			all, err2 := tx.LoadDevicesOf([]matrix.UserID{anna, bob})
			if err2 != nil || len(all) != 1 {
				t.Errorf("devices %v %v", all, err2)
			}
			return err
		}))
		if got := k.hooked(); got != "[[B]]" {
			t.Errorf("hook got %s", got)
		}
	})
}

func TestChangePassword_EndsOtherSessions(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, mine := k.login(anna, nil)
		_, other := k.login(anna, nil)
		next := "another good password"
		auth := func(p string) string { return `{"type":"m.login.password","password":"` + p + `"}` }
		change := func(p, old string, logout bool) error {
			body := `{"new_password":"` + p + `"}`
			return k.ChangePassword(ctx, by, proof("POST", "/account/password", withAuth(body, auth(old))), p, logout)
		}
		wants(t, "weak", change("short", secret, true), 400, matrix.CodeWeakPassword)
		wants(t, "none", change("", secret, true), 400, matrix.CodeMissingParam)
		wants(t, "wrong present password", change(next, "wrong", true), 401, matrix.CodeForbidden)
		k.policy.refuse = func(in *policy.Input) bool { return in.Point == policy.AccountManage && in.Account.Field == "password" }
		wants(t, "policy", change(next, secret, true), 403, matrix.CodeForbidden)
		k.policy.refuse = nil
		must(t, change(next, secret, false))
		k.caller(other.AccessToken)
		must(t, change(secret, next, true))
		k.caller(mine.AccessToken)
		_, err := k.Authenticate(ctx, other.AccessToken)
		wants(t, "other session", err, 401, matrix.CodeUnknownToken)
		if list, err := k.Devices(ctx, by); err != nil || len(list) != 1 {
			t.Errorf("devices %v %v", list, err)
		}
	})
}

func TestDeactivateAndWipe_LeaveNothing(t *testing.T) {
	each(t, nil, func(k *kit, d *Deps) {
		d.OnClose = append(d.OnClose, func(_ *storage.Tx, u matrix.UserID, _ bool) error { k.tell(u); return nil })
	}, func(t *testing.T, k *kit) {
		ctx := context.Background()
		for _, erase := range []bool{false, true} {
			user := matrix.UserID(fmt.Sprintf("@u%v:acme.example", erase))
			k.add(NewUser{ID: user, DisplayName: "X", Pools: []string{"p"}, Admin: true})
			by, a := k.login(user, func(r *LoginRequest) { r.RefreshToken = true })
			must(t, k.PutAccountData(ctx, by, user, "", "org.x", jsontext.Value(`{"a":1}`)))
			filter, err := k.PutFilter(ctx, by, user, jsontext.Value(`{}`))
			must(t, err)
			wants(t, "unconfirmed", k.Deactivate(ctx, by, proof("POST", "/account/deactivate", "{}"), erase), 401, "")
			k.heard()
			must(t, k.Deactivate(ctx, by, proof("POST", "/account/deactivate", withAuth("{}", `{"type":"m.login.password","password":"`+secret+`"}`)), erase))
			heard := k.heard()
			for _, n := range []string{"session ", "party ", "profile ", "devices "} {
				if !contains(heard, n+string(user)) {
					t.Errorf("heard %v, not %s", heard, n)
				}
			}
			_, err = k.Authenticate(ctx, a.AccessToken)
			wants(t, "session", err, 401, matrix.CodeUnknownToken)
			_, err = k.Refresh(ctx, from("192.0.2.1"), a.RefreshToken)
			wants(t, "refresh", err, 401, matrix.CodeUnknownToken)
			_, err = k.Login(ctx, acme, from("192.0.2.1"), LoginRequest{Type: StagePassword, User: string(user), Password: secret})
			wants(t, "login", err, 403, matrix.CodeForbidden)
			_, err = k.LoadProfile(ctx, user)
			wants(t, "profile", err, 404, matrix.CodeNotFound)
			wants(t, "new password", k.SetPassword(ctx, Operator(""), user, secret), 404, matrix.CodeNotFound)
			wants(t, "unlock", k.Lock(ctx, Operator(""), user, false), 404, matrix.CodeNotFound)
			acc, err := k.Find(ctx, Operator(""), user)
			if must(t, err); !acc.Deactivated || acc.HasPassword || acc.Admin || len(acc.Pools) != 0 {
				t.Errorf("account %+v", acc)
			}
			if ok, err := k.Exists(ctx, user); ok || err != nil {
				t.Errorf("it exists: %v %v", ok, err)
			}
			_, err1 := k.GetAccountData(ctx, by, user, "", "org.x")
			_, err2 := k.GetFilter(ctx, by, user, filter)
			if (err1 != nil) != erase || (err2 != nil) != erase {
				t.Errorf("erase %v: %v, %v", erase, err1, err2)
			}
			must(t, k.Wipe(ctx, Operator(""), user)) // also what a deactivation left
			if _, err := k.GetAccountData(ctx, by, user, "", "org.x"); err == nil {
				t.Error("account data is left")
			}
		}
		if got := k.hooked(); got != "[@ufalse:acme.example @ufalse:acme.example @utrue:acme.example @utrue:acme.example]" {
			t.Errorf("hook got %s", got)
		}
	})
}

func TestFilters_EqualOnesAreOne(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, nil)
		a, err := k.PutFilter(ctx, by, anna, jsontext.Value(`{"room":{"timeline":{"limit":10}},"presence":{}}`))
		must(t, err)
		b, err := k.PutFilter(ctx, by, anna, jsontext.Value(` {"presence": {}, "room": {"timeline": {"limit": 10}}}`))
		must(t, err)
		if a != b || strings.HasPrefix(a, "{") || a == "" {
			t.Errorf("IDs %q and %q", a, b)
		}
		got, err := k.GetFilter(ctx, by, anna, a)
		if must(t, err); string(got) != `{"presence":{},"room":{"timeline":{"limit":10}}}` {
			t.Errorf("filter %s", got)
		}
		for _, bad := range []string{`[]`, `{`, `{"a":1,"a":1}`, ``, `null`} {
			_, err := k.PutFilter(ctx, by, anna, jsontext.Value(bad))
			wants(t, bad, err, 400, matrix.CodeBadJSON)
		}
		_, err = k.PutFilter(ctx, by, anna, jsontext.Value(`{"a":"`+strings.Repeat("x", maxFilter)+`"}`))
		wants(t, "large", err, 413, matrix.CodeTooLarge)
		_, err = k.GetFilter(ctx, by, anna, "0")
		wants(t, "unknown", err, 404, matrix.CodeNotFound)
		must(t, k.DB.Update(ctx, func(tx *storage.Tx) error {
			for i := range maxFilters {
				if err := tx.PutFilter(anna, fmt.Sprint("f", i), []byte(`{}`)); err != nil {
					return err
				}
			}
			return nil
		}))
		_, err = k.PutFilter(ctx, by, anna, jsontext.Value(`{"new":1}`))
		wants(t, "too many", err, 403, matrix.CodeUserLimitExceeded)
		_, err = k.PutFilter(ctx, by, anna, jsontext.Value(`{"room":{"timeline":{"limit":10}},"presence":{}}`))
		must(t, err)
	})
}
