package room

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
)

// keyRefused is the member of our m.room.server_acl events that names the servers which this deployment has put on the list of denied
// ones, so that it takes off those and no others when an agreement comes back.
const keyRefused = "org.hansa.refused"

const (
	// maxRefused bounds the servers that are denied in one room.
	maxRefused = 500
	// maxRemovals bounds the people who are taken out of a room in one go; the rest go when the follower comes by again.
	maxRemovals = 200
	refusedText = "Your server may not take part in this room."
)

// composition is who of which server is in a room, as far as compliance matters.
type composition struct {
	tenants []string // of ours
	// foreign are the present users of each other server.
	foreign map[string][]matrix.UserID
	// refused are the tenants of ours that do not approve a server.
	refused map[string][]string
	// leaving are those tenants whose people have to leave where nobody can remove a refused server; own are our joined users.
	leaving []string
	own     []matrix.UserID
	acl     *event.Event
	// visibility is the room's history visibility, most what it may be at most by those tenants that let other servers in.
	visibility, most string
	// masters are our joined users who may change the server ACL, the most powerful first.
	masters []matrix.UserID
	rules   *auth.Rules
}

// govern looks at the servers in a room, and keeps those out that a tenant of ours in the room does not approve: with the room's server ACL and
// by removing their people. They are removed first: their servers are told of that alone, and could not make anything of it if it
// came after an event that they may not have. That is done in the name of the most powerful user of such a tenant who may do it; where nobody may,
// the room stays as it is, and nobody of ours can send into it.
//
// spec: client-server-api#server-access-control-lists-acls-for-rooms
func (s *Service) govern(ctx context.Context, id matrix.RoomID) error {
	c, err := s.composition(ctx, id)
	if errors.Is(err, ErrUnknownRoom) || err == nil && c == nil {
		return nil
	}
	if err != nil {
		return err
	}
	content, changed := s.wantedACL(c)
	if len(c.refused) == 0 && !changed {
		return s.governPast(ctx, id, c)
	}
	log := s.log.WithField("room_id", id)
	master, ok := c.master(c.refusers())
	if !ok {
		if len(c.refused) > 0 {
			log.WithField("servers", len(c.refused)).Warn("a room holds servers that are not approved, and nobody of ours can remove them; our people cannot send into it")
		}
		return s.retreat(ctx, id, c)
	}
	removed := 0
	for _, server := range sortedServers(c.refused) {
		for _, user := range c.foreign[server] {
			if removed >= maxRemovals {
				return s.govern(ctx, id)
			}
			if !c.rules.CanKick(master, user) {
				continue
			}
			removed++
			if err := s.remove(ctx, id, master, user); err != nil {
				return err
			}
		}
	}
	if changed {
		empty := ""
		_, err := s.Send(ctx, Draft{RoomID: id, Sender: master, Type: typeServerACL, StateKey: &empty, Content: content})
		if err = fatal(err); err != nil {
			return err
		}
	}
	if len(c.refused) > 0 {
		log.WithFields(logrus.Fields{"servers": len(c.refused), "removed": removed}).Warn("a room held servers that are not approved")
	}
	return s.governPast(ctx, id, c)
}

// remove takes somebody out of a room in the name of a user of ours.
func (s *Service) remove(ctx context.Context, id matrix.RoomID, master, user matrix.UserID) error {
	key := string(user)
	_, err := s.Send(ctx, Draft{RoomID: id, Sender: master, Type: typeMember, StateKey: &key,
		Content: Object(map[string]any{"membership": auth.Leave, "reason": refusedText}),
		Given: func(v View) error {
			if !isPresent(v.Membership(user)) {
				return matrix.Forbidden("%s is not in the room any more.", user)
			}
			return nil
		}})
	return fatal(err)
}

// retreat takes those of our people out of a room whose tenants do not want to be in one with the servers that it holds.
func (s *Service) retreat(ctx context.Context, id matrix.RoomID, c *composition) error {
	for _, user := range c.own {
		if !slices.Contains(c.leaving, string(user.Server())) {
			continue
		}
		key := string(user)
		_, err := s.Send(ctx, Draft{RoomID: id, Sender: user, Type: typeMember, StateKey: &key,
			Content: Object(map[string]any{"membership": auth.Leave, "reason": "The room holds a server that may not be in it."})})
		if err = fatal(err); err != nil {
			return err
		}
	}
	return nil
}

// fatal is nil for refusals: rules, policy, or a room that moved on. What is left can be tried again.
func fatal(err error) error {
	var refused *matrix.Error
	if errors.As(err, &refused) && refused.Status < 500 || errors.Is(err, ErrUnknownRoom) {
		return nil
	}
	return err
}

