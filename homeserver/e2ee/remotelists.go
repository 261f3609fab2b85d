package e2ee

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// errNoFederation is why nothing is to be had of other servers where there is nobody to ask them.
var errNoFederation = errors.New("e2ee: other servers are not asked here")

const (
	// staleBatch is how many lists are fetched in one go, staleWait how long one node leaves them to another that began.
	staleBatch = 16
	staleWait  = time.Minute
	// minRetry and maxRetry bound the pauses after which a server is asked again that did not answer.
	minRetry = 10 * time.Second
	maxRetry = time.Hour
	// seenFor is how long messages of other servers are known by their IDs.
	seenFor = 7 * 24 * time.Hour
)

// beginLists begins to keep the lists of those users who share a room with somebody here, and returns what is known of them.
func (s *Service) beginLists(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]storage.RemoteList, error) {
	var out map[matrix.UserID]storage.RemoteList
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		sharing, err := tx.LoadSharers(users)
		if err != nil {
			return err
		}
		keep := slices.DeleteFunc(slices.Clone(users), func(u matrix.UserID) bool { return !sharing[u] })
		// Run leaves them alone while this request fetches them.
		if err := tx.KeepRemoteLists(keep, s.Now().Add(staleWait).UnixMilli()); err != nil {
			return err
		}
		out, err = tx.LoadRemoteLists(keep)
		return err
	})
	return out, err
}

// fetchList asks for all devices of one user whose list is kept, and keeps the answer. Of a user whom the server does not know there are
// none.
//
// spec: server-server-api#get_matrixfederationv1userdevicesuserid
func (s *Service) fetchList(ctx context.Context, as matrix.ServerName, l storage.RemoteList) (*remoteKeys, error) {
	d, err := s.Remote.Devices(ctx, as, l.UserID.Server(), l.UserID)
	k := &remoteKeys{user: l.UserID}
	var status interface{ HTTPStatus() int }
	if errors.As(err, &status) && status.HTTPStatus() == http.StatusNotFound { // nobody, or nobody whom we may know of: ask again each time
		return k, s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.DropRemoteLists([]matrix.UserID{l.UserID}) })
	}
	if err != nil {
		return nil, err
	}
	if d.UserID == l.UserID {
		seen := map[matrix.DeviceID]bool{}
		for _, one := range d.Devices {
			if !seen[one.DeviceID] {
				seen[one.DeviceID] = true
				k.addDevice(one.DeviceID, one.Keys, one.DisplayName)
			}
		}
		k.addCross(d.MasterKey, d.SelfSigningKey)
	}
	return k, s.keepList(ctx, l, k, max(d.StreamID, 0))
}

// keepList stores a list as it was fetched, unless news came in meanwhile: then it stays to be fetched again. Clients hear of it where it
// is another than before.
func (s *Service) keepList(ctx context.Context, l storage.RemoteList, k *remoteKeys, streamID int64) error {
	again := false
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		now, ok, err := tx.LockRemoteList(l.UserID)
		if err != nil || !ok {
			return err // nobody shares a room any more
		}
		old, err := loadRemote(tx, l.UserID)
		if err != nil {
			return err
		}
		first := now.StreamID == 0 && len(old.devices)+len(old.cross) == 0
		if !k.equal(old) {
			if err := k.store(tx, old); err != nil {
				return err
			}
			if !first {
				if err := tx.TouchDeviceList(l.UserID); err != nil {
					return err
				}
			}
		}
		now.StreamID, now.Fresh, now.Failures = streamID, now.Revision == l.Revision+1, 0
		if again = !now.Fresh; again {
			now.RetryTS = s.Now().UnixMilli()
		}
		return tx.SetRemoteList(now)
	})
	if again && err == nil {
		s.wakeLists()
	}
	return err
}

func loadRemote(tx *storage.Tx, user matrix.UserID) (*remoteKeys, error) {
	k := &remoteKeys{user: user}
	var err error
	if k.devices, err = tx.LoadRemoteDevices([]matrix.UserID{user}); err != nil {
		return nil, err
	}
	if k.cross, err = tx.LoadCrossSigningKeys([]matrix.UserID{user}); err != nil {
		return nil, err
	}
	k.sigs, err = tx.LoadKeySignatures([]matrix.UserID{user}, user)
	return k, err
}

