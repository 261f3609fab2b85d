package policy

import (
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// InputSchema is the version of the envelope, the member `schema` of every input.
const InputSchema = "hansa.policy/v1"

//go:generate go test -run TestGeneratedFiles -update .

// Input is the envelope that every decision gets. Members that do not apply are absent.
//
// The members Contact, Agreements, Room.Contact and Server.Agreement are facts that the engine itself establishes; callers
// leave them nil. Where they are set (a replayed or hand-written input) they are taken as they are.
type Input struct {
	// Schema is the version of this envelope.
	Schema string `json:"schema"`
	// Point is the decision point that is asked, such as `room.invite`.
	Point Point `json:"point"`
	// Time is the moment of the question, an RFC 3339 string in UTC.
	Time time.Time `json:"time"`
	// Tenant is the tenant whose rules are asked; the same question goes to each local tenant that is concerned. A caller
	// sets only the name of the tenant that was addressed; the engine fills the rest.
	Tenant Tenant `json:"tenant"`
	// Subject is who wants to do it.
	Subject *Party `json:"subject,omitempty"`
	// Target is whom it is done to, where there is such a party.
	Target *Party `json:"target,omitempty"`
	// Contact says whether subject and target may know of each other. The engine fills it.
	Contact *PairContact `json:"contact,omitempty"`
	// Agreements are the two halves of the agreement between the domains of subject and target. The engine fills it.
	Agreements *Agreements `json:"agreements,omitempty"`
	// Room is the room it happens in.
	Room *Room `json:"room,omitempty"`
	// Event is the event or to-device message that would be sent.
	Event *Event `json:"event,omitempty"`
	// Server is the other server that takes part.
	Server *Server `json:"server,omitempty"`
	// Media is the media that is uploaded or fetched.
	Media *Media `json:"media,omitempty"`
	// Account is the account that would be made or changed.
	Account *Account `json:"account,omitempty"`
	// Admin is what an admin is about to do.
	Admin *Admin `json:"admin,omitempty"`
	// Bridge is the application service that the subject belongs to. The engine fills it.
	Bridge *Bridge `json:"bridge,omitempty"`
	// Search is what is searched for.
	Search *Search `json:"search,omitempty"`
	// Request is the HTTP request behind the question.
	Request *Request `json:"request,omitempty"`
	// Tenants are the hosted tenants; only the checks of the data (package hansa.lint) get it.
	Tenants []string `json:"tenants,omitempty"`

	// Audience is who is in Room, joined or invited; the engine makes Room.Contact from it. Rules do not see it.
	Audience *Audience `json:"-"`
}

// Tenant is one hosted domain.
type Tenant struct {
	// Name is the tenant's domain.
	Name string `json:"name"`
	// Timezone is the tenant's time zone, `UTC` when nothing else is set.
	Timezone string `json:"timezone"`
}

// PairContact is the contact decision about the subject and the target of an input.
type PairContact struct {
	// Allow says whether subject may reach target.
	Allow bool `json:"allow"`
	// Reverse says whether target may reach subject.
	Reverse bool `json:"reverse"`
	// Self says whether subject and target are the same.
	Self bool `json:"self"`
}

// RoomContact is the contact decision about the newcomer (target of an invite, else subject) and everybody in the room.
type RoomContact struct {
	// Allow says whether the newcomer may be with everybody in the room.
	Allow bool `json:"allow"`
}

// Party is somebody who acts or is acted upon.
type Party struct {
	// Kind is `user`, `guest`, `bot`, `ghost`, `bridge`, `server`, `operator` (the local socket or command line) or `anonymous`.
	Kind string `json:"kind"`
	// ID is the Matrix user ID, or the server name of a server.
	ID string `json:"id"`
	// Tenant is the domain of the party, whether this deployment hosts it or not.
	Tenant string `json:"tenant"`
	// Local says whether this deployment hosts that domain.
	Local bool `json:"local"`
	// Listed says whether the tenant's whitelist names the user (true when it keeps none); absent for users hosted elsewhere.
	Listed bool `json:"listed" policy:"local"`
	// Pools are the pools the user is in, sorted.
	Pools []string `json:"pools"`
	// Groups are the groups the user's directory puts it in, sorted.
	Groups []string `json:"groups"`
	// Attributes are further facts about the user, such as department or clearance.
	Attributes map[string]string `json:"attributes"`
	// Roles are the user's roles in this deployment, such as `admin` or `auditor`, sorted.
	Roles []string `json:"roles"`
	// Bridge is the application service a ghost or bridge bot belongs to.
	Bridge *Bridge `json:"bridge,omitempty"`
	// Device is the device that the request came from.
	Device *Device `json:"device,omitempty"`
	// Network is where the request came from.
	Network *Network `json:"network,omitempty"`

	class atomic.Pointer[classRef]
	term  atomic.Pointer[ast.Term]
}

// Device is a user's device.
type Device struct {
	// ID is the device ID.
	ID string `json:"id"`
	// Verified says whether the device is signed by the user's self-signing key.
	Verified bool `json:"verified"`
}

// Network is where a request came from.
type Network struct {
	// IP is the client's address.
	IP string `json:"ip"`
	// Zone is the name the operator gave that address range.
	Zone string `json:"zone,omitempty"`
}

// Room is the room something happens in, as it is before the event, or as it is wanted (`room.create`).
type Room struct {
	// ID is the room ID, absent before the room exists.
	ID string `json:"id,omitempty"`
	// Version is the room version.
	Version string `json:"version"`
	// Type is the room's type, such as `m.space`, or empty.
	Type string `json:"type"`
	// Tenant is the domain of the room's creator.
	Tenant string `json:"tenant"`
	// Creator is the user who made the room.
	Creator string `json:"creator"`
	// JoinRule is the join rule.
	JoinRule string `json:"join_rule"`
	// HistoryVisibility is the history visibility.
	HistoryVisibility string `json:"history_visibility"`
	// Encrypted says whether the room is encrypted.
	Encrypted bool `json:"encrypted"`
	// Federate is false when the room was made with m.federate false.
	Federate bool `json:"federate"`
	// Direct says whether it is a direct chat.
	Direct bool `json:"direct"`
	// Public says whether the room stands in the public room list.
	Public bool `json:"public"`
	// Preset is the preset that was asked for (`room.create` only).
	Preset string `json:"preset,omitempty"`
	// Membership is the subject's own membership: `join`, `invite`, `knock`, `leave`, `ban` or empty.
	Membership string `json:"membership"`
	// Pools are the pools the room belongs to.
	Pools []string `json:"pools"`
	// Labels are the room's labels, such as a classification.
	Labels []string `json:"labels"`
	// Servers are the servers with a joined or invited user.
	Servers []string `json:"servers"`
	// Tenants are those of the servers that this deployment hosts.
	Tenants []string `json:"tenants"`
	// Members is the number of joined users.
	Members int `json:"members"`
	// Invites is the number of users a new room would invite (`room.create` only).
	Invites int `json:"invites,omitempty"`
	// Contact says whether the newcomer may be with everybody in the room. The engine fills it.
	Contact *RoomContact `json:"contact,omitempty"`
}

// Event is an event or to-device message, taken apart. Content is present only where the active rules read it.
type Event struct {
	// Type is the event type.
	Type string `json:"type"`
	// StateKey is the state key, absent when the event is no state event.
	StateKey *string `json:"state_key,omitempty"`
	// MsgType is the msgtype of a clear m.room.message.
	MsgType string `json:"msgtype,omitempty"`
	// Membership is the new membership of an m.room.member event.
	Membership string `json:"membership,omitempty"`
	// Value is the decisive string of a small state event (join_rule, history_visibility, guest_access, algorithm), empty when it is missing.
	Value *string `json:"value,omitempty"`
	// Size is the size of the content in bytes.
	Size int `json:"size"`
	// Encrypted says whether the event is encrypted.
	Encrypted bool `json:"encrypted"`
	// RelatesTo is the rel_type of the event's relation.
	RelatesTo string `json:"relates_to,omitempty"`
	// MimeType is the declared MIME type of a file.
	MimeType string `json:"mimetype,omitempty"`
	// Domains are the domains of the users and servers named inside the event.
	Domains []string `json:"domains"`
	// Own says whether the event that is redacted is the subject's own.
	Own bool `json:"own"`
	// AgeSeconds is the age of the event that is redacted or edited.
	AgeSeconds *int64 `json:"age_seconds,omitempty"`
	// Content is the clear content, present only if the active rules of the point read it.
	Content map[string]any `json:"content,omitempty"`
}

// Server is another Matrix server, or the host of a push gateway or of a previewed link.
type Server struct {
	// Name is the server name in lower case, with its port if it has one.
	Name string `json:"name"`
	// Local says whether this deployment hosts it.
	Local bool `json:"local"`
	// Agreement is what the asked tenant holds about this server. The engine fills it.
	Agreement *Agreement `json:"agreement,omitempty"`
}

// Media is a piece of media.
type Media struct {
	// Server is the server name in the mxc URI.
	Server string `json:"server"`
	// MimeType is the declared or detected MIME type.
	MimeType string `json:"mimetype"`
	// Size is the size in bytes.
	Size int64 `json:"size"`
	// Thumbnail says whether a thumbnail is asked for.
	Thumbnail bool `json:"thumbnail"`
}

// Account is an account that would be made or changed.
type Account struct {
	// Username is the localpart.
	Username string `json:"username"`
	// Field is what is changed: `displayname`, `avatar_url`, ... (`profile.write`), `password`, `deactivate`, `threepid`, ... (`account.manage`).
	Field string `json:"field,omitempty"`
	// Via is how: `client`, `token`, `shared_secret`, `admin`, `appservice`, `password`, `refresh`, `sso`.
	Via string `json:"via"`
	// Registration is the tenant's setting: `closed`, `token` or `open`.
	Registration string `json:"registration,omitempty"`
	// Admin says whether the account would be an admin.
	Admin bool `json:"admin"`
}

// Admin is an action with admin rights.
type Admin struct {
	// Action is the action, such as `user.lock`.
	Action string `json:"action"`
	// Tenant is the tenant that is acted upon.
	Tenant string `json:"tenant"`
	// Reason is the reason the admin gave.
	Reason string `json:"reason,omitempty"`
	// Approver is the second person who approved.
	Approver string `json:"approver,omitempty"`
}

// Bridge is an application service.
type Bridge struct {
	// ID is the id in its registration.
	ID string `json:"id"`
}

// Search is a search.
type Search struct {
	// Term is what is searched for.
	Term string `json:"term"`
}

// Request is the HTTP request behind a question.
type Request struct {
	// IP is the client's address.
	IP string `json:"ip"`
	// UserAgent is the client's user agent.
	UserAgent string `json:"user_agent"`
	// Via is the API: `client`, `federation`, `appservice`, `admin` or `internal`.
	Via string `json:"via"`
}

// Agreements are the records that two domains hold about each other.
type Agreements struct {
	// Outgoing is what the subject's domain holds about the target's.
	Outgoing *Agreement `json:"outgoing,omitempty"`
	// Incoming is what the target's domain holds about the subject's.
	Incoming *Agreement `json:"incoming,omitempty"`
}

// Agreement is the record that one domain (the owner) holds about a partner: its half of an agreement.
type Agreement struct {
	// ID is the record's id; empty when a file declares it.
	ID string `json:"id"`
	// State is `proposed`, `active`, `suspended`, `ended` or `expired`, computed for the present moment.
	State string `json:"state"`
	// Mutual says that the partner keeps records as well, so that both halves must be there.
	Mutual bool `json:"mutual"`
	// Scope is what it covers; nothing when it is absent.
	Scope *Scope `json:"scope,omitempty"`

	// Owner is the tenant that holds the record.
	Owner string `json:"-"`
	// Partner is the other domain, or `*` for any that has no record of its own.
	Partner string `json:"-"`
	// ValidFrom is when it begins to hold; zero for always.
	ValidFrom time.Time `json:"-"`
	// ValidUntil is when it ceases to hold; zero for never.
	ValidUntil time.Time `json:"-"`
}

// Scope is what an agreement covers. An empty list covers nothing.
type Scope struct {
	// Direction is who may begin, seen from the owner: `both`, `outbound` or `inbound`.
	Direction string `json:"direction"`
	// Pools are the pairs of pools that may meet, or `"*"` for everybody.
	Pools PoolPairs `json:"pools" policy:"star"`
	// Features are what may be shared (messages, media, presence, profiles, directory, calls), or `"*"` for everything.
	Features Features `json:"features" policy:"star"`
}

// PoolPair is a pool of the owner and a pool of the partner that may meet; each may be `*`.
type PoolPair struct {
	// Ours is a pool of the owner.
	Ours string `json:"ours"`
	// Theirs is a pool of the partner.
	Theirs string `json:"theirs"`
}

// PoolPairs is a list of pairs; the single pair of two stars is written `"*"`.
type PoolPairs []PoolPair

// Features is a list of features; the single feature `*` is written `"*"`.
type Features []string

// AllPools is the PoolPairs that covers everybody.
func AllPools() PoolPairs { return PoolPairs{{Ours: "*", Theirs: "*"}} }

// AllFeatures is the Features that covers everything.
func AllFeatures() Features { return Features{"*"} }

func (p PoolPairs) all() bool { return len(p) == 1 && p[0] == PoolPair{"*", "*"} }
func (f Features) all() bool  { return len(f) == 1 && f[0] == "*" }

// With returns a copy of p that carries a device and a network, for the session of one request.
func (p *Party) With(d *Device, n *Network) *Party {
	c := &Party{Kind: p.Kind, ID: p.ID, Tenant: p.Tenant, Local: p.Local, Listed: p.Listed, Pools: p.Pools, Groups: p.Groups,
		Attributes: p.Attributes, Roles: p.Roles, Bridge: p.Bridge, Device: d, Network: n}
	c.class.Store(p.class.Load())
	return c
}

// ServerParty is the party that stands for a whole server.
func ServerParty(name string, local bool) *Party {
	return &Party{Kind: "server", ID: name, Tenant: name, Local: local}
}
