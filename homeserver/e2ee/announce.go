package e2ee

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"hansa/federation"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

// maxArrival is how many users of a room are announced to a server that comes into it. A server that keeps something of the others
// from before finds out at their next change.
const maxArrival = 200

// Announcer returns the follower that tells other servers of changed devices and keys, by way of the outbox, and forgets what is kept of
// users with whom nobody shares a room any more.
//
// spec: server-server-api#device-management
func (s *Service) Announcer() stream.Follower {
	return stream.Follower{Name: "e2ee.announcer", Handle: s.announceEntries}
}

// news is what a range of the log means for announcements.
type news struct {
	// touched are local users whose devices or keys changed.
	touched map[matrix.UserID]bool
	// met are the servers that local users have come to share a room with.
	met map[matrix.UserID]map[matrix.ServerName]bool
	// lost are users of other servers who may share no room any more.
	lost map[matrix.UserID]bool
}

func (s *Service) announceEntries(ctx context.Context, entries []storage.Entry, _ int64) error {
	n := &news{touched: map[matrix.UserID]bool{}, met: map[matrix.UserID]map[matrix.ServerName]bool{}, lost: map[matrix.UserID]bool{}}
	for i := range entries {
		e := &entries[i]
		var err error
		switch {
		case e.Kind == storage.KindDeviceList:
			var local bool
			if local, err = s.isLocal(ctx, e.UserID); local {
				n.touched[e.UserID] = true
			}
		case e.Kind == storage.KindEvent && e.Event.Type == auth.TypeMember && e.Event.StateKey != nil:
			err = s.member(ctx, n, e.Event)
		}
		if err != nil {
			return err
		}
	}
	if err := s.dropLost(ctx, n.lost); err != nil {
		return err
	}
	if s.Queue == nil {
		return nil
	}
	for _, u := range sortedKeys(n.touched) {
		told, err := s.announce(ctx, u)
		if err != nil {
			return fmt.Errorf("announce devices: %w", err)
		}
		if told {
			delete(n.met, u)
		}
	}
	for _, u := range sortedKeys(n.met) {
		if err := s.introduce(ctx, u, sortedKeys(n.met[u])); err != nil {
			return fmt.Errorf("announce devices: %w", err)
		}
	}
	return nil
}

func (s *Service) isLocal(ctx context.Context, user matrix.UserID) (bool, error) {
	p, err := s.Parties.Party(ctx, user)
	return err == nil && p.Local, err
}

// member notes what a membership event means: who has come to share a room, and who may share none any more.
func (s *Service) member(ctx context.Context, n *news, e *storage.Event) error {
	user := matrix.UserID(*e.StateKey)
	local, err := s.isLocal(ctx, user)
	if err != nil {
		return err
	}
	switch event.Membership(e.Event) {
	case auth.Join:
		if s.Queue == nil {
			return nil
		}
		return s.came(ctx, n, e.RoomID, user, local)
	case auth.Leave, auth.Ban:
		if !local {
			n.lost[user] = true
			return nil
		}
		return s.DB.Read(ctx, func(tx *storage.Tx) error {
			kept, err := tx.LoadKeptMembers(e.RoomID)
			for _, u := range kept {
				n.lost[u] = true
			}
			return err
		})
	}
	return nil
}

// came notes which servers meet whom when somebody joins a room.
func (s *Service) came(ctx context.Context, n *news, room matrix.RoomID, user matrix.UserID, local bool) error {
	var members []storage.Member
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		members, err = tx.LoadMembers(room)
		return err
	})
	if err != nil {
		return err
	}
	meet := func(who matrix.UserID, server matrix.ServerName) {
		if n.met[who] == nil {
			n.met[who] = map[matrix.ServerName]bool{}
		}
		n.met[who][server] = true
	}
	var own []matrix.UserID
	for _, m := range members {
		if m.Membership != auth.Join || m.UserID == user {
			continue
		}
		other := m.UserID.Server()
		isOwn, err := s.isLocal(ctx, m.UserID)
		switch {
		case err != nil:
			return err
		case local && !isOwn:
			meet(user, other)
		case !local && isOwn:
			own = append(own, m.UserID)
		case !local && other == user.Server():
			return nil // the server is here already
		}
	}
	for _, u := range own[:min(len(own), maxArrival)] {
		meet(u, user.Server())
	}
	return nil
}

// dropLost forgets the lists of those who share no room with anybody here: of their changes nothing is heard any more.
func (s *Service) dropLost(ctx context.Context, lost map[matrix.UserID]bool) error {
	if len(lost) == 0 {
		return nil
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		kept, err := tx.LoadRemoteLists(sortedKeys(lost))
		if err != nil || len(kept) == 0 {
			return err
		}
		sharing, err := tx.LoadSharers(sortedKeys(kept))
		if err != nil {
			return err
		}
		return tx.DropRemoteLists(slices.DeleteFunc(sortedKeys(kept), func(u matrix.UserID) bool { return sharing[u] }))
	})
}

// mayHear returns which servers may know of a user's keys.
func (s *Service) mayHear(ctx context.Context, user matrix.UserID, servers []matrix.ServerName) ([]matrix.ServerName, error) {
	var out []matrix.ServerName
	for _, name := range servers {
		v, err := s.judgeServer(ctx, user.Server(), name, policy.KeysQuery, []matrix.UserID{user})
		if err != nil {
			return nil, err
		}
		if len(v.allowed) > 0 {
			out = append(out, name)
		}
	}
	return out, nil
}

