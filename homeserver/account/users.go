package account

import (
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// Actor is who does something with admin rights. The zero Actor may do nothing.
type Actor struct {
	party            *policy.Party
	client           Client
	via              string
	reason, approver string
}

// Operator is the actor at the command line or the local socket of the server.
func Operator(reason string) Actor {
	return Actor{party: &policy.Party{Kind: "operator"}, via: "internal", reason: reason}
}

// AdminOf is the user of a session who acts with admin rights, and says why. approver is the second person, where one is needed.
func AdminOf(by Caller, reason, approver string) Actor {
	return Actor{party: by.Party, client: by.Client, via: "admin", reason: reason, approver: approver}
}

// ApprovedBy is the actor with a second person who approves what is done.
func (a Actor) ApprovedBy(user matrix.UserID) Actor {
	a.approver = string(user)
	return a
}

// askAdmin asks whether an actor may do something to a tenant or one of its users.
func (s *Service) askAdmin(ctx context.Context, a Actor, action string, tenant matrix.ServerName, target *policy.Party) error {
	if a.party == nil {
		return matrix.Forbidden("This needs the rights of an administrator.")
	}
	if !s.IsLocal(tenant) {
		return matrix.NotFound("This server does not host %s.", tenant)
	}
	return s.ask(ctx, &policy.Input{Point: policy.AdminAction, Tenant: policy.Tenant{Name: string(tenant)}, Subject: a.subject(tenant),
		Target: target, Admin: &policy.Admin{Action: action, Tenant: string(tenant), Reason: a.reason, Approver: a.approver},
		Request: a.client.request(a.via)})
}

func (a Actor) subject(tenant matrix.ServerName) *policy.Party {
	if a.party.Kind == "operator" {
		return operator(tenant)
	}
	return a.party
}

// Account is an account as admins see it.
type Account struct {
	UserID      matrix.UserID     `json:"user_id"`
	Tenant      matrix.ServerName `json:"tenant"`
	Kind        string            `json:"kind"`
	Admin       bool              `json:"admin"`
	Listed      bool              `json:"listed"`
	Locked      bool              `json:"locked"`
	Suspended   bool              `json:"suspended"`
	Deactivated bool              `json:"deactivated"`
	HasPassword bool              `json:"has_password"`
	Appservice  string            `json:"appservice,omitempty"`
	Pools       []string          `json:"pools"`
	Groups      []string          `json:"groups"`
	Roles       []string          `json:"roles"`
	Attributes  map[string]string `json:"attributes"`
	CreatedTS   int64             `json:"created_ts"`
}

func view(u *storage.User) *Account {
	return &Account{UserID: u.ID, Tenant: u.Tenant, Kind: u.Kind, Admin: u.Admin, Listed: u.Listed, Locked: u.Locked, Suspended: u.Suspended,
		Deactivated: u.Deactivated, HasPassword: u.Password != "", Appservice: u.Appservice, Pools: u.Pools, Groups: u.Groups,
		Roles: u.Roles, Attributes: u.Attributes, CreatedTS: u.CreatedTS}
}

// NewUser is an account that an admin makes.
type NewUser struct {
	ID matrix.UserID
	// Kind is user (also when empty), bot, ghost or bridge.
	Kind string
	// Password may be empty: then nobody can log in with one.
	Password             string
	DisplayName          string
	Admin, Listed        bool
	Appservice           string
	Pools, Groups, Roles []string
	Attributes           map[string]string
}

// Add makes an account.
func (s *Service) Add(ctx context.Context, a Actor, n NewUser) (*Account, error) {
	t, ok := s.Tenant(n.ID.Server())
	if !ok {
		return nil, matrix.NotFound("This server does not host %s.", n.ID.Server())
	}
	id, err := s.newUserID(t.Name, n.ID.Localpart())
	if err != nil {
		return nil, err
	}
	if n.Kind == "" {
		n.Kind = "user"
	}
	if !slices.Contains([]string{"user", "bot", "ghost", "bridge"}, n.Kind) {
		return nil, matrix.InvalidParam("The kind of an account is user, bot, ghost or bridge.")
	}
	if n.Password != "" {
		if err := checkNew(n.Password); err != nil {
			return nil, err
		}
	}
	if err := checkDisplayName(n.DisplayName); err != nil {
		return nil, err
	}
	change := storage.UserChange{Pools: &n.Pools, Groups: &n.Groups, Roles: &n.Roles, Attributes: &n.Attributes}
	if err := checkChange(&change); err != nil {
		return nil, err
	}
	u := &storage.User{ID: id, Tenant: t.Name, Kind: n.Kind, Admin: n.Admin, Listed: n.Listed, Appservice: n.Appservice,
		Pools: n.Pools, Groups: n.Groups, Roles: n.Roles, Attributes: n.Attributes}
	if err := s.askAdmin(ctx, a, "user.add", t.Name, s.Policy.Resolve(facts(u))); err != nil {
		return nil, err
	}
	if _, err := s.bear(ctx, t, a.client, &birth{user: u, password: n.Password, via: "admin", subject: a.subject(t.Name), displayName: n.DisplayName}); err != nil {
		return nil, err
	}
	return s.load(ctx, id)
}

func (s *Service) load(ctx context.Context, id matrix.UserID) (*Account, error) {
	var u *storage.User
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		u, err = tx.LoadUser(id)
		return err
	})
	if err != nil {
		return nil, find(err, "There is no account %s.", id)
	}
	return view(u), nil
}

