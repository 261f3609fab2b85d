package directory

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const (
	typeCanonical = "m.room.canonical_alias"
	// maxAliases bounds the aliases of one room.
	maxAliases = 200
)

func noAlias() *matrix.Error { return matrix.NotFound("There is no such room alias.") }

// PutAlias gives a room that the caller is in an alias of the caller's tenant.
//
// spec: client-server-api#put_matrixclientv3directoryroomroomalias
func (s *Service) PutAlias(ctx context.Context, c Caller, alias matrix.RoomAlias, id matrix.RoomID) error {
	tenant := c.UserID.Server()
	if alias.Server() != tenant {
		return matrix.InvalidParam("You can make aliases that end in :%s only.", tenant)
	}
	if _, err := s.inside(ctx, id, c.UserID); err != nil {
		return err
	}
	if err := s.askAlias(ctx, c, id); err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadAliases(id, tenant)
		if err != nil {
			return err
		}
		if len(list) >= maxAliases {
			return matrix.Errorf(http.StatusForbidden, matrix.CodeResourceLimit, "A room may have at most %d aliases.", maxAliases)
		}
		isNew, err := tx.PutAlias(storage.Alias{Alias: alias, RoomID: id, Creator: c.UserID})
		if err != nil {
			return err
		}
		if !isNew {
			return matrix.Errorf(http.StatusConflict, matrix.CodeUnknown, "The alias %s is taken.", alias)
		}
		return tx.Announce(storage.NoticeDirectory, string(id))
	})
}

func (s *Service) askAlias(ctx context.Context, c Caller, id matrix.RoomID) error {
	facts, audience, err := s.Rooms.PolicyFacts(ctx, id, c.UserID)
	if err != nil {
		return err
	}
	if e := s.decide(ctx, c, c.UserID.Server(), policy.Input{Point: policy.RoomAlias, Room: facts, Audience: audience}).Error(); e != nil {
		return e
	}
	return nil
}

func (s *Service) loadAlias(ctx context.Context, alias matrix.RoomAlias) (*storage.Alias, error) {
	var a *storage.Alias
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { a, err = tx.LoadAlias(alias); return err })
	if errors.Is(err, storage.ErrNotFound) {
		return nil, noAlias()
	}
	return a, err
}

// DeleteAlias removes an alias of the caller's tenant. Who made it may do that, and who may name the room.
//
// spec: client-server-api#delete_matrixclientv3directoryroomroomalias
func (s *Service) DeleteAlias(ctx context.Context, c Caller, alias matrix.RoomAlias) error {
	if alias.Server() != c.UserID.Server() {
		return noAlias()
	}
	a, err := s.loadAlias(ctx, alias)
	if err != nil {
		return err
	}
	mayName, err := s.inside(ctx, a.RoomID, c.UserID)
	if err != nil && !errors.Is(err, room.ErrUnknownRoom) {
		return err
	}
	in := err == nil
	if a.Creator != c.UserID && !(in && mayName) {
		found, err := s.mayFind(ctx, c, c.UserID.Server(), a.RoomID)
		if err != nil {
			return err
		}
		if !found {
			return noAlias()
		}
		return matrix.Forbidden("This alias was made by somebody else.")
	}
	if err := s.askAlias(ctx, c, a.RoomID); err != nil {
		return err
	}
	err = s.DB.Update(ctx, func(tx *storage.Tx) error {
		there, err := tx.DeleteAlias(alias, a.RoomID)
		if err == nil && !there {
			return noAlias()
		}
		if err != nil {
			return err
		}
		return tx.Announce(storage.NoticeDirectory, string(a.RoomID))
	})
	if err == nil && in && mayName {
		s.dropCanonical(ctx, c, a.RoomID, alias)
	}
	return err
}

// canonical is the content of m.room.canonical_alias.
type canonical struct {
	Alias string   `json:"alias,omitempty"`
	Alt   []string `json:"alt_aliases,omitempty"`
}

func (c *canonical) all() []string {
	if c.Alias == "" {
		return c.Alt
	}
	return append([]string{c.Alias}, c.Alt...)
}

