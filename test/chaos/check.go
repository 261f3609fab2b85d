package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// check compares the ledger with what the server says.
func (s *Storm) check(ctx context.Context, r *Report) error {
	slices.Sort(s.ready)
	r.Ready, r.Failed, r.Failures, r.Undecided = s.ready, s.failed, s.failures, s.undecided
	for _, n := range s.count {
		r.Requests += n
	}
	for _, part := range []func(context.Context, *Report) error{s.checkEvents, s.checkDevices, s.checkKeys, s.checkData, s.checkReceipts, s.checkMade,
		s.checkMoves, s.checkMedia, s.checkAccounts} {
		if err := part(ctx, r); err != nil {
			return fmt.Errorf("compare the ledger: %w", err)
		}
	}
	r.Wrong = append(r.Wrong, s.trouble...)
	return nil
}

func eventIDs(list []Event) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = list[i].ID
	}
	return out
}

// differ says where two orders part, empty when they are the same.
func differ(a, b []string) string {
	for i := range max(len(a), len(b)) {
		x, y := "nothing", "nothing"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("at place %d of %d and %d stands %s and %s", i, len(a), len(b), x, y)
		}
	}
	return ""
}

// checkEvents looks for every acknowledged event in its room, once, and compares the orders that people see in all ways there are.
func (s *Storm) checkEvents(ctx context.Context, r *Report) error {
	for _, room := range s.rooms {
		whole, err := s.history(ctx, s.people[0], room, "f", "", "")
		if err != nil {
			return err
		}
		order := eventIDs(whole)
		for i, p := range s.people {
			back, err := s.history(ctx, p, room, "b", "", "")
			if err != nil {
				return err
			}
			slices.Reverse(back)
			if d := differ(order, eventIDs(back)); d != "" {
				r.Disordered = append(r.Disordered, fmt.Sprintf("%s: forward by %s and backward by %s: %s", room, s.people[0].Name, p.Name, d))
			}
			since, err := s.history(ctx, p, room, "f", s.first[i], "")
			if err != nil {
				return err
			}
			if d := differ(eventIDs(since), order[max(0, len(order)-len(since)):]); d != "" {
				r.Disordered = append(r.Disordered, fmt.Sprintf("%s: %s since the first token: %s", room, p.Name, d))
			}
			if d := differ(eventIDs(since), eventIDs(s.ledger.heard[i].timelines[room])); d != "" {
				r.Disordered = append(r.Disordered, fmt.Sprintf("%s: messages and syncs of %s: %s", room, p.Name, d))
			}
			late := newHeard(s.first[i])
			if err := s.catchUp(ctx, p, late); err != nil {
				return err
			}
			if d := differ(eventIDs(since), eventIDs(late.timelines[room])); d != "" {
				r.Disordered = append(r.Disordered, fmt.Sprintf("%s: messages and a late sync of %s: %s", room, p.Name, d))
			}
		}
		s.checkRoom(r, room, whole)
	}
	r.Acked["events"] = len(s.ledger.events) + len(s.ledger.redactions) + len(s.ledger.notes)
	return nil
}

// catchUp makes one sync from an old token.
func (s *Storm) catchUp(ctx context.Context, p *Person, h *heard) error {
	a, _, err := s.settle(ctx, "sync", p, "GET", v3+"/sync?timeout=0&since="+h.since, nil)
	if err != nil {
		return err
	}
	var got syncAnswer
	if err := a.Into(&got); err != nil {
		return err
	}
	return s.hear(ctx, h, p, &got)
}

// checkRoom compares the events of one room.
func (s *Storm) checkRoom(r *Report, room string, whole []Event) {
	place, byBody := map[string]int{}, map[string]int{}
	for i := range whole {
		e := &whole[i]
		if _, ok := place[e.ID]; ok {
			r.Doubled = append(r.Doubled, fmt.Sprintf("event %s stands twice in %s", e.ID, room))
		}
		place[e.ID] = i
		if body := e.field("body"); body != "" {
			byBody[body]++
		}
	}
	last := map[string]int{}
	for _, e := range s.ledger.events {
		if e.room != room {
			continue
		}
		at, ok := place[e.id]
		if !ok {
			r.Lost = append(r.Lost, fmt.Sprintf("message %s (%s) of %s", e.body, e.id, room))
			continue
		}
		want := 1
		if e.redacted {
			want = 0
		}
		if n := byBody[e.body]; n > want {
			r.Doubled = append(r.Doubled, fmt.Sprintf("message %s of %s is there %d times, want %d", e.body, room, n, want))
		} else if n < want {
			r.Lost = append(r.Lost, fmt.Sprintf("the text of message %s (%s)", e.body, e.id))
		}
		if before, ok := last[e.lane]; ok && before > at {
			r.Disordered = append(r.Disordered, fmt.Sprintf("message %s stands before one that was acknowledged before it was sent", e.body))
		}
		last[e.lane] = at
	}
	for _, d := range s.ledger.redactions {
		if _, ok := place[d.id]; d.room == room && !ok {
			r.Lost = append(r.Lost, fmt.Sprintf("redaction %s of %s", d.id, d.target))
		}
	}
	for _, n := range s.ledger.notes {
		if _, ok := place[n.id]; n.room == room && !ok {
			r.Lost = append(r.Lost, fmt.Sprintf("state event %s of %s", n.id, n.key))
		}
	}
}

