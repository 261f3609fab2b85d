package canonicaljson

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"
)

func TestCanonicalize_SpecExamples(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/spec_examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var examples []struct{ Input, Output string }
	if err := json.Unmarshal(data, &examples); err != nil {
		t.Fatal(err)
	}
	for _, x := range examples {
		got, err := Canonicalize([]byte(x.Input), false)
		if err != nil || string(got) != x.Output {
			t.Errorf("Canonicalize(%s) = %s, %v, want %s", x.Input, got, err, x.Output)
		}
		// The last example shows numbers that a strict reader refuses instead of rewriting them.
		if _, err := Canonicalize([]byte(x.Input), true); (err != nil) != strings.Contains(x.Input, "1e10") {
			t.Errorf("strict Canonicalize(%s): %v", x.Input, err)
		}
	}
}

func TestCanonicalize_Forms(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ name, in, want string }{
		{"white space", " {\t\"a\" :\r\n[ 1 , 2 ] } ", `{"a":[1,2]}`},
		{"nested sort", `{"b":{"d":1,"c":{"z":[{"y":1,"x":2}],"a":0}},"a":null}`, `{"a":null,"b":{"c":{"a":0,"z":[{"x":2,"y":1}]},"d":1}}`},
		{"code points, not UTF-16 units", `{"\ud83d\ude00":1,"\uffee":2}`, `{"` + "\uffee" + `":2,"😀":1}`},
		{"escaped keys sort by what they mean", `{"a\\":1,"a!":2,"a\"":3,"a\n":4}`, `{"a\n":4,"a!":2,"a\"":3,"a\\":1}`},
		{"a prefix comes first", `{"ab":1,"a":2,"a\u0000":3}`, `{"a":2,"a\u0000":3,"ab":1}`},
		{"shortest escapes", `"\u0008\u0009\u000A\u000c\u000d\u0022\u005C\/\u0001\u001F\u007f\u2028<>&"`, `"\b\t\n\f\r\"\\/\u0001\u001f` + "\x7f\u2028" + `<>&"`},
		{"surrogate pair", `"\uD83D\uDE00"`, `"😀"`},
		{"limits of the integers", `[9007199254740991,-9007199254740991,0]`, `[9007199254740991,-9007199254740991,0]`},
		{"empty containers", `{"a":{},"b":[]}`, `{"a":{},"b":[]}`},
		{"words", `[true,false,null]`, `[true,false,null]`},
		{"an empty key", `{"a":1,"":2}`, `{"":2,"a":1}`},
	} {
		for _, strict := range []bool{true, false} {
			got, err := Canonicalize([]byte(x.in), strict)
			if err != nil || string(got) != x.want {
				t.Errorf("%s: Canonicalize(%s, %v) = %s, %v, want %s", x.name, x.in, strict, got, err, x.want)
			}
		}
		if !IsCanonical([]byte(x.want)) || x.in != x.want && IsCanonical([]byte(x.in)) {
			t.Errorf("%s: IsCanonical is wrong about %s or %s", x.name, x.in, x.want)
		}
	}
}

// kindOf is the kind of an error of this package, 0 for nil.
func kindOf(t *testing.T, err error) Kind {
	t.Helper()
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("the error %v has the type %T", err, err)
	}
	return e.Kind
}

func checkKinds(t *testing.T, want Kind, code string, inputs ...string) {
	t.Helper()
	for _, in := range inputs {
		got, err := Append([]byte("before"), []byte(in), true)
		if kindOf(t, err) != want {
			t.Errorf("Append(%.80q): %v, want kind %d", in, err, want)
			continue
		}
		if string(got) != "before" {
			t.Errorf("Append(%.80q) left %.80q behind", in, got)
		}
		if m := AsMatrix(err); m.Status != 400 || m.Code != code {
			t.Errorf("AsMatrix(%v) = %v, want %s", err, m, code)
		}
	}
}

