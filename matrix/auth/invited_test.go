package auth

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
)

func TestA66_RestrictedJoinSignature(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		for _, m := range []string{"join", "invite", "leave", "ban", "knock"} {
			w := furnished(t, id)
			w.joinRule(JoinRuleRestricted)
			sender, target := mod, nobody
			if m == "join" {
				sender = nobody
			}
			content := fmt.Sprintf(`{"membership":%q,"join_authorised_via_users_server":%q}`, m, mod)
			denied := w.verdict(w.member(sender, target, content)) == "member.authoriser_signature"
			if denied != w.v.Restricted {
				t.Errorf("%s without the signature: denied = %v, want %v", m, denied, w.v.Restricted)
			}
			w.signers["b.example"] = true
			if got := w.verdict(w.member(sender, target, content)); got == "member.authoriser_signature" {
				t.Errorf("%s with the signature is denied", m)
			}
			w.signers = map[matrix.ServerName]bool{"a.example": true, "c.example": true}
			if got := w.verdict(w.member(sender, target, content)); w.v.Restricted && got != "member.authoriser_signature" {
				t.Errorf("%s with another server's signature: %q", m, got)
			}
			if !w.v.Restricted {
				continue
			}
			for _, bad := range []string{`5`, `null`, `"mod"`, `"@mod"`, `""`} {
				content := fmt.Sprintf(`{"membership":%q,"join_authorised_via_users_server":%s}`, m, bad)
				w.want("authoriser "+bad, w.member(sender, target, content), "member.authoriser")
			}
		}
	})
}

func TestA67_RestrictedJoinAuthoriser(t *testing.T) {
	t.Parallel()
	everyVersion(t, 8, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		w.signers["b.example"], w.signers["c.example"] = true, true
		join := func(via matrix.UserID) *event.Event {
			return w.member(nobody, nobody, fmt.Sprintf(`{"membership":"join","join_authorised_via_users_server":%q}`, via))
		}
		for _, jr := range []string{JoinRuleRestricted, JoinRuleKnockRestricted} {
			if jr == JoinRuleKnockRestricted && !w.v.KnockRestricted {
				continue
			}
			w.joinRule(jr)
			w.want("moderator", join(mod), "")
			w.want("member who may not invite", join(user), "member.join.authoriser_level")
			w.want("left", join(gone), "member.join.authoriser")
			w.want("invited", join(invited), "member.join.authoriser")
			w.want("banned", join(banned), "member.join.authoriser")
			bannedJoin := w.member(banned, banned, fmt.Sprintf(`{"membership":"join","join_authorised_via_users_server":%q}`, mod))
			w.want("the banned stay out", bannedJoin, "member.join.banned")
		}
		ev := join(mod)
		if got := NeededFor(ev); got[len(got)-1] != (event.StateKey{Type: TypeMember, Key: string(mod)}) {
			t.Errorf("selection of a restricted join is %v", got)
		}
	})
}

// promise is a third-party invite and the means to sign with its key.
type promise struct {
	w    *world
	priv ed25519.PrivateKey
	ev   *event.Event
}

func newPromise(w *world, inList bool) promise {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	key := base64.RawStdEncoding.EncodeToString(pub)
	content := `{"display_name":"x","public_key":"` + key + `"}`
	if inList {
		content = `{"public_keys":[7,{"public_key":"!"},{"public_key":"` + key + `"}],"public_key":5}`
	}
	return promise{w, priv, w.set(w.event(TypeThirdPartyInvite, str("token"), mod, content))}
}

func (p promise) invite(sender, target matrix.UserID, mxid, token string) *event.Event {
	sig := ed25519.Sign(p.priv, []byte(`{"mxid":"`+mxid+`","token":"`+token+`"}`))
	return p.w.member(sender, target, `{"membership":"invite","third_party_invite":{"display_name":"x","signed":{"mxid":"`+mxid+
		`","token":"`+token+`","signatures":{"id.example":{"ed25519:0":"`+base64.RawStdEncoding.EncodeToString(sig)+`"}}}}}`)
}

func TestA69_ThirdPartyInvite(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		for _, inList := range []bool{false, true} {
			w := furnished(t, id)
			p := newPromise(w, inList)
			good := p.invite(mod, nobody, string(nobody), "token")
			w.want("good", good, "")
			if keys := NeededFor(good); keys[len(keys)-1] != (event.StateKey{Type: TypeThirdPartyInvite, Key: "token"}) {
				t.Errorf("selection is %v", keys)
			}
			w.set(w.member(mod, mod, `{"membership":"leave"}`))
			w.want("the promise outlives its sender", p.invite(mod, nobody, string(nobody), "token"), "")
			w.want("token of no promise", p.invite(mod, nobody, string(nobody), "other"), "member.third_party.token")
			w.want("for somebody else", p.invite(mod, nobody, string(gone), "token"), "member.third_party.mxid")
			w.want("for the banned", p.invite(mod, banned, string(banned), "token"), "member.third_party.banned")
			w.want("other sender", p.invite(alice, nobody, string(nobody), "token"), "member.third_party.sender")
			other := newPromise(furnished(t, id), inList)
			other.w = w
			w.want("other key", other.invite(mod, nobody, string(nobody), "token"), "member.third_party.signature")
			for _, c := range [][2]string{
				{`7`, "signed"}, {`{}`, "signed"}, {`{"signed":5}`, "signed"}, {`{"signed":{}}`, "fields"},
				{`{"signed":{"mxid":"` + string(nobody) + `"}}`, "fields"},
				{`{"signed":{"mxid":"` + string(nobody) + `","token":5}}`, "fields"},
				{`{"signed":{"mxid":"` + string(nobody) + `","token":"token"}}`, "signature"},
				{`{"signed":{"mxid":"` + string(nobody) + `","token":"token","signatures":{"x":5,"y":{"ed25519:1":"AA"}}}}`, "signature"},
			} {
				ev := w.member(mod, nobody, `{"membership":"invite","third_party_invite":`+c[0]+`}`)
				w.want(c[0], ev, "member.third_party."+c[1])
			}
			w.set(w.event(TypeThirdPartyInvite, str("token"), mod, `{}`))
			w.want("revoked", good, "member.third_party.signature")
		}
	})
}
