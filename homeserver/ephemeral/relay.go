package ephemeral

import (
	"time"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
)

// Relay carries small messages between the nodes of a deployment, and may lose them. It is declared here so that a single node needs
// none.
type Relay interface {
	// Tell sends a message to the other nodes. It never blocks.
	Tell(topic string, message []byte)
	// Hear gives what others tell to a function.
	Hear(topic string, fn func(message []byte))
}

const (
	topicTyping   = "typing"
	topicPresence = "presence"
	// retold is how often a node tells again who is present on it, for nodes that are new or missed something; heardFor is how long
	// that is believed.
	retold   = 40 * time.Second
	heardFor = 100 * time.Second
	// maxRetold is how many users stand in one message.
	maxRetold = 100
	// maxAhead is how far the clock of another node, or a token of it, may be ahead.
	maxAhead = 10 * time.Minute
)

// elsewhere begins the name of the seat that stands for all devices of a user on another node. No device has such a name.
const elsewhere = "\x00"

// typingNews is what a node tells when a user begins, goes on or stops typing.
type typingNews struct {
	Room    matrix.RoomID `json:"room"`
	User    matrix.UserID `json:"user"`
	MS      int64         `json:"ms"` // 0 for stops
	Version int64         `json:"version"`
}

// presenceNews is what a node tells of users who are present on it.
type presenceNews struct {
	Node    string         `json:"node"`
	Version int64          `json:"version"`
	Users   []presenceUser `json:"users"`
}

type presenceUser struct {
	User  matrix.UserID `json:"user"`
	State string        `json:"state"`
	// ActedMS is how long ago the user did something, StatusTS when the status was set.
	ActedMS  int64  `json:"acted_ms"`
	Status   string `json:"status,omitempty"`
	StatusTS int64  `json:"status_ts,omitempty"`
}

// toldUser is what the other nodes were told of a user last.
type toldUser struct {
	state    string
	acted    time.Time
	statusTS int64
}

// hear begins to listen to the other nodes.
func (s *Service) hear() {
	if s.Relay == nil {
		return
	}
	s.Relay.Hear(topicTyping, s.heardTyping)
	s.Relay.Hear(topicPresence, s.heardPresence)
}

// merge makes the version of this node at least one that another node gave, to a message or to a token of a client: what comes next is
// newer than both. The caller holds s.mu.
func (s *Service) merge(version int64) {
	if version > s.version {
		s.version = max(s.version, min(version, s.Now().Add(maxAhead).UnixMilli()))
	}
}

// tellTyping tells the other nodes that a user types for a while, or not any more. The caller holds s.mu.
func (s *Service) tellTyping(room matrix.RoomID, user matrix.UserID, timeout time.Duration) {
	s.tellOthers(topicTyping, &typingNews{Room: room, User: user, MS: timeout.Milliseconds(), Version: s.version})
}

func (s *Service) tellOthers(topic string, news any) {
	if s.Relay == nil {
		return
	}
	if b, err := json.Marshal(news); err == nil { // what cannot be written is not told
		s.Relay.Tell(topic, b)
	}
}

func (s *Service) heardTyping(message []byte) {
	var n typingNews
	if json.Unmarshal(message, &n) != nil {
		return // of a later version of this program
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merge(n.Version)
	if n.MS <= 0 {
		s.stopTypist(n.Room, n.User)
		return
	}
	s.typist(n.Room, n.User, min(time.Duration(n.MS)*time.Millisecond, maxTyping))
}

// here is what a user is by the devices on this node alone.
func (p *person) here(now time.Time) string {
	state := Offline
	for id, d := range p.devices {
		if isElsewhere(id) || !d.until.After(now) || d.wish == Offline {
			continue
		}
		if d.wish == Online {
			return Online
		}
		state = Unavailable
	}
	return state
}

func isElsewhere(id matrix.DeviceID) bool { return len(id) > 0 && id[0] == elsewhere[0] }

// tellPresence tells the other nodes what has changed of users on this one. The caller holds s.mu.
func (s *Service) tellPresence(people []*person, now time.Time) {
	if s.Relay == nil {
		return
	}
	var list []presenceUser
	for _, p := range people {
		state := p.here(now)
		if state == p.told.state && p.statusTS == p.told.statusTS && p.acted.Sub(p.told.acted) < activeFor/2 {
			continue
		}
		list = append(list, s.presenceUser(p, state, now))
	}
	s.tellUsers(list)
}

func (s *Service) presenceUser(p *person, state string, now time.Time) presenceUser {
	p.told = toldUser{state: state, acted: p.acted, statusTS: p.statusTS}
	return presenceUser{User: p.user, State: state, ActedMS: max(0, now.Sub(p.acted).Milliseconds()), Status: p.status, StatusTS: p.statusTS}
}

func (s *Service) tellUsers(list []presenceUser) {
	for len(list) > 0 {
		n := min(len(list), maxRetold)
		s.tellOthers(topicPresence, &presenceNews{Node: s.Node, Version: s.version, Users: list[:n]})
		list = list[n:]
	}
}

// retell tells the other nodes again who is present on this one. The caller holds s.mu.
func (s *Service) retell(now time.Time) {
	if s.Relay == nil || now.Sub(s.presence.retold) < retold {
		return
	}
	s.presence.retold = now
	var list []presenceUser
	for _, p := range s.presence.people {
		if state := p.here(now); state != Offline {
			list = append(list, s.presenceUser(p, state, now))
		}
	}
	s.tellUsers(list)
}

func (s *Service) heardPresence(message []byte) {
	var n presenceNews
	if s.NoPresence || json.Unmarshal(message, &n) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merge(n.Version)
	now := s.Now()
	for _, u := range n.Users {
		s.heardUser(matrix.DeviceID(elsewhere+n.Node), u, now)
	}
}

func (s *Service) heardUser(seat matrix.DeviceID, u presenceUser, now time.Time) {
	p := s.presence.people[u.User]
	if p == nil {
		if u.State == Offline && u.StatusTS == 0 || checkPresence(u.State) != nil {
			return
		}
		if p = s.presence.person(u.User); p == nil {
			return
		}
	}
	if u.State == Offline {
		delete(p.devices, seat)
	} else if d := p.seat(seat); d != nil {
		d.wish, d.until = u.State, now.Add(heardFor)
	}
	if acted := now.Add(-time.Duration(max(u.ActedMS, 0)) * time.Millisecond); acted.After(p.acted) {
		p.acted, p.told.acted = acted, acted
	}
	if u.StatusTS > p.statusTS && len(u.Status) <= maxStatus {
		if p.statusTS = u.StatusTS; p.status != u.Status {
			p.status = u.Status
			s.tell(p, now)
		}
		p.told.statusTS = p.statusTS
	}
	s.look(p, now)
}
