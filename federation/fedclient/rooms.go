package fedclient

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
)

// Send delivers a transaction and returns what the peer says is wrong with single PDUs.
//
// spec: server-server-api#put_matrixfederationv1sendtxnid
func (c *Client) Send(ctx context.Context, as, to matrix.ServerName, txnID string, t federation.Transaction) (map[matrix.EventID]string, error) {
	return c.send(ctx, as, to, txnID, t, false)
}

// SendParting is Send for a transaction that only says who was taken out of rooms.
func (c *Client) SendParting(ctx context.Context, as, to matrix.ServerName, txnID string, t federation.Transaction) (map[matrix.EventID]string, error) {
	return c.send(ctx, as, to, txnID, t, true)
}

func (c *Client) send(ctx context.Context, as, to matrix.ServerName, txnID string, t federation.Transaction, leave bool) (map[matrix.EventID]string, error) {
	var in federation.TransactionAnswer
	b, err := c.do(ctx, call{name: "send", as: as, to: to, method: http.MethodPut, path: path("v1", "send", txnID), body: t, max: maxSmall, timeout: maxTxnTime, always: true, leave: leave})
	if err != nil {
		return nil, err
	}
	bad := map[matrix.EventID]string{}
	if json.Unmarshal(b, &in) != nil {
		return bad, nil // the peer has taken it, which is what counts
	}
	for id, r := range in.PDUs {
		if r.Error != "" {
			bad[id] = r.Error
		}
	}
	return bad, nil
}

func (c *Client) template(ctx context.Context, as, to matrix.ServerName, verb string, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error) {
	var q url.Values
	if len(versions) > 0 {
		q = url.Values{"ver": versions}
	}
	t := &federation.Template{}
	err := c.get(ctx, call{name: verb, as: as, to: to, method: http.MethodGet, path: query(path("v1", verb, string(room), string(user)), q), max: maxSmall, timeout: usualTimeout,
		leave: verb == "make_leave"}, t)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// MakeJoin asks for the template of a join.
//
// spec: server-server-api#get_matrixfederationv1make_joinroomiduserid
func (c *Client) MakeJoin(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error) {
	return c.template(ctx, as, to, "make_join", room, user, versions)
}

// MakeLeave asks for the template of a leave.
//
// spec: server-server-api#get_matrixfederationv1make_leaveroomiduserid
func (c *Client) MakeLeave(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID) (*federation.Template, error) {
	return c.template(ctx, as, to, "make_leave", room, user, nil)
}

// MakeKnock asks for the template of a knock.
//
// spec: server-server-api#get_matrixfederationv1make_knockroomiduserid
func (c *Client) MakeKnock(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error) {
	return c.template(ctx, as, to, "make_knock", room, user, versions)
}

// SendJoin hands in a signed join and returns the room's state, read piece by piece.
//
// spec: server-server-api#put_matrixfederationv2send_joinroomideventid
func (c *Client) SendJoin(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) (*federation.JoinAnswer, error) {
	s, err := c.stream(ctx, call{name: "send_join", as: as, to: to, method: http.MethodPut, path: path("v2", "send_join", string(room), string(id)) + "?omit_members=false",
		body: jsontext.Value(event), max: maxState, timeout: longTimeout})
	if err != nil {
		return nil, err
	}
	a := &federation.JoinAnswer{}
	r := newReader(s.Body, &c.held)
	defer r.done()
	var state, auth [][]byte
	err = r.object(func(name string) (bool, error) {
		switch name {
		case "state":
			return true, r.events(maxStateEvents, &state)
		case "auth_chain":
			return true, r.events(maxStateEvents, &auth)
		case "event":
			return true, r.value((*[]byte)(&a.Event))
		case "members_omitted":
			var b []byte
			err := r.value(&b)
			a.MembersOmitted = bytes.Equal(b, []byte("true"))
			return true, err
		case "servers_in_room":
			return true, r.strings(maxStateEvents, func(s string) {
				if name, err := matrix.ParseServerName(s); err == nil {
					a.ServersInRoom = append(a.ServersInRoom, name)
				}
			})
		}
		return false, nil
	})
	if cerr := s.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, unreadable(to, err)
	}
	a.State, a.AuthChain = values(state), values(auth)
	return a, nil
}

func values(list [][]byte) []jsontext.Value {
	out := make([]jsontext.Value, len(list))
	for i, b := range list {
		out[i] = b
	}
	return out
}

// SendLeave hands in a signed leave.
//
// spec: server-server-api#put_matrixfederationv2send_leaveroomideventid
func (c *Client) SendLeave(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) error {
	_, err := c.do(ctx, call{name: "send_leave", as: as, to: to, method: http.MethodPut, path: path("v2", "send_leave", string(room), string(id)),
		body: jsontext.Value(event), max: maxSmall, timeout: usualTimeout, leave: true})
	return err
}

