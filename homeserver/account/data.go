package account

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/storage"
)

// Limits on what a user can store.
const (
	maxAccountDatum = 256 * 1024
	maxAccountData  = 64 * 1024 * 1024
	maxAccountTypes = 50_000
	maxDataType     = 255
	maxFilter       = 64 * 1024
	maxFilters      = 1000
)

// PutAccountData stores an account datum of the caller; room is empty for a global one. The content is a JSON object.
//
// spec: client-server-api#client-config
func (s *Service) PutAccountData(ctx context.Context, by Caller, user matrix.UserID, room matrix.RoomID, typ string, content jsontext.Value) error {
	if err := own(by, user); err != nil {
		return err
	}
	switch {
	case typ == "m.fully_read", typ == "m.push_rules":
		return matrix.Errorf(http.StatusMethodNotAllowed, matrix.CodeBadJSON, "%s is kept by the server and has its own way to be changed.", typ)
	case typ == "" || len(typ) > maxDataType:
		return matrix.InvalidParam("The type of account data has 1 to %d bytes.", maxDataType)
	}
	content = content.Clone()
	if content.Kind() != '{' || !content.IsValid() || content.Compact() != nil {
		return matrix.BadJSON("Account data must be a JSON object.")
	}
	if len(content) > maxAccountDatum {
		return matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "An account datum may have at most %d bytes.", maxAccountDatum)
	}
	return s.DB.UpdateShared(ctx, func(tx *storage.Tx) error {
		count, bytes, err := tx.LoadAccountDataUsage(user)
		if err != nil {
			return err
		}
		if count >= maxAccountTypes || bytes+int64(len(content)) > maxAccountData {
			return matrix.Errorf(http.StatusForbidden, matrix.CodeUserLimitExceeded, "You have stored as much account data as this server keeps for one user.")
		}
		return tx.PutAccountData(storage.AccountData{UserID: user, RoomID: room, Type: typ, Content: content})
	})
}

// GetAccountData returns an account datum of the caller; room is empty for a global one.
func (s *Service) GetAccountData(ctx context.Context, by Caller, user matrix.UserID, room matrix.RoomID, typ string) (jsontext.Value, error) {
	if err := own(by, user); err != nil {
		return nil, err
	}
	var d storage.AccountData
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		d, err = tx.LoadAccountDatum(user, room, typ)
		return err
	})
	return d.Content, find(err, "There is no such account data.")
}

// PutFilter stores a filter of the caller, which clientapi has parsed, and returns its ID. Equal filters have one ID.
//
// spec: client-server-api#filtering
func (s *Service) PutFilter(ctx context.Context, by Caller, user matrix.UserID, definition jsontext.Value) (string, error) {
	if err := own(by, user); err != nil {
		return "", err
	}
	if len(definition) > maxFilter {
		return "", matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "A filter may have at most %d bytes.", maxFilter)
	}
	canonical, err := canonicaljson.Canonicalize(definition, false)
	if err != nil || canonical[0] != '{' {
		return "", matrix.BadJSON("A filter must be a JSON object.")
	}
	h := sha256.Sum256(canonical)
	id := base64.RawURLEncoding.EncodeToString(h[:12])
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		_, err := tx.LoadFilter(user, id)
		return err
	})
	if !errors.Is(err, storage.ErrNotFound) {
		return id, err
	}
	return id, s.DB.Update(ctx, func(tx *storage.Tx) error {
		n, err := tx.CountFilters(user)
		if err != nil {
			return err
		}
		if n >= maxFilters {
			return matrix.Errorf(http.StatusForbidden, matrix.CodeUserLimitExceeded, "You have stored as many filters as this server keeps for one user.")
		}
		return tx.PutFilter(user, id, canonical)
	})
}

// GetFilter returns a filter of the caller.
func (s *Service) GetFilter(ctx context.Context, by Caller, user matrix.UserID, id string) (jsontext.Value, error) {
	if err := own(by, user); err != nil {
		return nil, err
	}
	var definition []byte
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		definition, err = tx.LoadFilter(user, id)
		return err
	})
	return definition, find(err, "There is no such filter.")
}