// announce tells the servers that share a room with a user what changed since they were told last, and whether there was anything.
func (s *Service) announce(ctx context.Context, user matrix.UserID) (told bool, err error) {
	var servers []matrix.ServerName
	var strangers map[matrix.ServerName][]matrix.UserID
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadSharingStrangers(user)
		strangers = byServer(list)
		return err
	})
	if err != nil {
		return false, err
	}
	for _, name := range sortedKeys(strangers) {
		local, err := s.isLocal(ctx, strangers[name][0]) // without an account, such as somebody from before a restore
		if err != nil {
			return false, err
		}
		if !local {
			servers = append(servers, name)
		}
	}
	if len(servers) == 0 {
		return false, nil // who comes later asks for all of it
	}
	may, err := s.mayHear(ctx, user, servers)
	if err != nil {
		return false, err
	}
	err = s.DB.Update(ctx, func(tx *storage.Tx) error {
		c, err := loadChange(tx, user)
		if err != nil {
			return err
		}
		id := c.told.StreamID
		for _, u := range c.updates {
			u.StreamID, u.PrevID = id+1, nil
			if id > 0 {
				u.PrevID = []int64{id}
			}
			id++
			if err := s.tell(tx, user, may, federation.EDUDeviceList, string(user)+"/"+string(u.DeviceID), u); err != nil {
				return err
			}
		}
		if c.keys != nil {
			if err := s.tell(tx, user, may, federation.EDUSigningKey, string(user), c.keys); err != nil {
				return err
			}
		}
		if told = len(c.updates) > 0 || c.keys != nil; !told {
			return nil
		}
		return tx.PutAnnouncedList(user, id, c.keysHash, c.put, c.gone)
	})
	return told, err
}

// introduce tells servers that have come to share a room with a user where the announcements are. One that keeps an older list from
// before then knows that it missed something.
func (s *Service) introduce(ctx context.Context, user matrix.UserID, servers []matrix.ServerName) error {
	var c *change
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		told, err := tx.LoadAnnouncedList(user)
		if err != nil || told.StreamID == 0 {
			return err
		}
		c, err = loadChange(tx, user)
		return err
	})
	if err != nil || c == nil {
		return err
	}
	if len(c.updates) > 0 || c.keys != nil { // changed while nobody shared a room
		_, err = s.announce(ctx, user)
		return err
	}
	if len(c.put) == 0 {
		return nil
	}
	may, err := s.mayHear(ctx, user, servers)
	if err != nil || len(may) == 0 {
		return err
	}
	u := c.all[0]
	u.StreamID, u.PrevID = c.told.StreamID, []int64{c.told.StreamID - 1}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		return s.tell(tx, user, may, federation.EDUDeviceList, string(user)+"/"+string(u.DeviceID), u)
	})
}

func (s *Service) tell(tx *storage.Tx, user matrix.UserID, servers []matrix.ServerName, typ, key string, content any) error {
	b, err := json.Marshal(content)
	if err != nil {
		return err
	}
	for _, to := range servers {
		if err := s.Queue(tx, user.Server(), to, typ, key, b); err != nil {
			return err
		}
	}
	return nil
}

// change is what other servers do not know yet of a user.
type change struct {
	told     storage.AnnouncedList
	updates  []*federation.DeviceListUpdate
	all      []*federation.DeviceListUpdate // every device, changed or not
	keys     *federation.SigningKeyUpdate   // nil: not changed
	keysHash []byte
	put      map[matrix.DeviceID][]byte // hashes of all devices
	gone     []matrix.DeviceID
}

// loadChange compares the devices and keys of a user with what was told of them.
func loadChange(tx *storage.Tx, user matrix.UserID) (*change, error) {
	c := &change{put: map[matrix.DeviceID][]byte{}}
	var err error
	if c.told, err = tx.LoadAnnouncedList(user); err != nil {
		return nil, err
	}
	rows, err := loadKeys(tx, []matrix.UserID{user}, "")
	if err != nil {
		return nil, err
	}
	sigs := bySignedKey(rows.sigs)
	for _, d := range rows.devices {
		if d.Keys == nil {
			continue
		}
		u := &federation.DeviceListUpdate{UserID: user, DeviceID: d.DeviceID, DisplayName: d.DisplayName,
			Keys: assemble(d.Keys, sigs[signedKey{user, string(d.DeviceID)}], "")}
		c.all = append(c.all, u)
		c.put[d.DeviceID] = hash([]byte(d.DisplayName), u.Keys)
		if !bytes.Equal(c.put[d.DeviceID], c.told.Devices[d.DeviceID]) {
			c.updates = append(c.updates, u)
		}
	}
	for _, d := range sortedKeys(c.told.Devices) {
		if c.put[d] == nil {
			c.gone = append(c.gone, d)
			c.updates = append(c.updates, &federation.DeviceListUpdate{UserID: user, DeviceID: d, Deleted: true})
		}
	}
	out := newKeys(nil)
	out.add(keyRows{cross: rows.cross, sigs: rows.sigs}, nil, "")
	k := &federation.SigningKeyUpdate{UserID: user, MasterKey: out.MasterKeys[user], SelfSigningKey: out.SelfSigningKeys[user]}
	c.keysHash = hash(k.MasterKey, k.SelfSigningKey)
	if k.MasterKey == nil {
		c.keysHash = []byte{}
	} else if !bytes.Equal(c.keysHash, c.told.Keys) {
		c.keys = k
	}
	return c, nil
}

// hash is a hash of several texts.
func hash(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	return h.Sum(nil)
}
