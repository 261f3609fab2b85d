package signing

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

const sig64 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestParseXMatrix_Grammar(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]string{
		"as sent":          `X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:k_1",sig="` + sig64 + `"`,
		"any order":        `X-Matrix sig="` + sig64 + `",key="ed25519:k_1",destination="b.example",origin="a.example:8448"`,
		"any case":         `x-mAtRiX ORIGIN="a.example:8448",Destination="b.example",KEY="ed25519:k_1",Sig="` + sig64 + `"`,
		"bare values":      `X-Matrix origin=a.example:8448,destination=b.example,key=ed25519:k_1,sig=` + sig64,
		"blanks":           "X-Matrix   origin=\"a.example:8448\" ,\t destination = b.example\t,  key=ed25519:k_1 , sig=\"" + sig64 + `" `,
		"escapes":          `X-Matrix origin="a\.exam\ple:8448",destination="b.example",key="ed25519\:k_1",sig="` + sig64 + `"`,
		"unknown ignored":  `X-Matrix foo="b,a\"r=",origin="a.example:8448",destination="b.example",x=y,key="ed25519:k_1",sig="` + sig64 + `"`,
		"empty elements":   `X-Matrix ,, origin="a.example:8448",,destination="b.example",key="ed25519:k_1",sig="` + sig64 + `",`,
		"other name":       `X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:k_1",signature="` + sig64 + `"`,
		"padded signature": `X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:k_1",sig="` + sig64 + `=="`,
	} {
		x, err := ParseXMatrix([]string{header})
		if err != nil || x.Origin != "a.example:8448" || x.Destination != "b.example" || len(x.Signatures) != 1 ||
			x.Signatures[0].KeyID != "ed25519:k_1" || len(x.Signatures[0].Signature) != 64 {
			t.Errorf("%s: ParseXMatrix(%s) = %+v, %v", name, header, x, err)
		}
	}
	x, err := ParseXMatrix([]string{`X-Matrix origin="[::1]:8448",key="ed25519:1",sig="` + sig64 + `"`})
	if err != nil || x.Origin != "[::1]:8448" || x.Destination != "" {
		t.Errorf("without a destination: %+v, %v", x, err)
	}
}

