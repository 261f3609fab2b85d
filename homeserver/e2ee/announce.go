package e2ee

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

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

// recentArrival is how long it is remembered that somebody came into a room: by then the outbox knows of it, too.
const recentArrival = 5 * time.Minute

// Announcer returns the follower that tells other servers of changed devices and keys, by way of the outbox, and forgets what is kept of
// users with whom nobody shares a room any more.
//
// spec: server-server-api#device-management
func (s *Service) Announcer() stream.Follower {
	a := &announcer{s: s, arrivals: map[matrix.RoomID]arrival{}}
	return stream.Follower{Name: "e2ee.announcer", Handle: a.handle}
}

// announcer reads the log. One goroutine uses it.
type announcer struct {
	s *Service
	// arrivals are the servers in rooms into which somebody came a short while ago.
	arrivals map[matrix.RoomID]arrival
}

type arrival struct {
	servers []matrix.ServerName
	at      time.Time
}

// news is what a range of the log means for announcements.
type news struct {
	// touched are local users whose devices or keys changed.
	touched map[matrix.UserID]bool
	// came are the users who came into a room, left the rooms that local users have left.
	came map[matrix.RoomID][]matrix.UserID
	left map[matrix.RoomID]bool
	// met are the servers that local users have come to share a room with.
	met map[matrix.UserID]map[matrix.ServerName]bool
	// lost are users of other servers who may share no room any more.
	lost map[matrix.UserID]bool
}

func (a *announcer) handle(ctx context.Context, entries []storage.Entry, _ int64) error {
	n, err := a.s.read(ctx, entries)
	if err != nil {
		return err
	}
	if err := a.s.lose(ctx, n); err != nil {
		return err
	}
	if a.s.Queue == nil {
		return nil
	}
	for _, room := range sortedKeys(n.came) {
		if err := a.meet(ctx, n, room, n.came[room]); err != nil {
			return err
		}
	}
	for _, u := range sortedKeys(n.touched) {
		told, err := a.announce(ctx, u)
		if err != nil {
			return fmt.Errorf("announce devices: %w", err)
		}
		if told {
			delete(n.met, u)
		}
	}
	for _, u := range sortedKeys(n.met) {
		if err := a.introduce(ctx, u, sortedKeys(n.met[u])); err != nil {
			return fmt.Errorf("announce devices: %w", err)
		}
	}
	return nil
}

// read sorts the entries.
func (s *Service) read(ctx context.Context, entries []storage.Entry) (*news, error) {
	n := &news{touched: map[matrix.UserID]bool{}, came: map[matrix.RoomID][]matrix.UserID{}, left: map[matrix.RoomID]bool{},
		met: map[matrix.UserID]map[matrix.ServerName]bool{}, lost: map[matrix.UserID]bool{}}
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Kind == storage.KindDeviceList:
			local, err := s.isLocal(ctx, e.UserID)
			if err != nil {
				return nil, err
			}
			if local {
				n.touched[e.UserID] = true
			}
		case e.Kind == storage.KindEvent && e.Event.Type == auth.TypeMember && e.Event.StateKey != nil:
			user := matrix.UserID(*e.Event.StateKey)
			switch event.Membership(e.Event.Event) {
			case auth.Join:
				n.came[e.RoomID] = append(n.came[e.RoomID], user)
			case auth.Leave, auth.Ban:
				local, err := s.isLocal(ctx, user)
				if err != nil {
					return nil, err
				}
				if local {
					n.left[e.RoomID] = true
				} else {
					n.lost[user] = true
				}
			}
		}
	}
	return n, nil
}

func (s *Service) isLocal(ctx context.Context, user matrix.UserID) (bool, error) {
	p, err := s.Parties.Party(ctx, user)
	return err == nil && p.Local, err
}

