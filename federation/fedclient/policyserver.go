package fedclient

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// PolicySign asks the policy server of a room for its signature on an event, and returns the signatures object of the answer. What it answers
// instead is a *matrix.Error with its own words, for the user whose event it is.
//
// spec: server-server-api#asking-for-a-policy-server-signature-on-an-event
func (c *Client) PolicySign(ctx context.Context, as, to matrix.ServerName, pdu []byte) (jsontext.Value, error) {
	var out jsontext.Value
	err := c.get(ctx, call{name: "policy_sign", as: as, to: to, method: http.MethodPost, path: "/_matrix/policy/v1/sign", body: jsontext.Value(pdu),
		max: maxSmall, timeout: quickTimeout, repeat: true}, &out)
	var told *Error
	if errors.As(err, &told) && told.Status >= 400 && told.Status < 500 {
		e := matrix.Errorf(told.Status, told.Code, "%s", told.Message)
		if told.RetryAfter > 0 {
			e = e.With("retry_after_ms", told.RetryAfter.Milliseconds())
		}
		return nil, e
	}
	return out, err
}
