package clientapi

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/ephemeral"
	"hansa/matrix"
	"hansa/policy"
)

func (a *API) receiptRoutes() []route {
	const room = "/_matrix/client/v3/rooms/{roomId}"
	return []route{
		{method: "POST", path: room + "/receipt/{receiptType}/{eventId}", access: user, point: policy.ReceiptSend, fn: a.postReceipt, limit: 64 << 10, reads: true},
		{method: "POST", path: room + "/read_markers", access: user, point: policy.ReceiptSend, fn: a.postReadMarkers, limit: 64 << 10, reads: true},
	}
}

// spec: client-server-api#post_matrixclientv3roomsroomidreceiptreceipttypeeventid
func (a *API) postReceipt(w http.ResponseWriter, r *request) error {
	room, err := r.roomID()
	if err != nil {
		return err
	}
	event, err := r.eventID()
	if err != nil {
		return err
	}
	var body struct {
		Thread jsontext.Value `json:"thread_id"`
	}
	if err := r.decodeOptional(&body); err != nil {
		return err
	}
	mark := ephemeral.Mark{Type: r.param("receiptType"), Event: event}
	if body.Thread != nil {
		var thread string
		if body.Thread.Kind() != '"' || json.Unmarshal(body.Thread, &thread) != nil {
			return matrix.InvalidParam("The thread_id must be a string that is not empty.")
		}
		mark.Thread = &thread
	}
	if err := a.Receipts.Put(r.Context(), r.person(), room, mark); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#post_matrixclientv3roomsroomidread_markers
func (a *API) postReadMarkers(w http.ResponseWriter, r *request) error {
	room, err := r.roomID()
	if err != nil {
		return err
	}
	var body struct {
		FullyRead   matrix.EventID `json:"m.fully_read"`
		Read        matrix.EventID `json:"m.read"`
		ReadPrivate matrix.EventID `json:"m.read.private"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	var marks []ephemeral.Mark
	for _, m := range []ephemeral.Mark{{Type: ephemeral.FullyRead, Event: body.FullyRead}, {Type: ephemeral.Read, Event: body.Read},
		{Type: ephemeral.ReadPrivate, Event: body.ReadPrivate}} {
		if m.Event != "" {
			marks = append(marks, m)
		}
	}
	if err := a.Receipts.Put(r.Context(), r.person(), room, marks...); err != nil {
		return err
	}
	return empty(w)
}
