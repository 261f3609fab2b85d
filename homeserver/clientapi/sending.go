package clientapi

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// maxTxnID is the longest transaction ID.
const maxTxnID = 255

func (a *API) sendRoutes() []route {
	const room = "/_matrix/client/v3/rooms/{roomId}"
	return []route{
		{method: "PUT", path: room + "/send/{eventType}/{txnId}", access: user, point: policy.EventSend, fn: a.send},
		{method: "PUT", path: room + "/redact/{eventId}/{txnId}", access: user, point: policy.EventRedact, reads: true, fn: a.redact},
		{method: "PUT", path: room + "/state/{eventType}/{stateKey}", access: user, point: policy.RoomState, fn: a.putState,
			aliases: []string{room + "/state/{eventType}", room + "/state/{eventType}/"}},
	}
}

// draft begins an event of the caller. scope is the path of the endpoint without the transaction ID, empty where there is none.
func (r *request) draft(id matrix.RoomID, scope string, content jsontext.Value) (room.Draft, error) {
	d := room.Draft{RoomID: id, Sender: r.session.UserID, Content: content, Subject: r.subject(), Request: r.policyRequest()}
	if scope == "" {
		return d, nil
	}
	txn := r.param("txnId")
	if len(txn) > maxTxnID {
		return d, matrix.InvalidParam("A transaction ID may have at most %d bytes.", maxTxnID)
	}
	d.DeviceID, d.TxnScope, d.TxnID = r.session.DeviceID, "/rooms/"+string(id)+scope, txn
	return d, nil
}

func (a *API) sendDraft(w http.ResponseWriter, r *request, d room.Draft) error {
	sent, err := a.Rooms.Send(r.Context(), d)
	if err != nil {
		return err
	}
	a.Ephemeral.Active(r.session.UserID)
	return writeRaw(w, http.StatusOK, append(append([]byte(`{"event_id":`), quote(string(sent.EventID))...), '}'))
}

// quote writes an identifier as JSON.
func quote(s string) []byte {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		return []byte(`""`) // not UTF-8, which no identifier is
	}
	return b
}

// send sends a message event. A retry with the same transaction ID finds what the first attempt sent.
//
// spec: client-server-api#put_matrixclientv3roomsroomidsendeventtypetxnid
// spec: client-server-api#transaction-identifiers
func (a *API) send(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	content, err := r.object()
	if err != nil {
		return err
	}
	typ := r.param("eventType")
	d, err := r.draft(id, "/send/"+typ, content)
	if err != nil {
		return err
	}
	d.Type = typ
	if err := r.massage(&d); err != nil {
		return err
	}
	if typ == "m.room.redaction" {
		// The target is looked for before the room is: who is not in the room must not learn what it holds.
		if err := a.Members.RequireJoined(r.Context(), id, r.session.UserID); err != nil {
			return err
		}
	}
	return a.sendDraft(w, r, d)
}

// redact takes the content of an event away. Suspended users may do that to their own events.
//
// spec: client-server-api#put_matrixclientv3roomsroomidredacteventidtxnid
// spec: client-server-api#account-suspension
func (a *API) redact(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	target, err := r.eventID()
	if err != nil {
		return err
	}
	content := jsontext.Value("{}")
	if strings.TrimSpace(string(r.body)) != "" {
		if content, err = r.object(); err != nil {
			return err
		}
	}
	var body struct {
		Reason *string `json:"reason"`
	}
	if err := r.decodeOptional(&body); err != nil {
		return err
	}
	if err := a.Members.RequireJoined(r.Context(), id, r.session.UserID); err != nil {
		return err
	}
	if err := a.checkRedacts(r, target); err != nil {
		return err
	}
	d, err := r.draft(id, "/redact/"+string(target), content)
	if err != nil {
		return err
	}
	d.Type, d.Redacts = "m.room.redaction", target
	return a.sendDraft(w, r, d)
}

// checkRedacts refuses a suspended user who wants to redact what somebody else sent.
func (a *API) checkRedacts(r *request, target matrix.EventID) error {
	if !r.session.Suspended {
		return nil
	}
	own := false
	err := a.DB.Read(r.Context(), func(tx *storage.Tx) error {
		found, err := tx.LoadEvents([]matrix.EventID{target})
		own = found[target] != nil && found[target].Sender == r.session.UserID
		return err
	})
	if err == nil && !own {
		err = r.session.CheckWrite()
	}
	return err
}

// putState writes a state event. Memberships go the way of the endpoints that are made for them.
//
// spec: client-server-api#put_matrixclientv3roomsroomidstateeventtypestatekey
func (a *API) putState(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	content, err := r.object()
	if err != nil {
		return err
	}
	typ, key := r.param("eventType"), r.param("stateKey")
	if typ == "m.room.member" {
		event, err := a.Members.SetState(r.Context(), r.member(), id, key, content)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, map[string]any{"event_id": event})
	}
	if typ == "m.room.canonical_alias" && key == "" {
		if err := a.Members.RequireJoined(r.Context(), id, r.session.UserID); err != nil {
			return err
		}
		if err := a.Directory.CheckCanonical(r.Context(), id, content); err != nil {
			return err
		}
	}
	d, err := r.draft(id, "", content)
	if err != nil {
		return err
	}
	d.Type, d.StateKey = typ, &key
	if err := r.massage(&d); err != nil {
		return err
	}
	if typ == "m.room.encryption" && key == "" {
		d.Given = stayEncrypted(content)
	}
	return a.sendDraft(w, r, d)
}

// stayEncrypted refuses to weaken the encryption of a room that is encrypted.
//
// spec: client-server-api#mroomencryption
func stayEncrypted(content jsontext.Value) func(room.View) error {
	var next struct {
		Algorithm string `json:"algorithm"`
	}
	_ = json.Unmarshal(content, &next) // what is no string is no algorithm
	return func(v room.View) error {
		e := v.State("m.room.encryption", "")
		if e == nil {
			return nil
		}
		var now struct {
			Algorithm string `json:"algorithm"`
		}
		if json.Unmarshal(e.Content, &now) == nil && now.Algorithm != "" && now.Algorithm != next.Algorithm {
			return matrix.Forbidden("The encryption of a room cannot be changed or turned off.")
		}
		return nil
	}
}
