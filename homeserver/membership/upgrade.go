package membership

import (
	"context"
	"net/http"
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

// maxBans bounds how many bans a room takes along into its next version.
const maxBans = 1000

// transferred are the types of state that a room takes along into its next version, and those of a space.
//
// spec: client-server-api#room-upgrades
func transferred() []string {
	return []string{"m.room.server_acl", typeEncryption, typeName, "m.room.avatar", typeTopic, typeGuests, typeHistory, typeJoinRules}
}

// old is what an upgrade reads of the room that is replaced.
type old struct {
	id         matrix.RoomID
	version    *matrix.RoomVersion
	membership string
	may        bool // write the tombstone
	mayPower   bool
	typ        jsontext.Value // of the create event, nil for none
	federate   jsontext.Value
	state      []stateEvent
	power      jsontext.Value // nil for none
	alias      jsontext.Value // content of the canonical alias
	creators   []matrix.UserID
	last       matrix.EventID
	bans       []matrix.UserID
}

// Upgrade replaces a room by a new one of another version, and returns the new one. The people in it are not invited: each of them
// comes on their own, judged as everybody is who joins.
//
// spec: client-server-api#room-upgrades
func (s *Service) Upgrade(ctx context.Context, c Caller, id matrix.RoomID, version jsontext.Value, additional []string) (matrix.RoomID, error) {
	o, err := s.oldRoom(ctx, id, c.UserID)
	if err != nil {
		return "", err
	}
	if len(version) == 0 {
		return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member new_version is missing.")
	}
	v, err := roomVersion(version)
	if err != nil {
		return "", err
	}
	if !o.may {
		return "", matrix.Forbidden("You may not upgrade this room.")
	}
	facts, audience, err := s.Rooms.PolicyFacts(ctx, id, c.UserID)
	if err != nil {
		return "", err
	}
	key := ""
	decision, err := s.decide(ctx, c, policy.Input{Point: policy.RoomUpgrade, Room: facts, Audience: audience,
		Event: &policy.Event{Type: typeTombstone, StateKey: &key, Value: &v.ID, Domains: []string{}}})
	if err != nil {
		return "", err
	}
	m, err := o.making(c, v, additional)
	if err != nil {
		return "", err
	}
	if err := m.oblige(decision.Obligations); err != nil {
		return "", err
	}
	next, err := s.create(ctx, m)
	if err != nil {
		return "", err
	}
	if err := s.closeOld(ctx, c, o, next); err != nil {
		return "", err
	}
	return next, nil
}

func (s *Service) oldRoom(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*old, error) {
	o := &old{id: id}
	err := s.Rooms.Look(ctx, id, func(v room.View) {
		r := v.Rules()
		o.version, o.membership, o.may = v.Version(), v.Membership(user), r.CanSend(user, typeTombstone, true)
		o.mayPower = r.CanSend(user, typePower, true)
		o.typ, _ = event.ContentField(r.Create(), "type")
		o.federate, _ = event.ContentField(r.Create(), "m.federate")
		o.creators = r.Creators()
		if ext := v.Head().Extremities; len(ext) > 0 {
			o.last = ext[0]
		}
		for _, t := range transferred() {
			if e := v.State(t, ""); e != nil {
				o.state = append(o.state, stateEvent{Type: t, Content: e.Content})
			}
		}
		if string(o.typ) == `"m.space"` {
			for e := range v.AllState() {
				if e.Type == "m.space.child" && string(e.Content) != "{}" {
					o.state = append(o.state, stateEvent{e.Type, *e.StateKey, e.Content})
				}
			}
		}
		if e := v.State(typePower, ""); e != nil {
			o.power = e.Content
		}
		if e := v.State(typeAlias, ""); e != nil {
			o.alias = e.Content
		}
		for u, membership := range v.Members() {
			if membership == auth.Ban && len(o.bans) < maxBans {
				o.bans = append(o.bans, u)
			}
		}
	})
	if err == nil && o.membership != auth.Join {
		err = room.ErrUnknownRoom
	}
	slices.Sort(o.bans)
	return o, err
}

// making is the new room as it is to be.
func (o *old) making(c Caller, v *matrix.RoomVersion, additional []string) (*making, error) {
	m := &making{c: c, version: v, create: map[string]any{}}
	if o.typ != nil {
		m.create["type"] = o.typ
	}
	if o.federate != nil {
		m.create["m.federate"] = o.federate
	}
	before := map[string]any{"room_id": string(o.id)}
	if !v.RoomIDHash {
		before["event_id"] = string(o.last)
	}
	m.create["predecessor"] = before
	m.create["room_version"] = v.ID
	if v.CreatorField {
		m.create["creator"] = string(c.UserID)
	}
	if len(additional) > 0 && v.PrivilegedCreators {
		raw, err := json.Marshal(additional)
		if err != nil {
			return nil, matrix.InvalidParam("additional_creators must be a list of user IDs.")
		}
		m.create["additional_creators"] = jsontext.Value(raw)
	}
	if err := m.setCreators(); err != nil {
		return nil, err
	}
	m.before = o.state
	final, start := o.levels(m)
	m.power = start
	if string(levelsText(final)) != string(levelsText(start)) {
		m.last = append(m.last, stateEvent{Type: typePower, Content: levelsText(final)})
	}
	for _, u := range o.bans {
		m.before = append(m.before, stateEvent{Type: typeMember, StateKey: string(u), Content: text("membership", auth.Ban)})
	}
	return m, nil
}

func levelsText(levels map[string]any) jsontext.Value {
	b, err := json.Marshal(levels, json.Deterministic(true))
	if err != nil {
		return jsontext.Value("{}") // only where a text is not UTF-8, which no stored event has
	}
	return b
}

// levels are the power levels of the new room: as they were, fitted to the version; and those to begin with, under which the
// one who upgrades can write everything that the room takes along.
func (o *old) levels(m *making) (final, start map[string]any) {
	var raw map[string]any
	if len(o.power) == 0 || json.Unmarshal(o.power, &raw) != nil || raw == nil {
		base := defaultPower(m.version, m.c.UserID, presetPrivate, nil)
		return base, base
	}
	final, _ = integers(raw).(map[string]any)
	users := member(final, "users")
	if m.version.PrivilegedCreators {
		delete(users, string(m.c.UserID))
		list, _ := m.create["additional_creators"].([]string)
		for _, u := range list {
			delete(users, u)
		}
		events := member(final, "events")
		if least := level(final, "state_default", 50) + 1; level(events, typeTombstone, least-1) < least {
			events[typeTombstone] = max(150, least)
		}
		return final, final
	}
	if o.version.PrivilegedCreators {
		// Creators lose their special power in versions that do not know it: they get the highest there is.
		for _, u := range o.creators {
			users[string(u)] = highest(final)
		}
	}
	if own := level(users, string(m.c.UserID), level(final, "users_default", 0)); own < highest(final) {
		start = cloneLevels(final)
		member(start, "users")[string(m.c.UserID)] = highest(final)
		return final, start
	}
	return final, final
}

// highest is a level that is enough for everything.
func highest(levels map[string]any) int64 {
	most := int64(100)
	for _, key := range []string{"state_default", "events_default", "ban", "kick", "invite", "redact", "users_default"} {
		most = max(most, level(levels, key, 0))
	}
	for _, key := range []string{"events", "users", "notifications"} {
		for k := range member(levels, key) {
			most = max(most, level(member(levels, key), k, 0))
		}
	}
	return most
}

func cloneLevels(levels map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range levels {
		if m, ok := v.(map[string]any); ok {
			v = cloneLevels(m)
		}
		out[k] = v
	}
	return out
}

// member is a member of levels that is an object; it is made where there is none.
func member(levels map[string]any, key string) map[string]any {
	m, ok := levels[key].(map[string]any)
	if !ok {
		m = map[string]any{}
		levels[key] = m
	}
	return m
}

func level(levels map[string]any, key string, def int64) int64 {
	switch n := levels[key].(type) {
	case int64:
		return n
	case int:
		return int64(n)
	}
	return def
}

// integers makes integers of the numbers in power levels: old room versions also have them in strings, and as floats.
func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if n := integers(e); n != nil {
				v[k] = n
			} else {
				delete(v, k)
			}
		}
		return v
	case float64:
		return int64(min(max(v, -(1<<53-1)), 1<<53-1))
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 54); err == nil {
			return n
		}
	}
	return nil
}

