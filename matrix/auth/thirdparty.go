package auth

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// maxThirdPartyKeys bounds how many keys and signatures of a third-party invite are tried.
const maxThirdPartyKeys = 32

// checkThirdParty is the branch of the invite rule for an invite that an identity server promised. Neither the level nor the
// membership of the sender counts: the m.room.third_party_invite was checked for both.
//
// spec: rooms/v1#authorisation-rules
func checkThirdParty(ev *event.Event, raw jsontext.Value, in Facts) *Denied {
	target := *ev.StateKey
	if in.Membership(matrix.UserID(target)) == Ban {
		return deny("member.third_party.banned", "%s is banned from the room.", target)
	}
	if !isObject(raw) {
		return deny("member.third_party.signed", "The third-party invite is not signed.")
	}
	signed, ok := canonicaljson.Find(raw, "signed")
	if !ok || !isObject(signed) {
		return deny("member.third_party.signed", "The third-party invite is not signed.")
	}
	mxid, token := textMember(signed, "mxid"), textMember(signed, "token")
	if mxid == "" || token == "" {
		return deny("member.third_party.fields", "The third-party invite lacks mxid or token.")
	}
	if mxid != target {
		return deny("member.third_party.mxid", "The third-party invite is for %.80s.", mxid)
	}
	promise := in.ThirdPartyInvite(token)
	if promise == nil {
		return deny("member.third_party.token", "The room has no third-party invite with this token.")
	}
	if promise.Sender != ev.Sender {
		return deny("member.third_party.sender", "The third-party invite was sent by %s.", promise.Sender)
	}
	if !signedByAny(signed, thirdPartyKeys(promise.Content)) {
		return deny("member.third_party.signature", "No signature of the third-party invite matches its keys.")
	}
	return nil
}

// thirdPartyKeys reads the public keys of an m.room.third_party_invite.
func thirdPartyKeys(content jsontext.Value) []ed25519.PublicKey {
	var keys []ed25519.PublicKey
	add := func(s string) {
		if b, ok := decodeBase64(s); ok && len(b) == ed25519.PublicKeySize && len(keys) < maxThirdPartyKeys {
			keys = append(keys, b)
		}
	}
	add(textMember(content, "public_key"))
	list, ok := canonicaljson.Find(content, "public_keys")
	if !ok || len(list) == 0 || list[0] != '[' {
		return keys
	}
	for entry := range canonicaljson.Elements(list) {
		if isObject(entry) {
			add(textMember(entry, "public_key"))
		}
	}
	return keys
}

// signedByAny tells whether any ed25519 signature in the object was made by any of the keys.
//
// spec: appendices#checking-for-a-signature
func signedByAny(signed jsontext.Value, keys []ed25519.PublicKey) bool {
	signatures, ok := canonicaljson.Find(signed, "signatures")
	if !ok || !isObject(signatures) || len(keys) == 0 {
		return false
	}
	message, err := canonicaljson.AppendWithout(nil, signed, false, "signatures")
	if err == nil {
		message, err = canonicaljson.AppendWithout(nil, message, false, "unsigned")
	}
	if err != nil {
		return false
	}
	tries := maxThirdPartyKeys * maxThirdPartyKeys
	for _, byKey := range canonicaljson.Members(signatures) {
		if !isObject(byKey) {
			continue
		}
		for keyID, value := range canonicaljson.Members(byKey) {
			s, _ := canonicaljson.String(value)
			sig, ok := decodeBase64(s)
			if !ok || len(sig) != ed25519.SignatureSize || !strings.HasPrefix(string(keyID), "ed25519:") {
				continue
			}
			for _, k := range keys {
				if tries--; tries < 0 {
					return false
				}
				if ed25519.Verify(k, message, sig) {
					return true
				}
			}
		}
	}
	return false
}

func decodeBase64(s string) ([]byte, bool) {
	s = strings.TrimRight(s, "=")
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	b, err := enc.DecodeString(s)
	return b, err == nil
}
