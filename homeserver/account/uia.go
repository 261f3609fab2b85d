package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/storage"
)

const (
	// uiaLife is how long a user may take to prove who they are, uiaMax how many such sessions a user has at a time, and
	// uiaMaxStrangers how many there are for one network at registration.
	uiaLife         = 15 * time.Minute
	uiaMax          = 20
	uiaMaxStrangers = 200
)

// Proof is a request that has to be confirmed, as it came: the authentication is good for this very request only.
type Proof struct {
	// Method is the HTTP method, URI the decoded path without its version, so that both names of a route are one.
	Method, URI string
	// Body is the whole body, a JSON object that was parsed strictly, or empty.
	Body jsontext.Value
}

// auth is the member `auth` of the body.
type auth struct {
	Type       string      `json:"type"`
	Session    string      `json:"session"`
	Identifier *Identifier `json:"identifier"`
	User       string      `json:"user"`
	Medium     string      `json:"medium"`
	Password   string      `json:"password"`
	Token      string      `json:"token"`
}

// done is a stage that is complete, and what it left: nothing secret.
type done struct {
	Stage  string `json:"stage"`
	Result string `json:"result,omitempty"`
}

// challenge is a request that has to be confirmed, and by whom.
type challenge struct {
	Proof
	tenant matrix.ServerName
	user   matrix.UserID // empty at registration
	client Client
	flows  [][]string
	// check proves one stage: what it leaves, or why it failed.
	check func(ctx context.Context, a *auth) (result string, err error)
}

// Confirm returns nil when the caller has proved by password that the request is theirs, and else the answer that says how to.
//
// spec: client-server-api#user-interactive-authentication-api
func (s *Service) Confirm(ctx context.Context, by Caller, p Proof) error {
	if by.Bridge != nil {
		return matrix.Forbidden("An application service cannot manage accounts.")
	}
	_, err := s.challenge(ctx, &challenge{Proof: p, tenant: by.Tenant, user: by.UserID, client: by.Client, flows: [][]string{{StagePassword}},
		check: func(ctx context.Context, a *auth) (string, error) {
			if a.Identifier != nil || a.User != "" || a.Medium != "" {
				id, err := s.identify(by.Tenant, a.Identifier, a.User, a.Medium)
				if err != nil {
					return "", err
				}
				if id != by.UserID {
					return "", matrix.Forbidden("This session belongs to another user.")
				}
			}
			if err := checkLength(a.Password); err != nil {
				return "", err
			}
			u, err := s.prove(ctx, by.UserID, by.Client, a.Password)
			if err == nil && u == nil {
				err = matrix.Forbidden("The password is wrong.")
			}
			return "", err
		}})
	return err
}

// challenge goes one step of an authentication. When it is complete it returns what the stages left, and the session is used up.
//
// spec: client-server-api#user-interactive-api-in-the-rest-api
func (s *Service) challenge(ctx context.Context, c *challenge) ([]done, error) {
	a, err := c.auth()
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, s.openChallenge(ctx, c, nil, nil)
	}
	var sess *storage.UIASession
	var have []done
	if a.Session != "" {
		if sess, have, err = s.loadChallenge(ctx, c, a.Session); err != nil {
			return nil, err
		}
		if sess == nil {
			return nil, s.openChallenge(ctx, c, nil, matrix.Forbidden("This authentication has ended; begin again."))
		}
	}
	changed := false
	if a.Type != "" && !slices.ContainsFunc(have, func(d done) bool { return d.Stage == a.Type }) {
		result, err := s.stage(ctx, c, a, have)
		if err != nil {
			return nil, s.refuse(ctx, c, a.Session, have, err)
		}
		have, changed = append(have, done{a.Type, result}), true
	}
	if !c.complete(have) {
		return nil, s.keepChallenge(ctx, c, a.Session, sess, have, changed)
	}
	if sess == nil {
		return have, nil
	}
	var first bool
	err = s.DB.Update(ctx, func(tx *storage.Tx) (err error) {
		first, err = tx.TakeUIASession(sess.IDHash)
		return err
	})
	if err == nil && !first {
		err = s.openChallenge(ctx, c, nil, matrix.Forbidden("This authentication was used already; begin again."))
	}
	return have, err
}

// auth returns the member auth of the body, nil when there is none.
func (c *challenge) auth() (*auth, error) {
	if len(c.Body) == 0 {
		return nil, nil
	}
	var b struct {
		Auth *auth `json:"auth"`
	}
	if err := json.Unmarshal(c.Body, &b); err != nil {
		return nil, matrix.BadJSON("The member auth does not have the form of authentication data.")
	}
	return b.Auth, nil
}

// stage proves one stage, if it is the next one of a flow.
func (s *Service) stage(ctx context.Context, c *challenge, a *auth, have []done) (string, error) {
	next := slices.ContainsFunc(c.flows, func(flow []string) bool {
		return len(flow) > len(have) && follows(flow, have) && flow[len(have)] == a.Type
	})
	if !next {
		return "", matrix.Errorf(http.StatusUnauthorized, matrix.CodeUnrecognized, "This stage is not the next one of a flow.")
	}
	return c.check(ctx, a)
}