// dropCanonical takes an alias that is no more out of the room's canonical aliases. The alias is gone whether this works or not.
func (s *Service) dropCanonical(ctx context.Context, c Caller, id matrix.RoomID, alias matrix.RoomAlias) {
	now, err := s.canonical(ctx, id)
	if err != nil || !slices.Contains(now.all(), string(alias)) {
		return
	}
	if now.Alias == string(alias) {
		now.Alias = ""
	}
	now.Alt = slices.DeleteFunc(now.Alt, func(a string) bool { return a == string(alias) })
	content, err := json.Marshal(now)
	if err == nil {
		key := ""
		_, err = s.Rooms.Send(ctx, room.Draft{RoomID: id, Sender: c.UserID, Type: typeCanonical, StateKey: &key, Content: content, Subject: c.Subject, Request: c.Request})
	}
	if err != nil {
		s.log.WithField("room_id", id).WithField("err", err).Info("the canonical alias of a room still names an alias that was removed")
	}
}

func (s *Service) canonical(ctx context.Context, id matrix.RoomID) (*canonical, error) {
	now := &canonical{}
	err := s.Rooms.Look(ctx, id, func(v room.View) {
		if e := v.State(typeCanonical, ""); e != nil && json.Unmarshal(e.Content, now) != nil {
			*now = canonical{}
		}
	})
	return now, err
}

// CheckCanonical refuses a content of m.room.canonical_alias that names an alias which does not lead to the room. Those that are
// named already are not looked at.
//
// spec: client-server-api#put_matrixclientv3roomsroomidstateeventtypestatekey
func (s *Service) CheckCanonical(ctx context.Context, id matrix.RoomID, content jsontext.Value) error {
	var next canonical
	if err := json.Unmarshal(content, &next); err != nil {
		return matrix.BadJSON("alias must be a string, alt_aliases a list of strings.")
	}
	now, err := s.canonical(ctx, id)
	if err != nil {
		return err
	}
	had := now.all()
	if len(next.Alt) > maxAliases {
		return matrix.InvalidParam("A room may have at most %d aliases.", maxAliases)
	}
	for _, text := range next.all() {
		if slices.Contains(had, text) {
			continue
		}
		alias, err := matrix.ParseRoomAlias(text)
		if err != nil {
			return matrix.InvalidParam("%.100q is not a room alias.", text)
		}
		a, err := s.loadAlias(ctx, alias)
		var absent *matrix.Error
		if errors.As(err, &absent) || err == nil && a.RoomID != id {
			return matrix.Errorf(http.StatusBadRequest, matrix.CodeBadAlias, "The alias %.100q does not lead to this room.", text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Resolve finds the room that an alias leads to, and the servers that know of it. An alias that the caller may not find is not there.
//
// spec: client-server-api#get_matrixclientv3directoryroomroomalias
func (s *Service) Resolve(ctx context.Context, c Caller, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	server := alias.Server()
	if server != c.UserID.Server() {
		in := policy.Input{Point: policy.RoomAlias, Server: &policy.Server{Name: string(server), Local: s.Rooms.IsLocal(server)}}
		if !s.decide(ctx, c, server, in).Allow {
			return "", nil, noAlias()
		}
	}
	if !s.Rooms.IsLocal(server) {
		return s.resolveRemote(ctx, c, alias)
	}
	a, err := s.loadAlias(ctx, alias)
	var absent *matrix.Error
	if errors.As(err, &absent) && absent.Code == matrix.CodeNotFound && s.Ask != nil && c.Subject != nil && server == c.UserID.Server() && s.Ask(ctx, c.Subject, alias) {
		a, err = s.loadAlias(ctx, alias)
	}
	if err != nil {
		return "", nil, err
	}
	found, err := s.mayFind(ctx, c, server, a.RoomID)
	if err != nil {
		return "", nil, err
	}
	if !found {
		return "", nil, noAlias()
	}
	return a.RoomID, []matrix.ServerName{server}, nil
}

// Aliases returns the aliases that the caller's tenant has for a room. Whether the caller may look into the room is asked before.
//
// spec: client-server-api#get_matrixclientv3roomsroomidaliases
func (s *Service) Aliases(ctx context.Context, c Caller, id matrix.RoomID) ([]matrix.RoomAlias, error) {
	out := []matrix.RoomAlias{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadAliases(id, c.UserID.Server())
		for _, a := range list {
			out = append(out, a.Alias)
		}
		return err
	})
	return out, err
}
