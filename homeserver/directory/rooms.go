package directory

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

const (
	// listDefault and listMax are how many rooms a page has, listStep how many entries are looked at in one go.
	listDefault, listMax, listStep = 50, 500, 100
)

// SetVisibility puts a room into the list of the caller's tenant, or takes it out.
//
// spec: client-server-api#put_matrixclientv3directorylistroomroomid
func (s *Service) SetVisibility(ctx context.Context, c Caller, id matrix.RoomID, public bool) error {
	tenant := c.UserID.Server()
	mayName, err := s.inside(ctx, id, c.UserID)
	if err != nil {
		return err
	}
	if !mayName {
		return matrix.Forbidden("You may not change the public address of this room.")
	}
	facts, audience, err := s.Rooms.PolicyFacts(ctx, id, c.UserID)
	if err != nil {
		return err
	}
	facts.Public = public
	if e := s.decide(ctx, c, tenant, policy.Input{Point: policy.RoomPublish, Room: facts, Audience: audience}).Error(); e != nil {
		return e
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		change := tx.Unpublish
		if public {
			change = func(tenant matrix.ServerName, id matrix.RoomID) (bool, error) {
				return tx.Publish(tenant, id, c.UserID)
			}
		}
		changed, err := change(tenant, id)
		if err != nil || !changed {
			return err
		}
		return tx.Announce(storage.NoticeDirectory, string(id))
	})
}

// Visibility tells whether a room stands in the list of the caller's tenant. A room that the caller may not find is not there.
//
// spec: client-server-api#get_matrixclientv3directorylistroomroomid
func (s *Service) Visibility(ctx context.Context, c Caller, id matrix.RoomID) (public bool, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { public, err = tx.IsPublished(c.UserID.Server(), id); return err })
	if err != nil {
		return false, err
	}
	unknown := matrix.NotFound("There is no such room.")
	if !public {
		if _, err := s.inside(ctx, id, c.UserID); err != nil {
			return false, unknown
		}
		return false, nil
	}
	found, err := s.mayFind(ctx, c, c.UserID.Server(), id)
	if err == nil && !found {
		err = unknown
	}
	return true, err
}

// Query is what is wanted of a list of rooms.
type Query struct {
	// Server is whose list it is; empty for the caller's tenant.
	Server matrix.ServerName
	Limit  int
	Since  string
	// Term must be part of name, topic or alias. Types are the wanted types of rooms, nil standing for none; empty for all.
	Term  string
	Types []*string
}

// Page is a part of a list of rooms.
type Page struct {
	Chunk     []*Listed `json:"chunk"`
	NextBatch string    `json:"next_batch,omitempty"`
	PrevBatch string    `json:"prev_batch,omitempty"`
}

// Listed is a room in a list.
type Listed struct {
	RoomID         matrix.RoomID `json:"room_id"`
	Name           string        `json:"name,omitempty"`
	Topic          string        `json:"topic,omitempty"`
	CanonicalAlias string        `json:"canonical_alias,omitempty"`
	AvatarURL      string        `json:"avatar_url,omitempty"`
	JoinRule       string        `json:"join_rule,omitempty"`
	RoomType       string        `json:"room_type,omitempty"`
	Joined         int           `json:"num_joined_members"`
	WorldReadable  bool          `json:"world_readable"`
	GuestCanJoin   bool          `json:"guest_can_join"`

	sorted int64 // the number it was sorted by
}

// List returns a page of a list of published rooms, without those that the caller may not find.
//
// spec: client-server-api#post_matrixclientv3publicrooms
func (s *Service) List(ctx context.Context, c Caller, q Query) (*Page, error) {
	tenant := c.UserID.Server()
	if q.Server != "" && q.Server != tenant {
		if err := s.partner(ctx, c, q.Server); err != nil {
			return nil, err
		}
		if !s.Rooms.IsLocal(q.Server) {
			return s.listRemote(ctx, c, q)
		}
		tenant = q.Server
	}
	return s.list(ctx, c, tenant, q)
}

// list returns a page of the list of a tenant, to whoever may ask for it.
func (s *Service) list(ctx context.Context, c Caller, tenant matrix.ServerName, q Query) (*Page, error) {
	if q.Limit <= 0 {
		q.Limit = listDefault
	}
	q.Limit = min(q.Limit, listMax)
	at, dir, err := parseSince(q.Since)
	if err != nil {
		return nil, err
	}
	found, more, err := s.scan(ctx, c, tenant, q, at, dir)
	if err != nil {
		return nil, err
	}
	page := &Page{Chunk: found}
	forward, back := more, at != nil
	if dir == storage.Backward {
		slices.Reverse(found)
		forward, back = true, more
	}
	if len(found) > 0 {
		if forward {
			page.NextBatch = since("n", found[len(found)-1])
		}
		if back {
			page.PrevBatch = since("p", found[0])
		}
	}
	return page, nil
}

// partner asks both sides whether the caller's tenant and another one talk at all.
func (s *Service) partner(ctx context.Context, c Caller, server matrix.ServerName) error {
	own, local := c.UserID.Server(), s.Rooms.IsLocal(server)
	d := s.decide(ctx, c, own, policy.Input{Point: policy.FederationOutbound, Server: &policy.Server{Name: string(server), Local: local}})
	if d.Allow && local {
		d = s.decide(ctx, c, server, policy.Input{Point: policy.FederationInbound, Server: &policy.Server{Name: string(own), Local: true}})
	}
	if d.Allow && !local { // what is looked up there is judged like an alias
		d = s.decide(ctx, c, own, policy.Input{Point: policy.RoomAlias, Server: &policy.Server{Name: string(server)}})
	}
	if e := d.Error(); e != nil {
		return e
	}
	return nil
}

