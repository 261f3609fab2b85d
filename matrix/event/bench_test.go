package event

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// chat is a draft as they are sent all day: an encrypted message of about 700 bytes.
func chat(v *matrix.RoomVersion) Draft {
	d := draft(v)
	d.Type = "m.room.encrypted"
	d.Content = jsontext.Value(`{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"` + strings.Repeat("AwgA", 40) +
		`","device_id":"ABCDEFGHIJ","sender_key":"BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB","session_id":"` +
		strings.Repeat("s", 43) + `"}`)
	return d
}

func BenchmarkBuild(b *testing.B) {
	v := version(b, "12")
	d := chat(v)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(v, d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	v := version(b, "12")
	raw := Federation(build(b, v, chat(v)).WithSignatures(jsontext.Value(`{"a.example":{"ed25519:1":"` + strings.Repeat("A", 86) + `"}}`)))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(v, raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseStored(b *testing.B) {
	v := version(b, "12")
	e := build(b, v, chat(v))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseStored(v, e.JSON, e.ID, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendClient(b *testing.B) {
	v := version(b, "12")
	e := build(b, v, chat(v))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendClient(buf[:0], e, true)
	}
}

func BenchmarkAppendFederation(b *testing.B) {
	v := version(b, "12")
	e := build(b, v, chat(v))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendFederation(buf[:0], e)
	}
}

func BenchmarkRedact(b *testing.B) {
	v := version(b, "12")
	e := build(b, v, chat(v))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Redact(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIntact(b *testing.B) {
	v := version(b, "12")
	e := build(b, v, draft(v))
	b.ReportAllocs()
	for b.Loop() {
		if !Intact(e) {
			b.Fatal("not intact")
		}
	}
}
