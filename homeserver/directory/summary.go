package directory

import (
	"cmp"
	"context"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

const (
	typeSpace = "m.space" // of rooms
	typeChild = "m.space.child"
	megolm    = "m.megolm.v1.aes-sha2"

	// maxChildren is how many rooms of one space are looked at, maxOrder the longest place that a space gives one of them.
	maxChildren = 2000
	maxOrder    = 50
)

// Summary is what somebody is told of a room who is not in it.
type Summary struct {
	Listed
	AllowedRooms []matrix.RoomID `json:"allowed_room_ids,omitempty"`
	Encryption   string          `json:"encryption,omitempty"`
	Version      string          `json:"room_version,omitempty"`
	// Membership is the caller's own; only of a room that is asked about by itself.
	Membership string `json:"membership,omitempty"`
	// Children are the rooms of a space; nil where nobody is to be told of them.
	Children []*Child `json:"children_state,omitzero"`

	from matrix.ServerName // the server that says so, empty for this one
}

// Child says that a room belongs to a space, in the form in which others are told of it: with what the server knows the meaning of.
//
// spec: client-server-api#mspacechild-relationship
type Child struct {
	Type           string        `json:"type"`
	RoomID         matrix.RoomID `json:"state_key"`
	Content        ChildContent  `json:"content"`
	Sender         matrix.UserID `json:"sender"`
	OriginServerTS int64         `json:"origin_server_ts"`
}

// ChildContent is the content of m.space.child.
type ChildContent struct {
	Via       []matrix.ServerName `json:"via"`
	Order     string              `json:"order,omitempty"`
	Suggested bool                `json:"suggested,omitzero"`
}

// readChild reads an m.space.child, nil where it does not make a room part of the space. What has the wrong type is absent.
func readChild(stateKey string, content jsontext.Value, sender matrix.UserID, ts int64) *Child {
	id, err := matrix.ParseRoomID(stateKey)
	if err != nil {
		return nil
	}
	var c map[string]jsontext.Value
	if json.Unmarshal(content, &c) != nil {
		return nil
	}
	out := &Child{Type: typeChild, RoomID: id, Sender: sender, OriginServerTS: ts}
	var via []jsontext.Value
	if json.Unmarshal(c["via"], &via) != nil {
		return nil
	}
	for _, raw := range via[:min(len(via), maxServers)] {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			continue
		}
		if name, err := matrix.ParseServerName(text); err == nil && !slices.Contains(out.Content.Via, name) {
			out.Content.Via = append(out.Content.Via, name)
		}
	}
	if len(out.Content.Via) == 0 {
		return nil
	}
	out.Content.Suggested = string(c["suggested"]) == "true"
	var order string
	if raw, ok := c["order"]; ok && json.Unmarshal(raw, &order) == nil && isOrder(order) {
		out.Content.Order = order
	}
	return out
}

func isOrder(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return s != "" && len(s) <= maxOrder
}

// compareChildren puts the rooms of a space in order: those with a place by it, then the others by age.
//
// spec: client-server-api#ordering-of-children-within-a-space
func compareChildren(a, b *Child) int {
	if (a.Content.Order == "") != (b.Content.Order == "") {
		if a.Content.Order != "" {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.Content.Order, b.Content.Order), cmp.Compare(a.OriginServerTS, b.OriginServerTS), cmp.Compare(a.RoomID, b.RoomID))
}

// tells tells whether the caller may hear what somebody has set for a room; meet was asked about them.
func (k *seeker) tells(e *event.Event) bool {
	return k.c.Server != "" || k.known[e.Sender] || !isSaying(e.Type)
}

// isSaying tells whether state of a type holds words or pictures of whoever has set it.
func isSaying(typ string) bool {
	switch typ {
	case "m.room.name", "m.room.topic", "m.room.avatar", typeCanonical:
		return true
	}
	return false
}

// summaryTypes is the state that a summary is made of, besides what policy is told of a room anyway.
func summaryTypes() []string {
	return []string{"m.room.name", "m.room.topic", "m.room.avatar", typeCanonical, "m.room.guest_access", "m.room.encryption", "m.room.join_rules"}
}

// Summary tells about one room: what is known here, else what one of the servers says that the caller names, or that are known to be in it
// (residents).
//
// spec: client-server-api#get_matrixclientv1room_summaryroomidoralias
func (s *Service) Summary(ctx context.Context, c Caller, id matrix.RoomID, via, residents []matrix.ServerName) (*Summary, error) {
	k := s.seeker(c, c.UserID.Server())
	permitted := slices.DeleteFunc(slices.Clone(via), func(name matrix.ServerName) bool { return !k.may(ctx, name) })
	if len(via) > 0 && len(permitted) == 0 { // whether or not there is such a room
		if err := s.partner(ctx, c, via[0]); err != nil {
			return nil, err
		}
		return nil, matrix.Forbidden("Your organisation has nothing to do with the servers that you name.")
	}
	unknown := matrix.NotFound("There is no such room, or you may not know of it.")
	if !k.mayRoom(ctx, id) {
		return nil, unknown
	}
	st, err := k.stand(ctx, id)
	if err != nil {
		return nil, err
	}
	var f *found
	if st != nil && st.current {
		f, err = k.near(ctx, id, st)
	} else {
		f, err = k.far(ctx, place{id: id, via: slices.Concat(permitted, residents, k.ways(ctx, id))}, false)
	}
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, unknown
	}
	f.sum.Children = nil
	if f.here {
		f.sum.Membership = st.facts.Membership
		return f.sum, k.describe(ctx, []*Summary{f.sum})
	}
	if server, err := k.invitedBy(ctx, id); err == nil && server != "" {
		f.sum.Membership = auth.Invite
	}
	return f.sum, nil
}

