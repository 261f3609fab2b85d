package e2ee

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/storage"
)

// Remote asks other servers for keys of their users. It is declared here because federation stands above this package. Every call is
// made in the name of a tenant, and refused without anything being resolved or dialled where policy does not let that tenant reach
// the server.
type Remote interface {
	// Devices returns the devices of one user with the number of the newest update that they contain.
	Devices(ctx context.Context, as, to matrix.ServerName, user matrix.UserID) (*federation.Devices, error)
	// QueryKeys returns the keys of users and devices.
	QueryKeys(ctx context.Context, as, to matrix.ServerName, q federation.KeysQuery) (*federation.KeysAnswer, error)
	// ClaimKeys takes one-time keys.
	ClaimKeys(ctx context.Context, as, to matrix.ServerName, q federation.KeysClaim) (*federation.ClaimAnswer, error)
}

const (
	// remoteTimeout is how long a client waits for other servers.
	remoteTimeout = 10 * time.Second
	// maxServers is how many servers are asked at a time for one request, maxLists how many users of one server are asked for one by one.
	maxServers = 16
	maxLists   = 5
	// maxAsked is how many users one request to another server names.
	maxAsked = 500
	// maxRemoteDevices is how many devices are kept of one user of another server.
	maxRemoteDevices = 1000
)

// byServer sorts users by their servers.
func byServer(users []matrix.UserID) map[matrix.ServerName][]matrix.UserID {
	out := map[matrix.ServerName][]matrix.UserID{}
	for _, u := range users {
		out[u.Server()] = append(out[u.Server()], u)
	}
	return out
}

// eachServer calls fn for every server, some at a time, until the time for other servers is over.
func eachServer(ctx context.Context, servers map[matrix.ServerName][]matrix.UserID, fn func(ctx context.Context, name matrix.ServerName, users []matrix.UserID)) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	names := slices.Sorted(maps.Keys(servers))
	stream.Spread(len(names), maxServers, func(i int) { fn(ctx, names[i], servers[names[i]]) })
}

// queryRemote adds the keys of users of other servers to an answer: from what is kept where that is fresh, else from their servers.
// Those that cannot be reached are failures.
//
// spec: server-server-api#post_matrixfederationv1userkeysquery
// spec: server-server-api#device-management
func (s *Service) queryRemote(ctx context.Context, by Caller, far []matrix.UserID, want map[matrix.UserID][]matrix.DeviceID, out *Keys) error {
	if len(far) == 0 {
		return nil
	}
	known, cold, err := s.knownLists(ctx, by.UserID, far)
	if err != nil {
		return err
	}
	out.add(known, want, by.UserID)
	var mu sync.Mutex // guards out
	eachServer(ctx, byServer(cold), func(ctx context.Context, name matrix.ServerName, users []matrix.UserID) {
		found, err := s.fetchKeys(ctx, by, name, users, want)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			s.log.WithField("destination", name).WithError(err).Debug("keys of another server's users were not to be had")
			out.Failures[name] = map[string]string{}
		}
		for _, k := range found {
			k.addTo(out, want)
		}
	})
	return nil
}

// knownLists returns what is kept of users whose lists are fresh, and those for whom their servers have to be asked.
func (s *Service) knownLists(ctx context.Context, viewer matrix.UserID, far []matrix.UserID) (rows keyRows, cold []matrix.UserID, err error) {
	err = s.DB.View(ctx, func(tx *storage.Tx) error {
		rows, cold = keyRows{}, nil
		lists, err := tx.LoadRemoteLists(far)
		if err != nil {
			return err
		}
		sharing, err := tx.LoadSharers(slices.Collect(maps.Keys(lists)))
		if err != nil {
			return err
		}
		var fresh []matrix.UserID
		for _, u := range far {
			if lists[u].Fresh && sharing[u] {
				fresh = append(fresh, u)
			} else {
				cold = append(cold, u)
			}
		}
		if rows.devices, err = tx.LoadRemoteDevices(fresh); err != nil {
			return err
		}
		if rows.cross, err = tx.LoadCrossSigningKeys(fresh); err != nil {
			return err
		}
		rows.sigs, err = tx.LoadKeySignatures(fresh, viewer)
		return err
	})
	return rows, cold, err
}

