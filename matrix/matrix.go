// Package matrix holds the nouns of the Matrix protocol that every other package speaks: identifiers that are valid once
// parsed, the table of room versions, and the error that the specification prescribes for an API.
//
// Everything below this folder is pure: no network, database, clock, logger, goroutine or global state.
// The sub-packages are canonicaljson (the one form of JSON that is hashed and signed), signing (keys, signatures, X-Matrix),
// event (PDUs of all room versions), auth (authorisation rules), stateres (state resolution), pushrule and filter.
//
// spec: appendices#identifier-grammar
// spec: rooms/v12
package matrix

import (
	"fmt"
	"net/http"
)

// Error is an answer that the specification names: an HTTP status, an errcode and a sentence that helps the reader.
// Any layer may return it; the HTTP packages write it in one place.
//
// spec: client-server-api#standard-error-response
type Error struct {
	// Status is the HTTP status code.
	Status int
	// Code is the Matrix errcode, such as M_FORBIDDEN.
	Code string
	// Message is a sentence for people.
	Message string
	// Extra holds additional members of the error object (retry_after_ms, soft_logout, room_version, ...); values are plain
	// JSON-marshalable data. It never overrides errcode or error.
	Extra map[string]any
}

// Error implements the error interface.
func (e *Error) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message) }

// With returns a copy of e with one more member in the error object.
func (e *Error) With(key string, value any) *Error {
	c := *e
	c.Extra = make(map[string]any, len(e.Extra)+1)
	for k, v := range e.Extra {
		c.Extra[k] = v
	}
	c.Extra[key] = value
	return &c
}

// Errorf builds an Error.
func Errorf(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Errcodes that the specification defines and this server uses.
const (
	CodeForbidden              = "M_FORBIDDEN"
	CodeUnknownToken           = "M_UNKNOWN_TOKEN"
	CodeMissingToken           = "M_MISSING_TOKEN"
	CodeUserLocked             = "M_USER_LOCKED"
	CodeUserSuspended          = "M_USER_SUSPENDED"
	CodeUserDeactivated        = "M_USER_DEACTIVATED"
	CodeBadJSON                = "M_BAD_JSON"
	CodeNotJSON                = "M_NOT_JSON"
	CodeNotFound               = "M_NOT_FOUND"
	CodeLimitExceeded          = "M_LIMIT_EXCEEDED"
	CodeUnrecognized           = "M_UNRECOGNIZED"
	CodeUnknown                = "M_UNKNOWN"
	CodeUnauthorized           = "M_UNAUTHORIZED"
	CodeUserInUse              = "M_USER_IN_USE"
	CodeInvalidUsername        = "M_INVALID_USERNAME"
	CodeRoomInUse              = "M_ROOM_IN_USE"
	CodeInvalidRoomState       = "M_INVALID_ROOM_STATE"
	CodeUnsupportedRoomVersion = "M_UNSUPPORTED_ROOM_VERSION"
	CodeIncompatibleRoom       = "M_INCOMPATIBLE_ROOM_VERSION"
	CodeBadState               = "M_BAD_STATE"
	CodeMissingParam           = "M_MISSING_PARAM"
	CodeServerNotTrusted       = "M_SERVER_NOT_TRUSTED"
	CodeInvalidParam           = "M_INVALID_PARAM"
	CodeTooLarge               = "M_TOO_LARGE"
	CodeExclusive              = "M_EXCLUSIVE"
	CodeResourceLimit          = "M_RESOURCE_LIMIT_EXCEEDED"
	CodeBadAlias               = "M_BAD_ALIAS"
	CodeUnableToAuthoriseJoin  = "M_UNABLE_TO_AUTHORISE_JOIN"
	CodeUnableToGrantJoin      = "M_UNABLE_TO_GRANT_JOIN"
	CodeDuplicateAnnotation    = "M_DUPLICATE_ANNOTATION"
	CodeNotYetUploaded         = "M_NOT_YET_UPLOADED"
	CodeCannotOverwriteMedia   = "M_CANNOT_OVERWRITE_MEDIA"
	CodeWrongRoomKeysVersion   = "M_WRONG_ROOM_KEYS_VERSION"
	CodeProfileTooLarge        = "M_PROFILE_TOO_LARGE"
	CodeKeyTooLarge            = "M_KEY_TOO_LARGE"
	CodeInviteBlocked          = "M_INVITE_BLOCKED"
	CodeUserLimitExceeded      = "M_USER_LIMIT_EXCEEDED"
	CodeWeakPassword           = "M_WEAK_PASSWORD"
	CodeInvalidSignature       = "M_INVALID_SIGNATURE"
)

// Forbidden is 403 M_FORBIDDEN with a sentence.
func Forbidden(format string, args ...any) *Error {
	return Errorf(http.StatusForbidden, CodeForbidden, format, args...)
}

// NotFound is 404 M_NOT_FOUND with a sentence.
func NotFound(format string, args ...any) *Error {
	return Errorf(http.StatusNotFound, CodeNotFound, format, args...)
}

// BadJSON is 400 M_BAD_JSON with a sentence.
func BadJSON(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, CodeBadJSON, format, args...)
}

// InvalidParam is 400 M_INVALID_PARAM with a sentence.
func InvalidParam(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, CodeInvalidParam, format, args...)
}