// follows tells whether the stages are the beginning of a flow.
func follows(flow []string, have []done) bool {
	if len(have) > len(flow) {
		return false
	}
	for i, d := range have {
		if flow[i] != d.Stage {
			return false
		}
	}
	return true
}

func (c *challenge) complete(have []done) bool {
	return slices.ContainsFunc(c.flows, func(flow []string) bool { return len(flow) == len(have) && follows(flow, have) })
}

// loadChallenge finds the session and refuses one that belongs to another request. It returns nil for one that is not known.
func (s *Service) loadChallenge(ctx context.Context, c *challenge, id string) (*storage.UIASession, []done, error) {
	if len(id) > 64 {
		return nil, nil, nil
	}
	h := sha256.Sum256([]byte(id))
	var u *storage.UIASession
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		u, err = tx.LoadUIASession(h[:])
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	mac, err := c.mac(id)
	if err != nil {
		return nil, nil, err
	}
	if u.UserID != c.user || u.Tenant != c.tenant || !hmac.Equal(mac, u.RequestMAC) {
		return nil, nil, matrix.Forbidden("This authentication was begun for another request.")
	}
	var have []done
	if err := json.Unmarshal([]byte(u.Completed), &have); err != nil {
		return nil, nil, err
	}
	return u, have, nil
}

// mac binds a session to a request. Its key is the session ID, which is not stored: a body that holds a password cannot be
// guessed from what is.
func (c *challenge) mac(id string) ([]byte, error) {
	m := hmac.New(sha256.New, []byte(id))
	_, _ = io.WriteString(m, c.Method+"\n"+c.URI+"\n") // never fails
	if len(c.Body) > 0 {
		rest, err := canonicaljson.AppendWithout(nil, c.Body, false, "auth")
		if err != nil {
			return nil, matrix.BadJSON("The body is no sound JSON object.")
		}
		if string(rest) != "{}" {
			_, _ = m.Write(rest) // never fails
		}
	}
	return m.Sum(nil), nil
}

// openChallenge begins a session and returns the answer that tells the client of it.
func (s *Service) openChallenge(ctx context.Context, c *challenge, have []done, why *matrix.Error) error {
	b := make([]byte, 24)
	if _, err := io.ReadFull(s.Rand, b); err != nil {
		return err
	}
	id := base64.RawURLEncoding.EncodeToString(b)
	mac, err := c.mac(id)
	if err != nil {
		return err
	}
	completed, err := completedText(have)
	if err != nil {
		return err
	}
	h := sha256.Sum256([]byte(id))
	u := storage.UIASession{IDHash: h[:], Owner: string(c.user), UserID: c.user, Tenant: c.tenant, RequestMAC: mac, Completed: completed,
		ExpiresTS: s.Now().Add(uiaLife).UnixMilli()}
	limit := uiaMax
	if u.Owner == "" {
		u.Owner, limit = "from "+networkOf(c.client.IP), uiaMaxStrangers
	}
	if err := s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.PutUIASession(u, limit) }); err != nil {
		return err
	}
	return c.unauthorized(id, have, why)
}

func completedText(have []done) (string, error) {
	if len(have) == 0 {
		return "[]", nil
	}
	b, err := json.Marshal(have)
	return string(b), err
}

// keepChallenge notes the progress of a session that is not complete.
func (s *Service) keepChallenge(ctx context.Context, c *challenge, id string, sess *storage.UIASession, have []done, changed bool) error {
	if sess == nil {
		return s.openChallenge(ctx, c, have, nil)
	}
	if changed {
		text, err := completedText(have)
		if err == nil {
			err = s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.SetUIACompleted(sess.IDHash, text) })
		}
		if err != nil {
			return err
		}
	}
	return c.unauthorized(id, have, nil)
}

// refuse answers a stage that failed: the flows again, with the reason. Limits and broken requests are answered as they are.
func (s *Service) refuse(ctx context.Context, c *challenge, id string, have []done, err error) error {
	var e *matrix.Error
	if !errors.As(err, &e) || e.Status != http.StatusForbidden && e.Status != http.StatusUnauthorized {
		return err
	}
	if id == "" {
		return s.openChallenge(ctx, c, have, e)
	}
	return c.unauthorized(id, have, e)
}

// unauthorized is 401 with what the client has to do. Without a reason it has neither errcode nor error.
func (c *challenge) unauthorized(id string, have []done, why *matrix.Error) *matrix.Error {
	flows := make([]any, len(c.flows))
	for i, f := range c.flows {
		flows[i] = map[string]any{"stages": f}
	}
	completed := make([]string, len(have))
	for i, d := range have {
		completed[i] = d.Stage
	}
	e := &matrix.Error{Status: http.StatusUnauthorized, Extra: map[string]any{"flows": flows, "params": map[string]any{}, "session": id,
		"completed": completed}}
	if why != nil {
		e.Code, e.Message = why.Code, why.Message
	}
	return e
}