func TestJ1_DuplicateKeys(t *testing.T) {
	t.Parallel()
	checkKinds(t, DuplicateKey, "M_BAD_JSON",
		`{"msgtype":"m.text","body":"a","body":"b"}`, `{"a":1,"a":1}`, `{"b":1,"a":2,"b":3}`, `[{"x":{"a":1,"b":2,"a":3}}]`,
		`{"a":1,"\u0061":2}`, `{"\n":1,"\u000a":2}`, `{"":1,"":1}`)
	if _, err := AppendWithout(nil, []byte(`{"unsigned":1,"a":1,"unsigned":2}`), true, "unsigned"); kindOf(t, err) != DuplicateKey {
		t.Errorf("a member that is left out may occur twice: %v", err)
	}
}

func TestJ2_OtherCaseIsAnotherKey(t *testing.T) {
	t.Parallel()
	got, err := Canonicalize([]byte(`{"sender":"@a:x","SENDER":"@b:y"}`), true)
	if err != nil || string(got) != `{"SENDER":"@b:y","sender":"@a:x"}` {
		t.Fatalf("Canonicalize = %s, %v", got, err)
	}
	if v, _ := Find(got, "sender"); string(v) != `"@a:x"` {
		t.Errorf("Find(sender) = %s", v)
	}
}

func TestJ3_NaNAndOtherSyntax(t *testing.T) {
	t.Parallel()
	checkKinds(t, Syntax, "M_NOT_JSON",
		`{"displayname":NaN}`, `Infinity`, `[-Infinity]`, ``, ` `, `{`, `[`, `[1`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,}`, `[1,]`,
		`{,}`, `{1:2}`, `{"a" 1}`, `"`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`, "\"\n\"", `tru`, `nul`, `01`, `1.`, `.5`, `1e`, `+1`,
		`--1`, `-`, `1 2`, `{}{}`, `{} x`, "\ufeff{}", `'a'`, `{"a":1}]`, `[1}`)
}

func TestJ5_FloatsExponentsNegativeZero(t *testing.T) {
	t.Parallel()
	for _, n := range []string{`1.0`, `1e3`, `-0`, `1E+2`, `0.5`, `-0.0`, `9007199254740992`, `-9007199254740992`, `1e400`,
		`99999999999999999999999999999999999999`, `1e0`} {
		checkKinds(t, BadNumber, "M_BAD_JSON", n, `{"a":[`+n+`]}`)
		if IsCanonical([]byte(n)) {
			t.Errorf("IsCanonical(%s)", n)
		}
	}
}

func TestCanonicalize_LenientNumbers(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`1.0`: `1.0`, `0.10`: `0.10`, `-0`: `0`, `-0.0`: `-0.0`, `1e10`: `10000000000`, `1E+2`: `100`, `-5e0`: `-5`,
		`1.5e1`: `1.5e1`, `1e-1`: `1e-1`, `1e400`: `1e400`, `9007199254740992`: `9007199254740992`, `1e16`: `1e16`, `-0e1`: `-0e1`,
		`123456789012345678901234567890`: `123456789012345678901234567890`,
	} {
		got, err := Canonicalize([]byte(in), false)
		if err != nil || string(got) != want {
			t.Errorf("Canonicalize(%s) = %s, %v, want %s", in, got, err, want)
		}
		if again, err := Canonicalize(got, false); err != nil || !bytes.Equal(again, got) {
			t.Errorf("Canonicalize(%s) twice = %s, %v", in, again, err)
		}
	}
}

func TestJ7_DeepNesting(t *testing.T) {
	t.Parallel()
	checkKinds(t, TooDeep, "M_BAD_JSON",
		strings.Repeat("[", 100000), strings.Repeat(`{"a":`, 100000), strings.Repeat(`{"a":`, 9999)+"1"+strings.Repeat("}", 9999),
		strings.Repeat("[", MaxDepth+1)+strings.Repeat("]", MaxDepth+1))
	deepest := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	if _, err := Canonicalize([]byte(deepest), true); err != nil || !IsCanonical([]byte(deepest)) {
		t.Errorf("depth %d: %v", MaxDepth, err)
	}
}

func TestJ9_LoneSurrogatesAndBadUTF8(t *testing.T) {
	t.Parallel()
	checkKinds(t, LoneSurrogate, "M_BAD_JSON",
		`"\ud800"`, `"\udc00\ud800"`, `"\ud800x"`, `"\ud800\n"`, `"\ud800\ud800"`, `{"\udfff":1}`, `"\ud83d\u0041"`)
	checkKinds(t, NotUTF8, "M_NOT_JSON", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "\xff", "{\"\xe2\x82\":1}")
}

