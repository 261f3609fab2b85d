package matrix

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxIDLength is the longest identifier in bytes, sigil and server name included.
const MaxIDLength = 255

type (
	// ServerName is a Matrix server name: a DNS name or an IP literal, with an optional port. Names that differ in case
	// are different servers.
	ServerName string
	// UserID is `@localpart:server`.
	UserID string
	// RoomID is `!opaque:server`, or `!` and the hash of the create event from room version 12 on.
	RoomID string
	// RoomAlias is `#localpart:server`.
	RoomAlias string
	// EventID is `$opaque:server` in room versions 1 and 2, `$` and the reference hash later.
	EventID string
	// DeviceID is an opaque name that is unique within one user.
	DeviceID string
)

// ErrBadID is wrapped by every error of the Parse functions of this file.
var ErrBadID = errors.New("matrix: malformed identifier")

// ParseServerName checks the grammar of a server name. Case is kept, because servers are told apart by it.
//
// spec: appendices#server-name
func ParseServerName(s string) (ServerName, error) {
	host, port, ok := splitPort(s)
	if !ok || host == "" || len(s) > MaxIDLength {
		return "", fmt.Errorf("%w: server name %.64q", ErrBadID, s)
	}
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || len(port) > 5 {
			return "", fmt.Errorf("%w: port of server name %.64q", ErrBadID, s)
		}
	}
	if host[0] == '[' {
		a, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", fmt.Errorf("%w: IPv6 literal of server name %.64q", ErrBadID, s)
		}
		return ServerName(s), nil
	}
	for i := 0; i < len(host); i++ {
		if c := host[i]; !isAlnum(c) && c != '-' && c != '.' {
			return "", fmt.Errorf("%w: server name %.64q", ErrBadID, s)
		}
	}
	return ServerName(s), nil
}

func splitPort(s string) (host, port string, ok bool) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 3 {
			return "", "", false
		}
		host, s = s[:end+1], s[end+1:]
		if s == "" {
			return host, "", true
		}
		return host, s[1:], s[0] == ':' && len(s) > 1
	}
	host, port, found := strings.Cut(s, ":")
	return host, port, !found || port != ""
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// Host is the server name without its port.
func (s ServerName) Host() string { h, _, _ := splitPort(string(s)); return h }

// splitID checks the form that user IDs, room IDs and aliases share, in the grammar that history allows: any characters
// but `:` and NUL before the first colon, even none.
func splitID(s string, sigil byte, what string) (local string, server ServerName, err error) {
	if len(s) > MaxIDLength || len(s) < 2 || s[0] != sigil || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return "", "", fmt.Errorf("%w: %s %.80q", ErrBadID, what, s)
	}
	local, name, ok := strings.Cut(s[1:], ":")
	if !ok {
		return "", "", fmt.Errorf("%w: %s %.80q has no server name", ErrBadID, what, s)
	}
	if server, err = ParseServerName(name); err != nil {
		return "", "", err
	}
	return local, server, nil
}

// ParseUserID checks a user ID as it may occur in events: the historical grammar, which allows almost any localpart, even
// an empty one. IsCompliant tells whether it also keeps to the rules for what may be shown outside of events.
//
// spec: appendices#historical-user-ids
func ParseUserID(s string) (UserID, error) {
	if _, _, err := splitID(s, '@', "user ID"); err != nil {
		return "", err
	}
	return UserID(s), nil
}

// IsCompliant tells whether the localpart is not empty and holds visible ASCII only. User IDs that are not compliant are
// accepted in events, but not passed on to clients outside of them.
//
// spec: appendices#historical-user-ids
func (u UserID) IsCompliant() bool {
	local := u.Localpart()
	for i := 0; i < len(local); i++ {
		if local[i] < 0x21 || local[i] > 0x7e {
			return false
		}
	}
	return local != ""
}

// ParseLocalpart checks the localpart of an account that is about to be made on this server: the strict grammar
// (a-z 0-9 . _ = - / +), and short enough that the whole user ID keeps to MaxIDLength.
//
// spec: appendices#user-identifiers
func ParseLocalpart(local string, server ServerName) (UserID, error) {
	if local == "" || len(local)+len(server)+2 > MaxIDLength {
		return "", Errorf(400, CodeInvalidUsername, "The user name must have between 1 and %d characters.", MaxIDLength-2-len(server))
	}
	for i := 0; i < len(local); i++ {
		c := local[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("._=-/+", c) >= 0) {
			return "", Errorf(400, CodeInvalidUsername, "A user name may hold only a-z, 0-9 and the characters . _ = - / +")
		}
	}
	return UserID("@" + local + ":" + string(server)), nil
}

// Server is the part after the first colon.
func (u UserID) Server() ServerName { return ServerName(after(string(u))) }

// Localpart is the part between the sigil and the first colon.
func (u UserID) Localpart() string { return local(string(u)) }

// ParseRoomID checks a room ID of any version: with a server name, or 43 characters of unpadded URL-safe base64 after the
// `!`. Before the colon every character but NUL is allowed.
//
// spec: appendices#room-ids
func ParseRoomID(s string) (RoomID, error) {
	if len(s) < 2 || len(s) > MaxIDLength || s[0] != '!' || !utf8.ValidString(s) {
		return "", fmt.Errorf("%w: room ID %.80q", ErrBadID, s)
	}
	if strings.IndexByte(s, ':') < 0 {
		if !isHash(s[1:]) {
			return "", fmt.Errorf("%w: room ID %.80q has neither a server name nor the form of a hash", ErrBadID, s)
		}
		return RoomID(s), nil
	}
	if _, _, err := splitID(s, '!', "room ID"); err != nil {
		return "", err
	}
	return RoomID(s), nil
}

func isHash(s string) bool {
	if len(s) != 43 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Server is the server name inside the room ID, empty from room version 12 on.
func (r RoomID) Server() ServerName { return ServerName(after(string(r))) }

// ParseRoomAlias checks a room alias.
//
// spec: appendices#room-aliases
func ParseRoomAlias(s string) (RoomAlias, error) {
	local, _, err := splitID(s, '#', "room alias")
	if err != nil {
		return "", err
	}
	if local == "" {
		return "", fmt.Errorf("%w: room alias %.80q has an empty localpart", ErrBadID, s)
	}
	return RoomAlias(s), nil
}

// Server is the part after the first colon.
func (a RoomAlias) Server() ServerName { return ServerName(after(string(a))) }

// Localpart is the part between the sigil and the first colon.
func (a RoomAlias) Localpart() string { return local(string(a)) }

// ParseEventID checks an event ID of any room version.
//
// spec: appendices#event-ids
func ParseEventID(s string) (EventID, error) {
	if len(s) < 2 || len(s) > MaxIDLength || s[0] != '$' || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return "", fmt.Errorf("%w: event ID %.80q", ErrBadID, s)
	}
	return EventID(s), nil
}

// Server is the server name inside an event ID of room versions 1 and 2, else empty.
func (e EventID) Server() ServerName { return ServerName(after(string(e))) }

func after(s string) string {
	if i := strings.IndexByte(s, ':'); i >= 0 {
		return s[i+1:]
	}
	return ""
}

func local(s string) string {
	if i := strings.IndexByte(s, ':'); i > 0 {
		return s[1:i]
	}
	return ""
}