func (k *remoteKeys) equal(o *remoteKeys) bool {
	slices.SortFunc(k.devices, func(a, b storage.DeviceKeys) int { return cmpString(a.DeviceID, b.DeviceID) })
	slices.SortFunc(o.devices, func(a, b storage.DeviceKeys) int { return cmpString(a.DeviceID, b.DeviceID) })
	return slices.EqualFunc(k.devices, o.devices, func(a, b storage.DeviceKeys) bool {
		return a.DeviceID == b.DeviceID && a.DisplayName == b.DisplayName && bytes.Equal(a.Keys, b.Keys)
	}) && k.sameCross(o)
}

func cmpString(a, b matrix.DeviceID) int { return bytes.Compare([]byte(a), []byte(b)) }

func (k *remoteKeys) sameCross(o *remoteKeys) bool {
	if len(k.cross) != len(o.cross) || len(k.sigs) != len(o.sigs) {
		return false
	}
	for _, c := range k.cross {
		if !slices.ContainsFunc(o.cross, func(d storage.CrossSigningKey) bool { return c.Usage == d.Usage && bytes.Equal(c.Key, d.Key) }) {
			return false
		}
	}
	for _, g := range k.sigs {
		if !slices.Contains(o.sigs, g) {
			return false
		}
	}
	return true
}

// store puts the keys in place of old ones.
func (k *remoteKeys) store(tx *storage.Tx, old *remoteKeys) error {
	have := map[matrix.DeviceID]bool{}
	for _, d := range k.devices {
		have[d.DeviceID] = true
	}
	var gone []matrix.DeviceID
	for _, d := range old.devices {
		if !have[d.DeviceID] {
			gone = append(gone, d.DeviceID)
		}
	}
	if len(gone) > 0 {
		if err := tx.DeleteRemoteDevices(k.user, gone); err != nil {
			return err
		}
	}
	if err := tx.PutRemoteDevices(k.devices); err != nil {
		return err
	}
	return k.storeCross(tx, old)
}

// storeCross puts the cross-signing keys in place of old ones. What others signed of a key that is no more is forgotten.
func (k *remoteKeys) storeCross(tx *storage.Tx, old *remoteKeys) error {
	var names, usages []string
	for _, o := range old.cross {
		i := slices.IndexFunc(k.cross, func(c storage.CrossSigningKey) bool { return c.Usage == o.Usage })
		if i < 0 {
			usages = append(usages, o.Usage)
		}
		if i < 0 || k.cross[i].PublicKey != o.PublicKey {
			names = append(names, o.PublicKey)
		}
	}
	if len(names) > 0 {
		if err := tx.ForgetSignaturesOf(k.user, names); err != nil {
			return err
		}
	}
	if len(usages) > 0 {
		if err := tx.DeleteCrossSigningKeys(k.user, usages); err != nil {
			return err
		}
	}
	if len(k.cross) > 0 {
		if err := tx.PutCrossSigningKeys(k.cross); err != nil {
			return err
		}
	}
	return tx.ReplaceOwnSignatures(k.user, k.sigs)
}

// ReceiveDeviceList takes the content of an m.device_list_update of a server. What does not follow on what is known makes the list be
// fetched anew.
//
// spec: server-server-api#device-management
func (s *Service) ReceiveDeviceList(ctx context.Context, _, origin matrix.ServerName, content jsontext.Value) error {
	var u federation.DeviceListUpdate
	if !readEDU(content, &u) || u.UserID.Server() != origin || u.DeviceID == "" || len(u.DeviceID) > maxName || u.StreamID < 0 {
		return nil
	}
	if _, err := matrix.ParseUserID(string(u.UserID)); err != nil {
		return nil
	}
	return s.receiveKeys(ctx, u.UserID, func(tx *storage.Tx, l *storage.RemoteList) (bool, error) {
		if u.StreamID <= l.StreamID && l.StreamID > 0 {
			return false, nil // known already
		}
		if l.Fresh && slices.ContainsFunc(u.PrevID, func(id int64) bool { return id > l.StreamID }) {
			l.Fresh, l.RetryTS = false, s.Now().UnixMilli()
		}
		if !l.Fresh {
			return false, nil // clients hear of it once the list is fetched
		}
		l.StreamID = u.StreamID
		keys := remoteDevice(u.UserID, u.DeviceID, u.Keys)
		if u.Deleted || keys == nil {
			return true, tx.DeleteRemoteDevices(u.UserID, []matrix.DeviceID{u.DeviceID})
		}
		if n, err := tx.CountRemoteDevices(u.UserID); err != nil || n >= maxRemoteDevices {
			return false, err
		}
		return true, tx.PutRemoteDevices([]storage.DeviceKeys{{UserID: u.UserID, DeviceID: u.DeviceID, DisplayName: clip(u.DisplayName), Keys: keys}})
	})
}

