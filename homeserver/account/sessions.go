package account

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const (
	// maxSessions and maxParties bound the caches.
	maxSessions = 100_000
	maxParties  = 100_000
	// seenEvery is how exactly the last use of a device is known, seenInterval how often it is written.
	seenEvery    = 4 * time.Minute
	seenInterval = 30 * time.Second
	// maxSeen bounds the uses that wait to be written.
	maxSeen = 20_000
	// spentLife is how long a refresh token that was used is remembered, to know a thief.
	spentLife = 30 * 24 * time.Hour
)

// Session is what an access token stands for. It does not change; it is shared by the requests that come with the token.
type Session struct {
	UserID   matrix.UserID
	DeviceID matrix.DeviceID
	Tenant   matrix.ServerName
	// Kind is user, bot, ghost or bridge.
	Kind string
	// Admin says that the user administers the tenant.
	Admin bool
	// Suspended users may read and put their affairs in order, no more: see CheckWrite.
	Suspended bool
	// Locked users may only log out. Authenticate refuses them.
	Locked bool
	// Party is the user and the device to policy.
	Party *policy.Party
	// Bridge is the application service that acts as the user, nil for a session of the user's own.
	Bridge *Bridge

	hash       tokenHash
	expires    int64 // ms, 0 for never
	lastSeen   *atomic.Int64
	user       *storage.User
	generation uint64 // of the policy that made Party
}

type deviceKey struct {
	user   matrix.UserID
	device matrix.DeviceID
}

// unknownToken is 401 M_UNKNOWN_TOKEN. After a soft logout the client keeps what it has stored and asks the user to log in again.
//
// spec: client-server-api#soft-logout
func unknownToken(message string, soft bool) *matrix.Error {
	e := matrix.Errorf(http.StatusUnauthorized, matrix.CodeUnknownToken, "%s", message)
	if soft {
		e = e.With("soft_logout", true)
	}
	return e
}

// errLocked is the answer to everything but logging out.
//
// spec: client-server-api#account-locking
func errLocked() *matrix.Error {
	return matrix.Errorf(http.StatusUnauthorized, matrix.CodeUserLocked, "This account has been locked.").With("soft_logout", true)
}

// CheckWrite refuses a suspended user. Every call with an effect on others goes through it.
//
// spec: client-server-api#account-suspension
func (s *Session) CheckWrite() error {
	if s.Suspended {
		return matrix.Errorf(http.StatusForbidden, matrix.CodeUserSuspended, "You cannot do this while your account is suspended.")
	}
	return nil
}

// Authenticate returns the session of an access token. A token that was used lately costs no look into the database.
//
// spec: client-server-api#using-access-tokens
func (s *Service) Authenticate(ctx context.Context, token string) (*Session, error) {
	sess, err := s.AuthenticateLocked(ctx, token)
	if err == nil && sess.Locked {
		return nil, errLocked()
	}
	return sess, err
}

// AuthenticateLocked is Authenticate for the calls that locked users may still make: logging out.
func (s *Service) AuthenticateLocked(ctx context.Context, token string) (*Session, error) {
	if token == "" {
		return nil, matrix.Errorf(http.StatusUnauthorized, matrix.CodeMissingToken, "An access token is needed.")
	}
	hash, ok := hashToken(token, accessPrefix)
	if !ok {
		return nil, unknownToken("This access token is not known.", false)
	}
	return s.session(ctx, hash)
}

// Recheck tells whether a session still stands: what waits for long asks it before it answers.
func (s *Service) Recheck(ctx context.Context, old *Session) (*Session, error) {
	if old.Bridge != nil {
		return s.recheckBridge(ctx, old)
	}
	sess, err := s.session(ctx, old.hash)
	if err == nil && sess.Locked {
		return nil, errLocked()
	}
	return sess, err
}

func (s *Service) session(ctx context.Context, hash tokenHash) (*Session, error) {
	sess, epoch := s.cache.find(hash)
	if sess == nil {
		var err error
		if sess, err = s.loadSession(ctx, hash); err != nil {
			return nil, err
		}
		s.cache.put(sess, epoch)
	}
	if sess.expires != 0 && sess.expires <= s.Now().UnixMilli() {
		return nil, unknownToken("This access token has expired.", true)
	}
	if g := s.Policy.Generation(); g != sess.generation {
		fresh := *sess
		s.setParty(&fresh, g)
		sess = &fresh
		s.cache.put(sess, epoch)
	}
	return sess, nil
}

func (s *Service) loadSession(ctx context.Context, hash tokenHash) (*Session, error) {
	s.metrics.loads.Inc()
	var row *storage.SessionRow
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		row, err = tx.LoadSession(hash[:])
		return err
	})
	if errors.Is(err, storage.ErrNotFound) || err == nil && row.User.Deactivated {
		return nil, unknownToken("This access token is not known.", false)
	}
	if err != nil {
		return nil, err
	}
	if row.Parent != nil && (row.ExpiresTS == 0 || row.ExpiresTS > s.Now().UnixMilli()) {
		if err := s.confirm(ctx, row.User.ID, row.DeviceID, hash[:], row.Parent); err != nil {
			return nil, err
		}
	}
	u := row.User
	sess := &Session{UserID: u.ID, DeviceID: row.DeviceID, Tenant: u.Tenant, Kind: u.Kind, Admin: u.Admin, Suspended: u.Suspended,
		Locked: u.Locked, hash: hash, expires: row.ExpiresTS, user: u, lastSeen: new(atomic.Int64)}
	sess.lastSeen.Store(row.LastSeenTS)
	s.setParty(sess, s.Policy.Generation())
	return sess, nil
}

