package propertypath

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		"":                               {""},
		"type":                           {"type"},
		"content.body":                   {"content", "body"},
		`content.m\.relates_to`:          {"content", "m.relates_to"},
		`content.m\\foo`:                 {"content", `m\foo`},
		`content.\x`:                     {"content", `\x`},
		`content.\`:                      {"content", `\`},
		`content.a\\.b`:                  {"content", `a\`, "b"},
		"..":                             {"", "", ""},
		`content.m\.relates_to.rel_type`: {"content", "m.relates_to", "rel_type"},
	} {
		if got := Split(path); !slices.Equal(got, want) {
			t.Errorf("Split(%s) = %q, want %q", path, got, want)
		}
	}
}

func TestJoin_IsTheInverse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.StringOf(rapid.SampledFrom([]rune(`ab.\é`))), 1, 4).Draw(t, "names")
		if got := Split(Join(names...)); !slices.Equal(got, names) {
			t.Fatalf("Split(%s) = %q, want %q", Join(names...), got, names)
		}
	})
}
