package membership

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const (
	// maxInitial bounds initial_state, maxInvites the people who are invited while a room is made.
	maxInitial, maxInvites = 200, 1000
	// codeThreepidDenied is the answer to invitations by address.
	codeThreepidDenied = "M_THREEPID_DENIED"
)

// CreateRequest is the body of createRoom.
//
// spec: client-server-api#post_matrixclientv3createroom
type CreateRequest struct {
	Visibility      string           `json:"visibility"`
	RoomAliasName   *string          `json:"room_alias_name"`
	Name            string           `json:"name"`
	Topic           string           `json:"topic"`
	Invite          []string         `json:"invite"`
	Invite3PID      []jsontext.Value `json:"invite_3pid"`
	RoomVersion     jsontext.Value   `json:"room_version"`
	CreationContent jsontext.Value   `json:"creation_content"`
	InitialState    []stateEvent     `json:"initial_state"`
	Preset          string           `json:"preset"`
	IsDirect        bool             `json:"is_direct"`
	PowerOverride   jsontext.Value   `json:"power_level_content_override"`
}

// stateEvent is one event of initial_state.
type stateEvent struct {
	Type     string         `json:"type"`
	StateKey string         `json:"state_key"`
	Content  jsontext.Value `json:"content"`
}

// making is a room on its way: the request, checked and completed.
type making struct {
	c       Caller
	version *matrix.RoomVersion
	preset  string
	public  bool
	alias   matrix.RoomAlias // empty for none
	invite  []matrix.UserID
	direct  bool
	// create is the content of the create event, power that of the power levels.
	create, power map[string]any
	// before are the events of the preset, after those of initial_state, name and topic.
	before, after []stateEvent
	// last are events that follow the invitations, decided with the whole.
	last []stateEvent
	// also runs in the transaction that makes the room.
	also func(*storage.Tx, matrix.RoomID) error
}

// Create makes a room with all that the request asks for, or nothing of it.
//
// spec: client-server-api#creation
func (s *Service) Create(ctx context.Context, c Caller, r CreateRequest) (matrix.RoomID, error) {
	m, err := newMaking(c, &r)
	if err != nil {
		return "", err
	}
	return s.create(ctx, m)
}

func newMaking(c Caller, r *CreateRequest) (*making, error) {
	m := &making{c: c, preset: r.Preset, direct: r.IsDirect}
	switch r.Visibility {
	case "public":
		m.public = true
	case "", "private":
	default:
		return nil, matrix.InvalidParam("The visibility must be public or private.")
	}
	switch m.preset {
	case presetPrivate, presetTrusted, presetPublic:
	case "":
		if m.preset = presetPrivate; m.public {
			m.preset = presetPublic
		}
	default:
		return nil, matrix.InvalidParam("There is no preset %.40q.", m.preset)
	}
	for _, raw := range r.Invite3PID {
		if _, named := members(raw)["id_server"]; named {
			return nil, ErrNoIdentityServer()
		}
	}
	if len(r.Invite3PID) > 0 {
		return nil, matrix.Errorf(http.StatusForbidden, codeThreepidDenied, "Nobody can be invited by e-mail or phone on this server; invite by user ID.")
	}
	var err error
	if m.version, err = roomVersion(r.RoomVersion); err != nil {
		return nil, err
	}
	if m.invite, err = invitees(c.UserID, r.Invite); err != nil {
		return nil, err
	}
	if r.RoomAliasName != nil {
		if m.alias, err = newAlias(*r.RoomAliasName, c.UserID.Server()); err != nil {
			return nil, err
		}
	}
	if err := m.setCreate(r.CreationContent); err != nil {
		return nil, err
	}
	if err := m.setState(r); err != nil {
		return nil, err
	}
	m.power, err = overlay(defaultPower(m.version, c.UserID, m.preset, m.invite), r.PowerOverride)
	return m, err
}

// roomVersion reads the wanted version of a room; only the name of a version that is known here is one.
func roomVersion(raw jsontext.Value) (*matrix.RoomVersion, error) {
	id := matrix.DefaultRoomVersion
	if len(raw) > 0 && json.Unmarshal(raw, &id) != nil {
		id = ""
	}
	v, ok := matrix.FindRoomVersion(id)
	if !ok {
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeUnsupportedRoomVersion, "This server does not know this room version.")
	}
	return v, nil
}