// here tells which rooms are known here.
func (s *Service) here(ctx context.Context, ids []matrix.RoomID) (map[matrix.RoomID]bool, error) {
	out := map[matrix.RoomID]bool{}
	if len(ids) == 0 {
		return out, nil
	}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		rooms, err := tx.LoadRooms(ids)
		for _, r := range rooms {
			out[r.ID] = true
		}
		return err
	})
	return out, err
}

// maxServed is how many rooms of a space another server is told of; it asks about the others one by one.
const maxServed = 200

// ServeHierarchy tells another server of a room and of those in it, as far as the server could enter or read them. To a server that may not
// know of the room it is not there, nor is one that the tenant it asks has nobody in.
//
// spec: server-server-api#get_matrixfederationv1hierarchyroomid
func (s *Service) ServeHierarchy(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, suggested bool) (*federation.Hierarchy, error) {
	leave, err := s.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	k := s.seeker(asServer(origin), as)
	unknown := matrix.NotFound("Room does not exist.")
	st, err := k.stand(ctx, id)
	if err != nil {
		return nil, err
	}
	if st == nil || !st.served {
		return nil, unknown
	}
	f, err := k.near(ctx, id, st)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, unknown
	}
	list := []*Summary{f.sum}
	out := &federation.Hierarchy{Children: []jsontext.Value{}, InaccessibleChildren: []matrix.RoomID{}}
	if st.facts.Type == typeSpace {
		var here map[matrix.RoomID]bool
		if f.sum.Children, here, err = k.children(ctx, id, suggested); err != nil {
			return nil, err
		}
		for _, c := range f.sum.Children {
			if !here[c.RoomID] || len(list) > maxServed {
				continue
			}
			st, err := k.stand(ctx, c.RoomID)
			if err != nil {
				return nil, err
			}
			if st == nil || !st.served {
				continue
			}
			child, err := k.near(ctx, c.RoomID, st)
			switch {
			case err != nil:
				return nil, err
			case child == nil: // policy does not hide it, or it would not be in the list
				out.InaccessibleChildren = append(out.InaccessibleChildren, c.RoomID)
			default:
				child.sum.Children = nil
				list = append(list, child.sum)
			}
		}
	}
	if err := k.describe(ctx, list); err != nil {
		return nil, err
	}
	for i, sum := range list {
		raw, err := json.Marshal(sum)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			out.Room = raw
		} else {
			out.Children = append(out.Children, raw)
		}
	}
	return out, nil
}

// describe fills in the summaries of rooms that are known here, with two queries for all of them. What policy withholds is left out, and what people
// have said of a room of whom a user may not know, though they may have left it long ago.
func (k *seeker) describe(ctx context.Context, list []*Summary) error {
	if len(list) == 0 {
		return nil
	}
	ids := make([]matrix.RoomID, len(list))
	for i, sum := range list {
		ids[i] = sum.RoomID
	}
	var state map[matrix.RoomID][]*storage.Event
	var counts map[matrix.RoomID]storage.MemberCounts
	err := k.s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if state, err = tx.LoadStateTypes(ids, summaryTypes()); err != nil {
			return err
		}
		counts, err = tx.LoadMemberCounts(ids)
		return err
	})
	if err != nil {
		return err
	}
	var senders []matrix.UserID
	for _, events := range state {
		for _, e := range events {
			senders = append(senders, e.Sender)
		}
	}
	if err := k.meet(ctx, senders); err != nil {
		return err
	}
	for _, sum := range list {
		found := map[string]*event.Event{}
		for _, e := range state[sum.RoomID] {
			if *e.StateKey == "" && e.Flags&storage.Withheld == 0 && k.tells(e.Event) {
				found[e.Type] = e.Event
			}
		}
		sum.Joined = counts[sum.RoomID].Joined
		sum.Listed.show(func(typ string) *event.Event { return found[typ] })
		if e := found["m.room.encryption"]; e != nil {
			if name := text(e, "algorithm"); name == megolm || k.c.Server != "" || k.known[e.Sender] {
				sum.Encryption = name
			}
		}
		if e := found["m.room.join_rules"]; e != nil && (sum.JoinRule == auth.JoinRuleRestricted || sum.JoinRule == auth.JoinRuleKnockRestricted) {
			sum.AllowedRooms = auth.AllowedRooms(e.Content)
		}
	}
	return nil
}
