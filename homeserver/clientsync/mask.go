package clientsync

import (
	"context"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// maxOutline is the longest string that stays in the outline of an event.
const maxOutline = 255

// structural are the kinds of state without which a client cannot show a room at all. Of somebody whom the reader may not know of
// they are told in outline.
func structural(typ string) bool {
	switch typ {
	case auth.TypeCreate, auth.TypePowerLevels, "m.room.join_rules", typeHistory, "m.room.encryption", "m.room.tombstone":
		return true
	}
	return false
}

// placeholder tells whether an event that policy withholds is told of, with nothing in it, because it replaced one that readers may have: so
// they see the same whenever they came.
func placeholder(e *storage.Event) bool {
	if e.StateKey == nil || *e.StateKey != "" {
		return false
	}
	switch e.Type {
	case "m.room.name", "m.room.topic", "m.room.avatar", "m.room.canonical_alias", "m.room.pinned_events", "m.room.guest_access", "m.room.server_acl":
		return true
	}
	return false
}

// nobody stands for a sender whom the reader may not know of. No account has this name: those that are made here have no capitals.
func (c *Contacts) nobody() matrix.UserID {
	return matrix.UserID("@HIDDEN:" + string(matrix.UserID(c.viewer.ID).Server()))
}

// outline is the form in which a reader is told of state by somebody whom they may not know of: what a client needs to show the room
// as it is, no words of the sender, and no name.
func (c *Contacts) outline(ctx context.Context, e *storage.Event) *storage.Event {
	in := members(e.Content)
	out := map[string]any{}
	keep := func(kinds string, keys ...string) {
		for _, k := range keys {
			if v, ok := in[k]; ok && strings.Contains(kinds, string(v.Kind())) && len(v) <= maxOutline {
				out[k] = v
			}
		}
	}
	switch e.Type {
	case auth.TypeCreate:
		keep(`"`, "room_version", "type")
		keep("tf", "m.federate")
		if p := members(in["predecessor"]); p["room_id"].Kind() == '"' {
			out["predecessor"] = map[string]any{"room_id": p["room_id"]}
		}
		if e.Version.CreatorField {
			out["creator"] = c.nobody()
		}
		if list, _ := c.known(ctx, in["additional_creators"]); len(list) > 0 {
			out["additional_creators"] = list
		}
	case auth.TypePowerLevels:
		keep(`0"`, "ban", "events_default", "invite", "kick", "redact", "state_default", "users_default")
		out["events"] = levels(in["events"], func(typ string) bool { return strings.HasPrefix(typ, "m.") })
		out["notifications"] = levels(in["notifications"], func(key string) bool { return key == "room" })
		out["users"] = levels(in["users"], func(u string) bool { return c.May(ctx, matrix.UserID(u)) })
	case "m.room.join_rules":
		keep(`"`, "join_rule")
		if list := conditions(in["allow"]); list != nil {
			out["allow"] = list
		}
	case typeHistory:
		keep(`"`, "history_visibility")
	case "m.room.encryption":
		keep(`"`, "algorithm")
		keep("0", "rotation_period_ms", "rotation_period_msgs")
	case "m.room.tombstone":
		keep(`"`, "replacement_room")
		out["body"] = ""
	case typeMember:
		keep(`"`, "membership")
	}
	return with(e, c.nobody(), mustJSON(out))
}

// thin leaves out of power levels and of the list of creators those whom the reader may not know of. Other events stay as they are.
func (c *Contacts) thin(ctx context.Context, e *storage.Event) *storage.Event {
	if e.StateKey == nil || *e.StateKey != "" || e.Type != auth.TypePowerLevels && e.Type != auth.TypeCreate {
		return e
	}
	in := members(e.Content)
	changed := false
	if e.Type == auth.TypePowerLevels {
		all := members(in["users"])
		some := levels(in["users"], func(u string) bool { return c.May(ctx, matrix.UserID(u)) })
		if changed = len(all) != len(some); changed {
			in["users"] = mustJSON(some)
		}
	} else if list, all := c.known(ctx, in["additional_creators"]); !all {
		changed = true
		in["additional_creators"] = mustJSON(list)
	}
	if !changed {
		return e
	}
	return with(e, e.Sender, mustJSON(in))
}

// with is an event as the reader is shown it: with another sender and content.
func with(e *storage.Event, sender matrix.UserID, content jsontext.Value) *storage.Event {
	shown, inner := *e, *e.Event
	inner.Sender, inner.Content, inner.Redacts = sender, content, ""
	shown.Event = &inner
	return &shown
}

// members reads an object; what is none has no members.
func members(v jsontext.Value) map[string]jsontext.Value {
	var m map[string]jsontext.Value
	if len(v) == 0 || json.Unmarshal(v, &m) != nil || m == nil {
		return map[string]jsontext.Value{}
	}
	return m
}

// levels are those entries of an object of power levels that are wanted.
func levels(v jsontext.Value, want func(key string) bool) map[string]jsontext.Value {
	out := map[string]jsontext.Value{}
	for k, level := range members(v) {
		if kind := level.Kind(); (kind == '0' || kind == '"') && len(level) <= maxOutline && want(k) {
			out[k] = level
		}
	}
	return out
}

// known are those users of a list whom the reader may know of, and whether that is all of them.
func (c *Contacts) known(ctx context.Context, v jsontext.Value) (list []string, all bool) {
	var users []string
	if len(v) == 0 || json.Unmarshal(v, &users) != nil {
		return nil, true
	}
	list = []string{}
	for _, u := range users {
		if c.May(ctx, matrix.UserID(u)) {
			list = append(list, u)
		}
	}
	return list, len(list) == len(users)
}

// conditions are the rooms whose members a join rule lets in.
func conditions(v jsontext.Value) []map[string]string {
	var list []jsontext.Value
	if len(v) == 0 || json.Unmarshal(v, &list) != nil {
		return nil
	}
	out := []map[string]string{}
	for _, one := range list {
		e := &event.Event{Content: one}
		typ, _ := event.ContentString(e, "type")
		if room, ok := event.ContentString(e, "room_id"); ok && typ == "m.room_membership" {
			out = append(out, map[string]string{"room_id": room, "type": typ})
		}
	}
	return out
}
