package clientsync

import (
	"strconv"
	"strings"

	"hansa/matrix"
)

// Token is a place in the stream of a user: a position of the log, and beside it the moment (a version of the ephemeral
// service) up to which typing and presence were told.
type Token struct {
	Pos       int64
	Ephemeral int64
	// ToDevice is the position of the last to-device message that was given, where there were more than fit; else 0, which
	// means that all up to Pos were given.
	ToDevice int64
	// Held names rooms of which something was left out because policy had closed them.
	Held []uint32
}

// String is the form that clients carry around.
func (t Token) String() string {
	b := append(make([]byte, 0, 32), 's')
	b = strconv.AppendInt(b, t.Pos, 10)
	if t.Ephemeral > 0 || t.ToDevice > 0 {
		b = append(b, '_')
		b = strconv.AppendInt(b, t.Ephemeral, 10)
	}
	if t.ToDevice > 0 {
		b = append(b, '_')
		b = strconv.AppendInt(b, t.ToDevice, 10)
	}
	if len(t.Held) > 0 {
		b = appendHeld(append(b, '~'), t.Held)
	}
	return string(b)
}

// ParseToken reads a token. A token that this server cannot have given is M_INVALID_PARAM.
func ParseToken(s string) (Token, error) {
	bad := matrix.InvalidParam("%.40q is not a token of this server.", s)
	if len(s) > 64+8*maxHeld || !strings.HasPrefix(s, "s") {
		return Token{}, bad
	}
	places, names, withheld := strings.Cut(s[1:], "~")
	held, ok := parseHeld(names)
	if withheld != ok {
		return Token{}, bad
	}
	parts := strings.Split(places, "_")
	if len(parts) > 3 {
		return Token{}, bad
	}
	var n [3]int64
	for i, p := range parts {
		v, err := strconv.ParseInt(p, 10, 64)
		if err != nil || i > 0 && v < 0 {
			return Token{}, bad
		}
		n[i] = v
	}
	return Token{Pos: n[0], Ephemeral: n[1], ToDevice: n[2], Held: held}, nil
}

// toDevice is the position up to which to-device messages were given.
func (t *Token) toDevice() int64 {
	if t.ToDevice > 0 {
		return t.ToDevice
	}
	return t.Pos
}
