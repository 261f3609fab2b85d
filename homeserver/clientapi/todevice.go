package clientapi

import (
	"net/http"

	"hansa/homeserver/e2ee"
	"hansa/policy"
)

func (a *API) toDeviceRoutes() []route {
	return []route{
		{method: "PUT", path: "/_matrix/client/v3/sendToDevice/{eventType}/{txnId}", access: user, point: policy.ToDeviceSend, fn: a.sendToDevice,
			reads: true, limit: 8 << 20},
	}
}

// spec: client-server-api#put_matrixclientv3sendtodeviceeventtypetxnid
func (a *API) sendToDevice(w http.ResponseWriter, r *request) error {
	var body struct {
		Messages e2ee.Messages `json:"messages"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.Messages == nil {
		return missing("messages")
	}
	if err := a.E2EE.SendToDevice(r.Context(), r.keyOwner(), r.param("eventType"), r.param("txnId"), body.Messages); err != nil {
		return err
	}
	return empty(w)
}
