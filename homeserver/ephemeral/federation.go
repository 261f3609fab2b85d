package ephemeral

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/canonicaljson"
	"hansa/policy"
	"hansa/storage"
)

const (
	// maxEDU is the largest content of an EDU in bytes.
	maxEDU = 64 << 10
	// farTyping is how long somebody of another server types about whom nothing more is heard, repeatTyping how often other servers are told
	// of somebody here who goes on.
	farTyping    = time.Minute
	repeatTyping = 30 * time.Second
	// farPresence is how long the presence of somebody of another server is believed, repeatPresence how often other servers are told
	// of somebody here who stays, quietPresence how often they are told who is more or less active.
	farPresence    = 30 * time.Minute
	repeatPresence = 20 * time.Minute
	quietPresence  = 5 * time.Minute
	// maxPush and maxFarReceipts are how many entries of one EDU are looked at.
	maxPush        = 100
	maxFarReceipts = 500
)

// abroad is the name of the seat that stands for a user on another server. No device has such a name.
const abroad = "\x01abroad"

// sendTyping tells other servers that a user of this deployment types, or not any more. The caller holds s.mu; nothing blocks.
//
// spec: server-server-api#typing-notifications
func (s *Service) sendTyping(room matrix.RoomID, user matrix.UserID, typing bool) {
	if s.Send == nil || !s.Rooms.IsLocal(user.Server()) {
		return
	}
	b := append([]byte(`{"room_id":`), canonicaljson.AppendString(nil, string(room))...)
	b = canonicaljson.AppendString(append(b, `,"typing":`+strconv.FormatBool(typing)+`,"user_id":`...), string(user))
	s.Send(user.Server(), room, user, federation.EDU{Type: federation.EDUTyping, Content: append(b, '}')})
}

// sendPresence tells other servers what a user of this deployment is. The caller holds s.mu; nothing blocks.
//
// spec: server-server-api#presence
func (s *Service) sendPresence(p *person, now time.Time) {
	if s.Send == nil || !s.Rooms.IsLocal(p.user.Server()) {
		return
	}
	state, active := p.now(now)
	if as := state + " " + p.status; as != p.sentAs || now.Sub(p.sent) >= quietPresence {
		p.sent, p.sentAs = now, as
	} else {
		return // only more or less active
	}
	ago := int64(0)
	if !p.acted.IsZero() {
		ago = max(0, now.Sub(p.acted).Milliseconds())
	}
	b := []byte(`{"push":[{"currently_active":` + strconv.FormatBool(active) + `,"last_active_ago":` + strconv.FormatInt(ago, 10) + `,"presence":"` + state + `"`)
	if p.status != "" {
		b = canonicaljson.AppendString(append(b, `,"status_msg":`...), p.status)
	}
	b = canonicaljson.AppendString(append(b, `,"user_id":`...), string(p.user))
	s.Send(p.user.Server(), "", p.user, federation.EDU{Type: federation.EDUPresence, Content: append(b, `}]}`...)})
}

// repeatSent tells other servers again who is present here. The caller holds s.mu.
func (s *Service) repeatSent(p *person, now time.Time) {
	if p.state != Offline && now.Sub(p.sent) >= repeatPresence {
		s.sendPresence(p, now)
	}
}

// MayServer tells whether another server may be told of an EDU of a user of this deployment: presence goes only where an agreement covers
// it. Receipts and typing concern rooms, and go where the events of the rooms go.
func (s *Service) MayServer(ctx context.Context, to matrix.ServerName, user matrix.UserID, typ string) bool {
	if typ != federation.EDUPresence {
		return true
	}
	target, err := s.Parties.Party(ctx, user)
	if err != nil {
		return false
	}
	return s.Policy.Consider(ctx, &policy.Input{Point: policy.PresenceRead, Time: s.Now(), Tenant: policy.Tenant{Name: target.Tenant},
		Subject: policy.ServerParty(string(to), false), Target: target, Server: &policy.Server{Name: string(to)}}).Allow
}

// readEDU reads the content of an EDU. What cannot be read is dropped: nobody could do anything about it.
func readEDU(content jsontext.Value, v any) bool {
	return len(content) <= maxEDU && content.Kind() == '{' && json.Unmarshal(content, v) == nil
}

// stranger checks that a user is one of the server that tells of them.
func stranger(user matrix.UserID, origin matrix.ServerName) bool {
	_, err := matrix.ParseUserID(string(user))
	return err == nil && user.Server() == origin
}

// mayHere asks whether what a user of another server does in a room is shown there. It is not where the user is not in the room, or the
// server is kept out of it.
func mayHere(ctx context.Context, s *Service, point policy.Point, as, origin matrix.ServerName, id matrix.RoomID, user matrix.UserID) (bool, error) {
	facts, audience, err := s.Rooms.PolicyFacts(ctx, id, user)
	if errors.Is(err, room.ErrUnknownRoom) {
		return false, nil
	}
	if err != nil || facts.Membership != auth.Join {
		return false, err
	}
	if ok, err := s.Rooms.ACLAllows(ctx, id, origin); err != nil || !ok {
		return false, err
	}
	party, err := s.Parties.Party(ctx, user)
	if err != nil {
		return false, err
	}
	d := s.Policy.Decide(ctx, &policy.Input{Point: point, Time: s.Now(), Tenant: policy.Tenant{Name: string(as)}, Subject: party, Room: facts, Audience: audience,
		Server: &policy.Server{Name: string(origin)}, Request: &policy.Request{Via: "federation"}})
	if d.Err != nil {
		return false, d.Error()
	}
	return d.Allow, nil
}