// ReceiveSigningKey takes the content of an m.signing_key_update of a server.
//
// spec: server-server-api#end-to-end-encryption
func (s *Service) ReceiveSigningKey(ctx context.Context, _, origin matrix.ServerName, content jsontext.Value) error {
	var u federation.SigningKeyUpdate
	if !readEDU(content, &u) || u.UserID.Server() != origin {
		return nil
	}
	if _, err := matrix.ParseUserID(string(u.UserID)); err != nil {
		return nil
	}
	return s.receiveKeys(ctx, u.UserID, func(tx *storage.Tx, l *storage.RemoteList) (bool, error) {
		if !l.Fresh {
			return false, nil
		}
		k := &remoteKeys{user: u.UserID}
		k.addCross(u.MasterKey, u.SelfSigningKey)
		if len(k.cross) == 0 || u.SelfSigningKey != nil && len(k.cross) < 2 { // not to be understood: ask
			l.Fresh, l.RetryTS = false, s.Now().UnixMilli()
			return false, nil
		}
		old, err := loadRemote(tx, u.UserID)
		if err != nil || k.sameCross(old) {
			return false, err
		}
		return true, k.storeCross(tx, old)
	})
}

// receiveKeys lets fn change the list of a user of another server, where it is kept. Where it is not, clients hear all the same that the
// keys changed.
func (s *Service) receiveKeys(ctx context.Context, user matrix.UserID, fn func(tx *storage.Tx, l *storage.RemoteList) (changed bool, err error)) error {
	stale := false
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		l, kept, err := tx.LockRemoteList(user)
		if err != nil {
			return err
		}
		if !kept {
			sharing, err := tx.LoadSharers([]matrix.UserID{user})
			if err != nil || !sharing[user] {
				return err
			}
			return tx.TouchDeviceList(user)
		}
		changed, err := fn(tx, &l)
		if err != nil {
			return err
		}
		stale = !l.Fresh
		if err := tx.SetRemoteList(l); err != nil || !changed {
			return err
		}
		return tx.TouchDeviceList(user)
	})
	if stale && err == nil {
		s.wakeLists()
	}
	return err
}

// readEDU reads the content of an EDU. What cannot be read is dropped: nobody could do anything about it.
func readEDU(content jsontext.Value, v any) bool {
	return len(content) <= maxEDU && content.Kind() == '{' && into(content, v, "EDU") == nil
}

func (s *Service) wakeLists() {
	select {
	case s.stale <- struct{}{}:
	default:
	}
}

// Run fetches the lists of users of other servers of which something was missed, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.stale:
		}
		wait := minRetry
		if err := s.refetch(ctx); err != nil && ctx.Err() == nil {
			s.log.WithError(err).Warn("device lists of other servers were not fetched; trying again")
		} else if next, ok := s.nextStale(ctx); ok && s.Remote != nil {
			wait = min(max(next, 50*time.Millisecond), time.Minute)
		} else {
			wait = time.Minute
		}
		if now := s.Now(); now.Sub(time.UnixMilli(s.checked.Load())).Abs() >= time.Hour {
			s.checked.Store(now.UnixMilli())
			if err := s.tidy(ctx, now); err != nil && ctx.Err() == nil {
				s.checked.Store(0)
				s.log.WithError(err).Warn("what is not needed of other servers was not removed; trying again later")
			}
		}
		timer.Reset(wait)
	}
}