// checkDevices looks at the to-device messages that people heard.
func (s *Storm) checkDevices(_ context.Context, r *Report) error {
	heard := map[toDevice]int{}
	for i, h := range s.ledger.heard {
		last := map[string]int{}
		for _, m := range h.messages {
			key := toDevice{m.lane, m.kind, s.people[i].ID, m.n}
			if heard[key]++; heard[key] > 1 {
				r.Doubled = append(r.Doubled, fmt.Sprintf("to-device message %v", key))
			}
			from := m.lane + m.kind
			if before, ok := last[from]; ok && before > m.n {
				r.Disordered = append(r.Disordered, fmt.Sprintf("to-device message %v came after number %d", key, before))
			}
			last[from] = m.n
		}
	}
	for _, d := range s.ledger.devices {
		if heard[d] == 0 {
			r.Lost = append(r.Lost, fmt.Sprintf("to-device message %v", d))
		}
	}
	r.Acked["to-device"] = len(s.ledger.devices)
	return nil
}

// checkKeys claims all keys that are left. Each uploaded key was claimed once, but for those that a claim without an answer took.
func (s *Storm) checkKeys(ctx context.Context, r *Report) error {
	l := &lane{Storm: s, name: "the end", who: s.people[0], ctx: ctx}
	for i, p := range s.people {
		r.Acked["claims"] += len(s.ledger.claims[p.ID])
		left := 0
		for ; l.claim(p) != ""; left++ {
			if left > 5000 {
				return fmt.Errorf("the keys of %s have no end", p.ID)
			}
		}
		if s.ledger.heard[i].keyCount != left {
			r.Wrong = append(r.Wrong, fmt.Sprintf("the last sync of %s told of %d one-time keys; there were %d", p.ID, s.ledger.heard[i].keyCount, left))
		}
		claimed := map[string]int{}
		for _, k := range s.ledger.claims[p.ID] {
			if claimed[k]++; claimed[k] > 1 {
				r.Doubled = append(r.Doubled, fmt.Sprintf("key %s of %s was claimed twice", k, p.ID))
			}
		}
		var gone []string
		for _, k := range s.ledger.keys[p.ID] {
			if claimed[k] == 0 {
				gone = append(gone, k)
			}
		}
		if unsure := s.ledger.unsure[p.ID]; len(gone) > unsure {
			r.Lost = append(r.Lost, fmt.Sprintf("%d keys of %s, of which claims without an answer took at most %d: %v", len(gone), p.ID, unsure, gone))
		}
		r.Acked["keys"] += len(s.ledger.keys[p.ID])
	}
	return nil
}

// checkData reads account data.
func (s *Storm) checkData(ctx context.Context, r *Report) error {
	for i, p := range s.people {
		for _, d := range s.ledger.data {
			if d.person != p.ID {
				continue
			}
			a, _, err := s.settle(ctx, "get", p, "GET", d.path, nil)
			if err != nil {
				return err
			}
			got := struct{ N int }{-1}
			if a.Status == 200 {
				if err := a.Into(&got); err != nil {
					return err
				}
			}
			if got.N < d.acked || got.N > d.attempted {
				r.Lost = append(r.Lost, fmt.Sprintf("account datum %s is %d, acknowledged %d, last attempted %d", d.path, got.N, d.acked, d.attempted))
			}
			if typ := d.path[strings.LastIndex(d.path, "/")+1:]; !strings.Contains(d.path, "/rooms/") && got.N >= 0 && s.ledger.heard[i].data[typ] != got.N {
				r.Lost = append(r.Lost, fmt.Sprintf("account datum %s is %d, and the last heard by /sync was %d", d.path, got.N, s.ledger.heard[i].data[typ]))
			}
			r.Acked["account data"]++
		}
	}
	return nil
}

