package auth

import (
	"fmt"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
)

// table answers Facts from a map, as a room in memory does.
type table struct{ members map[matrix.UserID]string }

func (t *table) Membership(u matrix.UserID) string    { return t.members[u] }
func (t *table) ThirdPartyInvite(string) *event.Event { return nil }
func (t *table) SignedBy(matrix.ServerName) bool      { return false }

// BenchmarkCheckMessage is the hot path: a message of a joined member in a room with 1,000 entries in its power levels.
func BenchmarkCheckMessage(b *testing.B) {
	for _, id := range []string{"1", "11", "12"} {
		b.Run("v"+id, func(b *testing.B) {
			w := furnished(b, id)
			var users strings.Builder
			for i := range 1000 {
				fmt.Fprintf(&users, `"@u%d:c.example":10,`, i)
			}
			w.set(w.event(TypePowerLevels, str(""), alice, `{"users":{`+users.String()+`"@mod:b.example":50}}`))
			r, ev := w.rules(), message(user)(w)
			in := &table{map[matrix.UserID]string{user: Join}}
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Check(ev, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCheckMessageFromEvents reads the membership from the member event each time.
func BenchmarkCheckMessageFromEvents(b *testing.B) {
	w := furnished(b, "12")
	w.set(w.member(user, user, `{"avatar_url":"mxc://b.example/abcdefghijklmnop","displayname":"A user of some server","membership":"join"}`))
	r, ev, in := w.rules(), message(user)(w), FactsOf(w.find, nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Check(ev, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewRules(b *testing.B) {
	w := furnished(b, "12")
	create, levels, join := w.find(TypeCreate, ""), w.find(TypePowerLevels, ""), w.find(TypeJoinRules, "")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewRules(create, levels, join); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCheckMessage_Allocations(t *testing.T) {
	w := furnished(t, "12")
	r, ev := w.rules(), message(user)(w)
	in := &table{map[matrix.UserID]string{user: Join}}
	if n := testing.AllocsPerRun(100, func() { _ = r.Check(ev, in) }); n > 0 {
		t.Errorf("a check of a message allocates %v times, want 0", n)
	}
}