// scan goes through a list until a page is full. It returns one page and whether there is another.
func (s *Service) scan(ctx context.Context, c Caller, tenant matrix.ServerName, q Query, at *storage.PublishedRoom, dir storage.Direction) ([]*Listed, bool, error) {
	out := []*Listed{}
	k := s.seeker(c, tenant)
	for {
		var batch []storage.PublishedRoom
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
			batch, err = tx.LoadPublishedRooms(tenant, at, dir, listStep)
			return err
		})
		if err != nil {
			return nil, false, err
		}
		for i := range batch {
			l, err := s.listed(ctx, k, tenant, q, &batch[i])
			if err != nil {
				return nil, false, err
			}
			if l == nil {
				continue
			}
			if len(out) == q.Limit {
				return out, true, nil
			}
			out = append(out, l)
		}
		if len(batch) < listStep {
			return out, false, nil
		}
		at = &batch[len(batch)-1]
	}
}

// listed returns an entry of a list, nil for one that is not asked for or that the caller may not find.
func (s *Service) listed(ctx context.Context, k *seeker, tenant matrix.ServerName, q Query, p *storage.PublishedRoom) (*Listed, error) {
	l, err := k.listing(ctx, p.RoomID)
	if err != nil {
		return nil, err
	}
	l.sorted = p.Joined
	if !q.wants(l) {
		return nil, nil
	}
	found, err := s.mayFind(ctx, k.c, tenant, p.RoomID)
	if err != nil || !found {
		return nil, err
	}
	return l, nil
}

func (q *Query) wants(l *Listed) bool {
	if len(q.Types) > 0 && !slices.ContainsFunc(q.Types, func(t *string) bool { return t == nil && l.RoomType == "" || t != nil && *t == l.RoomType }) {
		return false
	}
	term := strings.ToLower(q.Term)
	return term == "" || strings.Contains(strings.ToLower(l.Name), term) || strings.Contains(strings.ToLower(l.Topic), term) ||
		strings.Contains(strings.ToLower(l.CanonicalAlias), term)
}

// listing is what a list says of a room.
//
// spec: client-server-api#get_matrixclientv3publicrooms
func (k *seeker) listing(ctx context.Context, id matrix.RoomID) (*Listed, error) {
	l := &Listed{RoomID: id}
	found := map[string]*event.Event{}
	var senders []matrix.UserID
	err := k.s.Rooms.Look(ctx, id, func(v room.View) {
		state := func(typ string) *event.Event { return v.State(typ, "") }
		l.Joined, l.JoinRule = v.Joined(), v.Rules().JoinRule()
		l.RoomType = text(state(auth.TypeCreate), "type")
		l.WorldReadable = text(state("m.room.history_visibility"), "history_visibility") == "world_readable"
		for _, typ := range summaryTypes() {
			if e := state(typ); e != nil {
				found[typ], senders = e, append(senders, e.Sender)
			}
		}
	})
	if err == nil {
		err = k.meet(ctx, senders)
	}
	if err != nil {
		return nil, err
	}
	l.show(func(typ string) *event.Event {
		if e := found[typ]; e != nil && k.tells(e) {
			return e
		}
		return nil
	})
	return l, nil
}

// show takes over what people have said of a room.
func (l *Listed) show(state func(typ string) *event.Event) {
	l.Name, l.CanonicalAlias, l.AvatarURL = text(state("m.room.name"), "name"), text(state(typeCanonical), "alias"), text(state("m.room.avatar"), "url")
	l.GuestCanJoin = text(state("m.room.guest_access"), "guest_access") == "can_join"
	if e := state("m.room.topic"); e != nil {
		l.Topic = plainTopic(e)
	}
}

// text is a string in the content of an event that may be nil.
func text(e *event.Event, key string) (value string) {
	if e != nil {
		value, _ = event.ContentString(e, key)
	}
	return value
}

// plainTopic is the topic as plain text.
//
// spec: client-server-api#mroomtopic
func plainTopic(e *event.Event) string {
	if raw, ok := event.ContentField(e, "m.topic"); ok {
		var t struct {
			Text []jsontext.Value `json:"m.text"`
		}
		if json.Unmarshal(raw, &t) == nil {
			for _, one := range t.Text {
				var r struct {
					Body string `json:"body"`
					Type string `json:"mimetype"`
				}
				if json.Unmarshal(one, &r) == nil && (r.Type == "" || r.Type == "text/plain") {
					return r.Body
				}
			}
		}
	}
	topic, _ := event.ContentString(e, "topic")
	return topic
}

// since makes a token: the direction, and the entry behind or before which the page begins. It names only rooms that were shown.
func since(direction string, l *Listed) string {
	return base64.RawURLEncoding.EncodeToString([]byte(direction + strconv.FormatInt(l.sorted, 10) + " " + string(l.RoomID)))
}

func parseSince(token string) (*storage.PublishedRoom, storage.Direction, error) {
	if token == "" {
		return nil, storage.Forward, nil
	}
	bad := matrix.InvalidParam("This is no token of this list.")
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 2 || b[0] != 'n' && b[0] != 'p' {
		return nil, false, bad
	}
	number, id, _ := strings.Cut(string(b[1:]), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return nil, false, bad
	}
	roomID, err := matrix.ParseRoomID(id)
	if err != nil {
		return nil, false, bad
	}
	return &storage.PublishedRoom{RoomID: roomID, Joined: n}, storage.Direction(b[0] == 'n'), nil
}
