package membership

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
)

// stripped is one event of what somebody outside may know of a room.
//
// spec: client-server-api#stripped-state
type stripped struct {
	Type     string         `json:"type"`
	StateKey *string        `json:"state_key"`
	Sender   matrix.UserID  `json:"sender"`
	Content  jsontext.Value `json:"content"`
}

const (
	// maxStripped and maxStrippedBytes bound what is kept of a room that this deployment is not in.
	maxStripped, maxStrippedBytes = 50, 256 << 10
)

// tellable are the types of state that somebody outside may know.
func tellable() []string {
	return []string{auth.TypeCreate, typeJoinRules, typeName, "m.room.avatar", "m.room.topic", typeAlias, typeEncryption}
}

// encodeStripped writes stripped state as it is kept; what is too much is left out.
func encodeStripped(list []stripped) []byte {
	out := []byte{'['}
	for i := range list {
		b, err := json.Marshal(&list[i])
		if err != nil || len(out)+len(b) > maxStrippedBytes {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}
	return append(out, ']')
}

// hearsay is what is known of a room from others: true if they are honest.
type hearsay struct {
	version  *matrix.RoomVersion
	creator  matrix.UserID
	federate bool
	roomType string
	joinRule string
	history  string
	crypt    bool
	direct   bool
	joined   int
	// servers are those that take part, users the people of whom it is known that they do.
	servers []matrix.ServerName
	users   []matrix.UserID
}

// hear reads stored stripped state.
func hear(v *matrix.RoomVersion, raw []byte) hearsay {
	h := hearsay{version: v, federate: true}
	var list []stripped
	if json.Unmarshal(raw, &list) != nil {
		return h
	}
	for i := range list {
		if e := &list[i]; e.StateKey != nil {
			h.take(e.Type, *e.StateKey, e.Sender, e.Content)
		}
	}
	return h
}

// take learns from one event of stripped state. Whoever has set state of a room was in it, and may be still.
func (h *hearsay) take(typ, key string, sender matrix.UserID, content jsontext.Value) {
	h.learn(typ, key, sender, content)
	if user, err := matrix.ParseUserID(string(sender)); err == nil && typ != typeMember {
		h.person(user)
	}
}

// learn learns from one event of the state.
func (h *hearsay) learn(typ, key string, sender matrix.UserID, content jsontext.Value) {
	e := &event.Event{Content: content}
	switch {
	case typ == typeMember:
		user, err := matrix.ParseUserID(key)
		membership, _ := event.ContentString(e, "membership")
		if err != nil || membership != auth.Join && membership != auth.Invite {
			return
		}
		if membership == auth.Join {
			h.joined++
		}
		h.person(user)
	case key != "":
	case typ == auth.TypeCreate:
		h.creator = sender
		if v, ok := event.ContentField(e, "m.federate"); ok && string(v) == "false" {
			h.federate = false
		}
		h.roomType, _ = event.ContentString(e, "type")
	case typ == typeJoinRules:
		h.joinRule, _ = event.ContentString(e, "join_rule")
	case typ == typeHistory:
		h.history, _ = event.ContentString(e, "history_visibility")
	case typ == typeEncryption:
		h.crypt = true
	}
}

func (h *hearsay) person(user matrix.UserID) {
	if !slices.Contains(h.users, user) {
		h.users = append(h.users, user)
	}
	h.server(user.Server())
}

func (h *hearsay) server(name matrix.ServerName) {
	if name != "" && !slices.Contains(h.servers, name) {
		h.servers = append(h.servers, name)
	}
}

// hearsayFacts makes of it what policy is told about a room and who is in it.
func (s *Service) hearsayFacts(ctx context.Context, h *hearsay, id matrix.RoomID, as matrix.ServerName) (*policy.Room, *policy.Audience, error) {
	f := &policy.Room{ID: string(id), Type: h.roomType, Tenant: string(h.creator.Server()), Creator: string(h.creator), JoinRule: h.joinRule,
		HistoryVisibility: "shared", Encrypted: h.crypt, Federate: h.federate, Direct: h.direct, Members: h.joined, Pools: []string{}, Labels: []string{},
		Servers: []string{}, Tenants: []string{}}
	if h.version != nil {
		f.Version = h.version.ID
	}
	if h.history != "" {
		f.HistoryVisibility = h.history
	}
	if h.creator == "" {
		f.Tenant, f.Creator = string(id.Server()), ""
	}
	for _, name := range h.servers {
		f.Servers = append(f.Servers, string(name))
		if s.Rooms.IsLocal(name) && name != as {
			f.Tenants = append(f.Tenants, string(name))
		}
	}
	slices.Sort(f.Servers)
	audience := policy.NewAudience()
	parties, err := s.Parties.Parties(ctx, h.users)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range parties {
		audience.Add(p)
	}
	return f, audience, nil
}