// ReceiveTyping takes the content of an m.typing of a server. Whatever is wrong with it, it is dropped: the next one comes soon.
//
// spec: server-server-api#typing-notifications
func (s *Service) ReceiveTyping(ctx context.Context, as, origin matrix.ServerName, content jsontext.Value) error {
	var t struct {
		RoomID matrix.RoomID `json:"room_id"`
		UserID matrix.UserID `json:"user_id"`
		Typing bool          `json:"typing"`
	}
	if !readEDU(content, &t) || !stranger(t.UserID, origin) {
		return nil
	}
	if _, err := matrix.ParseRoomID(string(t.RoomID)); err != nil {
		return nil
	}
	if !t.Typing {
		s.StopTyping(t.RoomID, t.UserID) // of the own users anybody may say that
		return nil
	}
	if ok, err := mayHere(ctx, s, policy.TypingSend, as, origin, t.RoomID, t.UserID); err == nil && ok {
		s.startTyping(t.RoomID, t.UserID, farTyping)
	}
	return nil
}

// ReceivePresence takes the content of an m.presence of a server. Who sees it is judged when it is shown.
//
// spec: server-server-api#presence
func (s *Service) ReceivePresence(_ context.Context, _, origin matrix.ServerName, content jsontext.Value) error {
	var p struct {
		Push []jsontext.Value `json:"push"`
	}
	if s.NoPresence || !readEDU(content, &p) {
		return nil
	}
	for _, raw := range p.Push[:min(len(p.Push), maxPush)] {
		var u struct {
			UserID matrix.UserID `json:"user_id"`
			State  string        `json:"presence"`
			Ago    int64         `json:"last_active_ago"`
			Status string        `json:"status_msg"`
		}
		if json.Unmarshal(raw, &u) == nil && stranger(u.UserID, origin) && checkPresence(u.State) == nil && len(u.Status) <= maxStatus && utf8.ValidString(u.Status) {
			s.hearAbroad(u.UserID, u.State, u.Status, time.Duration(min(max(u.Ago, 0), maxAgo))*time.Millisecond)
		}
	}
	return nil
}

// maxAgo is the longest time since somebody did something, in ms.
const maxAgo = int64(365 * 24 * time.Hour / time.Millisecond)

func (s *Service) hearAbroad(user matrix.UserID, state, status string, ago time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	p := s.presence.people[user]
	if p == nil {
		if state == Offline && status == "" {
			return
		}
		if p = s.presence.person(user); p == nil {
			return
		}
	}
	if state == Offline {
		delete(p.devices, abroad)
	} else if d := p.seat(abroad); d != nil {
		d.wish, d.stated, d.until = state, true, now.Add(farPresence)
	}
	p.acted = now.Add(-ago)
	if p.status != status {
		p.status, p.statusTS = status, max(now.UnixMilli(), p.statusTS+1)
		s.tell(p, now)
	}
	s.look(p, now)
}

// farReceipt is one entry of an m.receipt.
type farReceipt struct {
	EventIDs []matrix.EventID `json:"event_ids"`
	Data     struct {
		TS     int64   `json:"ts"`
		Thread *string `json:"thread_id"`
	} `json:"data"`
}

// Receive takes the content of an m.receipt of a server: for each room, how far users of the server have read. Entries that make no
// sense, or that are about rooms and events that such a user has nothing to do with, are dropped one by one; nothing else is touched.
//
// spec: server-server-api#receipts
func (s *Receipts) Receive(ctx context.Context, as, origin matrix.ServerName, content jsontext.Value) error {
	var rooms map[matrix.RoomID]struct {
		Read map[matrix.UserID]jsontext.Value `json:"m.read"`
	}
	if !readEDU(content, &rooms) {
		return nil
	}
	n := 0
	for id, r := range rooms {
		if _, err := matrix.ParseRoomID(string(id)); err != nil {
			continue
		}
		for user, raw := range r.Read {
			var one farReceipt
			if n++; n > maxFarReceipts {
				return nil
			}
			if raw.Kind() != '{' || json.Unmarshal(raw, &one) != nil || len(one.EventIDs) != 1 || !stranger(user, origin) {
				continue
			}
			if err := s.receive(ctx, as, origin, id, user, &one); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Receipts) receive(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, user matrix.UserID, one *farReceipt) error {
	mark := Mark{Type: Read, Event: one.EventIDs[0], Thread: one.Data.Thread}
	if mark.check() != nil {
		return nil
	}
	ok, err := mayHere(ctx, s.Presence, policy.ReceiptSend, as, origin, id, user)
	if err != nil || !ok {
		return err
	}
	party, err := s.Parties.Party(ctx, user)
	if err != nil {
		return err
	}
	var mv move
	err = s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		mv, err = s.find(ctx, tx, Caller{User: user, Party: party}, id, mark)
		return err
	})
	var refused *matrix.Error
	if errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
		return nil // not in this room, not to be seen, or of another thread
	}
	if err != nil || mv.event == nil {
		return err
	}
	ts := min(max(one.Data.TS, 0), s.Now().UnixMilli())
	return s.DB.Update(ctx, func(tx *storage.Tx) error { return mv.store(tx, user, id, ts) })
}
