package glob

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "ab", true}, {"**", "", true}, {"?", "", false}, {"?", "é", true},
		{"??", "é", false}, {"a", "a", true}, {"a", "ab", false}, {"a", "ba", false}, {"a*", "abc", true}, {"*c", "abc", true},
		{"*b*", "abc", true}, {"a*c", "ac", true}, {"a*c", "acb", false}, {"ab*ba", "aba", false}, {"ab*ba", "abba", true},
		{"lunc?*", "LUNCH", false}, {"lunc?*", "lunc", false}, {"lunc?*", "lunch plans", true}, {"*?", "", false}, {"*?*", "x", true},
		{"a?c*?z", "abcyz", true}, {"a?c*?z", "abcz", false}, {"*.example.org", "a.b.example.org", true},
		{"*.example.org", "example.org", false}, {"a.c", "abc", false}, {"[a]", "a", false}, {`\*`, `\x`, true},
		{"*a?b*", "xaab", true}, {"*a?b*", "xab", false}, {"?*?", "ab", true}, {"?*?", "a", false},
	} {
		if got := Compile(tt.pattern).Match(tt.text); got != tt.want {
			t.Errorf("Compile(%q).Match(%q) = %v, want %v", tt.pattern, tt.text, got, tt.want)
		}
	}
}

func TestMatch_Word(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"ex*ple", "An example event.", true}, {"ex*ple", "exple", true}, {"ex*ple", "An exciting triple-whammy", true},
		{"ex*ple", "unexample", false}, {"ex*ple", "examples", false}, {"cake", "a piece of cake!", true}, {"cake", "cakes", false},
		{"cake", "pancake cake", true}, {"cake", "pancake cakes", false}, {"cake", "_cake", false}, {"cake", "écake", true},
		{"cake*", "cakes", true}, {"*cake", "pancake", true}, {"!", "hi!there", true}, {"a", "", false}, {"*", "", true},
		{"c?ke", "the cäke", true}, {"c?ke", "the cke", false}, {"aa", "aaaa aa", true}, {"a b", "xa b a b", true},
		{"a b", "xa bx", false}, {"foo*bar", "foo x xbar bar", true}, {"foo*bar", "foo x xbarx barx", false}, {"a?", "a", false},
		{"日本", "日本語", true},
	} {
		if got := CompileWord(tt.pattern).Match(tt.text); got != tt.want {
			t.Errorf("CompileWord(%q).Match(%q) = %v, want %v", tt.pattern, tt.text, got, tt.want)
		}
	}
}

func TestMatch_WordLiteral(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       bool
	}{
		{"a*b", "hey a*b", true}, {"a*b", "hey axb", false}, {"who?", "who? me", true}, {"who?", "whom", false},
		{"ann", "hanna ann", true}, {"ann", "hanna", false},
	} {
		if got := CompileWordLiteral(tt.name).Match(tt.text); got != tt.want {
			t.Errorf("CompileWordLiteral(%q).Match(%q) = %v, want %v", tt.name, tt.text, got, tt.want)
		}
	}
}

func TestCompileStar_QuestionMarkIsLiteral(t *testing.T) {
	t.Parallel()
	g := CompileStar("m.?*")
	if g.Match("m.ab") || !g.Match("m.?b") {
		t.Errorf("CompileStar(%q) takes the question mark for a wildcard", g)
	}
}

func TestLiteral(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		g    *Glob
		want bool
	}{
		{Compile(""), true}, {Compile("a"), true}, {Compile("a?"), false}, {Compile("a*"), false}, {Compile("*"), false},
		{Compile("a*b"), false}, {CompileStar("a?"), true}, {CompileWord("a"), false},
	} {
		if text, got := tt.g.Literal(); got != tt.want || got && text != tt.g.String() {
			t.Errorf("(%q).Literal() = %q, %v, want %v", tt.g, text, got, tt.want)
		}
	}
	if !Compile("**").Any() || Compile("").Any() || Compile("*a").Any() {
		t.Error("Any is wrong")
	}
}

