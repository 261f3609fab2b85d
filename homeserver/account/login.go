package account

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// The ways to log in and to prove who one is that this server knows.
const (
	StagePassword = "m.login.password"
	StageDummy    = "m.login.dummy"
	StageToken    = "m.login.registration_token"
	// TypeBridge is how application services register and log in their users.
	TypeBridge = "m.login.application_service"
)

// Identifier names a user.
//
// spec: client-server-api#identifier-types
type Identifier struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// LoginRequest is the body of POST /login.
type LoginRequest struct {
	Type       string      `json:"type"`
	Identifier *Identifier `json:"identifier"`
	// User, Medium and Address are the older forms of Identifier.
	User                     string `json:"user"`
	Medium                   string `json:"medium"`
	Address                  string `json:"address"`
	Password                 string `json:"password"`
	DeviceID                 string `json:"device_id"`
	InitialDeviceDisplayName string `json:"initial_device_display_name"`
	RefreshToken             bool   `json:"refresh_token"`
}

// LoginAnswer is what a client gets that logged in, registered or refreshed its token.
type LoginAnswer struct {
	UserID       matrix.UserID     `json:"user_id,omitempty"`
	AccessToken  string            `json:"access_token,omitempty"`
	RefreshToken string            `json:"refresh_token,omitempty"`
	ExpiresInMS  int64             `json:"expires_in_ms,omitzero"`
	DeviceID     matrix.DeviceID   `json:"device_id,omitempty"`
	HomeServer   matrix.ServerName `json:"home_server,omitempty"`
}

// LoginFlow is one way to log in.
type LoginFlow struct {
	Type string `json:"type"`
}

// LoginFlows lists the ways to log in, for GET /login.
func (s *Service) LoginFlows() []LoginFlow {
	return []LoginFlow{{Type: StagePassword}, {Type: TypeBridge}}
}

func wrongPassword() *matrix.Error {
	return matrix.Errorf(http.StatusForbidden, matrix.CodeForbidden, "The user name or the password is wrong.")
}

// Login opens a session by password. A user without a full ID is looked for in the tenant that the request was addressed to.
//
// spec: client-server-api#legacy-login
func (s *Service) Login(ctx context.Context, tenant matrix.ServerName, c Client, r LoginRequest) (*LoginAnswer, error) {
	if r.Type != StagePassword {
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeUnknown, "This way to log in is not known here.")
	}
	id, err := s.identify(tenant, r.Identifier, r.User, r.Medium)
	if err != nil {
		return nil, err
	}
	if err := checkLength(r.Password); err != nil {
		return nil, err
	}
	u, err := s.prove(ctx, id, c, r.Password)
	switch {
	case err != nil:
		return nil, err
	case u == nil:
		return nil, wrongPassword()
	case u.Locked:
		return nil, errLocked()
	}
	d := wish{r.DeviceID, r.InitialDeviceDisplayName, r.RefreshToken}
	device, err := s.checkDevice(ctx, u.ID, d)
	if err != nil {
		return nil, err
	}
	if err := s.askLogin(ctx, u, c, "password", device); err != nil {
		return nil, err
	}
	pair, err := s.newPair(u.ID, device, d.refresh)
	if err != nil {
		return nil, err
	}
	var replaced bool
	err = s.DB.Update(ctx, func(tx *storage.Tx) error {
		now, err := tx.LoadUser(u.ID)
		if err != nil {
			return err
		}
		if now.Deactivated || now.Password != u.Password { // changed while this one was being hashed
			return wrongPassword()
		}
		replaced, err = s.openSession(tx, pair, d.name, c)
		return err
	})
	return s.opened(pair, u.Tenant, replaced, err)
}

// identify finds out whom a login is about. An ID that no tenant here can have is not an error: its password is wrong.
func (s *Service) identify(tenant matrix.ServerName, id *Identifier, user, medium string) (matrix.UserID, error) {
	if id == nil {
		switch {
		case medium != "":
			return "", wrongPassword()
		case user == "":
			return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member identifier is missing.")
		}
		id = &Identifier{Type: "m.id.user", User: user}
	}
	switch id.Type {
	case "m.id.user":
	case "m.id.thirdparty", "m.id.phone":
		return "", wrongPassword() // no address is bound to an account here
	default:
		return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeUnknown, "This type of identifier is not known here.")
	}
	if id.User == "" {
		return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The identifier has no user.")
	}
	name, server := id.User, tenant
	if rest, ok := strings.CutPrefix(name, "@"); ok {
		local, host, ok := strings.Cut(rest, ":")
		if ok {
			name, server = local, matrix.ServerName(host)
			if _, hosted := s.Tenant(server); !hosted {
				server = matrix.ServerName(strings.ToLower(host))
			}
		} else {
			name = rest
		}
	}
	if len(name)+len(server)+2 > matrix.MaxIDLength {
		return "", wrongPassword()
	}
	return matrix.UserID("@" + lower(name) + ":" + string(server)), nil
}

