package account

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// RegisterRequest is the body of POST /register.
type RegisterRequest struct {
	// Type is TypeBridge where an application service registers one of its users; other values mean nothing.
	Type                     string `json:"type"`
	Username                 string `json:"username"`
	Password                 string `json:"password"`
	DeviceID                 string `json:"device_id"`
	InitialDeviceDisplayName string `json:"initial_device_display_name"`
	InhibitLogin             bool   `json:"inhibit_login"`
	RefreshToken             bool   `json:"refresh_token"`
}

// birth is an account that is about to be made.
type birth struct {
	user     *storage.User
	password string
	via      string
	// subject asks for it: an anonymous client, the operator or an admin.
	subject *policy.Party
	// token is the hash of the registration token that is used up by it, nil for none.
	token []byte
	wish  wish
	// login asks for a session; mayFail lets the account be made also when policy allows none.
	login, mayFail bool
	displayName    string
}

// userInUse is the answer for a name that is taken, for good: names of closed accounts are not given out again.
func userInUse() *matrix.Error {
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeUserInUse, "This user name is taken.")
}

// newUserID turns a wanted user name into the ID of a new account. Capital letters become small ones; everything else that is not
// in the grammar is refused, so that there are no two names that look alike by their letters' case or alphabet.
//
// spec: appendices#user-identifiers
func (s *Service) newUserID(tenant matrix.ServerName, name string) (matrix.UserID, error) {
	name = lower(name)
	id, err := matrix.ParseLocalpart(name, tenant)
	if err != nil {
		return "", err
	}
	if strings.Trim(name, "0123456789") == "" {
		return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeInvalidUsername, "A user name must not be a number.")
	}
	return id, nil
}

// freeUserID is newUserID for a client's wish, which may not take the name of somebody else.
func (s *Service) freeUserID(ctx context.Context, tenant matrix.ServerName, name string) (matrix.UserID, error) {
	id, err := s.newUserID(tenant, name)
	if err != nil {
		return "", err
	}
	if s.Exclusive != nil && s.Exclusive(id) {
		return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeExclusive, "This user name belongs to an application service.")
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		_, err := tx.LoadUser(id)
		return err
	})
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return id, nil
	case err != nil:
		return "", err
	}
	return "", userInUse()
}

// openTenant returns a tenant that lets people register.
func (s *Service) openTenant(name matrix.ServerName) (Tenant, error) {
	t, ok := s.Tenant(name)
	if !ok || t.Registration != RegistrationOpen && t.Registration != RegistrationToken {
		return t, matrix.Forbidden("Accounts are made by the administrators of this server.")
	}
	return t, nil
}

// Available tells whether a user name could be registered: nil, or the reason why not.
func (s *Service) Available(ctx context.Context, tenant matrix.ServerName, c Client, name string) error {
	if _, err := s.openTenant(tenant); err != nil {
		return err
	}
	if err := s.limits.charge(s.limits.lookup, networkOf(c.IP)); err != nil {
		return err
	}
	_, err := s.freeUserID(ctx, tenant, name)
	return err
}

// Register makes an account for a client. proof is the request as it came; it holds r and the authentication data.
//
// spec: client-server-api#legacy-account-registration
func (s *Service) Register(ctx context.Context, tenant matrix.ServerName, c Client, kind string, r RegisterRequest, proof Proof) (*LoginAnswer, error) {
	switch kind {
	case "", "user":
	case "guest":
		return nil, matrix.Forbidden("This server has no guest accounts.")
	default:
		return nil, matrix.InvalidParam("The kind of account must be user or guest.")
	}
	t, err := s.openTenant(tenant)
	if err != nil {
		return nil, err
	}
	if err := s.limits.charge(s.limits.lookup, networkOf(c.IP)); err != nil {
		return nil, err
	}
	var id matrix.UserID
	if r.Username != "" {
		if id, err = s.freeUserID(ctx, tenant, r.Username); err != nil {
			return nil, err
		}
	}
	if r.Password != "" {
		if err := checkNew(r.Password); err != nil {
			return nil, err
		}
	}
	stages, err := s.challenge(ctx, s.registration(t, c, proof))
	if err != nil {
		return nil, err
	}
	if r.Password == "" {
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member password is missing.")
	}
	if id == "" {
		if id, err = s.inventName(tenant); err != nil {
			return nil, err
		}
	}
	if err := s.limits.charge(s.limits.register, networkOf(c.IP)); err != nil {
		return nil, err
	}
	b := &birth{user: &storage.User{ID: id, Tenant: tenant, Kind: "user"}, password: r.Password, via: "client",
		subject: &policy.Party{Kind: "anonymous", Tenant: string(tenant), Local: true, Network: c.network()},
		wish:    wish{r.DeviceID, r.InitialDeviceDisplayName, r.RefreshToken}, login: !r.InhibitLogin}
	for _, d := range stages {
		if d.Stage == StageToken {
			b.via = "token"
			b.token, err = hex.DecodeString(d.Result)
		}
	}
	if err != nil {
		return nil, err
	}
	return s.bear(ctx, t, c, b)
}