// Exists tells whether a local user has an account that is not closed. Who may learn that is for the caller to ask.
func (s *Service) Exists(ctx context.Context, id matrix.UserID) (bool, error) {
	acc, err := s.load(ctx, id)
	if err != nil {
		if e := asMatrix(err); e != nil && e.Code == matrix.CodeNotFound {
			return false, nil
		}
		return false, err
	}
	return !acc.Deactivated, nil
}

// Find returns an account.
func (s *Service) Find(ctx context.Context, a Actor, id matrix.UserID) (*Account, error) {
	if err := s.askAbout(ctx, a, "user.show", id); err != nil {
		return nil, err
	}
	return s.load(ctx, id)
}

// askAbout asks whether an actor may do something to a user.
func (s *Service) askAbout(ctx context.Context, a Actor, action string, id matrix.UserID) error {
	target, err := s.Party(ctx, id)
	if err != nil {
		return err
	}
	return s.askAdmin(ctx, a, action, id.Server(), target)
}

// List returns a page of a tenant's accounts in the order of their IDs, beginning after one of them.
func (s *Service) List(ctx context.Context, a Actor, tenant matrix.ServerName, after matrix.UserID, limit int) ([]*Account, error) {
	if err := s.askAdmin(ctx, a, "user.list", tenant, nil); err != nil {
		return nil, err
	}
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	var out []*Account
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.ListUsers(tenant, after, limit)
		out = make([]*Account, 0, len(list))
		for _, u := range list {
			out = append(out, view(u))
		}
		return err
	})
	return out, err
}

// Lock locks an account or opens it again. Its sessions stay, and work again when it is open.
//
// spec: client-server-api#account-locking
func (s *Service) Lock(ctx context.Context, a Actor, id matrix.UserID, locked bool) error {
	action := "user.lock"
	if !locked {
		action = "user.unlock"
	}
	return s.change(ctx, a, action, id, storage.UserChange{Locked: &locked}, storage.NoticeSession)
}

// Suspend suspends an account or ends that.
//
// spec: client-server-api#account-suspension
func (s *Service) Suspend(ctx context.Context, a Actor, id matrix.UserID, suspended bool) error {
	action := "user.suspend"
	if !suspended {
		action = "user.unsuspend"
	}
	return s.change(ctx, a, action, id, storage.UserChange{Suspended: &suspended}, storage.NoticeSession)
}