// SendKnock hands in a signed knock and returns the stripped state of the room.
//
// spec: server-server-api#put_matrixfederationv1send_knockroomideventid
func (c *Client) SendKnock(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) (*federation.KnockAnswer, error) {
	a := &federation.KnockAnswer{}
	err := c.get(ctx, call{name: "send_knock", as: as, to: to, method: http.MethodPut, path: path("v1", "send_knock", string(room), string(id)),
		body: jsontext.Value(event), max: maxEvents, timeout: usualTimeout}, a)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Invite hands in an invite for a user of the peer and returns the event with the peer's signature.
//
// spec: server-server-api#put_matrixfederationv2inviteroomideventid
func (c *Client) Invite(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, id matrix.EventID, invite federation.Invite) ([]byte, error) {
	var a federation.InviteAnswer
	err := c.get(ctx, call{name: "invite", as: as, to: to, method: http.MethodPut, path: path("v2", "invite", string(room), string(id)),
		body: invite, max: maxSmall, timeout: usualTimeout}, &a)
	return a.Event, err
}

// Event fetches one event.
//
// spec: server-server-api#get_matrixfederationv1eventeventid
func (c *Client) Event(ctx context.Context, as, from matrix.ServerName, id matrix.EventID) ([]byte, error) {
	list, err := c.events(ctx, call{name: "event", as: as, to: from, method: http.MethodGet, path: path("v1", "event", string(id)), max: maxSmall, timeout: quickTimeout}, 1, "pdus")
	if err != nil {
		return nil, err
	}
	if len(list[0]) == 0 {
		return nil, &Error{Status: http.StatusNotFound, Code: matrix.CodeNotFound, Message: "the answer holds no event"}
	}
	return list[0][0], nil
}

// events sends a request and reads lists of events out of the answer, by the names of their members.
func (c *Client) events(ctx context.Context, k call, most int, names ...string) ([][][]byte, error) {
	s, err := c.stream(ctx, k)
	if err != nil {
		return nil, err
	}
	out := make([][][]byte, len(names))
	r := newReader(s.Body, &c.held)
	defer r.done()
	err = r.object(func(name string) (bool, error) {
		for i := range names {
			if names[i] == name {
				return true, r.events(most, &out[i])
			}
		}
		return false, nil
	})
	if cerr := s.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, unreadable(k.to, err)
	}
	return out, nil
}

// MissingEvents asks for the events between those that we have (earliest) and those whose predecessors we lack (latest).
//
// spec: server-server-api#post_matrixfederationv1get_missing_eventsroomid
func (c *Client) MissingEvents(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, earliest, latest []matrix.EventID, limit int, minDepth int64) ([][]byte, error) {
	list, err := c.events(ctx, call{name: "get_missing_events", as: as, to: from, method: http.MethodPost, path: path("v1", "get_missing_events", string(room)),
		body: federation.MissingRequest{EarliestEvents: earliest, LatestEvents: latest, Limit: limit, MinDepth: minDepth}, max: maxEvents, timeout: usualTimeout, repeat: true}, maxPage, "events")
	if err != nil {
		return nil, err
	}
	return list[0][:min(len(list[0]), max(limit, 0))], nil
}

// StateIDs asks for the IDs of the state before an event and of its auth chain.
//
// spec: server-server-api#get_matrixfederationv1state_idsroomid
func (c *Client) StateIDs(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error) {
	s, err := c.stream(ctx, call{name: "state_ids", as: as, to: from, method: http.MethodGet, path: query(path("v1", "state_ids", string(room)), url.Values{"event_id": {string(at)}}), max: maxState / 4, timeout: longTimeout})
	if err != nil {
		return nil, nil, err
	}
	r := newReader(s.Body, &c.held)
	defer r.done()
	ids := func(out *[]matrix.EventID) error {
		return r.strings(maxStateIDs, func(s string) {
			if id, err := matrix.ParseEventID(s); err == nil {
				*out = append(*out, id)
			}
		})
	}
	err = r.object(func(name string) (bool, error) {
		switch name {
		case "pdu_ids":
			return true, ids(&state)
		case "auth_chain_ids":
			return true, ids(&auth)
		}
		return false, nil
	})
	if cerr := s.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, nil, unreadable(from, err)
	}
	return state, auth, nil
}

// State asks for the state before an event and its auth chain.
//
// spec: server-server-api#get_matrixfederationv1stateroomid
func (c *Client) State(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, auth [][]byte, err error) {
	list, err := c.events(ctx, call{name: "state", as: as, to: from, method: http.MethodGet, path: query(path("v1", "state", string(room)), url.Values{"event_id": {string(at)}}), max: maxState, timeout: longTimeout},
		maxStateEvents, "pdus", "auth_chain")
	if err != nil {
		return nil, nil, err
	}
	return list[0], list[1], nil
}

// EventAuth asks for the auth chain of an event.
//
// spec: server-server-api#get_matrixfederationv1event_authroomideventid
func (c *Client) EventAuth(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, id matrix.EventID) ([][]byte, error) {
	list, err := c.events(ctx, call{name: "event_auth", as: as, to: from, method: http.MethodGet, path: path("v1", "event_auth", string(room), string(id)), max: maxState, timeout: longTimeout}, maxStateEvents, "auth_chain")
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// Backfill asks for events and what came before them.
//
// spec: server-server-api#get_matrixfederationv1backfillroomid
func (c *Client) Backfill(ctx context.Context, as, from matrix.ServerName, room matrix.RoomID, ids []matrix.EventID, limit int) ([][]byte, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for _, id := range ids {
		q.Add("v", string(id))
	}
	list, err := c.events(ctx, call{name: "backfill", as: as, to: from, method: http.MethodGet, path: query(path("v1", "backfill", string(room)), q), max: maxEvents, timeout: usualTimeout}, maxPage, "pdus")
	if err != nil {
		return nil, err
	}
	return list[0][:min(len(list[0]), max(limit, 0))], nil
}
