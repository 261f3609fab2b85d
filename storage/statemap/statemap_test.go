package statemap

import (
	"fmt"
	"math/rand"
	"testing"

	"pgregory.net/rapid"

	"hansa/matrix"
	"hansa/matrix/event"
)

type memory map[Hash][]byte

func (m memory) load(hs []Hash) (map[Hash][]byte, error) {
	out := map[Hash][]byte{}
	for _, h := range hs {
		if d, ok := m[h]; ok {
			out[h] = d
		}
	}
	return out, nil
}

func (m memory) put(t testing.TB, root Hash, cs []Change) (Hash, int) {
	t.Helper()
	h, nodes, err := Put(m.load, root, cs)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, n := range nodes {
		m[n.Hash] = n.Data
		size += len(n.Data) + len(n.Hash)
	}
	return h, size
}

func (m memory) all(t testing.TB, root Hash) map[event.StateKey]matrix.EventID {
	t.Helper()
	out := map[event.StateKey]matrix.EventID{}
	if err := Walk(m.load, root, func(k event.StateKey, id matrix.EventID) { out[k] = id }); err != nil {
		t.Fatal(err)
	}
	return out
}

func member(i int) event.StateKey {
	return event.StateKey{Type: "m.room.member", Key: fmt.Sprintf("@user%d:acme.example", i)}
}

func id(i int) matrix.EventID { return matrix.EventID(fmt.Sprintf("$%043d", i)) }

// The map must behave as a plain map does, and its root may depend on the content alone.
func TestPut_BehavesAsMapAndIsCanonical(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m, want, root := memory{}, map[event.StateKey]matrix.EventID{}, Hash{}
		steps := rapid.IntRange(1, 30).Draw(rt, "steps")
		for s := 0; s < steps; s++ {
			var cs []Change
			for n := rapid.IntRange(1, 20).Draw(rt, "n"); n > 0; n-- {
				c := Change{member(rapid.IntRange(0, 60).Draw(rt, "key")), id(rapid.IntRange(0, 1000).Draw(rt, "id"))}
				if rapid.IntRange(0, 2).Draw(rt, "del") == 0 {
					c.ID = ""
				}
				cs = append(cs, c)
			}
			last := map[event.StateKey]matrix.EventID{}
			for _, c := range cs {
				last[c.Key] = c.ID
			}
			for k, v := range last {
				if v == "" {
					delete(want, k)
				} else {
					want[k] = v
				}
			}
			root, _ = m.put(t, root, cs)
		}
		got := m.all(t, root)
		if len(got) != len(want) {
			rt.Fatalf("map has %d entries, want %d", len(got), len(want))
		}
		var cs []Change
		for k, v := range want {
			if got[k] != v {
				rt.Fatalf("%v = %s, want %s", k, got[k], v)
			}
			cs = append(cs, Change{k, v})
		}
		fresh, _ := m.put(t, Hash{}, cs)
		if fresh != root {
			rt.Fatalf("root depends on history: %x and %x for equal content", fresh[:4], root[:4])
		}
	})
}

func TestDiff_FindsExactlyTheChanges(t *testing.T) {
	t.Parallel()
	m := memory{}
	var cs []Change
	for i := 0; i < 3000; i++ {
		cs = append(cs, Change{member(i), id(i)})
	}
	a, _ := m.put(t, Hash{}, cs)
	b, _ := m.put(t, a, []Change{{member(7), id(9007)}, {member(8), ""}, {member(5000), id(5000)}})
	loaded := 0
	ds, err := Diff(func(hs []Hash) (map[Hash][]byte, error) { loaded += len(hs); return m.load(hs) }, a, b)
	if err != nil {
		t.Fatal(err)
	}
	got := map[event.StateKey]Difference{}
	for _, d := range ds {
		got[d.Key] = d
	}
	if len(got) != 3 || got[member(7)].B != id(9007) || got[member(8)].A != id(8) || got[member(8)].B != "" || got[member(5000)].B != id(5000) {
		t.Errorf("Diff = %v", got)
	}
	if loaded > 40 {
		t.Errorf("Diff of 3 changes loaded %d nodes", loaded)
	}
}

// A change in a large room writes little: issue bar 4 KiB for 10,000 members.
func TestPut_OneMembershipInTenThousandWritesLittle(t *testing.T) {
	t.Parallel()
	m := memory{}
	var cs []Change
	for i := 0; i < 10000; i++ {
		cs = append(cs, Change{member(i), id(i)})
	}
	root, _ := m.put(t, Hash{}, cs)
	rnd := rand.New(rand.NewSource(1))
	for i := 0; i < 200; i++ {
		var size int
		if root, size = m.put(t, root, []Change{{member(rnd.Intn(10000)), id(20000 + i)}}); size >= 4096 {
			t.Fatalf("one membership change wrote %d bytes of state, want under 4096", size)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("L\x01a\x00\x01$"))
	f.Add([]byte("B\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decode(b); err == nil && n == nil {
			t.Fatal("no node and no error")
		}
	})
}

func BenchmarkPut10k(b *testing.B) {
	m := memory{}
	var cs []Change
	for i := 0; i < 10000; i++ {
		cs = append(cs, Change{member(i), id(i)})
	}
	root, _ := m.put(b, Hash{}, cs)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, _, err := Put(m.load, root, []Change{{member(i % 10000), id(i)}}); err != nil {
			b.Fatal(err)
		}
	}
}