// SetFacts changes what policies know of an account; nil members stay as they are. Locks and passwords have calls of their own.
// The admin action is user.roles when it makes or unmakes an admin or changes roles, else user.facts.
func (s *Service) SetFacts(ctx context.Context, a Actor, id matrix.UserID, c Facts) error {
	action := "user.facts"
	if c.Admin != nil || c.Roles != nil {
		action = "user.roles"
	}
	return s.change(ctx, a, action, id, storage.UserChange{Kind: c.Kind, Admin: c.Admin, Listed: c.Listed, Pools: c.Pools, Groups: c.Groups,
		Roles: c.Roles, Attributes: c.Attributes}, storage.NoticeParty)
}

// Facts is what an admin may change of what policies know of an account.
type Facts struct {
	Kind                 *string
	Admin, Listed        *bool
	Pools, Groups, Roles *[]string
	Attributes           *map[string]string
}

// SetPools puts an account into pools, and out of all others that were given to it. Pools that the tenant's files give stay.
func (s *Service) SetPools(ctx context.Context, a Actor, id matrix.UserID, pools []string) error {
	return s.SetFacts(ctx, a, id, Facts{Pools: &pools})
}

// SetGroups sets the groups of an account.
func (s *Service) SetGroups(ctx context.Context, a Actor, id matrix.UserID, groups []string) error {
	return s.SetFacts(ctx, a, id, Facts{Groups: &groups})
}

// SetPassword gives an account another password and ends its sessions. An empty one means that nobody can log in with one.
func (s *Service) SetPassword(ctx context.Context, a Actor, id matrix.UserID, password string) error {
	if password != "" {
		if err := checkNew(password); err != nil {
			return err
		}
	}
	if err := s.askAbout(ctx, a, "user.passwd", id); err != nil {
		return err
	}
	if _, err := s.load(ctx, id); err != nil {
		return err
	}
	return s.setPassword(ctx, id, password, "", true)
}

// setPassword stores a password, and removes the devices but one.
func (s *Service) setPassword(ctx context.Context, id matrix.UserID, password string, keep matrix.DeviceID, logout bool) error {
	encoded := ""
	if password != "" {
		var err error
		if encoded, err = s.hasher.hash(ctx, password); err != nil {
			return err
		}
	}
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		ok, err := tx.UpdateUser(id, storage.UserChange{Password: &encoded})
		if err != nil {
			return err
		}
		if !ok {
			return matrix.NotFound("There is no account %s, or it is closed.", id)
		}
		if !logout {
			return nil
		}
		return s.drop(tx, id, nil, keep)
	})
	s.Invalidate(id)
	return err
}

// change asks whether an account may be changed, changes it and says so.
func (s *Service) change(ctx context.Context, a Actor, action string, id matrix.UserID, c storage.UserChange, notice string) error {
	if err := checkChange(&c); err != nil {
		return err
	}
	if err := s.askAbout(ctx, a, action, id); err != nil {
		return err
	}
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		ok, err := tx.UpdateUser(id, c)
		if err != nil {
			return err
		}
		if !ok {
			return matrix.NotFound("There is no account %s, or it is closed.", id)
		}
		return tx.Announce(notice, string(id))
	})
	s.Invalidate(id)
	return err
}

// checkChange bounds what is written and puts lists in order.
func checkChange(c *storage.UserChange) error {
	if c.Kind != nil && !slices.Contains([]string{"user", "bot", "ghost", "bridge"}, *c.Kind) {
		return matrix.InvalidParam("The kind of an account is user, bot, ghost or bridge.")
	}
	for _, l := range []*[]string{c.Pools, c.Groups, c.Roles} {
		if l == nil {
			continue
		}
		list := slices.Clone(*l)
		slices.Sort(list)
		list = slices.Compact(list)
		if len(list) > 1000 || slices.ContainsFunc(list, func(n string) bool { return n == "" || len(n) > 255 || !utf8.ValidString(n) }) {
			return matrix.InvalidParam("A user has at most 1000 pools, groups and roles each, with names of 1 to 255 bytes.")
		}
		*l = list
	}
	if c.Attributes == nil {
		return nil
	}
	if len(*c.Attributes) > 1000 {
		return matrix.InvalidParam("A user has at most 1000 attributes.")
	}
	for k, v := range *c.Attributes {
		if k == "" || len(k) > 255 || len(v) > 4096 || !utf8.ValidString(k) || !utf8.ValidString(v) {
			return matrix.InvalidParam("An attribute has a name of 1 to 255 bytes and a value of at most 4096.")
		}
	}
	return nil
}