// closeOld ends the old room: the tombstone, together with which aliases and publication move over, then whatever keeps people
// from going on in it. What comes after the tombstone is only a help; the upgrade is done without it.
func (s *Service) closeOld(ctx context.Context, c Caller, o *old, next matrix.RoomID) error {
	tenant := c.UserID.Server()
	body, err := object(map[string]any{"body": "This room has been replaced", "replacement_room": string(next)})
	if err != nil {
		return err
	}
	d := c.draft(o.id, typeTombstone, "", body)
	d.Also = func(tx *storage.Tx) error {
		if _, err := tx.MoveAliases(o.id, next, tenant); err != nil {
			return err
		}
		listed, err := tx.Unpublish(tenant, o.id)
		if err == nil && listed {
			_, err = tx.Publish(tenant, next, c.UserID)
		}
		if err != nil {
			return err
		}
		for _, id := range []matrix.RoomID{o.id, next} {
			if err := tx.Announce(storage.NoticeDirectory, string(id)); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := s.Rooms.Send(ctx, d); err != nil {
		return err
	}
	s.help(ctx, c, o, next)
	return nil
}

// help moves the canonical alias, and makes the old room quiet.
func (s *Service) help(ctx context.Context, c Caller, o *old, next matrix.RoomID) {
	try := func(id matrix.RoomID, typ string, content jsontext.Value) {
		if _, err := s.Rooms.Send(ctx, c.draft(id, typ, "", content)); err != nil {
			s.log.WithField("room_id", id).WithField("err", err).Info("part of an upgrade was not possible")
		}
	}
	if len(o.alias) > 0 && string(o.alias) != "{}" {
		try(o.id, typeAlias, jsontext.Value("{}"))
		try(next, typeAlias, o.alias)
	}
	var levels map[string]any
	if !o.mayPower || o.power == nil || json.Unmarshal(o.power, &levels) != nil || levels == nil {
		return
	}
	levels, _ = integers(levels).(map[string]any)
	quiet := max(50, level(levels, "users_default", 0)+1)
	levels["events_default"] = max(quiet, level(levels, "events_default", 0))
	levels["invite"] = max(quiet, level(levels, "invite", 0))
	try(o.id, typePower, levelsText(levels))
}

// inherit brings what a user set for a room into the room that replaces it: tags, and whether it is a direct chat. It does so only
// where the old room itself names the new one, so that nobody can claim to replace a room.
func inherit(tx *storage.Tx, user matrix.UserID, from, to matrix.RoomID) error {
	if from == "" {
		return nil
	}
	e, err := tx.LoadStateEvent(from, event.StateKey{Type: typeTombstone})
	if err != nil {
		return absent(err)
	}
	if next, _ := event.ContentString(e.Event, "replacement_room"); next != string(to) {
		return nil
	}
	if err := inheritTags(tx, user, from, to); err != nil {
		return err
	}
	d, err := tx.LoadAccountDatum(user, "", "m.direct")
	if err != nil {
		return absent(err)
	}
	var direct map[string][]string
	if json.Unmarshal(d.Content, &direct) != nil {
		return nil
	}
	changed := false
	for u, rooms := range direct {
		if slices.Contains(rooms, string(from)) && !slices.Contains(rooms, string(to)) {
			direct[u], changed = append(rooms, string(to)), true
		}
	}
	if !changed {
		return nil
	}
	content, err := json.Marshal(direct, json.Deterministic(true))
	if err != nil {
		return err
	}
	return tx.PutAccountData(storage.AccountData{UserID: user, Type: "m.direct", Content: content})
}

func inheritTags(tx *storage.Tx, user matrix.UserID, from, to matrix.RoomID) error {
	tags, err := tx.LoadAccountDatum(user, from, "m.tag")
	if err != nil {
		return absent(err)
	}
	if _, err := tx.LoadAccountDatum(user, to, "m.tag"); err == nil || absent(err) != nil {
		return err
	}
	return tx.PutAccountData(storage.AccountData{UserID: user, RoomID: to, Type: "m.tag", Content: tags.Content})
}
