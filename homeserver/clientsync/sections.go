package clientsync

import (
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
)

func (a *assembly) counts(r *roomNews) {
	if r.notify == nil {
		return
	}
	threads := a.q.Filter != nil && a.q.Filter.Room.Timeline != nil && a.q.Filter.Room.Timeline.UnreadThreadNotifications
	a.b.mu.Lock()
	t := r.notify.total()
	if threads {
		t = r.notify.main
	}
	a.dst = appendTally(append(a.dst, `,"unread_notifications":`...), t)
	if threads {
		a.dst = append(a.dst, `,"unread_thread_notifications":{`...)
		first := true
		for root, th := range r.notify.threads {
			if !first {
				a.dst = append(a.dst, ',')
			}
			first = false
			a.dst = appendTally(append(appendString(a.dst, string(root)), ':'), *th)
		}
		a.dst = append(a.dst, '}')
	}
	a.b.mu.Unlock()
}

func appendTally(dst []byte, t tally) []byte {
	dst = append(dst, `{"highlight_count":`...)
	dst = strconv.AppendInt(dst, int64(t.highlight), 10)
	dst = append(dst, `,"notification_count":`...)
	dst = strconv.AppendInt(dst, int64(t.notify), 10)
	return append(dst, '}')
}

func (a *assembly) roomData(r *roomNews) (out [][]byte) {
	for i := range r.data {
		if d := &r.data[i]; a.q.Filter == nil || a.q.Filter.Room.AccountData == nil || a.q.Filter.Room.AccountData.Room(r.id) && a.q.Filter.Room.AccountData.MatchType(d.Type) {
			out = append(out, appendData(nil, d.Type, d.Content))
		}
	}
	return out
}

func appendData(dst []byte, typ string, content []byte) []byte {
	dst = append(dst, `{"content":`...)
	dst = append(dst, content...)
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, typ)
	return append(dst, '}')
}

// ephemeral writes typing and receipts of a room.
func (a *assembly) ephemeral(r *roomNews) (out [][]byte) {
	if r.membership != auth.Join {
		return nil
	}
	wants := func(typ string) bool {
		return a.q.Filter == nil || a.q.Filter.Room.Ephemeral == nil || a.q.Filter.Room.Ephemeral.Room(r.id) && a.q.Filter.Room.Ephemeral.MatchType(typ)
	}
	if r.typing && wants("m.typing") {
		users := []string{}
		for _, u := range a.s.Ephemeral.Typing(r.id) {
			if a.contacts.May(a.ctx, u) && !a.ignored[u] {
				users = append(users, string(u))
			}
		}
		out = append(out, appendData(nil, "m.typing", mustJSON(map[string]any{"user_ids": users})))
	}
	if len(r.receipts) > 0 && wants("m.receipt") {
		content := map[matrix.EventID]map[string]map[matrix.UserID]map[string]any{}
		for _, p := range r.receipts {
			e := content[p.EventID]
			if e == nil {
				e = map[string]map[matrix.UserID]map[string]any{}
				content[p.EventID] = e
			}
			if e[p.Type] == nil {
				e[p.Type] = map[matrix.UserID]map[string]any{}
			}
			v := map[string]any{"ts": p.TS}
			if p.ThreadID != "" {
				v["thread_id"] = p.ThreadID
			}
			e[p.Type][p.UserID] = v
		}
		out = append(out, appendData(nil, "m.receipt", mustJSON(content)))
	}
	return out
}

// mustJSON encodes values of our own making.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic("clientsync: value of our own making: " + err.Error())
	}
	return b
}

func (a *assembly) accountData() bool {
	var out [][]byte
	rules := a.n.first || a.q.FullState
	for i := range a.n.data {
		d := &a.n.data[i]
		if a.q.Filter == nil || a.q.Filter.AccountData.MatchType(d.Type) {
			out = append(out, appendData(nil, d.Type, d.Content))
		}
		rules = rules && d.Type != "m.push_rules"
	}
	if rules && (a.q.Filter == nil || a.q.Filter.AccountData.MatchType("m.push_rules")) {
		if c, err := a.s.Push.Content(a.ctx, a.q.User); err == nil {
			out = append(out, appendData(nil, "m.push_rules", c))
		}
	}
	if len(out) == 0 {
		return false
	}
	a.section("account_data", out)
	return true
}