// Close closes an account for good, as its user can: sessions, devices, pushers and profile go, and it leaves its rooms. Its name is not given out
// again.
func (s *Service) Close(ctx context.Context, a Actor, id matrix.UserID) error {
	if err := s.askAbout(ctx, a, "user.deactivate", id); err != nil {
		return err
	}
	if _, err := s.load(ctx, id); err != nil {
		return err
	}
	return s.close(ctx, id, false)
}

// Wipe closes an account for good and erases what is left of it as well: account data, filters, media, and what it has sent into rooms for those who
// come into them later.
func (s *Service) Wipe(ctx context.Context, a Actor, id matrix.UserID) error {
	if err := s.askAbout(ctx, a, "user.wipe", id); err != nil {
		return err
	}
	if _, err := s.load(ctx, id); err != nil {
		return err
	}
	return s.close(ctx, id, true)
}

// AddRegistrationToken lets people register with a token: as many accounts as uses (-1 for any number) until a time (zero for no end).
// A token that is there is refused, used up or not, so that nobody makes one good again by mistake. One that was deleted may be added again, as
// administrators of other homeservers are used to: that is a new token, whose uses begin at zero.
func (s *Service) AddRegistrationToken(ctx context.Context, a Actor, tenant matrix.ServerName, token string, uses int64, until time.Time) error {
	if token == "" || len(token) > 64 || !utf8.ValidString(token) {
		return matrix.InvalidParam("A registration token has 1 to 64 characters.")
	}
	for i := 0; i < len(token); i++ {
		if c := token[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '~' || c == '-') {
			return matrix.InvalidParam("A registration token holds only letters, digits and the characters . _ ~ -")
		}
	}
	if uses < -1 || uses == 0 {
		return matrix.InvalidParam("A registration token is good for at least one account.")
	}
	if err := s.askAdmin(ctx, a, "registration_token.add", tenant, nil); err != nil {
		return err
	}
	t := storage.RegistrationToken{Tenant: tenant, Hash: registrationHash(token), Hint: token[:min(len(token)/3, 4)], UsesAllowed: uses}
	if !until.IsZero() {
		t.ExpiresTS = until.UnixMilli()
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		ok, err := tx.PutRegistrationToken(t)
		if err == nil && !ok {
			err = matrix.InvalidParam("There is such a registration token already.")
		}
		return err
	})
}

// ListRegistrationTokens returns a tenant's registration tokens. Their text is not kept; Hint is its beginning.
func (s *Service) ListRegistrationTokens(ctx context.Context, a Actor, tenant matrix.ServerName) ([]storage.RegistrationToken, error) {
	if err := s.askAdmin(ctx, a, "registration_token.list", tenant, nil); err != nil {
		return nil, err
	}
	var out []storage.RegistrationToken
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		out, err = tx.ListRegistrationTokens(tenant)
		return err
	})
	return out, err
}

// DeleteRegistrationToken makes a registration token useless.
func (s *Service) DeleteRegistrationToken(ctx context.Context, a Actor, tenant matrix.ServerName, token string) error {
	if err := s.askAdmin(ctx, a, "registration_token.delete", tenant, nil); err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		ok, err := tx.DeleteRegistrationToken(tenant, registrationHash(token))
		if err == nil && !ok {
			err = matrix.NotFound("There is no such registration token.")
		}
		return err
	})
}