func TestF86_MalformedHeadersAreRefused(t *testing.T) {
	t.Parallel()
	const rest = `,destination="b.example",key="ed25519:1",sig="` + sig64 + `"`
	for name, header := range map[string]string{
		"empty":                "",
		"scheme only":          "X-Matrix",
		"another scheme":       `Bearer origin="a.example"` + rest,
		"no blank":             `X-Matrixorigin="a.example"` + rest,
		"no origin":            `X-Matrix destination="b.example",key="ed25519:1",sig="` + sig64 + `"`,
		"no key":               `X-Matrix origin="a.example",sig="` + sig64 + `"`,
		"no signature":         `X-Matrix origin="a.example",key="ed25519:1"`,
		"bad origin":           `X-Matrix origin="a b"` + rest,
		"bad destination":      `X-Matrix origin="a.example",destination="",key="ed25519:1",sig="` + sig64 + `"`,
		"key with a slash":     `X-Matrix origin="a.example",key="ed25519:1/2",sig="` + sig64 + `"`,
		"policy server's key":  `X-Matrix origin="a.example",key="ed25519:policy_server",sig="` + sig64 + `"`,
		"short signature":      `X-Matrix origin="a.example",key="ed25519:1",sig="AAAA"`,
		"URL alphabet":         `X-Matrix origin="a.example",key="ed25519:1",sig="-_` + sig64[2:] + `"`,
		"twice the same name":  `X-Matrix origin="a.example",Origin="a.example"` + rest,
		"two signatures":       `X-Matrix origin="a.example",signature="B` + sig64[1:] + `"` + rest,
		"open quote":           `X-Matrix origin="a.example",key="ed25519:1",sig="` + sig64,
		"open escape":          `X-Matrix origin="a.example",key="ed25519:1",sig="` + sig64 + `\`,
		"nothing between":      `X-Matrix origin="a.example"key="ed25519:1",sig="` + sig64 + `"`,
		"no value":             `X-Matrix origin=` + rest,
		"no name":              `X-Matrix ="a.example"` + rest,
		"control character":    "X-Matrix origin=\"a.example\x00\"" + rest,
		"brackets not quoted":  `X-Matrix origin=[::1]` + rest,
		"100 KB":               `X-Matrix origin="a.example",x="` + strings.Repeat("x", 100<<10) + `"` + rest,
		"tab after the scheme": "X-Matrix\torigin=\"a.example\"" + rest,
	} {
		x, err := ParseXMatrix([]string{header})
		if e, ok := errors.AsType[*matrix.Error](err); !ok || e.Status != 401 || e.Code != "M_UNAUTHORIZED" {
			t.Errorf("%s: ParseXMatrix(%.80q) = %+v, %v", name, header, x, err)
		}
	}
}

func TestF85_SeveralHeadersMustAgree(t *testing.T) {
	t.Parallel()
	one := FormatXMatrix("a.example", "b.example", "ed25519:1", sig64)
	two := FormatXMatrix("a.example", "b.example", "ed25519:2", sig64)
	if x, err := ParseXMatrix([]string{one, two}); err != nil || len(x.Signatures) != 2 || x.Signatures[1].KeyID != "ed25519:2" {
		t.Errorf("two keys of one server: %+v, %v", x, err)
	}
	for name, headers := range map[string][]string{
		"none":              nil,
		"other origin":      {one, FormatXMatrix("c.example", "b.example", "ed25519:1", sig64)},
		"other destination": {one, FormatXMatrix("a.example", "c.example", "ed25519:1", sig64)},
		"a token as well":   {one, "Bearer abc"},
		"token first":       {"Bearer abc", one},
		"too many":          {one, one, one, one, one, one, one, one, one},
	} {
		if x, err := ParseXMatrix(headers); err == nil {
			t.Errorf("%s: ParseXMatrix = %+v", name, x)
		}
	}
}

func TestSignRequest_Verifies(t *testing.T) {
	t.Parallel()
	key := testKey(t, "1", 5)
	for _, content := range []string{"", `{}`, `{"b": 1, "a": [1.5, "\u00e9"]}`} {
		var body []byte
		if content != "" {
			body = []byte(content)
		}
		header, err := SignRequest(key, "PUT", "/_matrix/federation/v1/send/1?x=%20+", "a.example", "b.example", body)
		if err != nil {
			t.Fatal(err)
		}
		x, err := ParseXMatrix([]string{header})
		if err != nil {
			t.Fatalf("ParseXMatrix(%s): %v", header, err)
		}
		object, err := RequestJSON("PUT", "/_matrix/federation/v1/send/1?x=%20+", x.Origin, x.Destination, body)
		if err != nil || !key.Public().Verify(object, x.Signatures[0].Signature) {
			t.Errorf("the signature over %s does not verify: %v", object, err)
		}
		// The same by way of the generic algorithm.
		signed := canonicaljson.Set(object, "signatures", merge(nil, x.Origin, x.Signatures[0].KeyID,
			base64.RawStdEncoding.EncodeToString(x.Signatures[0].Signature)))
		if err := VerifyJSON(signed, "a.example", key.ID, key.Public()); err != nil {
			t.Errorf("VerifyJSON(%s): %v", signed, err)
		}
		other, err := RequestJSON("PUT", "/_matrix/federation/v1/send/1?x=++", x.Origin, x.Destination, body)
		if err != nil || key.Public().Verify(other, x.Signatures[0].Signature) {
			t.Errorf("F87: the signature also verifies over %s: %v", other, err)
		}
	}
}

func TestRequestJSON_RefusesWhatHasNoOneForm(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{`, `{"a":1,"a":2}`, "\"\xff\"", ` `} {
		if got, err := RequestJSON("PUT", "/x", "a.example", "b.example", []byte(body)); err == nil {
			t.Errorf("RequestJSON(%q) = %s", body, got)
		}
	}
	if got, err := RequestJSON("GET", "/\xff", "a.example", "b.example", nil); err == nil {
		t.Errorf("RequestJSON of a target that is not UTF-8 = %s", got)
	}
}

func FuzzXMatrix(f *testing.F) {
	f.Add(`X-Matrix origin="a.example",destination="b.example",key="ed25519:1",sig="` + sig64 + `"`)
	f.Add(`X-Matrix origin=a.example , key="ed25519\:1",sig=` + sig64 + `,,x="\""`)
	f.Fuzz(func(t *testing.T, header string) {
		x, err := ParseXMatrix([]string{header})
		if err != nil {
			return
		}
		sig := x.Signatures[0]
		again, err := ParseXMatrix([]string{FormatXMatrix(x.Origin, x.Destination, sig.KeyID, EncodeBase64(sig.Signature))})
		if x.Destination != "" && (err != nil || again.Origin != x.Origin || again.Destination != x.Destination ||
			again.Signatures[0].KeyID != sig.KeyID || string(again.Signatures[0].Signature) != string(sig.Signature)) {
			t.Fatalf("ParseXMatrix(%q) = %+v, then %+v, %v", header, x, again, err)
		}
	})
}