// composition reads a room; nil where nobody of ours is in it.
func (s *Service) composition(ctx context.Context, id matrix.RoomID) (*composition, error) {
	l, err := s.live(ctx, id)
	if err != nil {
		return nil, unavailable(err)
	}
	c := &composition{foreign: map[string][]matrix.UserID{}, refused: map[string][]string{}}
	l.mu.Lock()
	if err := s.gather(ctx, l); err != nil {
		l.mu.Unlock()
		return nil, unavailable(err)
	}
	c.tenants, c.acl, c.rules, c.visibility = l.policyRoom(s).Tenants, l.event(typeServerACL), l.rules, l.policyRoom(s).HistoryVisibility
	for user, m := range l.members {
		switch server := user.Server(); {
		case !isPresent(m.membership):
		case !s.IsLocal(server):
			c.foreign[string(server)] = append(c.foreign[string(server)], user)
		case m.membership == auth.Join:
			c.own = append(c.own, user)
			if l.rules.CanSend(user, typeServerACL, true) {
				c.masters = append(c.masters, user)
			}
		}
	}
	l.mu.Unlock()
	if len(c.tenants) == 0 {
		return nil, nil
	}
	slices.SortFunc(c.masters, func(a, b matrix.UserID) int {
		return cmp.Or(cmp.Compare(c.rules.UserLevel(b), c.rules.UserLevel(a)), cmp.Compare(a, b))
	})
	for server, users := range c.foreign {
		slices.Sort(users)
		tenants, leaving, most, err := s.refusing(ctx, c.tenants, server)
		if err != nil {
			return nil, err
		}
		c.most = stricter(c.most, most)
		c.leaving = append(c.leaving, leaving...)
		if len(tenants) > 0 {
			c.refused[server] = tenants
		}
	}
	return c, nil
}

// refusing are those of some tenants that do not approve a server, and those of them whose people have to leave where it cannot be removed; most
// is the most that rooms may show of their past by those that do approve it. The error wraps ErrUndecided.
func (s *Service) refusing(ctx context.Context, tenants []string, server string) (out, leaving []string, most string, err error) {
	for _, tenant := range tenants {
		d := s.Policy.Consider(ctx, &policy.Input{Point: policy.FederationInbound, Time: s.Now(), Tenant: policy.Tenant{Name: tenant},
			Subject: policy.ServerParty(server, false), Server: &policy.Server{Name: server}})
		if d.Err != nil {
			return nil, nil, "", errors.Join(ErrUndecided, d.Err)
		}
		if d.Allow {
			most = stricter(most, d.Obligations.HistoryVisibility)
		} else {
			out = append(out, tenant)
			if d.Obligations.LeaveStrangers {
				leaving = append(leaving, tenant)
			}
		}
	}
	return out, leaving, most, nil
}

// refusers are the tenants in whose name something is to be done: those that refuse a server, else any.
func (c *composition) refusers() []string {
	var out []string
	for _, tenants := range c.refused {
		out = append(out, tenants...)
	}
	if len(out) == 0 {
		return c.tenants
	}
	return out
}

// master is who of some tenants may change the room's server ACL, the most powerful.
func (c *composition) master(tenants []string) (matrix.UserID, bool) {
	for _, u := range c.masters {
		if slices.Contains(tenants, string(u.Server())) {
			return u, true
		}
	}
	return "", false
}

// wantedACL is the room's server ACL as it should be, and whether that is another one than it has. Only entries of refused servers are added,
// and only such entries of ours taken off again; never one that would concern a tenant of this deployment.
func (s *Service) wantedACL(c *composition) (jsontext.Value, bool) {
	acl := map[string]any{"allow": []string{"*"}}
	var deny, ours []string
	if c.acl != nil {
		var old map[string]jsontext.Value
		lenient(c.acl.Content, &old)
		acl["allow"] = stringsIn(old["allow"])
		if kind := old["allow_ip_literals"].Kind(); kind == 't' || kind == 'f' {
			acl["allow_ip_literals"] = kind == 't'
		}
		deny, ours = stringsIn(old["deny"]), stringsIn(old[keyRefused])
	}
	refused := s.refusedHosts(c, ours)
	wanted := slices.DeleteFunc(slices.Clone(deny), func(host string) bool { return slices.Contains(ours, host) && !slices.Contains(refused, host) })
	for _, host := range refused {
		if !slices.Contains(wanted, host) {
			wanted = append(wanted, host)
		}
	}
	if slices.Equal(wanted, deny) {
		return nil, false
	}
	acl["deny"], acl[keyRefused] = wanted, refused
	return Object(acl), true
}

// stringsIn are the strings of a list; what is none is left out, as it is where the list is used.
func stringsIn(list jsontext.Value) []string {
	var values []jsontext.Value
	lenient(list, &values)
	out := []string{}
	for _, v := range values {
		var s string
		if v.Kind() == '"' && json.Unmarshal(v, &s) == nil {
			out = append(out, s)
		}
	}
	return out
}

// refusedHosts are the hosts that a room's server ACL has to deny: of refused servers that are in it, and of those that were denied before and
// are still refused. A host that a tenant of this deployment shares is left out.
func (s *Service) refusedHosts(c *composition, before []string) []string {
	out := []string{}
	add := func(host string) {
		for name := range s.Keys {
			if name.Host() == host {
				return
			}
		}
		if !slices.Contains(out, host) && len(out) < maxRefused {
			out = append(out, host)
		}
	}
	for _, server := range sortedServers(c.refused) {
		add(matrix.ServerName(server).Host())
	}
	for _, host := range before {
		if tenants, _, _, err := s.refusing(context.Background(), c.tenants, host); err != nil || len(tenants) > 0 {
			add(host)
		}
	}
	slices.Sort(out)
	return out
}

func sortedServers(m map[string][]string) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