func invitees(self matrix.UserID, list []string) ([]matrix.UserID, error) {
	if len(list) > maxInvites {
		return nil, matrix.InvalidParam("At most %d people can be invited while a room is made.", maxInvites)
	}
	var out []matrix.UserID
	for _, id := range list {
		u, err := matrix.ParseUserID(id)
		if err != nil {
			return nil, matrix.InvalidParam("%.80q is not a user ID.", id)
		}
		if u == self {
			return nil, matrix.InvalidParam("Nobody can invite themselves.")
		}
		if !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out, nil
}

// newAlias makes the alias of a new room of its local part.
func newAlias(local string, server matrix.ServerName) (matrix.RoomAlias, error) {
	a, err := matrix.ParseRoomAlias("#" + local + ":" + string(server))
	if err != nil || a.Server() != server || strings.ContainsAny(local, ":") {
		return "", matrix.InvalidParam("The room alias name is not the local part of a room alias.")
	}
	return a, nil
}

// setCreate makes the content of the create event. Who made the room and which version it has is not the client's to say.
//
// spec: client-server-api#mroomcreate
func (m *making) setCreate(given jsontext.Value) error {
	m.create = map[string]any{}
	if len(given) > 0 {
		var members map[string]jsontext.Value
		if err := json.Unmarshal(given, &members); err != nil {
			return matrix.BadJSON("creation_content must be an object.")
		}
		for k, v := range members {
			m.create[k] = v
		}
		for key, kind := range map[string]string{"m.federate": "tf", "type": `"`, "predecessor": "{"} {
			if v, ok := members[key]; ok && !strings.Contains(kind, string(v.Kind())) {
				return matrix.BadJSON("creation_content.%s has the wrong type.", key)
			}
		}
	}
	delete(m.create, "creator")
	if m.version.CreatorField {
		m.create["creator"] = string(m.c.UserID)
	}
	m.create["room_version"] = m.version.ID
	return m.setCreators()
}

// setCreators reads the further creators, and makes those who are invited in trust creators as well.
//
// spec: rooms/v12
func (m *making) setCreators() error {
	raw, ok := m.create["additional_creators"].(jsontext.Value)
	if !m.version.PrivilegedCreators {
		return nil // a member like any other
	}
	var list []string
	if ok {
		if raw.Kind() != '[' || json.Unmarshal(raw, &list) != nil {
			return matrix.InvalidParam("additional_creators must be a list of user IDs.")
		}
	}
	creators := []string{}
	if m.preset == presetTrusted {
		for _, u := range m.invite {
			list = append(list, string(u))
		}
	}
	for _, id := range list {
		if _, err := matrix.ParseUserID(id); err != nil {
			return matrix.InvalidParam("additional_creators names %.80q, which is no user ID.", id)
		}
		if id != string(m.c.UserID) && !slices.Contains(creators, id) {
			creators = append(creators, id)
		}
	}
	delete(m.create, "additional_creators")
	if len(creators) > 0 {
		m.create["additional_creators"] = creators
	}
	return nil
}

// setState makes the lists of state events: those of the preset give way to initial_state, which gives way to name and topic.
func (m *making) setState(r *CreateRequest) error {
	if len(r.InitialState) > maxInitial {
		return matrix.InvalidParam("initial_state may have at most %d events.", maxInitial)
	}
	has := map[string]bool{}
	for _, e := range r.InitialState {
		switch {
		case e.Type == "" || e.Content.Kind() != '{':
			return matrix.BadJSON("Each event of initial_state needs a type and a content.")
		case e.Type == typeCreate || e.Type == typeMember:
			return matrix.Errorf(http.StatusBadRequest, matrix.CodeInvalidRoomState, "initial_state cannot hold %s.", e.Type)
		case e.Type == typeAlias && e.StateKey == "":
			if err := m.checkAlias(e.Content); err != nil {
				return err
			}
		}
		if e.StateKey == "" && (e.Type == typeName && r.Name != "" || e.Type == typeTopic && r.Topic != "") {
			continue
		}
		has[e.Type] = has[e.Type] || e.StateKey == ""
		m.after = append(m.after, e)
	}
	for _, e := range presetState(m.preset) {
		if !has[e.Type] {
			m.before = append(m.before, e)
		}
	}
	if r.Name != "" {
		m.after = append(m.after, stateEvent{Type: typeName, Content: text("name", r.Name)})
	}
	if r.Topic != "" {
		if !utf8.ValidString(r.Topic) {
			return matrix.BadJSON("The topic is not UTF-8.")
		}
		m.after = append(m.after, stateEvent{Type: typeTopic, Content: room.Object(map[string]any{"topic": r.Topic,
			"m.topic": map[string]any{"m.text": []any{map[string]any{"body": r.Topic}}}})})
	}
	return nil
}

// checkAlias refuses aliases that cannot lead to a room that does not exist yet, all but the one that is made with it.
func (m *making) checkAlias(content jsontext.Value) error {
	var c struct {
		Alias string   `json:"alias"`
		Alt   []string `json:"alt_aliases"`
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return matrix.BadJSON("The content of m.room.canonical_alias has the wrong type.")
	}
	for _, a := range append(c.Alt, c.Alias) {
		if a != "" && a != string(m.alias) {
			return matrix.Errorf(http.StatusBadRequest, matrix.CodeBadAlias, "The alias %.100q does not lead to the new room.", a)
		}
	}
	return nil
}

// value is the string that counts in the state that the room will begin with.
func (m *making) value(typ, member string) (value string, ok bool) {
	for _, e := range append(slices.Clone(m.before), m.after...) {
		if e.Type == typ && e.StateKey == "" {
			var c map[string]jsontext.Value
			ok, value = true, ""
			if json.Unmarshal(e.Content, &c) == nil && json.Unmarshal(c[member], &value) != nil {
				value = ""
			}
		}
	}
	return value, ok
}

// facts are the wanted settings, for policy.
func (m *making) facts() *policy.Room {
	tenant := string(m.c.UserID.Server())
	f := &policy.Room{Version: m.version.ID, Tenant: tenant, Creator: string(m.c.UserID), Federate: true, Direct: m.direct, Public: m.public,
		Preset: m.preset, Membership: "join", Pools: m.c.Subject.Pools, Labels: []string{}, Servers: []string{tenant}, Tenants: []string{tenant},
		Members: 1, Invites: len(m.invite)}
	f.JoinRule, _ = m.value(typeJoinRules, "join_rule")
	f.HistoryVisibility, _ = m.value(typeHistory, "history_visibility")
	_, f.Encrypted = m.value(typeEncryption, "algorithm")
	if v, ok := m.create["m.federate"].(jsontext.Value); ok && string(v) == "false" {
		f.Federate = false
	}
	if v, ok := m.create["type"].(jsontext.Value); ok {
		_ = json.Unmarshal(v, &f.Type) // a string, as setCreate has checked
	}
	return f
}

// servers are those of everybody who is to be in the room.
func (m *making) servers() []string {
	out := []string{string(m.c.UserID.Server())}
	for _, u := range m.invite {
		if name := string(u.Server()); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// create makes the room, and asks again where policy changes on the way.
func (s *Service) create(ctx context.Context, m *making) (matrix.RoomID, error) {
	for _, u := range m.invite {
		if err := s.mayInvite(ctx, m.c, u, ""); err != nil {
			return "", err
		}
	}
	for try := 0; ; try++ {
		id, err := s.tryCreate(ctx, m)
		if errors.Is(err, room.ErrStale) && try < 5 {
			continue
		}
		if err == nil {
			s.inviteFirst(ctx, m, id)
		}
		return id, err
	}
}

// tryCreate asks policy, does what it obliges to, and makes the room.
func (s *Service) tryCreate(ctx context.Context, m *making) (matrix.RoomID, error) {
	facts := m.facts()
	facts.Servers = m.servers()
	decision, err := s.decide(ctx, m.c, policy.Input{Point: policy.RoomCreate, Room: facts})
	if err != nil {
		return "", err
	}
	if err := m.oblige(decision.Obligations); err != nil {
		return "", err
	}
	facts = m.facts()
	audience := policy.NewAudience(m.c.Subject)
	if m.alias != "" {
		if _, err := s.decide(ctx, m.c, policy.Input{Point: policy.RoomAlias, Room: facts, Audience: audience}); err != nil {
			return "", err
		}
	}
	if m.public {
		if _, err := s.decide(ctx, m.c, policy.Input{Point: policy.RoomPublish, Room: facts, Audience: audience}); err != nil {
			return "", err
		}
	}
	if err := s.decideFirst(ctx, m, facts); err != nil {
		return "", err
	}
	drafts, err := s.drafts(ctx, m)
	if err != nil {
		return "", err
	}
	return s.Rooms.Create(ctx, room.NewRoom{Version: m.version, Creator: m.c.UserID, Drafts: drafts, Decision: decision,
		Also: func(tx *storage.Tx, id matrix.RoomID) error { return m.register(tx, id) }})
}

// oblige changes the room to what policy demands of it.
func (m *making) oblige(o policy.Obligations) error {
	_, encrypted := m.value(typeEncryption, "algorithm")
	switch {
	case o.Encryption == "required" && !encrypted:
		m.before = append(m.before, stateEvent{Type: typeEncryption, Content: text("algorithm", megolm)})
	case o.Encryption == "forbidden" && encrypted:
		return matrix.Forbidden("Encrypted rooms are not allowed here.")
	}
	if o.NoFederation {
		m.create["m.federate"] = jsontext.Value("false")
	}
	m.hidePast(o.HistoryVisibility)
	return nil
}

// hidePast makes the room show no more of its past than policy allows; what is empty allows everything.
func (m *making) hidePast(most string) {
	if most == "" {
		return
	}
	for _, list := range [][]stateEvent{m.before, m.after} {
		for i := range list {
			if list[i].Type == typeHistory && list[i].StateKey == "" && room.ShowsMore(stringIn(list[i].Content, "history_visibility"), most) {
				list[i].Content = text("history_visibility", most)
			}
		}
	}
}

// ErrNoIdentityServer is the answer where a client names an identity server: none is trusted here, and none is asked.
//
// spec: client-server-api#third-party-invites
func ErrNoIdentityServer() *matrix.Error {
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeServerNotTrusted, "This server trusts no identity server; invite by user ID.")
}

// members are those of an object, none of what is no object.
func members(object jsontext.Value) map[string]jsontext.Value {
	out := map[string]jsontext.Value{}
	if object.Kind() != '{' || json.Unmarshal(object, &out) != nil {
		return nil
	}
	return out
}

func stringIn(object jsontext.Value, key string) string {
	var c map[string]jsontext.Value
	var s string
	if json.Unmarshal(object, &c) != nil || json.Unmarshal(c[key], &s) != nil {
		return ""
	}
	return s
}

// register stores the alias and the publication together with the room.
func (m *making) register(tx *storage.Tx, id matrix.RoomID) error {
	tenant := m.c.UserID.Server()
	if m.alias != "" {
		ok, err := tx.PutAlias(storage.Alias{Alias: m.alias, RoomID: id, Creator: m.c.UserID})
		if err != nil {
			return err
		}
		if !ok {
			return matrix.Errorf(http.StatusBadRequest, matrix.CodeRoomInUse, "The alias %s is taken.", m.alias)
		}
	}
	if m.public {
		if _, err := tx.Publish(tenant, id, m.c.UserID); err != nil {
			return err
		}
	}
	if m.public || m.alias != "" {
		if err := tx.Announce(storage.NoticeDirectory, string(id)); err != nil {
			return err
		}
	}
	if m.also != nil {
		return m.also(tx, id)
	}
	return nil
}

// drafts are the events of the room in the order of the specification.
//
// spec: client-server-api#post_matrixclientv3createroom
func (s *Service) drafts(ctx context.Context, m *making) ([]room.NewDraft, error) {
	names, err := s.profiles(ctx, append(slices.Clone(m.invite), m.c.UserID))
	if err != nil {
		return nil, err
	}
	var out []room.NewDraft
	add := func(decided bool, typ, key string, content jsontext.Value) {
		d := m.c.draft("", typ, key, content)
		out = append(out, room.NewDraft{Draft: d, Decided: decided})
	}
	member := func(u matrix.UserID, membership string) (jsontext.Value, error) {
		content := names[u]
		content["membership"] = membership
		if membership == "invite" && m.direct {
			content["is_direct"] = true
		}
		return object(content)
	}
	create, err := object(m.create)
	if err != nil {
		return nil, err
	}
	add(true, typeCreate, "", create)
	own, err := member(m.c.UserID, "join")
	if err != nil {
		return nil, err
	}
	add(true, typeMember, string(m.c.UserID), own)
	power, err := object(m.power)
	if err != nil {
		return nil, err
	}
	add(true, typePower, "", power)
	if m.alias != "" {
		add(true, typeAlias, "", text("alias", string(m.alias)))
	}
	for _, e := range m.before {
		add(true, e.Type, e.StateKey, e.Content)
	}
	for _, e := range m.after {
		add(false, e.Type, e.StateKey, e.Content)
	}
	for _, u := range m.invite {
		if !s.Rooms.IsLocal(u.Server()) {
			continue // see inviteFirst
		}
		content, err := member(u, "invite")
		if err != nil {
			return nil, err
		}
		add(false, typeMember, string(u), content)
	}
	for _, e := range m.last {
		add(true, e.Type, e.StateKey, e.Content)
	}
	return out, nil
}
