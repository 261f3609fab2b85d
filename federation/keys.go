package federation

import (
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// Devices is the answer to user/devices.
//
// spec: server-server-api#get_matrixfederationv1userdevicesuserid
type Devices struct {
	UserID         matrix.UserID  `json:"user_id"`
	StreamID       int64          `json:"stream_id"`
	Devices        []Device       `json:"devices"`
	MasterKey      jsontext.Value `json:"master_key,omitempty"`
	SelfSigningKey jsontext.Value `json:"self_signing_key,omitempty"`
}

// Device is one device of a user with its keys as the client signed them.
type Device struct {
	DeviceID    matrix.DeviceID `json:"device_id"`
	Keys        jsontext.Value  `json:"keys"`
	DisplayName string          `json:"device_display_name,omitempty"`
}

// DeviceListUpdate is the content of m.device_list_update.
//
// spec: server-server-api#device-management
type DeviceListUpdate struct {
	UserID      matrix.UserID   `json:"user_id"`
	DeviceID    matrix.DeviceID `json:"device_id"`
	DisplayName string          `json:"device_display_name,omitempty"`
	StreamID    int64           `json:"stream_id"`
	PrevID      []int64         `json:"prev_id,omitempty"`
	Deleted     bool            `json:"deleted,omitzero"`
	Keys        jsontext.Value  `json:"keys,omitempty"`
}

// SigningKeyUpdate is the content of m.signing_key_update.
//
// spec: server-server-api#end-to-end-encryption
type SigningKeyUpdate struct {
	UserID         matrix.UserID  `json:"user_id"`
	MasterKey      jsontext.Value `json:"master_key,omitempty"`
	SelfSigningKey jsontext.Value `json:"self_signing_key,omitempty"`
}

// ToDevice is the content of m.direct_to_device.
//
// spec: server-server-api#send-to-device-messaging
type ToDevice struct {
	Sender    matrix.UserID                                        `json:"sender"`
	Type      string                                               `json:"type"`
	MessageID string                                               `json:"message_id"`
	Messages  map[matrix.UserID]map[matrix.DeviceID]jsontext.Value `json:"messages"`
}

// KeysQuery is the body of POST /user/keys/query; no device stands for all.
//
// spec: server-server-api#post_matrixfederationv1userkeysquery
type KeysQuery struct {
	DeviceKeys map[matrix.UserID][]matrix.DeviceID `json:"device_keys"`
}

// KeysAnswer is the answer to POST /user/keys/query.
type KeysAnswer struct {
	DeviceKeys      map[matrix.UserID]map[matrix.DeviceID]jsontext.Value `json:"device_keys"`
	MasterKeys      map[matrix.UserID]jsontext.Value                     `json:"master_keys,omitempty"`
	SelfSigningKeys map[matrix.UserID]jsontext.Value                     `json:"self_signing_keys,omitempty"`
}

// KeysClaim is the body of POST /user/keys/claim: which algorithm of one-time key is wanted for each device.
//
// spec: server-server-api#post_matrixfederationv1userkeysclaim
type KeysClaim struct {
	OneTimeKeys map[matrix.UserID]map[matrix.DeviceID]string `json:"one_time_keys"`
}

// ClaimAnswer is the answer to POST /user/keys/claim.
type ClaimAnswer struct {
	OneTimeKeys map[matrix.UserID]map[matrix.DeviceID]map[string]jsontext.Value `json:"one_time_keys"`
}

// ServerKeys is the answer to /_matrix/key/v2/server.
//
// spec: server-server-api#get_matrixkeyv2server
type ServerKeys struct {
	ServerName    matrix.ServerName       `json:"server_name"`
	VerifyKeys    map[string]VerifyKey    `json:"verify_keys"`
	OldVerifyKeys map[string]OldVerifyKey `json:"old_verify_keys"`
	ValidUntilTS  int64                   `json:"valid_until_ts"`
	Signatures    jsontext.Value          `json:"signatures,omitempty"`
}

// VerifyKey is a key that a server signs requests and events with.
type VerifyKey struct {
	Key string `json:"key"`
}

// OldVerifyKey is a key that a server has signed events with until ExpiredTS.
type OldVerifyKey struct {
	Key       string `json:"key"`
	ExpiredTS int64  `json:"expired_ts"`
}

// KeyCriteria says which key of a server somebody wants of a notary, and how long it should at least be valid.
//
// spec: server-server-api#post_matrixkeyv2query
type KeyCriteria struct {
	MinimumValidUntilTS int64 `json:"minimum_valid_until_ts,omitzero"`
}

// KeyQuery is the body of POST /_matrix/key/v2/query; a server without key IDs stands for all of its keys.
type KeyQuery struct {
	ServerKeys map[matrix.ServerName]map[string]KeyCriteria `json:"server_keys"`
}

// KeyQueryAnswer is the answer of a notary: answers of servers, signed by the notary too.
type KeyQueryAnswer struct {
	ServerKeys []jsontext.Value `json:"server_keys"`
}