func TestAppendWithout_SkipsLaxNumbers(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"unsigned":{"age":1e30,"x":1.5},"a":1}`:                  `{"a":1}`,
		`{"b":2,"unsigned":1000000000000000000000000000000,"a":1}`: `{"a":1,"b":2}`,
		`{"unsigned":{}}`:            `{}`,
		`{"a":{"unsigned":1}}`:       `{"a":{"unsigned":1}}`,
		`{"z":1,"unsigned":null}`:    `{"z":1}`,
		`{"unsigne\u0064":[],"b":1}`: `{"b":1}`,
	} {
		got, err := AppendWithout(nil, []byte(in), true, "unsigned")
		if err != nil || string(got) != want {
			t.Errorf("AppendWithout(%s) = %s, %v, want %s", in, got, err, want)
		}
	}
	if _, err := AppendWithout(nil, []byte(`{"unsigned":NaN}`), true, "unsigned"); kindOf(t, err) != Syntax {
		t.Errorf("unsigned may be anything: %v", err)
	}
}

func TestFind_ReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	object := []byte(`{"a":"x\"y","b":{"c":[1,"]}"]},"n":-12,"s":"\\"}`)
	for key, want := range map[string]string{"a": `"x\"y"`, "b": `{"c":[1,"]}"]}`, "n": `-12`, "s": `"\\"`, "c": ``} {
		if got, ok := Find(object, key); string(got) != want || ok != (want != "") {
			t.Errorf("Find(%s) = %s, %v, want %s", key, got, ok, want)
		}
	}
	if s, ok := String([]byte(`"x\"y\u0001\n"`)); s != "x\"y\x01\n" || !ok {
		t.Errorf("String = %q, %v", s, ok)
	}
	for _, v := range []string{``, `1`, `"`, `{}`, `null`} {
		if s, ok := String([]byte(v)); ok {
			t.Errorf("String(%s) = %q", v, s)
		}
	}
	for in, want := range map[string]int64{`0`: 0, `-12`: -12, `9223372036854775807`: 1<<63 - 1} {
		if n, ok := Int([]byte(in)); n != want || !ok {
			t.Errorf("Int(%s) = %d, %v", in, n, ok)
		}
	}
	for _, in := range []string{``, `"5"`, `null`, `1.5`, `1e3`, `9223372036854775808`, `true`, `+1`} {
		if n, ok := Int([]byte(in)); ok {
			t.Errorf("Int(%s) = %d", in, n)
		}
	}
	var elements []string
	for v := range Elements([]byte(`[1,"a,b",[2,3],{}]`)) {
		elements = append(elements, string(v))
	}
	if got := strings.Join(elements, " "); got != `1 "a,b" [2,3] {}` {
		t.Errorf("Elements = %s", got)
	}
}

func TestSetAndCut(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ object, key, value, want string }{
		{`{}`, "b", `1`, `{"b":1}`}, {`{"a":1}`, "b", `2`, `{"a":1,"b":2}`}, {`{"c":1}`, "b", `2`, `{"b":2,"c":1}`},
		{`{"a":1,"b":9,"c":1}`, "b", `2`, `{"a":1,"b":2,"c":1}`}, {`{"a":1,"c":1}`, "b", `{}`, `{"a":1,"b":{},"c":1}`},
		{`{"\u0001":1,"\\":2}`, "9", `3`, `{"\u0001":1,"9":3,"\\":2}`}, {``, "a", `1`, `{"a":1}`}, {`[1]`, "a", `1`, `{"a":1}`},
	} {
		got := Set([]byte(x.object), x.key, []byte(x.value))
		if string(got) != x.want || !IsCanonical(got) {
			t.Errorf("Set(%s, %s) = %s, want %s", x.object, x.key, got, x.want)
		}
		rest, value := Cut(bytes.Clone(got), x.key)
		if string(value) != x.value || !IsCanonical(rest) {
			t.Errorf("Cut(%s, %s) = %s, %s", got, x.key, rest, value)
		}
		if _, still := Find(rest, x.key); still {
			t.Errorf("Cut(%s, %s) = %s", got, x.key, rest)
		}
	}
}