func (a *assembly) presence() bool {
	var out [][]byte
	for _, u := range a.n.presence {
		if u != a.q.User && (a.q.Filter == nil || a.q.Filter.Presence.Match("m.presence", string(u), false)) && a.shares(u) && a.s.Ephemeral.MayRead(a.ctx, a.q.Party, u) {
			if c := a.s.Ephemeral.Presence(u); c != nil {
				e := append([]byte(`{"content":`), c...)
				e = append(e, `,"sender":`...)
				e = appendString(e, string(u))
				out = append(out, append(e, `,"type":"m.presence"}`...))
			}
		}
	}
	if len(out) == 0 {
		return false
	}
	a.section("presence", out)
	return true
}

// shares tells whether a user is in a room that the reader is in.
func (a *assembly) shares(u matrix.UserID) bool {
	a.b.mu.Lock()
	rooms := make([]matrix.RoomID, 0, len(a.b.rooms))
	for id, m := range a.b.rooms {
		if m == auth.Join {
			rooms = append(rooms, id)
		}
	}
	a.b.mu.Unlock()
	for _, id := range rooms {
		if a.s.isMember(a.ctx, id, u) {
			return true
		}
	}
	return false
}

func (a *assembly) toDevice() bool {
	var out [][]byte
	for i := range a.n.toDevice {
		m := &a.n.toDevice[i]
		if !a.contacts.May(a.ctx, m.Sender) { // queued before policy parted them; it goes with the next acknowledgement
			continue
		}
		e := append([]byte(`{"content":`), m.Content...)
		e = append(e, `,"sender":`...)
		e = appendString(e, string(m.Sender))
		e = append(e, `,"type":`...)
		e = appendString(e, m.Type)
		out = append(out, append(e, '}'))
	}
	if len(out) == 0 {
		return false
	}
	a.section("to_device", out)
	return true
}

func (a *assembly) deviceLists() bool {
	if a.n.first {
		return false
	}
	changed := make([]matrix.UserID, 0, len(a.n.devices)) // perhaps a crowd
	for u := range a.n.devices {
		changed = append(changed, u)
	}
	var left []matrix.UserID
	for u := range a.n.left {
		if !a.n.devices[u] && !a.shares(u) {
			left = append(left, u)
		}
	}
	if len(changed)+len(left) == 0 {
		return false
	}
	a.dst = append(a.dst, `,"device_lists":{`...)
	a.users("changed", changed)
	a.users("left", left)
	a.dst = append(a.dst, '}')
	return true
}

// users writes a list of users in order, if there are any.
func (a *assembly) users(name string, list []matrix.UserID) {
	if len(list) == 0 {
		return
	}
	slices.Sort(list)
	if a.dst[len(a.dst)-1] != '{' {
		a.dst = append(a.dst, ',')
	}
	a.dst = append(appendString(a.dst, name), ':', '[')
	for i, u := range list {
		if i > 0 {
			a.dst = append(a.dst, ',')
		}
		a.dst = appendString(a.dst, string(u))
	}
	a.dst = append(a.dst, ']')
}

// keyCounts writes how many keys the device has in store, and reports whether that is news.
func (a *assembly) keyCounts() (bool, error) {
	counts, unused, err := a.s.Keys.Counts(a.ctx, a.q.User, a.q.Device)
	if err != nil {
		return false, err
	}
	text := make([]byte, 0, 160)
	text = append(text, `,"device_one_time_keys_count":{`...)
	for i, alg := range slices.Sorted(maps.Keys(counts)) {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(appendString(text, alg), ':')
		text = strconv.AppendInt(text, int64(counts[alg]), 10)
	}
	text = append(text, `},"device_unused_fallback_key_types":[`...)
	for i, alg := range unused {
		if i > 0 {
			text = append(text, ',')
		}
		text = appendString(text, alg)
	}
	text = append(text, ']')
	a.dst = append(a.dst, text...)
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	news := a.d.sentKeys != "" && a.d.sentKeys != string(text)
	a.d.sentKeys = string(text)
	return news, nil
}
