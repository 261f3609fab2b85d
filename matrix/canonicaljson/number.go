package canonicaljson

import (
	"bytes"
	"math"
	"strconv"
)

// MaxInteger is the largest integer of strict Canonical JSON; the smallest is its negative.
const MaxInteger = 1<<53 - 1

// numberEnd is the length of the JSON number that b begins with, 0 if it begins with none, and whether it is a plain
// integer: no fraction and no exponent.
func numberEnd(b []byte) (n int, integer bool) {
	digits := func() bool {
		start := n
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		return n > start
	}
	if n < len(b) && b[n] == '-' {
		n++
	}
	if n < len(b) && b[n] == '0' {
		n++
	} else if !digits() {
		return 0, false
	}
	integer = true
	if n < len(b) && b[n] == '.' {
		n++
		integer = false
		if !digits() {
			return 0, false
		}
	}
	if n < len(b) && (b[n] == 'e' || b[n] == 'E') {
		n++
		integer = false
		if n < len(b) && (b[n] == '+' || b[n] == '-') {
			n++
		}
		if !digits() {
			return 0, false
		}
	}
	return n, integer
}

// isStrictInteger tells whether a plain integer is within the range and not negative zero.
func isStrictInteger(b []byte) bool {
	if len(b) < 16 {
		return !isNegativeZero(b)
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	return err == nil && n >= -MaxInteger && n <= MaxInteger
}

func isNegativeZero(b []byte) bool { return len(b) == 2 && b[0] == '-' && b[1] == '0' }

func (e *encoder) number() error {
	n, integer := numberEnd(e.src[e.pos:])
	if n == 0 {
		return e.fail(Syntax, "malformed number")
	}
	num := e.src[e.pos : e.pos+n]
	if e.strict {
		if !integer || !isStrictInteger(num) {
			return e.fail(BadNumber, strconv.Quote(string(num[:min(n, 40)])))
		}
		e.out = append(e.out, num...)
	} else {
		e.out = appendLenient(e.out, num, integer)
	}
	e.pos += n
	return nil
}

// appendLenient writes a number as room versions 1 to 5 need it: byte for byte, but -0 as 0, and an exponent that spells
// an integer of the strict range as that integer.
func appendLenient(dst, num []byte, integer bool) []byte {
	switch {
	case integer && isNegativeZero(num):
		return append(dst, '0')
	case integer || bytes.IndexByte(num, '.') >= 0 || len(num) > 32:
		return append(dst, num...)
	}
	f, err := strconv.ParseFloat(string(num), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > MaxInteger || f == 0 && num[0] == '-' {
		return append(dst, num...)
	}
	return strconv.AppendInt(dst, int64(f), 10)
}
