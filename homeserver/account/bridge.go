package account

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// The kinds of accounts that application services have.
const (
	KindGhost  = "ghost"
	KindBridge = "bridge"
)

// CodeUnknownDevice says that a device which an application service wants to act as is not known.
const CodeUnknownDevice = "M_UNKNOWN_DEVICE"

// Bridge is an application service as accounts know it: whom it may act as. It does not change.
type Bridge struct {
	// ID is the ID in its registration.
	ID     string
	Tenant matrix.ServerName
	// Bot is the user that it acts as when it names nobody.
	Bot matrix.UserID
	// Owns tells whether a user is its bot or lies in its namespace.
	Owns func(matrix.UserID) bool
	// RateLimited says that its users, the bot aside, are limited as others are.
	RateLimited bool
	// Version changes with the registration.
	Version [sha256.Size]byte
}

// Assert returns a session of an application service that acts as one of its users, on one of the user's devices or on none. Accounts that
// were not made by the service are not its users, whatever they are called.
//
// spec: application-service-api#identity-assertion
func (s *Service) Assert(ctx context.Context, b *Bridge, user matrix.UserID, device matrix.DeviceID) (*Session, error) {
	if user == "" {
		user = b.Bot
	}
	if user.Server() != b.Tenant || !b.Owns(user) {
		return nil, matrix.Forbidden("This application service cannot act as %.255q.", user)
	}
	key := tokenHash(sha256.Sum256([]byte("bridge\x00" + b.ID + "\x00" + string(b.Version[:]) + "\x00" + string(user) + "\x00" + string(device))))
	sess, epoch := s.cache.find(key)
	if sess == nil {
		var err error
		if sess, err = s.loadAsserted(ctx, b, user, device); err != nil {
			return nil, err
		}
		sess.hash = key
		s.cache.put(sess, epoch)
	}
	if sess.Locked {
		return nil, errLocked()
	}
	if g := s.Policy.Generation(); g != sess.generation {
		fresh := *sess
		s.setParty(&fresh, g)
		sess = &fresh
		s.cache.put(sess, epoch)
	}
	return sess, nil
}

func (s *Service) loadAsserted(ctx context.Context, b *Bridge, user matrix.UserID, device matrix.DeviceID) (*Session, error) {
	var u *storage.User
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if u, err = tx.LoadUser(user); err != nil || device == "" {
			return err
		}
		if _, err = tx.LoadDevice(user, device); errors.Is(err, storage.ErrNotFound) {
			err = matrix.Errorf(http.StatusBadRequest, CodeUnknownDevice, "The user has no device %.255q.", device)
		}
		return err
	})
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, matrix.Forbidden("The user %.255q is not registered.", user)
	case u != nil && (u.Appservice != b.ID || u.Deactivated):
		return nil, matrix.Forbidden("This application service cannot act as %.255q.", user)
	case err != nil:
		return nil, err
	}
	sess := &Session{UserID: u.ID, DeviceID: device, Tenant: u.Tenant, Kind: u.Kind, Admin: u.Admin, Suspended: u.Suspended, Locked: u.Locked,
		Bridge: b, user: u, lastSeen: new(atomic.Int64)}
	s.setParty(sess, s.Policy.Generation())
	if device == "" {
		sess.Party = sess.Party.With(nil, nil)
	}
	return sess, nil
}

// recheckBridge tells whether the session of an application service still stands.
func (s *Service) recheckBridge(ctx context.Context, old *Session) (*Session, error) {
	if s.FindBridge == nil {
		return nil, unknownToken("This access token is not known.", false)
	}
	b, ok := s.FindBridge(old.Bridge.ID)
	if !ok || b.Version != old.Bridge.Version {
		return nil, unknownToken("This access token is not known.", false)
	}
	return s.Assert(ctx, b, old.UserID, old.DeviceID)
}

func exclusive(format string, args ...any) *matrix.Error {
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeExclusive, format, args...)
}

// RegisterBridged makes an account for a user of an application service. It has no password: nobody but the service can use it.
//
// spec: application-service-api#server-admin-style-permissions
func (s *Service) RegisterBridged(ctx context.Context, b *Bridge, c Client, r RegisterRequest) (*LoginAnswer, error) {
	t, ok := s.Tenant(b.Tenant)
	if !ok {
		return nil, matrix.Forbidden("This server does not host %s.", b.Tenant)
	}
	if r.Username == "" {
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member username is missing.")
	}
	if r.Password != "" {
		return nil, matrix.InvalidParam("Users of application services have no passwords.")
	}
	id, err := s.newUserID(b.Tenant, r.Username)
	if err != nil {
		return nil, err
	}
	if !b.Owns(id) {
		return nil, exclusive("The user name lies outside of the namespaces of this application service.")
	}
	c.Appservice = true
	bot, err := s.Assert(ctx, b, "", "")
	if err != nil {
		return nil, err
	}
	u := &storage.User{ID: id, Tenant: b.Tenant, Kind: KindGhost, Appservice: b.ID}
	return s.bear(ctx, t, c, &birth{user: u, via: "appservice", subject: bot.Party.With(nil, c.network()),
		wish: wish{r.DeviceID, r.InitialDeviceDisplayName, r.RefreshToken}, login: !r.InhibitLogin})
}

