package fedclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
)

// Profile asks for the profile of a user of the peer; field is empty for all of it. The answer is an object with the fields.
//
// spec: server-server-api#get_matrixfederationv1queryprofile
func (c *Client) Profile(ctx context.Context, as, to matrix.ServerName, user matrix.UserID, field string) (map[string]jsontext.Value, error) {
	q := url.Values{"user_id": {string(user)}}
	if field != "" {
		q.Set("field", field)
	}
	out := map[string]jsontext.Value{}
	err := c.get(ctx, call{name: "profile", as: as, to: to, method: http.MethodGet, path: query(path("v1", "query", "profile"), q), max: maxSmall, timeout: quickTimeout}, &out)
	return out, err
}

// Alias asks which room an alias of the peer stands for, and which servers are in it.
//
// spec: server-server-api#get_matrixfederationv1querydirectory
func (c *Client) Alias(ctx context.Context, as, to matrix.ServerName, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	var a federation.AliasAnswer
	err := c.get(ctx, call{name: "alias", as: as, to: to, method: http.MethodGet, path: query(path("v1", "query", "directory"), url.Values{"room_alias": {string(alias)}}), max: maxSmall, timeout: quickTimeout}, &a)
	if err != nil {
		return "", nil, err
	}
	room, err := matrix.ParseRoomID(string(a.RoomID))
	if err != nil {
		return "", nil, unreadable(to, err)
	}
	var servers []matrix.ServerName
	for _, s := range a.Servers {
		if name, err := matrix.ParseServerName(string(s)); err == nil {
			servers = append(servers, name)
		}
	}
	return room, servers, nil
}

// PublicRooms asks for a page of the peer's published rooms.
//
// spec: server-server-api#post_matrixfederationv1publicrooms
func (c *Client) PublicRooms(ctx context.Context, as, to matrix.ServerName, q federation.PublicRoomsRequest) (*federation.PublicRoomsAnswer, error) {
	a := &federation.PublicRoomsAnswer{}
	err := c.get(ctx, call{name: "public_rooms", as: as, to: to, method: http.MethodPost, path: path("v1", "publicRooms"), body: q, max: maxEvents, timeout: quickTimeout, repeat: true}, a)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Hierarchy asks about a space of the peer and the rooms in it. The answer is raw: room, children and inaccessible_children.
//
// spec: server-server-api#get_matrixfederationv1hierarchyroomid
func (c *Client) Hierarchy(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, suggestedOnly bool) (jsontext.Value, error) {
	out := jsontext.Value{}
	err := c.get(ctx, call{name: "hierarchy", as: as, to: to, method: http.MethodGet,
		path: query(path("v1", "hierarchy", string(room)), url.Values{"suggested_only": {strconv.FormatBool(suggestedOnly)}}), max: maxEvents, timeout: quickTimeout}, &out)
	return out, err
}

// TimestampToEvent asks for the event that is closest to a time, in direction f or b.
//
// spec: server-server-api#get_matrixfederationv1timestamp_to_eventroomid
func (c *Client) TimestampToEvent(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, at time.Time, direction string) (matrix.EventID, time.Time, error) {
	var a struct {
		EventID        string `json:"event_id"`
		OriginServerTS int64  `json:"origin_server_ts"`
	}
	q := url.Values{"ts": {strconv.FormatInt(at.UnixMilli(), 10)}, "dir": {direction}}
	err := c.get(ctx, call{name: "timestamp_to_event", as: as, to: to, method: http.MethodGet, path: query(path("v1", "timestamp_to_event", string(room)), q), max: maxSmall, timeout: quickTimeout}, &a)
	if err != nil {
		return "", time.Time{}, err
	}
	id, err := matrix.ParseEventID(a.EventID)
	if err != nil {
		return "", time.Time{}, unreadable(to, err)
	}
	return id, time.UnixMilli(a.OriginServerTS), nil
}

// Devices asks for the devices of a user of the peer.
//
// spec: server-server-api#get_matrixfederationv1userdevicesuserid
func (c *Client) Devices(ctx context.Context, as, to matrix.ServerName, user matrix.UserID) (*federation.Devices, error) {
	a := &federation.Devices{}
	err := c.get(ctx, call{name: "devices", as: as, to: to, method: http.MethodGet, path: path("v1", "user", "devices", string(user)), max: maxEvents, timeout: quickTimeout}, a)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// QueryKeys asks for the keys of users of the peer.
//
// spec: server-server-api#post_matrixfederationv1userkeysquery
func (c *Client) QueryKeys(ctx context.Context, as, to matrix.ServerName, q federation.KeysQuery) (*federation.KeysAnswer, error) {
	a := &federation.KeysAnswer{}
	err := c.get(ctx, call{name: "keys_query", as: as, to: to, method: http.MethodPost, path: path("v1", "user", "keys", "query"), body: q, max: 4 * maxEvents, timeout: quickTimeout, repeat: true}, a)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// ClaimKeys takes one-time keys of devices of the peer.
//
// spec: server-server-api#post_matrixfederationv1userkeysclaim
func (c *Client) ClaimKeys(ctx context.Context, as, to matrix.ServerName, q federation.KeysClaim) (*federation.ClaimAnswer, error) {
	a := &federation.ClaimAnswer{}
	err := c.get(ctx, call{name: "keys_claim", as: as, to: to, method: http.MethodPost, path: path("v1", "user", "keys", "claim"), body: q, max: maxEvents, timeout: quickTimeout}, a)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Version asks what software the peer runs.
//
// spec: server-server-api#get_matrixfederationv1version
func (c *Client) Version(ctx context.Context, as, to matrix.ServerName) (*federation.Version, error) {
	a := &federation.Version{}
	err := c.get(ctx, call{name: "version", as: as, to: to, method: http.MethodGet, path: path("v1", "version"), max: maxSmall, timeout: quickTimeout}, a)
	if err != nil {
		return nil, err
	}
	return a, nil
}
