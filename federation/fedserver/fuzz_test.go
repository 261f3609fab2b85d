package fedserver

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/signing"
)

// FuzzTransaction looks for transactions that break what happens before rooms see them: names of events, kinds of EDUs.
func FuzzTransaction(f *testing.F) {
	f.Add([]byte(`{"room_id":"!r:a.example","event_id":"$e:a.example","type":"m.room.message"}`), []byte(`{"edu_type":"m.typing","content":{"room_id":"!r:a.example"}}`))
	f.Add([]byte(`{"room_id":7}`), []byte(`{"edu_type":7,"content":null}`))
	f.Add([]byte(`[]`), []byte(`{"edu_type":"m.receipt","content":{"!r:a.example":1}}`))
	k := newKit(f)
	versions := []*matrix.RoomVersion{nil}
	for _, id := range matrix.RoomVersions() {
		v, _ := matrix.FindRoomVersion(id)
		versions = append(versions, v)
	}
	f.Fuzz(func(t *testing.T, pdu, edu []byte) {
		tx := &transaction{a: k.API, ctx: t.Context(), as: us, origin: partner, results: map[matrix.EventID]federation.PDUResult{}}
		for _, v := range versions {
			if id := tx.guess(v, pdu); id != "" {
				if _, err := matrix.ParseEventID(string(id)); err != nil {
					t.Errorf("%q is called %q", pdu, id)
				}
			}
		}
		if jsontext.Value(edu).IsValid() {
			tx.edus([]jsontext.Value{edu}) // nobody receives any: it is passed over
		}
		if tx.again != nil || len(tx.results) > 0 {
			t.Errorf("%q: %v %v", edu, tx.again, tx.results)
		}
	})
}

// FuzzTarget looks for request targets that break routing, or that are not what was signed.
func FuzzTarget(f *testing.F) {
	k := newKit(f)
	for _, e := range k.Table() {
		f.Add(fill(e.Path) + "?a=b")
	}
	f.Add("/_matrix/federation/v1/event/%2e%2e/%zz")
	f.Add("//x/_matrix/federation/v1/version")
	f.Fuzz(func(t *testing.T, target string) {
		if !strings.HasPrefix(target, "/") || strings.ContainsAny(target, " \r\n\t\x00") {
			return
		}
		h, err := signing.SignRequest(k.key, "DELETE", target, partner, us, nil)
		if err != nil {
			return
		}
		r := httptest.NewRequest("DELETE", "/", nil)
		u, err := r.URL.Parse(target)
		if err != nil || u.Host != "" {
			return
		}
		r.URL, r.RequestURI = u, target
		r.Header["Authorization"] = []string{h}
		w := httptest.NewRecorder()
		k.h.ServeHTTP(w, r)
		if w.Code != 404 && w.Code != 405 { // nothing takes DELETE
			t.Errorf("%q: %d %s", target, w.Code, w.Body)
		}
	})
}