// oracle is a slow and simple canonical encoder over the tokens of jsontext, to compare with.
func oracle(d *jsontext.Decoder, depth int) (string, bool) {
	token, err := d.ReadToken()
	if err != nil || depth > MaxDepth {
		return "", false
	}
	switch token.Kind() {
	case '{':
		return oracleObject(d, depth)
	case '[':
		var parts []string
		for d.PeekKind() != ']' {
			v, ok := oracle(d, depth+1)
			if !ok {
				return "", false
			}
			parts = append(parts, v)
		}
		_, err = d.ReadToken()
		return "[" + strings.Join(parts, ",") + "]", err == nil && depth < MaxDepth
	case '"':
		return oracleString(token.String()), true
	case '0':
		n, err := strconv.ParseInt(token.String(), 10, 64)
		return token.String(), err == nil && n <= MaxInteger && n >= -MaxInteger && token.String() == strconv.FormatInt(n, 10)
	}
	return token.String(), true
}

func oracleObject(d *jsontext.Decoder, depth int) (string, bool) {
	type pair struct{ key, value string }
	var pairs []pair
	for d.PeekKind() != '}' {
		k, err := d.ReadToken()
		if err != nil {
			return "", false
		}
		key := k.String()
		v, ok := oracle(d, depth+1)
		if !ok {
			return "", false
		}
		at := 0
		for at < len(pairs) && []rune(pairs[at].key) != nil && pairs[at].key < key {
			at++
		}
		pairs = append(pairs[:at], append([]pair{{key, v}}, pairs[at:]...)...)
	}
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(oracleString(p.key) + ":" + p.value)
	}
	_, err := d.ReadToken()
	return "{" + b.String() + "}", err == nil && depth < MaxDepth
}

func oracleString(s string) string {
	var b strings.Builder
	for _, r := range s {
		short := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}[r]
		switch {
		case short != "":
			b.WriteString(short)
		case r < 0x20:
			b.WriteString(`\u00` + strconv.FormatInt(int64(r)>>4, 16) + strconv.FormatInt(int64(r)&15, 16))
		default:
			b.WriteRune(r)
		}
	}
	return `"` + b.String() + `"`
}

func oracleAll(src []byte) (string, bool) {
	d := jsontext.NewDecoder(bytes.NewReader(src))
	s, ok := oracle(d, 0)
	if !ok {
		return "", false
	}
	_, err := d.ReadToken()
	return s, err != nil && err.Error() == "EOF"
}

func FuzzCanonicalize(f *testing.F) {
	for _, s := range []string{`{}`, `{"b":1,"a":[true,null,"\u0001\ud83d\ude00"]}`, `-0`, `1e5`, `{"a":1,"a":2}`, "\"\xff\"", `[[[[1.5]]]]`, `{"a\\":1,"a!":2}`, `[-,]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		before := bytes.Clone(src)
		got, err := Canonicalize(src, true)
		want, ok := oracleAll(src)
		if ok != (err == nil) || ok && string(got) != want {
			t.Fatalf("Canonicalize(%q) = %q, %v; the oracle says %q, %v", src, got, err, want, ok)
		}
		if !bytes.Equal(src, before) {
			t.Fatalf("Canonicalize changed its source %q to %q", before, src)
		}
		if err == nil && (!IsCanonical(got) || IsCanonical(src) != bytes.Equal(src, got)) {
			t.Fatalf("IsCanonical is wrong about %q or %q", src, got)
		}
		lax, laxErr := Canonicalize(src, false)
		if err == nil && (laxErr != nil || !bytes.Equal(lax, got)) {
			t.Fatalf("the lenient form of %q is %q, %v", src, lax, laxErr)
		}
		if laxErr == nil {
			if again, err := Canonicalize(lax, false); err != nil || !bytes.Equal(again, lax) {
				t.Fatalf("the lenient form of %q changes from %q to %q", src, lax, again)
			}
		}
		full, err := encode(nil, src, true, "")
		if (err == nil) != ok || ok && string(full) != want {
			t.Fatalf("encode(%q) = %q, %v; want %q", src, full, err, want)
		}
		for range Members(src) {
			_ = Skip(src, 0)
		}
	})
}

// FuzzRead checks that the readers of canonical JSON survive anything else.
func FuzzRead(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":}`, `[`, `{"a"`, `"\`, `{"\":1}`, `[,]`, `{"a":"`, `{"a":1,`, `}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, v := range Members(b) {
			_, _ = String(v)
			_, _ = Int(v)
		}
		for v := range Elements(b) {
			_, _ = String(v)
		}
		_ = Set(b, "k", []byte("1"))
		_ = Skip(b, 0)
		_, _ = String(b)
	})
}

