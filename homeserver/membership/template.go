package membership

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
)

// wanted is the membership event that is to be made with the help of a template.
type wanted struct {
	room           matrix.RoomID
	sender, target matrix.UserID
	membership     string
}

// template is what only a server that is in the room knows of an event that is to be made: its place in the graph. Nothing else of
// what the server sends is ever signed.
type template struct {
	version    *matrix.RoomVersion
	prev, auth []matrix.EventID
	hashes     map[matrix.EventID][32]byte
	depth      int64
	// via is who lets the user into a restricted room, empty for nobody.
	via matrix.UserID
}

// readTemplate checks that a template is for the wanted event, and takes from it what is needed.
//
// spec: server-server-api#get_matrixfederationv1make_joinroomiduserid
func readTemplate(made *federation.Template, w wanted) (*template, error) {
	var e struct {
		Type       string           `json:"type"`
		RoomID     matrix.RoomID    `json:"room_id"`
		Sender     matrix.UserID    `json:"sender"`
		StateKey   *string          `json:"state_key"`
		Content    jsontext.Value   `json:"content"`
		PrevEvents []jsontext.Value `json:"prev_events"`
		AuthEvents []jsontext.Value `json:"auth_events"`
		Depth      int64            `json:"depth"`
	}
	version := made.RoomVersion
	if version == "" {
		version = "1"
	}
	v, ok := matrix.FindRoomVersion(version)
	if !ok {
		return nil, fmt.Errorf("%w: room version %.20q", errUnusable, version)
	}
	if err := json.Unmarshal(made.Event, &e); err != nil {
		return nil, fmt.Errorf("%w: the template is no event: %w", errUnusable, err)
	}
	if e.Type != typeMember || e.RoomID != w.room || e.Sender != w.sender || e.StateKey == nil || *e.StateKey != string(w.target) ||
		stringIn(e.Content, "membership") != w.membership {
		return nil, fmt.Errorf("%w: the template is for another event", errUnusable)
	}
	if e.Depth < 0 || len(e.PrevEvents) == 0 || len(e.PrevEvents) > event.MaxPrevEvents || len(e.AuthEvents) > event.MaxAuthEvents {
		return nil, fmt.Errorf("%w: the template has no proper place in the graph", errUnusable)
	}
	out := &template{version: v, depth: e.Depth, hashes: map[matrix.EventID][32]byte{}}
	var err error
	if out.prev, err = out.references(e.PrevEvents); err != nil {
		return nil, err
	}
	if out.auth, err = out.references(e.AuthEvents); err != nil {
		return nil, err
	}
	if via := stringIn(e.Content, authorisedVia); via != "" {
		if out.via, err = matrix.ParseUserID(via); err != nil || !v.Restricted {
			return nil, fmt.Errorf("%w: the template names nobody who could let the user in", errUnusable)
		}
	}
	return out, nil
}

// references reads a list of parents: event IDs, in pairs with their hashes in room versions 1 and 2.
func (t *template) references(list []jsontext.Value) ([]matrix.EventID, error) {
	out := make([]matrix.EventID, 0, len(list))
	for _, raw := range list {
		var text string
		var err error
		if t.version.EventIDHash {
			err = json.Unmarshal(raw, &text)
		} else {
			text, err = t.pair(raw)
		}
		id, perr := matrix.ParseEventID(text)
		if err != nil || perr != nil || t.version.EventIDHash && len(id) != 44 {
			return nil, fmt.Errorf("%w: the template refers to something that is no event", errUnusable)
		}
		out = append(out, id)
	}
	return out, nil
}

func (t *template) pair(raw jsontext.Value) (string, error) {
	var parts []jsontext.Value
	if err := json.Unmarshal(raw, &parts); err != nil || len(parts) != 2 {
		return "", fmt.Errorf("%w: a reference is no pair", errUnusable)
	}
	var id string
	var hash struct {
		SHA256 string `json:"sha256"`
	}
	if err := json.Unmarshal(parts[0], &id); err != nil {
		return "", err
	}
	if err := json.Unmarshal(parts[1], &hash); err != nil {
		return "", err
	}
	if b, err := base64.RawStdEncoding.DecodeString(hash.SHA256); err == nil && len(b) == 32 {
		t.hashes[matrix.EventID(id)] = [32]byte(b)
	}
	return id, nil
}

// fill makes the event from a template and content of our own, and signs it.
//
// spec: server-server-api#joining-rooms
func (s *Service) fill(t *template, w wanted, extra content) (*event.Event, error) {
	key, ok := s.Rooms.Keys[w.sender.Server()]
	if !ok {
		return nil, fmt.Errorf("sign for %s: no key", w.sender.Server())
	}
	extra["membership"] = w.membership
	body, err := object(extra)
	if err != nil {
		return nil, err
	}
	target := string(w.target)
	d := event.Draft{RoomID: w.room, Type: typeMember, StateKey: &target, Sender: w.sender, Content: body, PrevEvents: t.prev, AuthEvents: t.auth,
		Depth: t.depth, OriginServerTS: s.Now().UnixMilli(),
		ReferenceHash: func(id matrix.EventID) ([32]byte, bool) { h, ok := t.hashes[id]; return h, ok }}
	if !t.version.EventIDHash {
		d.EventID = matrix.EventID("$" + rand.Text() + ":" + string(w.sender.Server()))
	}
	e, err := event.Build(t.version, d)
	if err != nil {
		return nil, err
	}
	return signing.SignEvent(e, w.sender.Server(), key), nil
}
