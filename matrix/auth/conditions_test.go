package auth

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func FuzzAllowedRooms(f *testing.F) {
	for _, s := range []string{`{"allow":[{"type":"m.room_membership","room_id":"!a:x"}]}`, `{"allow":{}}`, `{"allow":[1,null,[]]}`, `x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if list := AllowedRooms(jsontext.Value(s)); len(list) > MaxConditions {
			t.Fatalf("%d rooms", len(list))
		}
	})
}
