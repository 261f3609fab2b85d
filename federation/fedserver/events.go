package fedserver

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// maxNamed is how many event IDs a request may name.
const maxNamed = 100

func (a *API) eventRoutes() []route {
	const v1 = "/_matrix/federation/v1/"
	return []route{
		{method: "GET", path: v1 + "event/{eventId}", point: policy.EventServe, fn: a.event},
		{method: "GET", path: v1 + "state/{roomId}", point: policy.EventServe, fn: a.state, acl: true},
		{method: "GET", path: v1 + "state_ids/{roomId}", point: policy.EventServe, fn: a.stateIDs, acl: true},
		{method: "GET", path: v1 + "event_auth/{roomId}/{eventId}", point: policy.EventServe, fn: a.eventAuth, acl: true},
		{method: "GET", path: v1 + "backfill/{roomId}", point: policy.EventServe, fn: a.backfill, acl: true},
		{method: "POST", path: v1 + "get_missing_events/{roomId}", point: policy.EventServe, fn: a.missing, acl: true},
		{method: "GET", path: v1 + "timestamp_to_event/{roomId}", point: policy.EventServe, fn: a.nearest, acl: true},
	}
}

// pdus is an answer in the shape of a transaction.
func (a *API) pdus(w http.ResponseWriter, q *request, events ...[]byte) error {
	return writeJSON(w, http.StatusOK, federation.Transaction{Origin: q.as, OriginServerTS: a.Now().UnixMilli(), PDUs: raw(events)})
}

// raw is a list of events as part of an answer, never null.
func raw(events [][]byte) []jsontext.Value {
	out := make([]jsontext.Value, len(events))
	for i, e := range events {
		out[i] = e
	}
	return out
}

// spec: server-server-api#get_matrixfederationv1eventeventid
func (a *API) event(w http.ResponseWriter, q *request) error {
	id, err := q.eventID()
	if err != nil {
		return err
	}
	e, err := a.Rooms.EventFor(q.Context(), q.as, q.origin, id)
	if err != nil {
		return err
	}
	return a.pdus(w, q, e)
}

// roomAt reads the room of the path and the event of the query string at which its state is wanted.
func (q *request) roomAt() (matrix.RoomID, matrix.EventID, error) {
	id, err := q.roomID()
	if err != nil {
		return "", "", err
	}
	at, err := parseEventID(q.values().Get("event_id"))
	return id, at, err
}

// spec: server-server-api#get_matrixfederationv1stateroomid
func (a *API) state(w http.ResponseWriter, q *request) error {
	id, at, err := q.roomAt()
	if err != nil {
		return err
	}
	state, chain, err := a.Rooms.StateFor(q.Context(), q.as, q.origin, id, at)
	if err != nil {
		return err
	}
	return writeEvents(w, nil, events[[]byte]{"pdus", state}, events[[]byte]{"auth_chain", chain})
}

// spec: server-server-api#get_matrixfederationv1state_idsroomid
func (a *API) stateIDs(w http.ResponseWriter, q *request) error {
	id, at, err := q.roomAt()
	if err != nil {
		return err
	}
	state, chain, err := a.Rooms.StateIDsFor(q.Context(), q.as, q.origin, id, at)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, federation.StateIDs{PDUIDs: state, AuthChainIDs: chain})
}

// spec: server-server-api#get_matrixfederationv1event_authroomideventid
// spec: server-server-api#retrieving-event-authorisation-information
func (a *API) eventAuth(w http.ResponseWriter, q *request) error {
	id, of, err := q.roomAndEvent()
	if err != nil {
		return err
	}
	chain, err := a.Rooms.AuthFor(q.Context(), q.as, q.origin, id, of)
	if err != nil {
		return err
	}
	return writeEvents(w, nil, events[[]byte]{"auth_chain", chain})
}

// spec: server-server-api#get_matrixfederationv1backfillroomid
// spec: server-server-api#backfilling-and-retrieving-missing-events
func (a *API) backfill(w http.ResponseWriter, q *request) error {
	id, err := q.roomID()
	if err != nil {
		return err
	}
	from, err := eventIDs(q.values()["v"], maxNamed)
	if err != nil {
		return err
	}
	limit, err := q.number("limit", -1)
	if err != nil {
		return err
	}
	events, err := a.Rooms.BackfillFor(q.Context(), q.as, q.origin, id, from, int(min(limit, room.MaxServedBackfill)))
	if err != nil {
		return err
	}
	return a.pdus(w, q, events...)
}

// spec: server-server-api#post_matrixfederationv1get_missing_eventsroomid
func (a *API) missing(w http.ResponseWriter, q *request) error {
	id, err := q.roomID()
	if err != nil {
		return err
	}
	body := struct {
		Earliest []string `json:"earliest_events"`
		Latest   []string `json:"latest_events"`
		Limit    int64    `json:"limit"`
		MinDepth int64    `json:"min_depth"`
	}{Limit: 10}
	if err := q.decode(&body); err != nil {
		return err
	}
	earliest, err := eventIDs(body.Earliest, maxNamed)
	if err != nil {
		return err
	}
	latest, err := eventIDs(body.Latest, maxNamed)
	if err != nil {
		return err
	}
	limit := int(min(max(body.Limit, 0), room.MaxServedMissing))
	events, err := a.Rooms.MissingFor(q.Context(), q.as, q.origin, id, earliest, latest, limit, body.MinDepth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, federation.MissingAnswer{Events: raw(events)})
}

// spec: server-server-api#get_matrixfederationv1timestamp_to_eventroomid
func (a *API) nearest(w http.ResponseWriter, q *request) error {
	id, err := q.roomID()
	if err != nil {
		return err
	}
	ts, err := strconv.ParseInt(q.values().Get("ts"), 10, 64)
	if err != nil {
		return matrix.InvalidParam("ts must be a time in milliseconds.")
	}
	var dir storage.Direction
	switch q.values().Get("dir") {
	case "f":
		dir = storage.Forward
	case "b":
		dir = storage.Backward
	default:
		return matrix.InvalidParam("dir must be f or b.")
	}
	e, at, err := a.Rooms.NearestFor(q.Context(), q.as, q.origin, id, ts, dir)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"event_id": e, "origin_server_ts": at})
}