// fetchKeys asks a server for keys of its users, and keeps those of users who share a room with somebody here, of whose changes the
// server tells from then on.
func (s *Service) fetchKeys(ctx context.Context, by Caller, server matrix.ServerName, users []matrix.UserID, want map[matrix.UserID][]matrix.DeviceID) ([]*remoteKeys, error) {
	if s.Remote == nil {
		return nil, errNoFederation
	}
	as := by.UserID.Server()
	kept, err := s.beginLists(ctx, users)
	if err != nil {
		return nil, err
	}
	var out []*remoteKeys
	if len(kept) > 0 && len(kept) <= maxLists {
		for _, u := range slices.Sorted(maps.Keys(kept)) {
			k, err := s.fetchList(ctx, as, kept[u])
			if err != nil {
				return out, err
			}
			if len(k.devices)+len(k.cross) > 0 {
				out = append(out, k)
			}
		}
		users = slices.DeleteFunc(slices.Clone(users), func(u matrix.UserID) bool { _, ok := kept[u]; return ok })
		kept = nil
	}
	if len(users) == 0 {
		return out, s.addOwnSignatures(ctx, by.UserID, out)
	}
	ask := make(map[matrix.UserID][]matrix.DeviceID, len(users))
	for _, u := range users {
		if ask[u] = []matrix.DeviceID{}; kept[u].UserID == "" {
			ask[u] = append(ask[u], want[u]...)
		}
	}
	for part := range slices.Chunk(users, maxAsked) {
		answer, err := s.Remote.QueryKeys(ctx, as, server, federation.KeysQuery{DeviceKeys: only(ask, part)})
		if err != nil {
			return out, err
		}
		for _, u := range part {
			k := readRemote(u, answer)
			if k == nil {
				continue
			}
			if l, ok := kept[u]; ok {
				if err := s.keepList(ctx, l, k, 0); err != nil {
					return out, err
				}
			}
			out = append(out, k)
		}
	}
	return out, s.addOwnSignatures(ctx, by.UserID, out)
}

// only is the part of a map that is about some users.
func only[V any](m map[matrix.UserID]V, users []matrix.UserID) map[matrix.UserID]V {
	out := make(map[matrix.UserID]V, len(users))
	for _, u := range users {
		out[u] = m[u]
	}
	return out
}

// addOwnSignatures puts the signatures of a viewer on keys of others beside those that their servers sent.
func (s *Service) addOwnSignatures(ctx context.Context, viewer matrix.UserID, list []*remoteKeys) error {
	users := make([]matrix.UserID, len(list))
	for i, k := range list {
		users[i] = k.user
	}
	var sigs []storage.KeySignature
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		sigs, err = tx.LoadKeySignatures(users, viewer)
		return err
	})
	sigs = slices.DeleteFunc(sigs, func(g storage.KeySignature) bool { return g.SignerID != viewer })
	for _, k := range list {
		k.others = sigs
	}
	return err
}

// remoteKeys are the keys of one user of another server as the server sent them, checked.
type remoteKeys struct {
	user    matrix.UserID
	devices []storage.DeviceKeys // canonical, with signatures, without unsigned
	cross   []storage.CrossSigningKey
	sigs    []storage.KeySignature // by the user, on the cross-signing keys
	others  []storage.KeySignature // by the viewer
}

// addTo puts the keys into an answer.
func (k *remoteKeys) addTo(out *Keys, want map[matrix.UserID][]matrix.DeviceID) {
	if out.DeviceKeys[k.user] == nil {
		out.DeviceKeys[k.user] = map[matrix.DeviceID]jsontext.Value{}
	}
	out.add(keyRows{devices: k.devices, cross: k.cross, sigs: append(slices.Clone(k.sigs), k.others...)}, want, "")
}

// readRemote takes the keys of one user out of an answer. What is not well formed is left out. nil: the server knows nothing of the user.
func readRemote(user matrix.UserID, a *federation.KeysAnswer) *remoteKeys {
	devices, ok := a.DeviceKeys[user]
	if !ok && a.MasterKeys[user] == nil {
		return nil
	}
	k := &remoteKeys{user: user}
	for _, id := range sortedKeys(devices) {
		name := ""
		if u := unsignedOf(devices[id]); u.DisplayName != nil {
			name = *u.DisplayName
		}
		k.addDevice(id, devices[id], name)
	}
	k.addCross(a.MasterKeys[user], a.SelfSigningKeys[user])
	return k
}

type unsigned struct {
	DisplayName *string `json:"device_display_name"`
}

func unsignedOf(v jsontext.Value) (u unsigned) {
	var d struct {
		Unsigned unsigned `json:"unsigned"`
	}
	if into(v, &d, "keys") == nil {
		u = d.Unsigned
	}
	return u
}

// addDevice checks the keys of a device and takes them. Keys under a wrong name are refused: clients would trust them.
func (k *remoteKeys) addDevice(id matrix.DeviceID, v jsontext.Value, name string) {
	if len(k.devices) >= maxRemoteDevices {
		return
	}
	if keys := remoteDevice(k.user, id, v); keys != nil {
		k.devices = append(k.devices, storage.DeviceKeys{UserID: k.user, DeviceID: id, DisplayName: clip(name), Keys: keys})
	}
}