// meet notes which servers meet whom when somebody has come into a room.
func (a *announcer) meet(ctx context.Context, n *news, room matrix.RoomID, came []matrix.UserID) error {
	far := false
	for _, u := range came {
		local, err := a.s.isLocal(ctx, u)
		if err != nil {
			return err
		}
		far = far || !local
	}
	var strangers, own []matrix.UserID
	err := a.s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if !far { // the usual case, and many at a time
			if far, err = tx.HasDestinations(room); err != nil || !far {
				return err
			}
		}
		if strangers, err = tx.LoadStrangers(room); err != nil || len(strangers) == 0 {
			return err
		}
		own, err = tx.LoadLocals(room, maxArrival)
		return err
	})
	if err != nil || len(strangers) == 0 {
		return err
	}
	in := byServer(strangers)
	now := a.s.Now()
	for id, old := range a.arrivals {
		if now.Sub(old.at) > recentArrival {
			delete(a.arrivals, id)
		}
	}
	a.arrivals[room] = arrival{sortedKeys(in), now}
	meet := func(who matrix.UserID, server matrix.ServerName) {
		if n.met[who] == nil {
			n.met[who] = map[matrix.ServerName]bool{}
		}
		n.met[who][server] = true
	}
	for _, u := range came {
		others := in[u.Server()]
		switch {
		case others == nil: // one of ours
			for server := range in {
				meet(u, server)
			}
		case len(others) <= countOf(came, u.Server()): // the first of that server
			for _, o := range own {
				meet(o, u.Server())
			}
		}
	}
	return nil
}

func countOf(users []matrix.UserID, server matrix.ServerName) (n int) {
	for _, u := range users {
		if u.Server() == server {
			n++
		}
	}
	return n
}

// servers are the other servers that share a room with a user.
func (a *announcer) servers(ctx context.Context, user matrix.UserID) (out []matrix.ServerName, err error) {
	err = a.s.DB.Read(ctx, func(tx *storage.Tx) error {
		if out, err = tx.LoadSharingDestinations(user); err != nil {
			return err
		}
		for id, r := range a.arrivals { // of which the outbox may not know yet
			m, ok, err := tx.FindMember(id, user)
			if err != nil {
				return err
			}
			if ok && m.Membership == auth.Join {
				out = append(out, r.servers...)
			}
		}
		return nil
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// lose forgets the lists of those who share no room with anybody here: of their changes nothing is heard any more.
func (s *Service) lose(ctx context.Context, n *news) error {
	if len(n.lost)+len(n.left) == 0 {
		return nil
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		some, err := tx.KeepsRemoteLists()
		if err != nil || !some {
			return err
		}
		users := sortedKeys(n.lost)
		for _, room := range sortedKeys(n.left) {
			members, err := tx.LoadKeptMembers(room)
			if err != nil {
				return err
			}
			users = append(users, members...)
		}
		kept, err := tx.LoadRemoteLists(users)
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
	party, err := s.Parties.Party(ctx, user)
	if err != nil {
		return nil, err
	}
	var out []matrix.ServerName
	for _, name := range servers {
		d := s.Policy.Consider(ctx, &policy.Input{Schema: policy.InputSchema, Point: policy.KeysQuery, Time: s.Now(), Tenant: policy.Tenant{Name: string(user.Server())},
			Subject: policy.ServerParty(string(name), false), Target: party, Server: &policy.Server{Name: string(name)}})
		if d.Err != nil {
			return nil, d.Error()
		}
		if d.Allow {
			out = append(out, name)
		}
	}
	return out, nil
}

// announce tells the servers that share a room with a user what changed since they were told last, and whether there was anything.
func (a *announcer) announce(ctx context.Context, user matrix.UserID) (told bool, err error) {
	s := a.s
	servers, err := a.servers(ctx, user)
	if err != nil || len(servers) == 0 {
		return false, err // who comes later asks for all of it
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
func (a *announcer) introduce(ctx context.Context, user matrix.UserID, servers []matrix.ServerName) error {
	s := a.s
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
		_, err = a.announce(ctx, user)
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
	if len(b) > maxEDU { // no server would take it; it can still be asked for
		s.log.WithField("user_id", user).Warn("keys are too large to be announced to other servers")
		return nil
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