// LoginBridged opens a session for a user of an application service.
//
// spec: application-service-api#server-admin-style-permissions
func (s *Service) LoginBridged(ctx context.Context, b *Bridge, c Client, r LoginRequest) (*LoginAnswer, error) {
	id, err := s.identify(b.Tenant, r.Identifier, r.User, r.Medium)
	if err != nil {
		return nil, err
	}
	if !b.Owns(id) {
		return nil, exclusive("The user lies outside of the namespaces of this application service.")
	}
	sess, err := s.Assert(ctx, b, id, "")
	if err != nil {
		return nil, err
	}
	c.Appservice = true
	w := wish{r.DeviceID, r.InitialDeviceDisplayName, r.RefreshToken}
	device, err := s.checkDevice(ctx, id, w)
	if err != nil {
		return nil, err
	}
	if err := s.askLogin(ctx, sess.user, c, "appservice", device); err != nil {
		return nil, err
	}
	p, err := s.newPair(id, device, w.refresh)
	if err != nil {
		return nil, err
	}
	var replaced bool
	err = s.DB.Update(ctx, func(tx *storage.Tx) error {
		now, err := tx.LoadUser(id)
		if err != nil {
			return err
		}
		if now.Deactivated || now.Appservice != b.ID {
			return matrix.Forbidden("This application service cannot act as %.255q.", id)
		}
		replaced, err = s.openSession(tx, p, w.name, c)
		return err
	})
	return s.opened(p, b.Tenant, replaced, err)
}

// PutBridgedDevice makes a device of a user whom an application service acts as, or renames one that is there.
//
// spec: application-service-api#device-management
func (s *Service) PutBridgedDevice(ctx context.Context, by Caller, id matrix.DeviceID, name *string) (isNew bool, err error) {
	w := wish{device: string(id)}
	if name != nil {
		w.name = *name
	}
	if id, err = s.checkDevice(ctx, by.UserID, w); err != nil {
		return false, err
	}
	now := s.Now().UnixMilli()
	err = s.DB.Update(ctx, func(tx *storage.Tx) error {
		isNew, err = tx.PutDevice(storage.Device{UserID: by.UserID, DeviceID: id, DisplayName: w.name, LastSeenIP: by.Client.ip(),
			LastSeenAgent: clip(by.Client.UserAgent, 256), LastSeenTS: now, CreatedTS: now})
		if err != nil {
			return err
		}
		if !isNew && name != nil {
			if _, err := tx.RenameDevice(by.UserID, id, w.name); err != nil {
				return err
			}
		}
		return tx.TouchDeviceList(by.UserID)
	})
	return isNew, err
}

// EnsureBot makes the account of an application service's own user, unless it is there. It is an error where somebody else has the name.
func (s *Service) EnsureBot(ctx context.Context, b *Bridge) error {
	find := func() (found bool, err error) {
		var u *storage.User
		err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { u, err = tx.LoadUser(b.Bot); return err })
		switch {
		case errors.Is(err, storage.ErrNotFound):
			return false, nil
		case err != nil:
			return false, err
		case u.Appservice != b.ID:
			return false, matrix.Errorf(http.StatusConflict, matrix.CodeUserInUse, "The user %s of the application service %s is somebody else's account.", b.Bot, b.ID)
		}
		return true, nil
	}
	if found, err := find(); found || err != nil {
		return err
	}
	_, err := s.Add(ctx, Operator("registration of the application service "+b.ID), NewUser{ID: b.Bot, Kind: KindBridge, Appservice: b.ID})
	if err != nil {
		if found, ferr := find(); found || ferr != nil { // another node was faster
			return ferr
		}
	}
	return err
}

// askBridge asks the decision point that comes before everything an application service does.
func (s *Service) askBridge(ctx context.Context, sess *Session, c Client) error {
	c.Appservice = true
	return s.ask(ctx, &policy.Input{Point: policy.BridgeAct, Tenant: policy.Tenant{Name: string(sess.Tenant)},
		Subject: sess.Party.With(sess.Party.Device, c.network()), Bridge: &policy.Bridge{ID: sess.Bridge.ID}, Request: c.request("client")})
}

// AuthenticateBridge is Assert for a request: the policy is asked whether the application service may act at all.
func (s *Service) AuthenticateBridge(ctx context.Context, b *Bridge, user matrix.UserID, device matrix.DeviceID, c Client) (*Session, error) {
	sess, err := s.Assert(ctx, b, user, device)
	if err != nil {
		return nil, err
	}
	return sess, s.askBridge(ctx, sess, c)
}

// IsBridgeToken tells whether a token can be one of an application service: it does not look like those that this server gives out.
func IsBridgeToken(token string) bool {
	return token != "" && !strings.HasPrefix(token, accessPrefix) && !strings.HasPrefix(token, refreshPrefix)
}
