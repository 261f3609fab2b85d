package account

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// The members of a profile that the specification knows.
const (
	FieldDisplayName = "displayname"
	FieldAvatarURL   = "avatar_url"
	FieldTimezone    = "m.tz"
)

const (
	// maxProfile is the largest profile, as JSON, in bytes; maxField the longest name of a member.
	maxProfile = 64 * 1024
	maxField   = 255
	// maxDisplayName and maxAvatarURL are limits of ours: both are copied into every room.
	maxDisplayName = 512
	maxAvatarURL   = 1024
)

var fieldRE = regexp.MustCompile(`^(?:avatar_url|displayname|m\.tz|[a-z][a-z0-9_-]*(?:\.[a-z][a-z0-9_-]*)+)$`)

// Profile is what users say of themselves: a JSON value for each member.
type Profile map[string]jsontext.Value

// String returns a member that is a string, else the empty one.
func (p Profile) String(field string) string {
	var s string
	if v, ok := p[field]; !ok || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// quote is a string as JSON.
func quote(s string) jsontext.Value {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		return jsontext.Value(`""`) // not UTF-8, which the callers refuse
	}
	return b
}

func checkDisplayName(name string) error {
	if len(name) > maxDisplayName || !utf8.ValidString(name) {
		return matrix.InvalidParam("A display name may have at most %d bytes.", maxDisplayName)
	}
	return nil
}

// checkField refuses what cannot be the name of a member.
func checkField(field string) error {
	if len(field) > maxField {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeKeyTooLarge, "The name of a profile field may have at most %d bytes.", maxField)
	}
	if !fieldRE.MatchString(field) {
		return matrix.InvalidParam("This is no name of a profile field.")
	}
	return nil
}

// checkValue checks the value of a member and brings it into its shortest form. An empty display name or avatar means none: remove.
func checkValue(field string, raw jsontext.Value) (value jsontext.Value, remove bool, err error) {
	value = raw.Clone()
	if !value.IsValid() || value.Compact() != nil {
		return nil, false, matrix.BadJSON("The value of the profile field is not JSON.")
	}
	if field != FieldDisplayName && field != FieldAvatarURL && field != FieldTimezone {
		return value, false, nil
	}
	var text string
	if value.Kind() != '"' || json.Unmarshal(value, &text) != nil {
		return nil, false, matrix.BadJSON("The profile field %s must be a string.", field)
	}
	switch {
	case text == "":
		return nil, true, nil
	case field == FieldDisplayName:
		err = checkDisplayName(text)
	case field == FieldAvatarURL && (len(text) > maxAvatarURL || !isMXC(text)):
		err = matrix.InvalidParam("An avatar must be an mxc:// URI of at most %d bytes.", maxAvatarURL)
	case field == FieldTimezone && len(text) > maxField:
		err = matrix.InvalidParam("A time zone is a name from the IANA database.")
	}
	return value, false, err
}

func isMXC(s string) bool {
	rest, ok := strings.CutPrefix(s, "mxc://")
	server, media, found := strings.Cut(rest, "/")
	if !ok || !found || media == "" || strings.ContainsAny(media, "/?#") {
		return false
	}
	_, err := matrix.ParseServerName(server)
	return err == nil
}

// ReadProfile returns the profile of a user to somebody who may see it. field names one member, empty means all of them.
// To a caller who may not, the user is as absent as one who does not exist.
//
// spec: client-server-api#profiles
func (s *Service) ReadProfile(ctx context.Context, by Caller, target matrix.UserID, field string) (Profile, error) {
	if field != "" {
		if err := checkField(field); err != nil {
			return nil, err
		}
	}
	if by.Session == nil {
		return nil, matrix.Errorf(http.StatusUnauthorized, matrix.CodeMissingToken, "An access token is needed.")
	}
	d := policy.Decision{Allow: true}
	if target != by.UserID {
		party, err := s.Party(ctx, target)
		if err != nil {
			return nil, err
		}
		d = s.Policy.Decide(ctx, &policy.Input{Schema: policy.InputSchema, Point: policy.ProfileRead, Time: s.Now(), Tenant: policy.Tenant{Name: string(by.Tenant)},
			Subject: by.Party, Target: party, Request: by.Client.request("client")})
	}
	unknown := d.NotFound("There is no such user, or you may not know of them.")
	if !d.Allow {
		return nil, unknown
	}
	if !s.IsLocal(target.Server()) {
		return s.fetchProfile(ctx, by.Tenant, target, field, unknown)
	}
	p, err := s.LoadProfile(ctx, target)
	absent := asMatrix(err)
	if absent != nil && absent.Code == matrix.CodeNotFound && s.AskUser != nil && by.Tenant == target.Server() && s.AskUser(ctx, by.Party, target) {
		p, err = s.LoadProfile(ctx, target)
		absent = asMatrix(err)
	}
	if absent != nil && absent.Code == matrix.CodeNotFound {
		err = unknown
	}
	if err != nil || field == "" {
		return p, err
	}
	v, ok := p[field]
	if !ok {
		return nil, matrix.NotFound("This profile has no such field.")
	}
	return Profile{field: v}, nil
}

