package clientapi

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/clientsync"
	"hansa/matrix"
	"hansa/matrix/filter"
	"hansa/policy"
	"hansa/storage"
)

func (a *API) syncRoutes() []route {
	const rooms = "/_matrix/client/v3/rooms/{roomId}"
	return []route{
		{method: "GET", path: "/_matrix/client/v3/sync", access: user, point: policy.Contact, fn: a.sync},
		{method: "GET", path: rooms + "/messages", access: user, point: policy.Contact, fn: a.messages},
		{method: "GET", path: rooms + "/context/{eventId}", access: user, point: policy.Contact, fn: a.context},
		{method: "GET", path: rooms + "/event/{eventId}", access: user, point: policy.Contact, fn: a.event},
	}
}

// spec: client-server-api#get_matrixclientv3sync
func (a *API) sync(w http.ResponseWriter, r *request) error {
	q := r.values()
	req := clientsync.Request{User: r.session.UserID, Device: r.session.DeviceID, Party: r.subject(), FullState: q.Get("full_state") == "true"}
	ms, err := r.intQuery("timeout", 0, 0, int(clientsync.MaxTimeout/time.Millisecond))
	if err != nil {
		return err
	}
	req.Timeout = time.Duration(ms) * time.Millisecond
	if since := q.Get("since"); since != "" {
		t, err := clientsync.ParseToken(since)
		if err != nil {
			return err
		}
		req.Since = &t
	}
	for _, name := range []string{"org.matrix.msc4222.use_state_after", "use_state_after"} {
		if q.Get(name) == "true" {
			req.StateAfter = map[bool]string{true: "state_after", false: "org.matrix.msc4222.state_after"}[name == "use_state_after"]
		}
	}
	if req.Filter, err = a.filter(r, q.Get("filter")); err != nil {
		return err
	}
	if req.Filter != nil && req.Filter.Federation {
		return matrix.InvalidParam("event_format federation is not served to clients.")
	}
	req.Recheck = func(ctx context.Context) error {
		s, err := a.Accounts.Recheck(ctx, r.session)
		if err == nil {
			r.session = s
		}
		return err
	}
	if err := a.Ephemeral.Touch(r.Context(), r.person(), q.Get("set_presence"), req.Timeout); err != nil {
		return err
	}
	body, err := a.Sync.Sync(r.Context(), req)
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, body)
}

// filter reads the filter parameter: JSON, or the ID of a stored one.
func (a *API) filter(r *request, param string) (*filter.Filter, error) {
	if param == "" {
		return nil, nil
	}
	if filter.IsInline(param) {
		return a.filters.parse(param)
	}
	raw, err := a.Accounts.GetFilter(r.Context(), r.caller(), r.session.UserID, param)
	if err != nil {
		return nil, err
	}
	return a.filters.parse(string(raw))
}

func (r *request) viewer() clientsync.Viewer {
	return clientsync.Viewer{User: r.session.UserID, Device: r.session.DeviceID, Party: r.subject()}
}

// page is the JSON of a page of history.
type page struct {
	Start string           `json:"start"`
	End   string           `json:"end,omitzero"`
	Chunk []jsontext.Value `json:"chunk"`
	State []jsontext.Value `json:"state,omitzero"`
}

func values(list [][]byte) []jsontext.Value {
	out := make([]jsontext.Value, len(list))
	for i, b := range list {
		out[i] = b
	}
	return out
}

// spec: client-server-api#get_matrixclientv3roomsroomidmessages
func (a *API) messages(w http.ResponseWriter, r *request) error {
	room, err := r.roomID()
	if err != nil {
		return err
	}
	req := clientsync.PageRequest{Room: room}
	q := r.values()
	switch q.Get("dir") {
	case "b":
		req.Dir = storage.Backward
	case "f":
		req.Dir = storage.Forward
	default:
		return matrix.InvalidParam("dir must be b or f.")
	}
	if req.From, err = optionalToken(q.Get("from")); err != nil {
		return err
	}
	if req.To, err = optionalToken(q.Get("to")); err != nil {
		return err
	}
	if req.Limit, err = r.intQuery("limit", 10, 1, 1000); err != nil {
		return err
	}
	if req.Filter, err = filter.ParseRoomEvent([]byte(q.Get("filter"))); err != nil {
		return err
	}
	if err := a.mayRead(r, room); err != nil {
		return err
	}
	p, err := a.Sync.LoadMessages(r.Context(), r.viewer(), req)
	if err != nil {
		return err
	}
	out := page{Start: p.Start, End: p.End, Chunk: values(p.Chunk)}
	if len(p.State) > 0 {
		out.State = values(p.State)
	}
	return writeJSON(w, http.StatusOK, out)
}

func optionalToken(s string) (*clientsync.Token, error) {
	if s == "" {
		return nil, nil
	}
	t, err := clientsync.ParseToken(s)
	return &t, err
}

// spec: client-server-api#get_matrixclientv3roomsroomidcontexteventid
func (a *API) context(w http.ResponseWriter, r *request) error {
	room, err := r.roomID()
	if err != nil {
		return err
	}
	id, err := r.eventID()
	if err != nil {
		return err
	}
	limit, err := r.intQuery("limit", 10, 0, 1000)
	if err != nil {
		return err
	}
	f, err := filter.ParseRoomEvent([]byte(r.values().Get("filter")))
	if err != nil {
		return err
	}
	c, err := a.Sync.LoadContext(r.Context(), r.viewer(), room, id, limit, f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"event": jsontext.Value(c.Event), "events_before": values(c.Before), "events_after": values(c.After),
		"state": values(c.State), "start": c.Start, "end": c.End})
}

// spec: client-server-api#get_matrixclientv3roomsroomideventeventid
func (a *API) event(w http.ResponseWriter, r *request) error {
	room, err := r.roomID()
	if err != nil {
		return err
	}
	id, err := r.eventID()
	if err != nil {
		return err
	}
	body, err := a.Sync.LoadEvent(r.Context(), r.viewer(), room, id)
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, body)
}
