package ephemeral

import (
	"container/list"
	"context"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
)

// What a user can be.
const (
	Online      = "online"
	Unavailable = "unavailable"
	Offline     = "offline"
)

const (
	// coalesce is the shortest time between two moments at which changes of presence are told.
	coalesce = 5 * time.Second
	// presenceSweep is how often somebody is looked for who did nothing or went away.
	presenceSweep = 10 * time.Second
	// activeFor is how long somebody counts as active after having done something, idleAfter when nothing makes unavailable.
	activeFor = time.Minute
	idleAfter = 5 * time.Minute
	// grace is how long a device may stay away between two requests, statedFor how long a presence that was set counts for
	// a device that does not sync.
	grace     = 30 * time.Second
	statedFor = 5 * time.Minute
	// maxHold is the longest request that a device is believed to wait in.
	maxHold = 10 * time.Minute
	// forgetAfter is how long somebody is remembered who is offline.
	forgetAfter = 15 * time.Minute
	// maxPeople, maxPresentDevices and maxStatus bound the memory.
	maxPeople         = 100_000
	maxPresentDevices = 50
	maxStatus         = 1024
)

// presence is who is there. Service.mu guards it.
type presence struct {
	people map[matrix.UserID]*person
	// told has those whose presence was told, the newest first.
	told    *list.List
	pending []*person
	flushed time.Time // when changes were last told
	swept   time.Time
	retold  time.Time // when other nodes were last told of all who are present here
}

// person is one user's presence, made of that of the devices.
type person struct {
	user    matrix.UserID
	state   string
	active  bool // was active when this was last looked at
	acted   time.Time
	status  string
	devices map[matrix.DeviceID]*seat
	// statusTS is when the status was set, in ms, on any node; told is what other nodes were told.
	statusTS int64
	told     toldUser
	sent     time.Time // when other servers were told
	sentAs   string    // what they were told

	version int64
	changed time.Time
	pending bool
	place   *list.Element // nil before the first telling
}

// seat is what one device of a user says.
type seat struct {
	wish   string
	stated bool // set by a request for it, not by a sync that said nothing
	until  time.Time
}

func newPresence() presence {
	return presence{people: map[matrix.UserID]*person{}, told: list.New()}
}

// SetPresence sets what a user wants to be on the calling device, and the status message of the user; nil removes that.
//
// spec: client-server-api#put_matrixclientv3presenceuseridstatus
func (s *Service) SetPresence(ctx context.Context, by Caller, user matrix.UserID, state string, status *string) error {
	if user != by.User {
		return matrix.Forbidden("You can set only your own presence.")
	}
	if err := checkPresence(state); err != nil {
		return err
	}
	text := ""
	if status != nil {
		text = *status
	}
	if len(text) > maxStatus || !utf8.ValidString(text) {
		return matrix.InvalidParam("A status message may have at most %d bytes.", maxStatus)
	}
	if e := s.Policy.Decide(ctx, s.input(policy.PresenceWrite, by)).Error(); e != nil {
		return e
	}
	s.setPresence(user, by.Device, state, text)
	return nil
}

func checkPresence(state string) error {
	switch state {
	case Online, Unavailable, Offline:
		return nil
	}
	return matrix.InvalidParam("The presence must be online, unavailable or offline.")
}