// LoadProfile returns the profile of a local user, whoever asks: for what the server itself writes into rooms, and for callers that
// have asked the policy. A user without an account, or with a closed one, is not found.
func (s *Service) LoadProfile(ctx context.Context, user matrix.UserID) (Profile, error) {
	p := Profile{}
	err := s.DB.View(ctx, func(tx *storage.Tx) error {
		u, err := tx.LoadUser(user)
		if err != nil {
			return err
		}
		if u.Deactivated {
			return storage.ErrNotFound
		}
		list, err := tx.LoadProfiles([]matrix.UserID{user})
		for _, f := range list {
			p[f.Field] = f.Value
		}
		return err
	})
	if err != nil {
		return nil, find(err, "There is no such user.")
	}
	return p, nil
}

// LoadProfiles returns the display names and avatars of local users, whoever asks. Users without any are left out.
func (s *Service) LoadProfiles(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]Profile, error) {
	out := map[matrix.UserID]Profile{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadProfiles(users, FieldDisplayName, FieldAvatarURL)
		for _, f := range list {
			if out[f.UserID] == nil {
				out[f.UserID] = Profile{}
			}
			out[f.UserID][f.Field] = f.Value
		}
		return err
	})
	return out, err
}

// SetProfile sets a member of the caller's profile to a JSON value.
func (s *Service) SetProfile(ctx context.Context, by Caller, user matrix.UserID, field string, given jsontext.Value) error {
	if err := own(by, user); err != nil {
		return err
	}
	if err := checkField(field); err != nil {
		return err
	}
	value, remove, err := checkValue(field, given)
	if err != nil {
		return err
	}
	if remove {
		return s.DeleteProfile(ctx, by, user, field)
	}
	return s.writeProfile(ctx, by, user, field, func(tx *storage.Tx) error {
		list, err := tx.LoadProfiles([]matrix.UserID{user})
		if err != nil {
			return err
		}
		size := 2 + len(field) + 4 + len(value) // {"field":value,
		for _, f := range list {
			if f.Field != field {
				size += len(f.Field) + 4 + len(f.Value)
			}
		}
		if size > maxProfile {
			return matrix.Errorf(http.StatusBadRequest, matrix.CodeProfileTooLarge, "A profile may have at most %d bytes.", maxProfile)
		}
		return tx.SetProfileField(storage.ProfileField{UserID: user, Field: field, Value: value})
	})
}

// DeleteProfile removes a member of the caller's profile. It is fine if there is none.
func (s *Service) DeleteProfile(ctx context.Context, by Caller, user matrix.UserID, field string) error {
	if err := checkField(field); err != nil {
		return err
	}
	return s.writeProfile(ctx, by, user, field, func(tx *storage.Tx) error {
		_, err := tx.DeleteProfileField(user, field)
		return err
	})
}

// writeProfile asks whether the caller may change the field, changes it and says so. Member events and presence follow the notice.
//
// spec: client-server-api#events-on-change-of-profile-information
func (s *Service) writeProfile(ctx context.Context, by Caller, user matrix.UserID, field string, fn func(*storage.Tx) error) error {
	if err := own(by, user); err != nil {
		return err
	}
	if err := by.CheckWrite(); err != nil {
		return err
	}
	if err := s.act(ctx, by, policy.ProfileWrite, &policy.Account{Username: user.Localpart(), Field: field, Via: "client"}); err != nil {
		return err
	}
	return s.DB.UpdateShared(ctx, func(tx *storage.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Announce(storage.NoticeProfile, string(user))
	})
}
