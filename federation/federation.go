// Package federation holds the shapes that servers exchange: transactions, templates of membership events, answers to joins, knocks
// and invites, states, and keys of devices.
//
// Both ends use them, fedclient and fedserver, and so do the services that make or read their parts. An event inside is the raw JSON
// as it stood on the wire (jsontext.Value): what it means, and whether its hash and its signatures hold, is decided by homeserver/room
// alone. Members of objects that the specification leaves free are raw too. Limits that both ends keep to are constants here.
//
// The package has no behaviour beyond reading and writing JSON, and imports nothing but matrix.
//
// spec: server-server-api#transactions
// spec: server-server-api#pdus
// spec: server-server-api#edus
package federation

import (
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// The limits of one transaction.
//
// spec: server-server-api#transactions
const (
	MaxPDUs = 50
	MaxEDUs = 100
)

// The types of EDUs.
//
// spec: server-server-api#edus
const (
	EDUTyping     = "m.typing"
	EDUReceipt    = "m.receipt"
	EDUPresence   = "m.presence"
	EDUToDevice   = "m.direct_to_device"
	EDUDeviceList = "m.device_list_update"
	EDUSigningKey = "m.signing_key_update"
)

// Transaction is the body of PUT /send/{txnId}.
//
// spec: server-server-api#put_matrixfederationv1sendtxnid
type Transaction struct {
	Origin         matrix.ServerName `json:"origin"`
	OriginServerTS int64             `json:"origin_server_ts"`
	PDUs           []jsontext.Value  `json:"pdus"`
	EDUs           []EDU             `json:"edus,omitempty"`
}

// EDU is one ephemeral message between servers.
//
// spec: server-server-api#edus
type EDU struct {
	Type    string         `json:"edu_type"`
	Content jsontext.Value `json:"content"`
}

// TransactionAnswer is the answer to a transaction: one entry for each PDU, by event ID.
type TransactionAnswer struct {
	PDUs map[matrix.EventID]PDUResult `json:"pdus"`
}

// PDUResult says what became of one PDU; Error is empty where it was dealt with.
type PDUResult struct {
	Error string `json:"error,omitempty"`
}

// Template is the answer to make_join, make_leave and make_knock: an event that the asking server fills in and signs.
// It never signs the template as it came, but an event of its own with those fields that only the resident server knows.
//
// spec: server-server-api#joining-rooms
type Template struct {
	RoomVersion string         `json:"room_version,omitempty"`
	Event       jsontext.Value `json:"event"`
}

// JoinAnswer is the answer to send_join.
//
// spec: server-server-api#put_matrixfederationv2send_joinroomideventid
type JoinAnswer struct {
	// Event is the join with the signature of the resident server, where it is a restricted join.
	Event          jsontext.Value      `json:"event,omitempty"`
	State          []jsontext.Value    `json:"state"`
	AuthChain      []jsontext.Value    `json:"auth_chain"`
	MembersOmitted bool                `json:"members_omitted,omitzero"`
	ServersInRoom  []matrix.ServerName `json:"servers_in_room,omitempty"`
}

// KnockAnswer is the answer to send_knock.
//
// spec: server-server-api#put_matrixfederationv1send_knockroomideventid
type KnockAnswer struct {
	KnockRoomState []jsontext.Value `json:"knock_room_state"`
}

// Invite is the body of PUT /v2/invite.
//
// spec: server-server-api#put_matrixfederationv2inviteroomideventid
type Invite struct {
	RoomVersion     string           `json:"room_version"`
	Event           jsontext.Value   `json:"event"`
	InviteRoomState []jsontext.Value `json:"invite_room_state,omitempty"`
}

// InviteAnswer is the answer to an invite: the event with the signature of the invited server.
type InviteAnswer struct {
	Event jsontext.Value `json:"event"`
}

// StateIDs is the answer to state_ids.
//
// spec: server-server-api#get_matrixfederationv1state_idsroomid
type StateIDs struct {
	PDUIDs       []matrix.EventID `json:"pdu_ids"`
	AuthChainIDs []matrix.EventID `json:"auth_chain_ids"`
}

// MissingRequest is the body of POST /get_missing_events.
//
// spec: server-server-api#post_matrixfederationv1get_missing_eventsroomid
type MissingRequest struct {
	EarliestEvents []matrix.EventID `json:"earliest_events"`
	LatestEvents   []matrix.EventID `json:"latest_events"`
	Limit          int              `json:"limit,omitzero"`
	MinDepth       int64            `json:"min_depth,omitzero"`
}

// MissingAnswer is the answer to get_missing_events.
type MissingAnswer struct {
	Events []jsontext.Value `json:"events"`
}

// AliasAnswer is the answer to query/directory.
//
// spec: server-server-api#get_matrixfederationv1querydirectory
type AliasAnswer struct {
	RoomID  matrix.RoomID       `json:"room_id"`
	Servers []matrix.ServerName `json:"servers"`
}

// Hierarchy is the answer to hierarchy: a room, those in it, and those in it that the asking server could not enter.
//
// spec: server-server-api#get_matrixfederationv1hierarchyroomid
type Hierarchy struct {
	Room                 jsontext.Value   `json:"room"`
	Children             []jsontext.Value `json:"children"`
	InaccessibleChildren []matrix.RoomID  `json:"inaccessible_children"`
}

// PublicRoomsRequest is the body of POST /publicRooms.
//
// spec: server-server-api#post_matrixfederationv1publicrooms
type PublicRoomsRequest struct {
	Limit                int                `json:"limit,omitzero"`
	Since                string             `json:"since,omitempty"`
	Filter               *PublicRoomsFilter `json:"filter,omitempty"`
	IncludeAllNetworks   bool               `json:"include_all_networks,omitzero"`
	ThirdPartyInstanceID string             `json:"third_party_instance_id,omitempty"`
}

// PublicRoomsFilter narrows a list of rooms. A nil entry of RoomTypes stands for rooms without a type.
type PublicRoomsFilter struct {
	GenericSearchTerm string    `json:"generic_search_term,omitempty"`
	RoomTypes         []*string `json:"room_types,omitempty"`
}

// PublicRoomsAnswer is a page of published rooms.
type PublicRoomsAnswer struct {
	Chunk                  []jsontext.Value `json:"chunk"`
	NextBatch              string           `json:"next_batch,omitempty"`
	PrevBatch              string           `json:"prev_batch,omitempty"`
	TotalRoomCountEstimate int64            `json:"total_room_count_estimate,omitzero"`
}

// Version is the answer to GET /version.
type Version struct {
	Server struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"server"`
}
