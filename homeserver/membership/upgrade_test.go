package membership

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
)

// The levels of the new room are integers that its version accepts, whatever the old room had.
func TestUpgrade_Levels(t *testing.T) {
	t.Parallel()
	const anna = matrix.UserID("@anna:x")
	for _, c := range []struct {
		from, to, power string
		tombstone       auth.Level
		own             auth.Level
	}{
		{"5", "12", `{"users":{"@anna:x":"100","@bob:x":50.7},"state_default":" 50 ","events":{"m.room.name":"x"},"x":[1]}`, 150, auth.Infinite},
		{"9", "11", `{"users":{"@anna:x":"60"},"users_default":"10"}`, 50, 60},
		{"12", "11", `{"users":{"@bob:x":50},"events":{"m.room.tombstone":150}}`, 150, 150},
		{"12", "12", `{"users":{"@bob:x":50},"events":{"m.room.tombstone":150}}`, 150, auth.Infinite},
		{"11", "12", `{"users":{"@anna:x":100},"state_default":200}`, 201, auth.Infinite},
		{"11", "10", `[]`, 100, 100},
	} {
		from, _ := matrix.FindRoomVersion(c.from)
		to, _ := matrix.FindRoomVersion(c.to)
		o := &old{version: from, power: jsontext.Value(c.power)}
		if from.PrivilegedCreators {
			o.creators = []matrix.UserID{anna}
		}
		m := &making{c: Caller{UserID: anna}, version: to, create: map[string]any{}}
		final, start := o.levels(m)
		for _, levels := range []map[string]any{final, start} {
			p, err := auth.ParsePowerLevels(to, levelsText(levels))
			if err != nil {
				t.Errorf("%s to %s: %s: %v", c.from, c.to, levelsText(levels), err)
				continue
			}
			own := p.User(anna)
			if to.PrivilegedCreators {
				if _, listed := levels["users"].(map[string]any)[string(anna)]; listed {
					t.Errorf("%s to %s: the creator has a level", c.from, c.to)
				}
				own = auth.Infinite
			}
			if got := p.Required(typeTombstone, true); got != c.tombstone {
				t.Errorf("%s to %s: tombstone takes %d, want %d", c.from, c.to, got, c.tombstone)
			}
			if own < c.own {
				t.Errorf("%s to %s: own level %d, want at least %d", c.from, c.to, own, c.own)
			}
		}
	}
}

func FuzzUpgradeLevels(f *testing.F) {
	for _, s := range []string{`{}`, `{"users":{"@a:x":"1e9"}}`, `{"users":[],"events":{"m.room.tombstone":-5}}`, `{"ban":1e308}`, `{"users":{"a":{"b":1}}}`, `null`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, id := range []string{"6", "11", "12"} {
			v, _ := matrix.FindRoomVersion(id)
			o := &old{version: v, power: jsontext.Value(s), creators: []matrix.UserID{"@anna:x"}}
			final, start := o.levels(&making{c: Caller{UserID: "@anna:x"}, version: v, create: map[string]any{}})
			_, _ = levelsText(final), levelsText(start)
		}
	})
}