// tidy removes what nobody needs any more.
func (s *Service) tidy(ctx context.Context, now time.Time) error {
	return errors.Join(s.forgetStrangers(ctx), s.DB.Update(ctx, func(tx *storage.Tx) error {
		_, err := tx.PruneReceivedToDevice(now.Add(-seenFor).UnixMilli())
		return err
	}))
}

func (s *Service) nextStale(ctx context.Context) (time.Duration, bool) {
	var ts int64
	var ok bool
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		ts, ok, err = tx.NextStaleList()
		return err
	})
	return time.Duration(ts-s.Now().UnixMilli()) * time.Millisecond, ok && err == nil
}

// refetch fetches the lists whose time has come.
func (s *Service) refetch(ctx context.Context) error {
	for s.Remote != nil {
		var list []storage.RemoteList
		now := s.Now()
		err := s.DB.Update(ctx, func(tx *storage.Tx) (err error) {
			list, err = tx.ClaimStaleLists(now.UnixMilli(), now.Add(staleWait).UnixMilli(), staleBatch)
			return err
		})
		if err != nil || len(list) == 0 {
			return err
		}
		lists := map[matrix.UserID]storage.RemoteList{}
		users := make([]matrix.UserID, len(list))
		for i, l := range list {
			lists[l.UserID], users[i] = l, l.UserID
		}
		eachServer(ctx, byServer(users), func(ctx context.Context, _ matrix.ServerName, users []matrix.UserID) {
			for _, u := range users {
				if err := s.refetchOne(ctx, lists[u]); err != nil && ctx.Err() == nil {
					s.log.WithField("user_id", u).WithError(err).Debug("a device list was not fetched")
				}
			}
		})
	}
	return nil
}

// refetchOne fetches one list in the name of a tenant that shares a room with the user. A list of a user who shares none is forgotten.
func (s *Service) refetchOne(ctx context.Context, l storage.RemoteList) error {
	var tenants []matrix.ServerName
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		tenants, err = tx.LoadSharingTenants(l.UserID)
		return err
	})
	if err != nil {
		return err
	}
	if len(tenants) == 0 {
		return s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.DropRemoteLists([]matrix.UserID{l.UserID}) })
	}
	for _, as := range tenants {
		if _, err = s.fetchList(ctx, as, l); err == nil {
			return nil
		}
	}
	return errors.Join(err, s.DB.Update(context.WithoutCancel(ctx), func(tx *storage.Tx) error {
		now, ok, err := tx.LockRemoteList(l.UserID)
		if err != nil || !ok || now.Fresh {
			return err
		}
		now.Failures = min(now.Failures+1, 20)
		now.RetryTS = s.Now().Add(min(minRetry<<now.Failures, maxRetry)).UnixMilli()
		return tx.SetRemoteList(now)
	}))
}

// Recheck makes Run forget what is kept of servers that no tenant may reach any more. It is called when that has changed.
func (s *Service) Recheck() {
	s.checked.Store(0)
	s.wakeLists()
}

// forgetStrangers does so.
func (s *Service) forgetStrangers(ctx context.Context) error {
	var servers []matrix.ServerName
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		servers, err = tx.LoadKeptServers()
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range servers {
		if err := s.dropServer(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// dropServer forgets what is kept of users of a server that no tenant of those who share a room with them may reach.
func (s *Service) dropServer(ctx context.Context, name matrix.ServerName) error {
	var users []matrix.UserID
	var tenants []matrix.ServerName
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if users, err = tx.LoadKeptUsers(name); err != nil {
			return err
		}
		seen := map[matrix.ServerName]bool{}
		for _, u := range users[:min(len(users), maxLists)] {
			list, err := tx.LoadSharingTenants(u)
			if err != nil {
				return err
			}
			for _, t := range list {
				seen[t] = true
			}
		}
		tenants = sortedKeys(seen)
		return nil
	})
	if err != nil || len(users) == 0 {
		return err
	}
	for _, as := range tenants {
		d := s.Policy.Consider(ctx, &policy.Input{Schema: policy.InputSchema, Point: policy.FederationOutbound, Time: s.Now(), Tenant: policy.Tenant{Name: string(as)},
			Subject: policy.ServerParty(string(as), true), Server: &policy.Server{Name: string(name)}})
		if d.Allow || d.Err != nil {
			return nil
		}
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.DropRemoteLists(users) })
}