func (s *Service) setPresence(user matrix.UserID, device matrix.DeviceID, state, status string) {
	if s.NoPresence {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	p := s.presence.person(user)
	if p == nil {
		return
	}
	if d := p.seat(device); d != nil {
		d.wish, d.stated = state, true
		if until := now.Add(statedFor); d.until.Before(until) {
			d.until = until
		}
	}
	p.acted = now
	if p.status != status {
		p.status, p.statusTS = status, max(now.UnixMilli(), p.statusTS+1)
		s.tell(p, now)
	}
	s.look(p, now)
}

// Touch says that a device asks for news, and will do so for at most hold: its user is there. state is what the request says about
// that (set_presence); empty leaves what the device stated, and else means online. A user whom policy does not let have
// presence stays unseen.
//
// spec: client-server-api#get_matrixclientv3sync
func (s *Service) Touch(ctx context.Context, by Caller, state string, hold time.Duration) error {
	if state != "" {
		if err := checkPresence(state); err != nil {
			return err
		}
	}
	if s.NoPresence || state != Offline && !s.may(ctx, s.input(policy.PresenceWrite, by)) {
		return nil
	}
	s.touch(by.User, by.Device, state, hold)
	return nil
}

func (s *Service) touch(user matrix.UserID, device matrix.DeviceID, state string, hold time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	p := s.presence.people[user]
	if p == nil {
		if state == Offline {
			return
		}
		if p = s.presence.person(user); p == nil {
			return
		}
	}
	if state == Offline {
		delete(p.devices, device)
		s.look(p, now)
		return
	}
	d := p.seat(device)
	if d == nil {
		return
	}
	was := d.wish == Online && d.until.After(now)
	switch {
	case state != "":
		d.wish, d.stated = state, true
	case !d.stated:
		d.wish = Online
	}
	if d.wish == Online && !was {
		p.acted = now // coming online is something that the user did
	}
	if until := now.Add(min(max(hold, 0), maxHold) + grace); d.until.Before(until) {
		d.until = until
	}
	s.look(p, now)
}

// Active says that a user did something: sent, typed, read. Somebody who is unavailable is online by that; somebody who wants to be
// offline stays so, and nobody learns of it.
//
// spec: client-server-api#idle-timeout
func (s *Service) Active(user matrix.UserID) {
	if s.NoPresence {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.presence.people[user]
	if p == nil || p.state == Offline {
		return
	}
	now := s.Now()
	p.acted = now
	for _, d := range p.devices {
		if d.wish == Unavailable {
			d.wish, d.stated = Online, false
		}
	}
	s.look(p, now)
}

// person returns a user's entry, made where there is none, or nil when there are too many.
func (p *presence) person(user matrix.UserID) *person {
	if known := p.people[user]; known != nil {
		return known
	}
	if len(p.people) >= maxPeople && !p.forget() {
		return nil
	}
	made := &person{user: user, state: Offline, told: toldUser{state: Offline}, devices: map[matrix.DeviceID]*seat{}}
	p.people[user] = made
	return made
}

// ForgetFar forgets the presence of people of other servers, apart from those that keep names.
func (s *Service) ForgetFar(keep func(matrix.ServerName) bool) {
	s.mu.Lock()
	servers := map[matrix.ServerName]bool{}
	for user := range s.presence.people {
		if !s.Rooms.IsLocal(user.Server()) {
			servers[user.Server()] = true
		}
	}
	s.mu.Unlock()
	for name := range servers {
		if keep(name) {
			delete(servers, name)
		}
	}
	if len(servers) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pr := &s.presence
	gone := func(p *person) bool { return servers[p.user.Server()] }
	pr.pending = slices.DeleteFunc(pr.pending, gone)
	for _, p := range pr.people {
		if gone(p) {
			pr.drop(p)
		}
	}
}

// forget makes place for somebody by dropping who has been offline for the longest time.
func (p *presence) forget() bool {
	for e := p.told.Back(); e != nil; e = e.Prev() {
		if x, _ := e.Value.(*person); x.state == Offline && !x.pending {
			p.drop(x)
			return true
		}
	}
	return false
}

func (p *presence) drop(x *person) {
	if x.place != nil {
		p.told.Remove(x.place)
	}
	delete(p.people, x.user)
}

func (p *person) seat(device matrix.DeviceID) *seat {
	d := p.devices[device]
	if d == nil {
		if len(p.devices) >= maxPresentDevices {
			return nil
		}
		d = &seat{wish: Online}
		p.devices[device] = d
	}
	return d
}

// now is what the user is, made of the devices: the most present one counts.
func (p *person) now(now time.Time) (state string, active bool) {
	state = Offline
	for id, d := range p.devices {
		switch {
		case !d.until.After(now) || d.wish == Offline:
		case id == abroad && d.wish == Online: // the other server knows better
			state = Online
		case d.wish == Unavailable || now.Sub(p.acted) >= idleAfter:
			if state == Offline {
				state = Unavailable
			}
		default:
			state = Online
		}
	}
	return state, state == Online && now.Sub(p.acted) < activeFor
}

// look finds out whether a user's presence has changed. The caller holds s.mu.
func (s *Service) look(p *person, now time.Time) {
	state, active := p.now(now)
	if state == p.state && active == p.active {
		return
	}
	p.state, p.active = state, active
	s.tell(p, now)
}

// tell makes a change known, now or when enough time has passed. The caller holds s.mu.
func (s *Service) tell(p *person, now time.Time) {
	p.changed = now
	if p.pending {
		return
	}
	p.pending = true
	s.presence.pending = append(s.presence.pending, p)
	if now.Sub(s.presence.flushed) >= coalesce {
		s.flush(now)
	}
	s.soon()
}

// flush gives all changes that wait a version and wakes the readers. The caller holds s.mu.
func (s *Service) flush(now time.Time) {
	v := s.advance(now)
	for _, p := range s.presence.pending {
		p.pending, p.version = false, v
		if p.place == nil {
			p.place = s.presence.told.PushFront(p)
		} else {
			s.presence.told.MoveToFront(p.place)
		}
		s.sendPresence(p, now)
	}
	s.tellPresence(s.presence.pending, now)
	s.presence.pending, s.presence.flushed = nil, now
	s.wake()
}

// sweepPresence looks for those who went away, tells what is due, and says when to come again. The caller holds s.mu.
func (s *Service) sweepPresence(now time.Time) time.Duration {
	pr := &s.presence
	if now.Sub(pr.swept) >= presenceSweep {
		pr.swept = now
		for _, p := range pr.people {
			for id, d := range p.devices {
				if !d.until.After(now) {
					delete(p.devices, id)
				}
			}
			s.look(p, now)
			s.repeatSent(p, now)
			if p.state == Offline && p.status == "" && !p.pending && now.Sub(p.changed) >= forgetAfter {
				pr.drop(p)
			}
		}
		s.retell(now)
	}
	next := presenceSweep - now.Sub(pr.swept)
	if len(pr.people) == 0 {
		next = quietFor
	}
	if len(pr.pending) > 0 {
		wait := coalesce - now.Sub(pr.flushed)
		if wait <= 0 {
			s.flush(now)
		} else {
			next = min(next, wait)
		}
	}
	return next
}

// PresenceSince returns the users whose presence changed after a version; 0 means all who are not offline.
func (s *Service) PresenceSince(version int64) []matrix.UserID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merge(version)
	var out []matrix.UserID
	if version == 0 {
		for user, p := range s.presence.people {
			if p.state != Offline {
				out = append(out, user)
			}
		}
		return out
	}
	for e := s.presence.told.Front(); e != nil; e = e.Next() {
		p, _ := e.Value.(*person)
		if p.version <= version {
			break
		}
		out = append(out, p.user)
	}
	return out
}

// Presence returns the content of a user's m.presence event, nil for one who is unknown.
//
// spec: client-server-api#mpresence
func (s *Service) Presence(user matrix.UserID) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.presence.people[user]
	if p == nil {
		return nil
	}
	now := s.Now()
	state, active := p.now(now)
	b := append(make([]byte, 0, 128), `{"presence":"`...)
	b = append(append(b, state...), '"')
	if !p.acted.IsZero() {
		b = append(b, `,"last_active_ago":`...)
		b = strconv.AppendInt(b, max(0, now.Sub(p.acted).Milliseconds()), 10)
	}
	if p.status != "" {
		b = append(b, `,"status_msg":`...)
		if q, err := jsontext.AppendQuote(b, p.status); err == nil {
			b = q
		}
	}
	if state == Online {
		b = append(b, `,"currently_active":`...)
		b = strconv.AppendBool(b, active)
	}
	return append(b, '}')
}