func TestFold(t *testing.T) {
	for _, tt := range []struct{ a, b string }{
		{"HELLO", "hello"}, {"ÄÖÜ", "äöü"}, {"ΣΊΣΥΦΟΣ", "σίσυφος"}, {"Привет", "ПРИВЕТ"}, {"x", "X"},
	} {
		if Fold(tt.a) != Fold(tt.b) {
			t.Errorf("Fold(%q) = %q, Fold(%q) = %q, want them equal", tt.a, Fold(tt.a), tt.b, Fold(tt.b))
		}
	}
	for r := rune(0x80); r < 0x20000; r++ {
		if f := foldRune(r); f < 0x80 {
			t.Fatalf("foldRune(%U) = %U, which is ASCII", r, f)
		}
	}
	if s := "nothing to do 123"; testing.AllocsPerRun(10, func() { Fold(s) }) != 0 {
		t.Error("Fold allocates for a text that is folded already")
	}
}

// oracle is the obvious translation into regular expressions, which Go matches in linear time too, only slowly.
func oracle(pattern string, word bool) *regexp.Regexp {
	var b strings.Builder
	for _, r := range pattern {
		switch r {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteString(`.`)
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	if word {
		// \b is a change between word and other characters; two others next to each other are a boundary as well.
		return regexp.MustCompile(`(?s)(?:^|\b|\W)(?:` + b.String() + `)(?:$|\b|\W)`)
	}
	return regexp.MustCompile(`(?s)\A(?:` + b.String() + `)\z`)
}

func TestMatch_AgreesWithRegexp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("aaabb_ -é*?*")), 0, 12, -1).Draw(t, "pattern")
		text := rapid.StringOfN(rapid.SampledFrom([]rune("aaabbb_ -éß")), 0, 24, -1).Draw(t, "text")
		if got, want := Compile(pattern).Match(text), oracle(pattern, false).MatchString(text); got != want {
			t.Fatalf("Compile(%q).Match(%q) = %v, want %v", pattern, text, got, want)
		}
		if got, want := CompileWord(pattern).Match(text), wordOracle(pattern, text); got != want {
			t.Fatalf("CompileWord(%q).Match(%q) = %v, want %v", pattern, text, got, want)
		}
	})
}

// wordOracle tries every substring.
func wordOracle(pattern, text string) bool {
	re := oracle(pattern, false)
	for i := 0; i <= len(text); i++ {
		for j := i; j <= len(text); j++ {
			if cut(text, i) && cut(text, j) && boundary(text, i) && boundary(text, j) && re.MatchString(text[i:j]) {
				return true
			}
		}
	}
	return false
}

// cut tells whether byte i begins a character.
func cut(text string, i int) bool { return i == len(text) || text[i]&0xc0 != 0x80 }

// TestMatch_LongPieces covers automata of more than one machine word.
func TestMatch_LongPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{63, 64, 65, 127, 128, 129, 1023, 1025, 1100}).Draw(t, "n")
		piece := []rune(strings.Repeat("ab", n/2+1)[:n])
		piece[rapid.IntRange(0, n-1).Draw(t, "hole")] = '?'
		pattern := rapid.SampledFrom([]string{"", "*"}).Draw(t, "head") + string(piece) + rapid.SampledFrom([]string{"", "*"}).Draw(t, "tail")
		text := rapid.SampledFrom([]string{"", " ", "x", "ab"}).Draw(t, "before") + strings.Repeat("ab", n/2+1)[:n] +
			rapid.SampledFrom([]string{"", " ", "x", "ab"}).Draw(t, "after")
		if got, want := Compile(pattern).Match(text), oracle(pattern, false).MatchString(text); got != want {
			t.Fatalf("Compile(%q).Match(%q) = %v, want %v", pattern, text, got, want)
		}
		if got, want := CompileWord(pattern).Match(text), oracle(pattern, true).MatchString(text); got != want {
			t.Fatalf("CompileWord(%q).Match(%q) = %v, want %v", pattern, text, got, want)
		}
	})
}