// lower makes small letters of A to Z, and of nothing else: other letters are no part of a user name, whatever they look like.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// prove compares a password and counts the failures. It returns nil when it is wrong; an account that does not exist, has no
// password or is deactivated takes as long to find that out.
func (s *Service) prove(ctx context.Context, id matrix.UserID, c Client, password string) (*storage.User, error) {
	try, err := s.limits.begin(id, c, func() (known bool, err error) {
		err = s.DB.Read(ctx, func(tx *storage.Tx) error {
			known, err = tx.KnowsAddress(id, c.ip())
			return err
		})
		return known, err
	})
	if err != nil {
		return nil, err
	}
	var u *storage.User
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		u, err = tx.LoadUser(id)
		return err
	})
	encoded := ""
	switch {
	case err == nil && !u.Deactivated:
		encoded = u.Password
	case err != nil && !errors.Is(err, storage.ErrNotFound):
		try.forgive()
		return nil, err
	}
	ok, err := s.hasher.verify(ctx, encoded, password)
	if err != nil {
		try.forgive()
		return nil, err
	}
	s.metrics.proved(ok)
	if !ok {
		return nil, nil
	}
	try.forgive()
	return u, nil
}

// askLogin asks whether a session of a user may begin.
func (s *Service) askLogin(ctx context.Context, u *storage.User, c Client, via string, device matrix.DeviceID) error {
	party := s.Policy.Resolve(facts(u)).With(&policy.Device{ID: string(device)}, c.network())
	return s.ask(ctx, &policy.Input{Point: policy.AccountLogin, Tenant: policy.Tenant{Name: string(u.Tenant)}, Subject: party,
		Account: &policy.Account{Username: u.ID.Localpart(), Via: via, Admin: u.Admin}, Request: c.request("client")})
}

// wish is what a client asks for that wants a session.
type wish struct {
	device, name string
	refresh      bool
}

// checkDevice returns the ID of the device that the session is for.
func (s *Service) checkDevice(ctx context.Context, user matrix.UserID, w wish) (matrix.DeviceID, error) {
	if err := checkDeviceName(w.name); err != nil {
		return "", err
	}
	if w.device == "" {
		return newDeviceID(s.Rand)
	}
	if len(w.device) > 255 {
		return "", matrix.InvalidParam("A device ID may have at most 255 bytes.")
	}
	device := matrix.DeviceID(w.device)
	if s.IsKeyID != nil {
		if taken, err := s.IsKeyID(ctx, user, device); err != nil {
			return "", err
		} else if taken {
			return "", matrix.Forbidden("This device ID is the ID of a cross-signing key.")
		}
	}
	return device, nil
}

// pair is the tokens of one session, as the client gets them and as they are stored.
type pair struct {
	access, refresh string
	life            time.Duration
	stored          storage.Tokens
}

// newPair makes tokens. The access token of a client that can refresh it expires.
func (s *Service) newPair(user matrix.UserID, device matrix.DeviceID, refresh bool) (*pair, error) {
	p := &pair{stored: storage.Tokens{UserID: user, DeviceID: device}}
	var h tokenHash
	var err error
	if p.access, h, err = newToken(s.Rand, accessPrefix); err != nil {
		return nil, err
	}
	p.stored.Access = h[:]
	if !refresh {
		return p, nil
	}
	var r tokenHash
	if p.refresh, r, err = newToken(s.Rand, refreshPrefix); err != nil {
		return nil, err
	}
	p.stored.Refresh, p.life = r[:], s.TokenLife
	p.stored.ExpiresTS = s.Now().Add(s.TokenLife).UnixMilli()
	return p, nil
}

func (p *pair) answer(tenant matrix.ServerName) *LoginAnswer {
	return &LoginAnswer{UserID: p.stored.UserID, AccessToken: p.access, RefreshToken: p.refresh, ExpiresInMS: p.life.Milliseconds(),
		DeviceID: p.stored.DeviceID, HomeServer: tenant}
}