// GetPresence returns a user's presence to somebody who may see it. Who may not gets the same answer as about somebody unknown.
//
// spec: client-server-api#get_matrixclientv3presenceuseridstatus
func (s *Service) GetPresence(ctx context.Context, by Caller, user matrix.UserID) ([]byte, error) {
	if user == by.User {
		if b := s.Presence(user); b != nil {
			return b, nil
		}
		return []byte(`{"presence":"` + Offline + `"}`), nil
	}
	target, err := s.Parties.Party(ctx, user)
	if err != nil {
		return nil, err
	}
	in := s.input(policy.PresenceRead, by)
	in.Target = target
	d := s.Policy.Decide(ctx, in)
	b := s.Presence(user)
	if !d.Allow || b == nil {
		return nil, d.NotFound("Nothing is known of this user's presence.")
	}
	return b, nil
}

// MayRead tells whether a viewer is shown a user's presence, for lists: what it answers is not recorded with each look.
func (s *Service) MayRead(ctx context.Context, viewer *policy.Party, user matrix.UserID) bool {
	if viewer.ID == string(user) {
		return true
	}
	target, err := s.Parties.Party(ctx, user)
	if err != nil || !s.Policy.Contact(viewer, target) {
		return false
	}
	return s.may(ctx, &policy.Input{Point: policy.PresenceRead, Time: s.Now(), Tenant: policy.Tenant{Name: viewer.Tenant}, Subject: viewer, Target: target})
}