func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"*a*a*b", "aaaa"}, {"a?b", "aéb"}, {"?*?", "x"}, {"\xff*", "\xff"}, {"", ""}, {"*\x00", "\x00"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		for _, g := range []*Glob{Compile(pattern), CompileStar(pattern), CompileWord(pattern), CompileWordLiteral(pattern)} {
			g.Match(text)
			g.Match(Fold(text))
		}
		if len(pattern) > 64 || len(text) > 256 {
			return
		}
		pattern, text = strings.ToValidUTF8(pattern, "x"), strings.ToValidUTF8(text, "x")
		if got, want := Compile(pattern).Match(text), oracle(pattern, false).MatchString(text); got != want {
			t.Errorf("Compile(%q).Match(%q) = %v, want %v", pattern, text, got, want)
		}
		if len(text) > 40 {
			return
		}
		if got, want := CompileWord(pattern).Match(text), wordOracle(pattern, text); got != want {
			t.Errorf("CompileWord(%q).Match(%q) = %v, want %v", pattern, text, got, want)
		}
	})
}

// hostile are patterns and texts that cost a backtracking matcher ages.
func hostile() map[string][2]string {
	const size = 60_000
	return map[string][2]string{
		"many stars":       {strings.Repeat("a*", size/2) + "b", strings.Repeat("a", size)},
		"stars first":      {"*a*a*a*a*a*a*a*b", strings.Repeat("a", size)},
		"star holes":       {strings.Repeat("*a?", 500) + "b", strings.Repeat("a", size)},
		"long hole":        {"*" + strings.Repeat("a", 500) + "?" + strings.Repeat("a", 500) + "b*", strings.Repeat("a", size)},
		"words":            {strings.Repeat("a ", 500) + "b", strings.Repeat("a ", size/2)},
		"word hole":        {strings.Repeat("a ", 500) + "?b", strings.Repeat("a ", size/2)},
		"other characters": {strings.Repeat("é", 500) + "?ß", strings.Repeat("é", size/2)},
	}
}

// patience is 5 ms on a machine at leisure, and more where even a plain loop of as many steps takes its time (a busy
// machine, the race detector).
func patience(steps int) time.Duration {
	table, text := make([]uint64, 256), make([]byte, 1<<12)
	best := time.Hour
	for range 3 {
		begin, sum := time.Now(), uint64(1)
		for i := range steps {
			sum = sum<<1&table[text[i&(1<<12-1)]] | sum
		}
		if sum == 0 {
			panic("unreachable: keeps the loop")
		}
		best = min(best, time.Since(begin))
	}
	return max(5*time.Millisecond, 6*best)
}

func TestC190_LinearTime(t *testing.T) {
	limit := patience(1 << 20)
	for name, h := range hostile() {
		t.Run(name, func(t *testing.T) {
			for _, g := range []*Glob{Compile(h[0]), CompileWord(h[0])} {
				best := time.Hour
				for range 5 {
					begin := time.Now()
					if g.Match(h[1]) {
						t.Fatal("matched")
					}
					best = min(best, time.Since(begin))
				}
				if best > limit {
					t.Errorf("matching took %v, want at most %v", best, limit)
				}
			}
		})
	}
}

func BenchmarkHostile(b *testing.B) {
	for name, h := range hostile() {
		for kind, g := range map[string]*Glob{"whole": Compile(h[0]), "word": CompileWord(h[0])} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				for b.Loop() {
					g.Match(h[1])
				}
				b.ReportMetric(float64(g.Cost(len(h[1])))*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "steps/ns")
			})
		}
	}
}

func BenchmarkWordInMessage(b *testing.B) {
	g := CompileWord("cake")
	text := "we could bring a pancake or two to the meeting, what do you think about cakes?"
	b.ReportAllocs()
	for b.Loop() {
		g.Match(text)
	}
}