// registration is the challenge of POST /register.
func (s *Service) registration(t Tenant, c Client, proof Proof) *challenge {
	ch := &challenge{Proof: proof, tenant: t.Name, client: c, flows: [][]string{{StageDummy}}}
	ch.check = func(context.Context, *auth) (string, error) { return "", nil }
	if t.Registration == RegistrationToken {
		ch.flows = [][]string{{StageToken}}
		ch.check = func(ctx context.Context, a *auth) (string, error) {
			hash, ok, err := s.findRegistrationToken(ctx, t, c, a.Token)
			if err == nil && !ok {
				err = matrix.Errorf(http.StatusUnauthorized, matrix.CodeUnauthorized, "This registration token is not good.")
			}
			return hash, err
		}
	}
	return ch
}

// inventName makes a user name for who wants none.
func (s *Service) inventName(tenant matrix.ServerName) (matrix.UserID, error) {
	b := make([]byte, 8)
	if _, err := io.ReadFull(s.Rand, b); err != nil {
		return "", err
	}
	return s.newUserID(tenant, "u"+hex.EncodeToString(b))
}

// bear asks the policy, makes the account, and opens a session if one is wanted.
func (s *Service) bear(ctx context.Context, t Tenant, c Client, b *birth) (*LoginAnswer, error) {
	party := s.Policy.Resolve(facts(b.user))
	err := s.ask(ctx, &policy.Input{Point: policy.AccountRegister, Tenant: policy.Tenant{Name: string(t.Name)}, Subject: b.subject, Target: party,
		Account: &policy.Account{Username: b.user.ID.Localpart(), Via: b.via, Registration: t.Registration, Admin: b.user.Admin},
		Request: c.request("client")})
	if err != nil {
		return nil, err
	}
	var p *pair
	if b.login {
		device, err := s.checkDevice(ctx, b.user.ID, b.wish)
		if err != nil {
			return nil, err
		}
		err = s.askLogin(ctx, b.user, c, b.via, device)
		switch {
		case err == nil:
			if p, err = s.newPair(b.user.ID, device, b.wish.refresh); err != nil {
				return nil, err
			}
		case !b.mayFail:
			return nil, err
		}
	}
	if b.password != "" {
		if b.user.Password, err = s.hasher.hash(ctx, b.password); err != nil {
			return nil, err
		}
	}
	b.user.CreatedTS = s.Now().UnixMilli()
	err = s.DB.UpdateShared(ctx, func(tx *storage.Tx) error { return s.insert(tx, b, p, c) })
	if err != nil {
		return nil, err
	}
	s.Invalidate(b.user.ID)
	s.log.WithFields(map[string]any{"user_id": b.user.ID, "tenant": t.Name}).Info("account made")
	if p == nil {
		return &LoginAnswer{UserID: b.user.ID, HomeServer: t.Name}, nil
	}
	return p.answer(t.Name), nil
}

// insert stores an account and its first session.
func (s *Service) insert(tx *storage.Tx, b *birth, p *pair, c Client) error {
	isNew, err := tx.InsertUser(b.user)
	if err != nil {
		return err
	}
	if !isNew {
		return userInUse()
	}
	if len(b.token) > 0 {
		good, err := tx.UseRegistrationToken(b.user.Tenant, b.token)
		if err != nil {
			return err
		}
		if !good {
			return matrix.Forbidden("This registration token has been used up.")
		}
	}
	if b.displayName != "" {
		if err := tx.SetProfileField(storage.ProfileField{UserID: b.user.ID, Field: FieldDisplayName, Value: quote(b.displayName)}); err != nil {
			return err
		}
		if err := tx.Announce(storage.NoticeProfile, string(b.user.ID)); err != nil {
			return err
		}
	}
	if err := tx.Announce(storage.NoticeParty, string(b.user.ID)); err != nil {
		return err
	}
	if p == nil {
		return nil
	}
	_, err = s.openSession(tx, p, b.wish.name, c)
	return err
}

// registrationHash is how a tenant's registration token is kept.
func registrationHash(token string) []byte {
	h := sha256.Sum256([]byte("registration token\n" + token))
	return h[:]
}

// findRegistrationToken tells whether a token is good, and returns the hash of one that has to be counted, in hex.
func (s *Service) findRegistrationToken(ctx context.Context, t Tenant, c Client, token string) (hash string, ok bool, err error) {
	if err := s.limits.charge(s.limits.lookup, networkOf(c.IP)); err != nil {
		return "", false, err
	}
	if token == "" || len(token) > 64 {
		return "", false, nil
	}
	h := registrationHash(token)
	for _, known := range t.RegistrationTokens {
		ok = subtle.ConstantTimeCompare(h, registrationHash(known)) == 1 || ok
	}
	if ok {
		return "", true, nil
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		ok, err = tx.IsRegistrationToken(t.Name, h)
		return err
	})
	return hex.EncodeToString(h), ok, err
}

// IsRegistrationTokenValid tells whether a registration token would be good at this moment.
//
// spec: client-server-api#token-authenticated-registration
func (s *Service) IsRegistrationTokenValid(ctx context.Context, tenant matrix.ServerName, c Client, token string) (bool, error) {
	t, err := s.openTenant(tenant)
	if err != nil {
		return false, err
	}
	if t.Registration != RegistrationToken {
		return false, nil
	}
	_, ok, err := s.findRegistrationToken(ctx, t, c, token)
	return ok, err
}
