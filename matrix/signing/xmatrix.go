package signing

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// The limits of the Authorization headers of one request.
const (
	maxXMatrixHeaders = 8
	maxXMatrixLength  = 4096
)

// XMatrix is what the Authorization headers of a federation request claim.
type XMatrix struct {
	// Origin is the server that says it sent the request.
	Origin matrix.ServerName
	// Destination is the server the request is for; older servers leave it out.
	Destination matrix.ServerName
	// Signatures has one entry per header.
	Signatures []RequestSignature
}

// RequestSignature is one signature of a request.
type RequestSignature struct {
	KeyID     KeyID
	Signature []byte
}

// ParseXMatrix reads the Authorization headers of a request. Every one of them must be a well-formed X-Matrix header, and
// they must all name the same origin and destination. The error is 401 M_UNAUTHORIZED.
//
// spec: server-server-api#request-authentication
func ParseXMatrix(headers []string) (XMatrix, error) {
	var x XMatrix
	if len(headers) == 0 {
		return x, unauthorized("The request has no Authorization header.")
	}
	if len(headers) > maxXMatrixHeaders {
		return x, unauthorized("The request has too many Authorization headers.")
	}
	for i, header := range headers {
		one, err := parseHeader(header)
		if err != nil {
			return XMatrix{}, err
		}
		if i == 0 {
			x = one
			continue
		}
		if one.Origin != x.Origin || one.Destination != x.Destination {
			return XMatrix{}, unauthorized("The Authorization headers contradict each other.")
		}
		x.Signatures = append(x.Signatures, one.Signatures...)
	}
	return x, nil
}

func unauthorized(message string) *matrix.Error {
	return matrix.Errorf(http.StatusUnauthorized, matrix.CodeUnauthorized, "%s", message)
}

func parseHeader(header string) (XMatrix, error) {
	if len(header) > maxXMatrixLength {
		return XMatrix{}, unauthorized("The Authorization header is too long.")
	}
	scheme, rest, ok := strings.Cut(strings.Trim(header, " \t"), " ")
	if !ok || !strings.EqualFold(scheme, "X-Matrix") {
		return XMatrix{}, unauthorized("The Authorization header is not of the scheme X-Matrix.")
	}
	params, ok := parseParams(rest)
	if !ok {
		return XMatrix{}, unauthorized("The X-Matrix header is malformed.")
	}
	var x XMatrix
	var err error
	if x.Origin, err = matrix.ParseServerName(params["origin"]); err != nil {
		return XMatrix{}, unauthorized("The X-Matrix header has no valid origin.")
	}
	if destination, have := params["destination"]; have {
		if x.Destination, err = matrix.ParseServerName(destination); err != nil {
			return XMatrix{}, unauthorized("The X-Matrix header has no valid destination.")
		}
	}
	id, err := ParseKeyID(params["key"])
	if err != nil || id == PolicyServerKeyID {
		return XMatrix{}, unauthorized("The X-Matrix header has no valid key.")
	}
	// differs: the prose names the parameter signature, every implementation writes sig; both are read.
	sig, have := params["sig"]
	if other, both := params["signature"]; both && have && other != sig {
		return XMatrix{}, unauthorized("The X-Matrix header has two signatures.")
	} else if !have {
		sig = other
	}
	signature, err := DecodeBase64(sig)
	if err != nil || len(signature) != 64 {
		return XMatrix{}, unauthorized("The X-Matrix header has no valid signature.")
	}
	x.Signatures = []RequestSignature{{KeyID: id, Signature: signature}}
	return x, nil
}

// parseParams reads `name=value, name="value"` by the grammar of RFC 9110, section 11.4, with colons allowed in bare
// values. Names come out in lower case; one that occurs twice is an error.
func parseParams(s string) (map[string]string, bool) {
	params := map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return params, true
		}
		if s[0] == ',' {
			s = s[1:]
			continue
		}
		n := tokenEnd(s, false)
		name := strings.ToLower(s[:n])
		s = strings.TrimLeft(s[n:], " \t")
		if name == "" || s == "" || s[0] != '=' {
			return nil, false
		}
		s = strings.TrimLeft(s[1:], " \t")
		var value string
		if strings.HasPrefix(s, `"`) {
			var ok bool
			if value, s, ok = quoted(s[1:]); !ok {
				return nil, false
			}
		} else {
			n = tokenEnd(s, true)
			if value, s = s[:n], s[n:]; value == "" {
				return nil, false
			}
		}
		if _, twice := params[name]; twice {
			return nil, false
		}
		params[name] = value
		if s = strings.TrimLeft(s, " \t"); s != "" && s[0] != ',' {
			return nil, false
		}
	}
}

// tokenEnd is the length of the token that s begins with.
func tokenEnd(s string, colons bool) int {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', colons && c == ':':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0:
			return i
		}
	}
	return len(s)
}

// quoted reads the rest of a quoted string, after its opening quote.
func quoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '"' {
			return b.String(), s[i+1:], true
		}
		if c == '\\' {
			if i++; i == len(s) {
				return "", "", false
			}
			c = s[i]
		}
		if c < 0x20 && c != '\t' || c == 0x7f {
			return "", "", false
		}
		b.WriteByte(c)
	}
	return "", "", false
}

// FormatXMatrix writes the Authorization header in the form that the oldest servers understand.
//
// spec: server-server-api#request-authentication
func FormatXMatrix(origin, destination matrix.ServerName, id KeyID, signature string) string {
	return `X-Matrix origin="` + string(origin) + `",destination="` + string(destination) +
		`",key="` + string(id) + `",sig="` + signature + `"`
}

// RequestJSON is the object that the signature of a request covers. The URI is the request target exactly as it is on the
// wire, from `/_matrix` on with its query; content is nil for a request without a body.
//
// spec: server-server-api#request-authentication
func RequestJSON(method, uri string, origin, destination matrix.ServerName, content []byte) ([]byte, error) {
	if !utf8.ValidString(uri) || !utf8.ValidString(method) {
		return nil, matrix.BadJSON("The request target is not valid UTF-8.")
	}
	b := make([]byte, 0, 128+len(uri)+len(content))
	b = append(b, '{')
	if content != nil {
		var err error
		if b, err = canonicaljson.Append(append(b, `"content":`...), content, false); err != nil {
			return nil, canonicaljson.AsMatrix(err)
		}
		b = append(b, ',')
	}
	b = canonicaljson.AppendString(append(b, `"destination":`...), string(destination))
	b = canonicaljson.AppendString(append(b, `,"method":`...), method)
	b = canonicaljson.AppendString(append(b, `,"origin":`...), string(origin))
	b = canonicaljson.AppendString(append(b, `,"uri":`...), uri)
	return append(b, '}'), nil
}

// SignRequest returns the Authorization header of a request.
func SignRequest(key Key, method, uri string, origin, destination matrix.ServerName, content []byte) (string, error) {
	object, err := RequestJSON(method, uri, origin, destination, content)
	if err != nil {
		return "", err
	}
	return FormatXMatrix(origin, destination, key.ID, key.Sign(object)), nil
}
