package account

import (
	"context"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/storage"
)

const (
	typeTag = "m.tag"
	maxTag  = 255
)

// tagged is the content of m.tag. Members that are not the server's to know stay as they are.
type tagged struct {
	Tags map[string]jsontext.Value `json:"tags"`
	Rest jsontext.Value            `json:",embed"`
}

// parseTags reads a stored m.tag. Clients may write it as account data too; what has the wrong form counts as no tags.
func parseTags(content []byte) tagged {
	var t tagged
	if len(content) > 0 && json.Unmarshal(content, &t) != nil {
		t = tagged{}
	}
	if t.Tags == nil {
		t.Tags = map[string]jsontext.Value{}
	}
	return t
}

// Tags returns the tags that the caller has given to a room: an object of the tags' names.
//
// spec: client-server-api#get_matrixclientv3useruseridroomsroomidtags
func (s *Service) Tags(ctx context.Context, by Caller, user matrix.UserID, room matrix.RoomID) (map[string]jsontext.Value, error) {
	if err := own(by, user); err != nil {
		return nil, err
	}
	var d storage.AccountData
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		d, err = tx.LoadAccountDatum(user, room, typeTag)
		return err
	})
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	return parseTags(d.Content).Tags, nil
}

// PutTag gives a room a tag, or changes what the tag says.
//
// spec: client-server-api#put_matrixclientv3useruseridroomsroomidtagstag
func (s *Service) PutTag(ctx context.Context, by Caller, user matrix.UserID, room matrix.RoomID, tag string, content jsontext.Value) error {
	if err := own(by, user); err != nil {
		return err
	}
	if tag == "" || len(tag) > maxTag || !utf8.ValidString(tag) {
		return matrix.InvalidParam("The name of a tag has 1 to %d bytes.", maxTag)
	}
	content = content.Clone()
	if content.Kind() != '{' || content.Compact() != nil {
		return matrix.BadJSON("A tag must be a JSON object.")
	}
	return s.changeTags(ctx, user, room, func(tags map[string]jsontext.Value) bool {
		if old, ok := tags[tag]; ok && string(old) == string(content) {
			return false
		}
		tags[tag] = content
		return true
	})
}

// DeleteTag takes a tag off a room. A tag that is not there is no error.
//
// spec: client-server-api#delete_matrixclientv3useruseridroomsroomidtagstag
func (s *Service) DeleteTag(ctx context.Context, by Caller, user matrix.UserID, room matrix.RoomID, tag string) error {
	if err := own(by, user); err != nil {
		return err
	}
	return s.changeTags(ctx, user, room, func(tags map[string]jsontext.Value) bool {
		_, ok := tags[tag]
		delete(tags, tag)
		return ok
	})
}

// changeTags reads, changes and writes the tags of a room in one transaction. fn says whether it changed anything.
func (s *Service) changeTags(ctx context.Context, user matrix.UserID, room matrix.RoomID, fn func(map[string]jsontext.Value) bool) error {
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		return tx.ChangeAccountData(user, room, typeTag, func(old []byte) ([]byte, error) {
			t := parseTags(old)
			if !fn(t.Tags) {
				return nil, nil
			}
			content, err := json.Marshal(t, json.Deterministic(true))
			if err != nil {
				return nil, err
			}
			if len(content) > maxAccountDatum {
				return nil, matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "The tags of a room may have at most %d bytes.", maxAccountDatum)
			}
			count, bytes, err := tx.LoadAccountDataUsage(user)
			if err == nil && len(content) > len(old) && (count >= maxAccountTypes || bytes+int64(len(content)-len(old)) > maxAccountData) {
				err = matrix.Errorf(http.StatusForbidden, matrix.CodeUserLimitExceeded, "You have stored as much account data as this server keeps for one user.")
			}
			return content, err
		})
	})
}