func jsonValue(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		if depth == 0 {
			kind %= 4
		}
		switch kind {
		case 0:
			return strconv.FormatInt(rapid.Int64Range(-MaxInteger, MaxInteger).Draw(t, "n"), 10)
		case 1:
			b, _ := json.Marshal(rapid.String().Draw(t, "s"))
			return string(b)
		case 2:
			return rapid.SampledFrom([]string{"true", "false", "null", "[]", "{}"}).Draw(t, "word")
		case 3:
			return string(AppendString(nil, rapid.String().Draw(t, "s")))
		case 4:
			return "[" + strings.Join(rapid.SliceOfN(jsonValue(depth-1), 0, 4).Draw(t, "a"), " , ") + "]"
		}
		keys := rapid.SliceOfNDistinct(rapid.String(), 0, 6, rapid.ID[string]).Draw(t, "keys")
		for i, k := range keys {
			b, _ := json.Marshal(k)
			keys[i] = string(b) + ": " + jsonValue(depth-1).Draw(t, "v")
		}
		return "{\n" + strings.Join(keys, ",") + "}"
	})
}

func TestCanonicalize_IsIdempotentAndEqualsTheOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		src := jsonValue(4).Draw(t, "json")
		got, err := Canonicalize([]byte(src), true)
		if err != nil {
			t.Fatalf("Canonicalize(%s): %v", src, err)
		}
		if want, ok := oracleAll([]byte(src)); !ok || string(got) != want {
			t.Fatalf("Canonicalize(%s) = %s, the oracle says %s", src, got, want)
		}
		again, err := encode(nil, got, true, "")
		if err != nil || !bytes.Equal(again, got) || !IsCanonical(got) {
			t.Fatalf("Canonicalize(%s) = %s, %v", got, again, err)
		}
	})
}

func TestAppendString_ReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		b := AppendString(nil, s)
		if got, ok := String(b); !ok || got != s || !IsCanonical(b) {
			t.Fatalf("AppendString(%q) = %s, which reads as %q, %v", s, b, got, ok)
		}
	})
	if got := string(AppendString(nil, "a\xffb")); got != `"a`+"\ufffd"+`b"` {
		t.Errorf("AppendString of bad UTF-8 = %q", got)
	}
}

const message = `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"AwgAEnACgAkLmt6qF84IK++J7UDH2Za1YVchHyprqTqsgAwgAEnACgAkLmt6qF84IK++J7UDH2Za1YVchHyprqTqsg","device_id":"RJYKSTBOIE","m.relates_to":{"event_id":"$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","rel_type":"m.thread"},"sender_key":"IlRMeOPX2e0MurIyfWEucYBRVOEEUMrOHqn/8mLqMjA","session_id":"X3lUlvLELLYxeTx4yOVu6UDpasGEVO0Jbu+QFnm0cKQ"}`

const shuffled = `{"session_id":"X3lUlvLELLYxeTx4yOVu6UDpasGEVO0Jbu+QFnm0cKQ", "ciphertext":"AwgAEnACgAkLmt6qF84IK++J7UDH2Za1YVchHyprqTqsgAwgAEnACgAkLmt6qF84IK++J7UDH2Za1YVchHyprqTqsg","algorithm":"m.megolm.v1.aes-sha2","device_id":"RJYKSTBOIE","sender_key":"IlRMeOPX2e0MurIyfWEucYBRVOEEUMrOHqn\/8mLqMjA","m.relates_to":{"rel_type":"m.thread","event_id":"$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}}`

func BenchmarkCanonicalize(b *testing.B) {
	for name, src := range map[string]string{"canonical": message, "shuffled": shuffled} {
		b.Run(name, func(b *testing.B) {
			in := []byte(src)
			dst := make([]byte, 0, 1024)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = Append(dst[:0], in, true); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