// openSession makes the device, or ends the earlier session of one that exists, and stores the tokens.
//
// spec: client-server-api#relationship-between-access-tokens-and-devices
func (s *Service) openSession(tx *storage.Tx, p *pair, name string, c Client) (replaced bool, err error) {
	t, now := p.stored, s.Now().UnixMilli()
	isNew, err := tx.PutDevice(storage.Device{UserID: t.UserID, DeviceID: t.DeviceID, DisplayName: name, LastSeenIP: c.ip(),
		LastSeenAgent: clip(c.UserAgent, 256), LastSeenTS: now, CreatedTS: now})
	if err != nil {
		return false, err
	}
	if isNew {
		if err := tx.TouchDeviceList(t.UserID); err != nil {
			return false, err
		}
		return false, tx.PutTokens(t)
	}
	ended, err := tx.DeleteTokens(t.UserID, t.DeviceID)
	if err == nil && ended > 0 {
		err = tx.Announce(storage.NoticeSession, string(t.UserID))
	}
	if err == nil {
		err = tx.RestartDevice(storage.Seen{UserID: t.UserID, DeviceID: t.DeviceID, IP: c.ip(), Agent: clip(c.UserAgent, 256), TS: now})
	}
	if err != nil {
		return false, err
	}
	return ended > 0, tx.PutTokens(t)
}

// opened is the end of a login. What is kept in memory of the device from before is forgotten.
func (s *Service) opened(p *pair, tenant matrix.ServerName, replaced bool, err error) (*LoginAnswer, error) {
	if replaced {
		s.cache.drop(p.stored.UserID)
	}
	if err != nil {
		return nil, err
	}
	s.unsee(deviceKey{p.stored.UserID, p.stored.DeviceID})
	return p.answer(tenant), nil
}

// Refresh exchanges a refresh token for new tokens. The old one stays good until one of the new ones is used; a token that comes
// after that was copied, and ends the session.
//
// spec: client-server-api#refreshing-access-tokens
func (s *Service) Refresh(ctx context.Context, c Client, token string) (*LoginAnswer, error) {
	if token == "" {
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member refresh_token is missing.")
	}
	try := &attempt{limits: s.limits}
	if err := try.charge(s.limits.address, c.ip()); err != nil {
		return nil, err
	}
	hash, ok := hashToken(token, refreshPrefix)
	if !ok {
		return nil, unknownToken("This refresh token is not known.", false)
	}
	var row *storage.RefreshRow
	var u *storage.User
	err := s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if row, err = tx.FindRefresh(hash[:]); err == nil {
			u, err = tx.LoadUser(row.UserID)
		}
		return err
	})
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, unknownToken("This refresh token is not known.", false)
	case err != nil:
		return nil, err
	case u.Deactivated:
		return nil, unknownToken("This refresh token is not known.", false)
	case u.Locked:
		return nil, errLocked()
	}
	if !row.Spent { // a thief's attempt is not worth a question
		if err := s.askLogin(ctx, u, c, "refresh", row.DeviceID); err != nil {
			return nil, err
		}
	}
	p, err := s.newPair(row.UserID, row.DeviceID, true)
	if err != nil {
		return nil, err
	}
	p.stored.Parent = hash[:]
	var stolen bool
	err = s.DB.Update(ctx, func(tx *storage.Tx) (err error) {
		stolen, err = s.rotate(tx, hash, p)
		return err
	})
	s.cache.drop(u.ID)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, unknownToken("This refresh token is not known.", false)
	case err != nil:
		return nil, err
	case stolen:
		s.log.WithFields(map[string]any{"user_id": u.ID, "device_id": row.DeviceID}).Warn("a spent refresh token was used again; its session has been ended")
		return nil, unknownToken("This refresh token has been used already; the session has been ended for safety.", true)
	}
	try.forgive()
	a := p.answer("")
	a.UserID, a.DeviceID = "", ""
	return a, nil
}

// rotate stores the tokens that follow on a refresh token, or ends the session when that was spent before.
func (s *Service) rotate(tx *storage.Tx, hash tokenHash, p *pair) (stolen bool, err error) {
	row, err := tx.LoadRefresh(hash[:])
	if err != nil {
		return false, err
	}
	if row.Spent {
		if _, err := tx.DeleteTokens(row.UserID, row.DeviceID); err != nil {
			return true, err
		}
		return true, tx.Announce(storage.NoticeSession, string(row.UserID))
	}
	if row.Parent != nil { // the first use of this generation ends the one before
		access, _, err := tx.LoadChildren(row.UserID, row.DeviceID, row.Parent)
		if err != nil {
			return false, err
		}
		ended, err := tx.SpendOthers(row.UserID, row.DeviceID, access, [][]byte{hash[:]}, s.Now().Add(-spentLife).UnixMilli())
		if err == nil && ended > 0 {
			err = tx.Announce(storage.NoticeSession, string(row.UserID))
		}
		if err != nil {
			return false, err
		}
	}
	if err := tx.Supersede(row.UserID, row.DeviceID, hash[:]); err != nil {
		return false, err
	}
	return false, tx.PutTokens(p.stored)
}
