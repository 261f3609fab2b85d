package canonicaljson

import (
	"errors"
	"fmt"

	"hansa/matrix"
)

// Kind tells what is wrong with some JSON.
type Kind uint8

// The kinds of errors. The first two mean that the bytes are no JSON at all; the others that they are JSON which has no
// canonical form.
const (
	Syntax Kind = iota + 1
	NotUTF8
	DuplicateKey
	BadNumber
	LoneSurrogate
	TooDeep
)

// Error says why bytes have no canonical form.
type Error struct {
	Kind Kind
	// Offset is about where in the source the fault was found.
	Offset int
	// Detail is the key, the number, or what was expected.
	Detail string
}

// Error implements the error interface.
func (e *Error) Error() string {
	return fmt.Sprintf("canonicaljson: %s (byte %d)", e.reason(), e.Offset)
}

func (e *Error) reason() string {
	switch e.Kind {
	case NotUTF8:
		return "not valid UTF-8"
	case DuplicateKey:
		return fmt.Sprintf("the key %.64q occurs twice in one object", e.Detail)
	case BadNumber:
		return e.Detail + " is not an integer between -(2^53-1) and 2^53-1 in plain notation"
	case LoneSurrogate:
		return "an escape sequence holds half a surrogate pair"
	case TooDeep:
		return fmt.Sprintf("nested deeper than %d", MaxDepth)
	case Syntax:
	}
	return e.Detail
}

// Matrix is the error for the API: M_NOT_JSON for what is no JSON, M_BAD_JSON for JSON that must not occur.
//
// spec: client-server-api#standard-error-response
func (e *Error) Matrix() *matrix.Error {
	if e.Kind == Syntax || e.Kind == NotUTF8 {
		return matrix.Errorf(400, matrix.CodeNotJSON, "Not valid JSON: %s (byte %d).", e.reason(), e.Offset)
	}
	return matrix.BadJSON("Bad JSON: %s (byte %d).", e.reason(), e.Offset)
}

// AsMatrix turns an error of this package into the error for the API; any other error becomes 400 M_BAD_JSON.
func AsMatrix(err error) *matrix.Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Matrix()
	}
	return matrix.BadJSON("%v", err)
}
