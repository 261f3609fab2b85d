package adminapi

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation/agreement"
	"hansa/homeserver/account"
	"hansa/policy"
)

// ServerInfo is what GET /server answers.
type ServerInfo struct {
	Version string   `json:"version"`
	Tenants []string `json:"tenants"`
}

// TenantInfo describes a hosted domain. Nothing of it is secret.
type TenantInfo struct {
	Name         string `json:"name"`
	PublicURL    string `json:"public_url"`
	Registration string `json:"registration"`
	// KeyID and VerifyKey are the public half of the signing key.
	KeyID     string `json:"key_id"`
	VerifyKey string `json:"verify_key"`
	// Users is the number of accounts that are not closed.
	Users int64 `json:"users"`
}

// TenantList is what GET /tenants answers.
type TenantList struct {
	Tenants []TenantInfo `json:"tenants"`
}

// NewUser is the body of POST /users.
type NewUser struct {
	UserID string `json:"user_id"`
	// Password may be empty: then nobody can log in with one.
	Password    string            `json:"password,omitzero"`
	DisplayName string            `json:"display_name,omitzero"`
	Kind        string            `json:"kind,omitzero"`
	Admin       bool              `json:"admin,omitzero"`
	Listed      bool              `json:"listed,omitzero"`
	Pools       []string          `json:"pools,omitempty"`
	Groups      []string          `json:"groups,omitempty"`
	Roles       []string          `json:"roles,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
}

// UserFacts is the body of PUT /users/{user_id}/facts; members that are absent stay as they are.
type UserFacts struct {
	Kind       *string            `json:"kind,omitzero"`
	Admin      *bool              `json:"admin,omitzero"`
	Listed     *bool              `json:"listed,omitzero"`
	Pools      *[]string          `json:"pools,omitzero"`
	Groups     *[]string          `json:"groups,omitzero"`
	Roles      *[]string          `json:"roles,omitzero"`
	Attributes *map[string]string `json:"attributes,omitzero"`
}

// NewPassword is the body of POST /users/{user_id}/password. An empty password means that nobody can log in with one.
type NewPassword struct {
	Password string `json:"password"`
}

// UserList is what GET /users answers. Next is the user to go on after, empty at the end.
type UserList struct {
	Users []*account.Account `json:"users"`
	Next  string             `json:"next,omitzero"`
}

// AgreementList is what GET /agreements answers: the records that a tenant holds, and those that its partners hold about it.
type AgreementList struct {
	Agreements []agreement.Record `json:"agreements"`
}

// Question is the body of POST /policy/explain: the id of a recorded decision, or a point and who takes part.
type Question struct {
	DecisionID string       `json:"decision_id,omitzero"`
	Point      policy.Point `json:"point,omitzero"`
	Subject    string       `json:"subject,omitzero"`
	Target     string       `json:"target,omitzero"`
	// Room is an existing room. Without one, points about rooms are asked about a private room that the subject has made, with the
	// people of With in it.
	Room string   `json:"room,omitzero"`
	With []string `json:"with,omitempty"`
	// Server is another server that takes part.
	Server string `json:"server,omitzero"`
	// EventType, MsgType, MimeType and Size describe what would be sent or uploaded.
	EventType string `json:"event_type,omitzero"`
	MsgType   string `json:"msgtype,omitzero"`
	MimeType  string `json:"mimetype,omitzero"`
	Size      int64  `json:"size,omitzero"`
	// Action is the action of admin.action, policy.change and partner.change, or the field of profile.write and account.manage.
	Action string `json:"action,omitzero"`
	// IP is the address that the request would come from.
	IP string `json:"ip,omitzero"`
}

// Answer is what POST /policy/explain answers: how the question is decided now, layer by layer.
type Answer struct {
	// Recorded is the decision that was asked about.
	Recorded *Decision           `json:"recorded,omitzero"`
	Decision policy.Decision     `json:"decision"`
	Layers   []policy.LayerTrace `json:"layers"`
	// Text is the whole for people.
	Text string `json:"text,omitzero"`
}

// Decision is one record of the decision log.
type Decision struct {
	Seq    int64     `json:"seq"`
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
	Tenant string    `json:"tenant"`
	Point  string    `json:"point"`
	// Action is what an administrator did, at the points about administrators.
	Action   string          `json:"action,omitzero"`
	Revision string          `json:"revision"`
	Allow    bool            `json:"allow"`
	Subject  string          `json:"subject"`
	Target   string          `json:"target,omitzero"`
	Room     string          `json:"room,omitzero"`
	Reasons  []policy.Reason `json:"reasons"`
	Error    string          `json:"error,omitzero"`
	// Input is what was asked, without content of messages; only where one decision is asked for.
	Input jsontext.Value `json:"input,omitzero"`
}

// DecisionList is what GET /audit/decisions answers, newest first. Next is the value of before for the next page, 0 at the end.
type DecisionList struct {
	Decisions []Decision `json:"decisions"`
	Next      int64      `json:"next,omitzero"`
}

// Verification is what POST /audit/verify answers.
type Verification struct {
	// Intact says that no record was changed, removed or put in.
	Intact bool `json:"intact"`
	// Records is the number of records; only the operator is told.
	Records int64 `json:"records,omitzero"`
	// BrokenAt is the first record that does not follow from those before it.
	BrokenAt int64 `json:"broken_at,omitzero"`
}

// Reloaded is what POST /policy/reload answers.
type Reloaded struct {
	// Active says that what lies on disk is what decides now.
	Active   bool            `json:"active"`
	Revision string          `json:"revision"`
	Problems policy.Problems `json:"problems,omitempty"`
}