// remoteDevice checks the keys of a device of another server and returns what is kept of them, nil where they are not well formed.
func remoteDevice(user matrix.UserID, id matrix.DeviceID, v jsontext.Value) []byte {
	if id == "" || len(id) > maxName {
		return nil
	}
	if _, err := parseDeviceKeys(Caller{UserID: user, DeviceID: id}, v); err != nil {
		return nil
	}
	b, err := object(v, maxDeviceKeys, "device keys")
	if err != nil {
		return nil
	}
	b, _ = canonicaljson.Cut(b, "unsigned")
	own, sigs := canonicaljson.Cut(b, "signatures")
	all, err := members[map[string]string](sigs, "signatures")
	if err != nil {
		return nil
	}
	var list []storage.KeySignature
	for _, key := range sortedKeys(all[string(user)]) { // signatures of others are nobody's business
		list = append(list, storage.KeySignature{SignerID: user, SignerKey: key, Signature: all[string(user)][key]})
	}
	return assemble(own, list, "")
}

// clip bounds a display name of a device.
func clip(name string) string {
	if len(name) <= maxName {
		return name
	}
	cut := maxName
	for cut > 0 && name[cut]&0xc0 == 0x80 {
		cut--
	}
	return name[:cut]
}

// addCross checks the cross-signing keys and takes them. A self-signing key that the master key did not sign is left out.
func (k *remoteKeys) addCross(masterKey, selfSigningKey jsontext.Value) {
	by := Caller{UserID: k.user}
	if masterKey == nil {
		return
	}
	m, err := parseCrossKey(by, master, masterKey)
	if err != nil {
		return
	}
	k.take(m)
	if selfSigningKey == nil {
		return
	}
	if ss, err := parseCrossKey(by, selfSigning, selfSigningKey); err == nil && ss.name != m.name && ss.verify(m.public, ss.signatures[string(k.user)][m.id()]) {
		k.take(ss)
	}
}

func (k *remoteKeys) take(c *crossKey) {
	k.cross = append(k.cross, storage.CrossSigningKey{UserID: k.user, Usage: c.usage, PublicKey: c.name, Key: c.body})
	own := c.signatures[string(k.user)]
	for i, id := range sortedKeys(own) {
		if i < maxAlgorithms && len(id) <= maxName && signature(own[id]) != nil {
			k.sigs = append(k.sigs, c.signature(Caller{UserID: k.user}, id, own[id]))
		}
	}
}

// claimRemote takes one-time keys of users of other servers. Those that cannot be reached are failures.
//
// spec: server-server-api#post_matrixfederationv1userkeysclaim
func (s *Service) claimRemote(ctx context.Context, by Caller, far []matrix.UserID, want map[matrix.UserID]map[matrix.DeviceID]string, out *Claimed) {
	var mu sync.Mutex // guards out
	eachServer(ctx, byServer(far), func(ctx context.Context, name matrix.ServerName, users []matrix.UserID) {
		err := errNoFederation
		for part := range slices.Chunk(users, maxAsked) {
			var answer *federation.ClaimAnswer
			if s.Remote != nil {
				answer, err = s.Remote.ClaimKeys(ctx, by.UserID.Server(), name, federation.KeysClaim{OneTimeKeys: only(want, part)})
			}
			if err != nil {
				break
			}
			mu.Lock()
			out.take(part, want, answer)
			mu.Unlock()
		}
		if err != nil {
			s.log.WithField("destination", name).WithError(err).Debug("no keys could be claimed of another server's users")
			mu.Lock()
			out.Failures[name] = map[string]string{}
			mu.Unlock()
		}
	})
}

// take adds those keys of an answer that were asked for.
func (out *Claimed) take(users []matrix.UserID, want map[matrix.UserID]map[matrix.DeviceID]string, answer *federation.ClaimAnswer) {
	for _, u := range users {
		for d, algorithm := range want[u] {
			id, key := claimedKey(u, d, algorithm, answer.OneTimeKeys[u][d])
			if key == nil {
				continue
			}
			if out.OneTimeKeys[u] == nil {
				out.OneTimeKeys[u] = map[matrix.DeviceID]map[string]jsontext.Value{}
			}
			out.OneTimeKeys[u][d] = map[string]jsontext.Value{id: key}
		}
	}
}

// claimedKey finds a key of the algorithm that was asked for, nil where the server gave none that is well formed.
func claimedKey(user matrix.UserID, device matrix.DeviceID, algorithm string, given map[string]jsontext.Value) (string, jsontext.Value) {
	for _, id := range sortedKeys(given) {
		one := jsontext.Value(append(append([]byte(`{`), canonicaljson.AppendString(nil, id)...), ':'))
		one = append(append(one, given[id]...), '}')
		keys, err := parseOneTimeKeys(Caller{UserID: user, DeviceID: device}, one, 1, "the answer")
		if err == nil && len(keys) == 1 && keys[0].algorithm == algorithm {
			return id, keys[0].key
		}
	}
	return "", nil
}