// checkNames compares display names, also in the rooms, where they come a little later.
func (s *Storm) checkNames(ctx context.Context, r *Report) error {
	for _, p := range s.people {
		if err := s.checkName(ctx, r, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Storm) checkName(ctx context.Context, r *Report, p *Person) error {
	want := s.ledger.names[p.ID]
	if want == "" {
		return nil
	}
	for _, room := range append([]string{""}, s.rooms...) {
		path := v3 + "/profile/" + esc(p.ID) + "/displayname"
		if room != "" {
			path = roomPath(room, "/state/m.room.member/"+esc(p.ID))
		}
		got := ""
		for try := 0; got != want && try < 900; try++ { // what spreads names waits longer and longer while the server is struck
			if err := s.rest(ctx, min(time.Duration(try)*20, 100)*time.Millisecond); err != nil {
				return err
			}
			a, _, err := s.settle(ctx, "get", p, "GET", path, nil)
			if err != nil {
				return err
			}
			var c struct{ DisplayName string }
			if err := a.Into(&c); err != nil {
				return err
			}
			got = c.DisplayName
		}
		if got != want {
			r.Lost = append(r.Lost, fmt.Sprintf("display name of %s is %q at %s, want %q", p.ID, got, path, want))
		}
	}
	return nil
}

// checkReceipts compares receipts with the order of the events.
func (s *Storm) checkReceipts(ctx context.Context, r *Report) error {
	a, _, err := s.settle(ctx, "sync", s.people[0], "GET", v3+"/sync?timeout=0", nil)
	if err != nil {
		return err
	}
	var got syncAnswer
	if err := a.Into(&got); err != nil {
		return err
	}
	for _, room := range s.rooms {
		whole, err := s.history(ctx, s.people[0], room, "f", "", "")
		if err != nil {
			return err
		}
		order := eventIDs(whole)
		at := map[string]int{}
		for _, e := range got.Rooms.Join[room].Ephemeral.Events {
			var c map[string]map[string]map[string]json.RawMessage
			if e.Type != "m.receipt" || json.Unmarshal(e.Content, &c) != nil {
				continue
			}
			for id, kinds := range c {
				for user := range kinds["m.read"] {
					at[user] = slices.Index(order, id)
				}
			}
		}
		for _, rc := range s.ledger.receipts {
			if rc.room != room {
				continue
			}
			r.Acked["receipts"]++
			if have, ok := at[rc.user]; !ok || have < slices.Index(order, rc.acked) {
				r.Lost = append(r.Lost, fmt.Sprintf("receipt of %s in %s: at place %d, acknowledged %d", rc.user, room, have, slices.Index(order, rc.acked)))
			}
		}
	}
	return nil
}

// checkMade looks at every room that there is: those that were acknowledged are complete, and others there are none.
func (s *Storm) checkMade(ctx context.Context, r *Report) error {
	made := map[string]madeRoom{}
	invites := map[string]map[string]json.RawMessage{}
	for _, p := range s.people {
		a, _, err := s.settle(ctx, "sync", p, "GET", v3+"/sync?timeout=0", nil)
		if err != nil {
			return err
		}
		var got syncAnswer
		if err := a.Into(&got); err != nil {
			return err
		}
		invites[p.ID] = got.Rooms.Invite
	}
	for _, m := range s.ledger.made {
		made[m.id] = m
		if invites[m.invited][m.id] == nil {
			r.Lost = append(r.Lost, fmt.Sprintf("the invitation of %s to %s", m.invited, m.alias))
		}
		a, _, err := s.settle(ctx, "resolve", s.people[0], "GET", v3+"/directory/room/"+esc("#"+m.alias+":"+Tenant), nil)
		if err != nil {
			return err
		}
		if !bytes.Contains(a.Raw, []byte(m.id)) {
			r.Lost = append(r.Lost, fmt.Sprintf("alias %s of %s: %v", m.alias, m.id, a))
		}
	}
	r.Acked["rooms"] = len(s.ledger.made)
	for i, p := range s.people {
		var got struct {
			Rooms []string `json:"joined_rooms"`
		}
		if err := s.Client.Must(ctx, p, "GET", v3+"/joined_rooms", nil, &got); err != nil {
			return err
		}
		for _, id := range got.Rooms {
			if slices.Contains(s.rooms, id) || slices.Contains(s.doors, id) {
				continue
			}
			m, ok := made[id]
			if !ok || m.creator != i {
				r.Doubled = append(r.Doubled, fmt.Sprintf("%s is in room %s, which nobody was told of", p.ID, id))
				continue
			}
			delete(made, id)
			if err := s.checkComplete(ctx, r, p, m); err != nil {
				return err
			}
		}
	}
	for _, m := range made {
		r.Lost = append(r.Lost, fmt.Sprintf("room %s (%s)", m.id, m.alias))
	}
	return nil
}

func (s *Storm) checkComplete(ctx context.Context, r *Report, p *Person, m madeRoom) error {
	var state []Event
	if err := s.Client.Must(ctx, p, "GET", roomPath(m.id, "/state"), nil, &state); err != nil {
		return err
	}
	var have []string
	for _, e := range state {
		have = append(have, e.Type+"|"+*e.StateKey)
	}
	for _, want := range []string{"m.room.create|", "m.room.member|" + p.ID, "m.room.power_levels|", "m.room.canonical_alias|", "m.room.join_rules|",
		"m.room.history_visibility|", "m.room.name|", "m.room.topic|", "org.chaos.mark|", "m.room.member|" + m.invited} {
		if !slices.Contains(have, want) {
			r.Lost = append(r.Lost, fmt.Sprintf("room %s (%s) is half made: no %s", m.id, m.alias, want))
		}
	}
	return nil
}

// checkMoves compares memberships: each acknowledged one is there, in order, once.
func (s *Storm) checkMoves(ctx context.Context, r *Report) error {
	for _, door := range s.doors {
		whole, err := s.history(ctx, s.people[0], door, "f", "", "")
		if err != nil {
			return err
		}
		was := map[string]*Event{}
		list := map[string][]string{}
		for i := range whole {
			e := &whole[i]
			if e.Type != "m.room.member" || e.StateKey == nil {
				continue
			}
			now := e.field("membership")
			if old := was[*e.StateKey]; old != nil && string(old.Content) == string(e.Content) {
				r.Doubled = append(r.Doubled, fmt.Sprintf("membership %s of %s in %s: %s at %d and %s at %d", e.Content, *e.StateKey, door, old.ID, old.TS, e.ID, e.TS))
			}
			was[*e.StateKey] = e
			if l := list[*e.StateKey]; len(l) == 0 || l[len(l)-1] != now { // a new display name is a join after a join
				list[*e.StateKey] = append(l, now)
			}
		}
		for _, m := range s.ledger.moves {
			if m.door != door {
				continue
			}
			r.Acked["memberships"] += len(m.list)
			if d := differ(m.list, list[m.person]); d != "" {
				r.Lost = append(r.Lost, fmt.Sprintf("memberships of %s in %s: %s", m.person, door, d))
			}
		}
	}
	return nil
}

// checkMedia downloads what was uploaded.
func (s *Storm) checkMedia(ctx context.Context, r *Report) error {
	for _, m := range s.ledger.media {
		path := "/_matrix/client/v1/media/download/" + strings.TrimPrefix(m.uri, "mxc://")
		a, _, err := s.settle(ctx, "get", s.people[0], "GET", path, nil)
		if err != nil {
			return err
		}
		if a.Status != 200 || !bytes.Equal(a.Raw, m.data) {
			r.Lost = append(r.Lost, fmt.Sprintf("upload %s: %d, %d bytes of %d", m.uri, a.Status, len(a.Raw), len(m.data)))
		}
	}
	if len(s.ledger.media) > 0 {
		r.Acked["uploads"] = len(s.ledger.media)
	}
	return nil
}

// checkAccounts tries access tokens and logs in to new accounts.
func (s *Storm) checkAccounts(ctx context.Context, r *Report) error {
	for token, live := range s.ledger.live {
		a, _, err := s.settle(ctx, "get", &Person{Token: token}, "GET", v3+"/account/whoami", nil)
		if err != nil {
			return err
		}
		if want := map[bool]int{true: 200, false: 401}[live]; a.Status != want {
			r.Lost = append(r.Lost, fmt.Sprintf("a session: whoami says %v, want %d", a, want))
		}
		r.Acked["sessions"]++
	}
	for i, name := range s.ledger.people {
		r.Acked["accounts"]++
		if i > 10 {
			continue // a login is expensive
		}
		a, _, err := s.settle(ctx, "login", &Person{}, "POST", v3+"/login", map[string]any{"type": "m.login.password", "password": Password,
			"identifier": map[string]any{"type": "m.id.user", "user": name}})
		if err != nil {
			return err
		}
		if a.Status != 200 {
			r.Lost = append(r.Lost, fmt.Sprintf("account %s: %v", name, a))
		}
	}
	return nil
}
