package clientapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"hansa/homeserver/account"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
)

// Bridges are the application services. It is declared here because their package stands above this one.
type Bridges interface {
	// Find returns the application service that a token belongs to.
	Find(ctx context.Context, token string) (*account.Bridge, bool)
	// CheckAlias refuses an alias that is reserved for another application service than b, or lies outside of the namespaces of b; nil is
	// everybody else.
	CheckAlias(b *account.Bridge, alias matrix.RoomAlias) error
	// Ping asks an application service whether it hears this server, and returns how long the answer took.
	Ping(ctx context.Context, id, txnID string) (time.Duration, error)
}

func (a *API) bridgeRoutes() []route {
	return []route{
		{method: "POST", path: "/_matrix/client/v1/appservice/{appserviceId}/ping", access: user, point: policy.BridgeAct, fn: a.pingBridge, limit: 64 << 10},
	}
}

// bridgeToken takes a token that can be one of an application service, from the header or the query string.
//
// spec: application-service-api#identity-assertion
func (q *request) bridgeToken() (string, bool) {
	token, ok := q.token()
	if !ok && len(q.Header.Values("Authorization")) == 0 {
		token = q.values().Get("access_token")
	}
	return token, account.IsBridgeToken(token)
}

// authenticateBridge makes the session of an application service that acts as one of its users.
func (f *front) authenticateBridge(q *request, b *account.Bridge) error {
	params := q.values()
	user, device := matrix.UserID(params.Get("user_id")), matrix.DeviceID(params.Get("device_id"))
	if user == "" && params.Has("user_id") || device == "" && params.Has("device_id") {
		return matrix.InvalidParam("user_id and device_id must not be empty.")
	}
	c := q.client()
	c.Appservice = true
	s, err := f.api.Accounts.AuthenticateBridge(q.Context(), b, user, device, c)
	if err != nil {
		return err
	}
	if q.Method != http.MethodGet && !q.route.reads {
		if err := s.CheckWrite(); err != nil {
			return err
		}
	}
	if b.RateLimited && s.UserID != b.Bot && !q.again {
		if err := f.api.limits.charge(q.route, s.UserID); err != nil {
			return err
		}
	}
	f.api.Accounts.Seen(s, c)
	q.session, q.tenant = s, s.Tenant
	return nil
}

// bridge is the application service that a request to a public route comes from.
func (a *API) bridge(r *request) (*account.Bridge, error) {
	token, ok := r.token()
	if !ok {
		token = r.values().Get("access_token")
	}
	if token == "" {
		return nil, matrix.Errorf(http.StatusUnauthorized, matrix.CodeMissingToken, "This needs the as_token of an application service in the Authorization header.")
	}
	if a.Bridges != nil && account.IsBridgeToken(token) {
		if b, ok := a.Bridges.Find(r.Context(), token); ok {
			return b, nil
		}
	}
	return nil, matrix.Errorf(http.StatusUnauthorized, matrix.CodeUnknownToken, "This is not the as_token of an application service.")
}

// spec: application-service-api#server-admin-style-permissions
func (a *API) registerBridged(w http.ResponseWriter, r *request, body account.RegisterRequest) error {
	b, err := a.bridge(r)
	if err != nil {
		return err
	}
	answer, err := a.Accounts.RegisterBridged(r.Context(), b, r.client(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *API) loginBridged(w http.ResponseWriter, r *request, body account.LoginRequest) error {
	b, err := a.bridge(r)
	if err != nil {
		return err
	}
	answer, err := a.Accounts.LoginBridged(r.Context(), b, r.client(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

// spec: application-service-api#device-management
func (a *API) putBridgedDevice(w http.ResponseWriter, r *request, name *string) error {
	isNew, err := a.Accounts.PutBridgedDevice(r.Context(), r.caller(), matrix.DeviceID(r.param("deviceId")), name)
	if err != nil {
		return err
	}
	if isNew {
		return writeRaw(w, http.StatusCreated, []byte("{}"))
	}
	return empty(w)
}

// spec: client-server-api#post_matrixclientv1appserviceappserviceidping
func (a *API) pingBridge(w http.ResponseWriter, r *request) error {
	b := r.session.Bridge
	if b == nil || b.ID != r.param("appserviceId") {
		return matrix.Forbidden("This needs the as_token of the application service that is named.")
	}
	var body struct {
		TransactionID string `json:"transaction_id"`
	}
	if err := r.decodeOptional(&body); err != nil {
		return err
	}
	took, err := a.Bridges.Ping(r.Context(), b.ID, body.TransactionID)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]int64{"duration_ms": took.Milliseconds()})
}

// massage takes the time of an event from the query string, where an application service may set it.
//
// spec: application-service-api#timestamp-massaging
func (r *request) massage(d *room.Draft) error {
	if r.session.Bridge == nil || !r.values().Has("ts") {
		return nil
	}
	ts, err := strconv.ParseInt(r.values().Get("ts"), 10, 64)
	if err != nil || ts < 0 || ts > maxTS {
		return matrix.InvalidParam("ts must be a time in milliseconds since 1970.")
	}
	d.OriginServerTS = &ts
	return nil
}

// maxTS is the largest integer of canonical JSON.
const maxTS = 1<<53 - 1

// checkReserved refuses to make an alias that belongs to an application service.
//
// spec: application-service-api#server-admin-style-permissions
func (a *API) checkReserved(r *request, alias matrix.RoomAlias) error {
	if a.Bridges == nil {
		return nil
	}
	return a.Bridges.CheckAlias(r.session.Bridge, alias)
}