func (s *Service) setParty(sess *Session, generation uint64) {
	sess.Party = s.Policy.Resolve(facts(sess.user)).With(&policy.Device{ID: string(sess.DeviceID)}, nil)
	sess.generation = generation
}

// confirm is the first use of an access token that a refresh gave: the tokens before it end.
//
// spec: client-server-api#refreshing-access-tokens
func (s *Service) confirm(ctx context.Context, user matrix.UserID, device matrix.DeviceID, access, parent []byte) error {
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		own, refresh, err := tx.LoadChildren(user, device, parent)
		if err != nil || len(own) == 0 { // another request was first
			return err
		}
		ended, err := tx.SpendOthers(user, device, [][]byte{access}, refresh, s.Now().Add(-spentLife).UnixMilli())
		if err != nil || ended == 0 {
			return err
		}
		return tx.Announce(storage.NoticeSession, string(user))
	})
	if err == nil {
		s.cache.drop(user)
	}
	return err
}

// Seen notes that a device was used. It is written later.
func (s *Service) Seen(sess *Session, c Client) {
	if sess.DeviceID == "" {
		return // an application service without a device
	}
	now, last := s.Now().UnixMilli(), sess.lastSeen.Load()
	if now-last < seenEvery.Milliseconds() && now >= last || !sess.lastSeen.CompareAndSwap(last, now) {
		return
	}
	s.gather(storage.Seen{UserID: sess.UserID, DeviceID: sess.DeviceID, IP: c.ip(), Agent: clip(c.UserAgent, 256), TS: now})
}

// gather keeps uses until they are written: of each device the latest.
func (s *Service) gather(list ...storage.Seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range list {
		k := deviceKey{v.UserID, v.DeviceID}
		if old, ok := s.seen[k]; ok && old.TS <= v.TS || !ok && len(s.seen) < maxSeen {
			s.seen[k] = v
		}
	}
}

// unsee forgets the uses of a device before it logged in again.
func (s *Service) unsee(device deviceKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, device)
}

// FlushSeen writes when and from where devices were last used. What could not be written is kept for the next time.
func (s *Service) FlushSeen(ctx context.Context) error {
	s.mu.Lock()
	list := slices.Collect(maps.Values(s.seen))
	clear(s.seen)
	s.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.PutSeen(list) })
	if err != nil {
		s.gather(list...)
	}
	return err
}

// Invalidate forgets what is kept in memory of a user. It is called for every session and party notice of the log.
func (s *Service) Invalidate(user matrix.UserID) {
	s.cache.drop(user)
	s.parties.drop(user)
}

// Logout ends the caller's session and removes its device.
func (s *Service) Logout(ctx context.Context, by Caller) error {
	return s.dropDevices(ctx, by.UserID, []matrix.DeviceID{by.DeviceID})
}

// LogoutAll ends all sessions of the caller and removes all devices.
func (s *Service) LogoutAll(ctx context.Context, by Caller) error {
	return s.dropDevices(ctx, by.UserID, nil)
}

// dropDevices removes devices of a user, all when none is named.
func (s *Service) dropDevices(ctx context.Context, user matrix.UserID, devices []matrix.DeviceID) error {
	err := s.DB.UpdateShared(ctx, func(tx *storage.Tx) error { return s.drop(tx, user, devices, "") })
	s.Invalidate(user)
	return err
}

// drop removes devices of a user, all but one when none is named.
func (s *Service) drop(tx *storage.Tx, user matrix.UserID, devices []matrix.DeviceID, keep matrix.DeviceID) error {
	if devices == nil {
		list, err := tx.LoadDevices(user)
		if err != nil {
			return err
		}
		for _, d := range list {
			if d.DeviceID != keep {
				devices = append(devices, d.DeviceID)
			}
		}
	}
	n, err := tx.DeleteDevices(user, devices)
	if err != nil || n == 0 {
		return err
	}
	for _, hook := range s.OnDrop {
		if err := hook(tx, user, devices); err != nil {
			return err
		}
	}
	if err := tx.Announce(storage.NoticeSession, string(user)); err != nil {
		return err
	}
	return tx.TouchDeviceList(user)
}

// sessionCache holds sessions by token.
type sessionCache struct {
	max int

	mu     sync.RWMutex
	byHash map[tokenHash]*Session // guarded by mu, as is everything below
	byUser map[matrix.UserID]map[tokenHash]struct{}
	epoch  uint64 // counts drops, so that what was read before one is not kept after it
}

func newSessionCache(most int) *sessionCache {
	return &sessionCache{max: most, byHash: map[tokenHash]*Session{}, byUser: map[matrix.UserID]map[tokenHash]struct{}{}}
}

func (c *sessionCache) find(hash tokenHash) (*Session, uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byHash[hash], c.epoch
}

// put keeps a session unless something was dropped since epoch.
func (c *sessionCache) put(sess *Session, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	if _, known := c.byHash[sess.hash]; !known && len(c.byHash) >= c.max {
		for hash, old := range c.byHash {
			c.remove(hash, old.UserID)
			break
		}
	}
	c.byHash[sess.hash] = sess
	if c.byUser[sess.UserID] == nil {
		c.byUser[sess.UserID] = map[tokenHash]struct{}{}
	}
	c.byUser[sess.UserID][sess.hash] = struct{}{}
}

func (c *sessionCache) remove(hash tokenHash, user matrix.UserID) {
	delete(c.byHash, hash)
	delete(c.byUser[user], hash)
	if len(c.byUser[user]) == 0 {
		delete(c.byUser, user)
	}
}

func (c *sessionCache) drop(user matrix.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	for hash := range c.byUser[user] {
		delete(c.byHash, hash)
	}
	delete(c.byUser, user)
}
