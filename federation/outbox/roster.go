package outbox

import (
	"context"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// maxRooms is how many rooms the roster remembers at least.
const maxRooms = 20_000

// roster knows which other servers are in which rooms at the place in the log that has been read. What it knows is stored, so that a room
// costs no look at its members.
type roster struct {
	o *Outbox
	// update runs a fenced transaction.
	update func(ctx context.Context, fn func(*storage.Tx) error) error
	// done is the position up to which nothing comes again.
	done  int64
	young map[matrix.RoomID]*crowd
	old   map[matrix.RoomID]*crowd
}

// crowd is who is in a room.
type crowd struct {
	tenant  matrix.ServerName // that made the room here
	servers []storage.RoomServer
	closed  bool // to other servers, whatever is said about its members
}

// at lists the servers that were in the room at a position.
func (c *crowd) at(pos int64) []matrix.ServerName {
	if c.closed {
		return nil
	}
	var out []matrix.ServerName
	for _, s := range c.servers {
		if s.Since <= pos && (s.Until == 0 || pos <= s.Until) {
			out = append(out, s.Server)
		}
	}
	return out
}

// set puts a server into the crowd, in place of what was known of it.
func (c *crowd) set(s storage.RoomServer) {
	if i := slices.IndexFunc(c.servers, func(o storage.RoomServer) bool { return o.Server == s.Server }); i >= 0 {
		c.servers[i] = s
		return
	}
	c.servers = append(c.servers, s)
}

func newRoster(o *Outbox, update func(context.Context, func(*storage.Tx) error) error) *roster {
	return &roster{o: o, update: update, young: map[matrix.RoomID]*crowd{}}
}

func (r *roster) keep(id matrix.RoomID, c *crowd) {
	if len(r.young) >= maxRooms {
		r.old, r.young = r.young, make(map[matrix.RoomID]*crowd, maxRooms)
	}
	r.young[id] = c
}

// warm looks up the rooms that a range of the log is about.
func (r *roster) warm(ctx context.Context, entries []storage.Entry) error {
	var cold []matrix.RoomID
	seen := map[matrix.RoomID]bool{}
	for i := range entries {
		id := entries[i].RoomID
		if k := entries[i].Kind; k == storage.KindNotice && entries[i].Name == storage.NoticeState {
			id = matrix.RoomID(entries[i].Ref)
		} else if k != storage.KindEvent && k != storage.KindReceipt {
			continue
		}
		if c := r.old[id]; c != nil && r.young[id] == nil {
			delete(r.old, id)
			r.keep(id, c)
		}
		if !seen[id] && r.young[id] == nil {
			cold, seen[id] = append(cold, id), true
		}
	}
	for list := range slices.Chunk(cold, 200) {
		if err := r.load(ctx, list); err != nil {
			return err
		}
	}
	return nil
}

func (r *roster) load(ctx context.Context, ids []matrix.RoomID) error {
	var fresh []storage.RoomServer
	found := map[matrix.RoomID]*crowd{}
	err := r.o.DB.View(ctx, func(tx *storage.Tx) error {
		fresh = nil
		rooms, err := tx.LoadOutboxRooms(ids, r.done)
		if err != nil {
			return err
		}
		var unknown []matrix.RoomID
		for id, room := range rooms {
			found[id] = &crowd{tenant: room.Tenant, servers: room.Servers}
			if !room.Known {
				unknown = append(unknown, id)
			}
		}
		// Nobody was told of these yet: they are new here, and may have come with their members.
		joined, err := tx.LoadJoinedServers(unknown)
		if err != nil {
			return err
		}
		for id, servers := range joined {
			for server, since := range servers {
				if !r.o.Rooms.IsLocal(server) {
					s := storage.RoomServer{RoomID: id, Server: server, Since: since}
					fresh, found[id].servers = append(fresh, s), append(found[id].servers, s)
				}
			}
		}
		shut, err := closedRooms(tx, ids)
		for _, id := range shut {
			if c := found[id]; c != nil {
				c.closed = true
			}
		}
		fresh = slices.DeleteFunc(fresh, func(s storage.RoomServer) bool { return found[s.RoomID].closed })
		return err
	})
	if err != nil {
		return err
	}
	if len(fresh) > 0 {
		if err := r.update(ctx, func(tx *storage.Tx) error { return tx.PutRoomServers(fresh) }); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if found[id] == nil {
			found[id] = &crowd{}
		}
		r.keep(id, found[id])
	}
	return nil
}

// closedRooms returns those of the rooms whose create events keep other servers out.
func closedRooms(tx *storage.Tx, ids []matrix.RoomID) ([]matrix.RoomID, error) {
	creates, err := tx.LoadStateTypes(ids, []string{"m.room.create"})
	var out []matrix.RoomID
	for id, list := range creates {
		for _, e := range list {
			var federate *bool
			if raw, ok := event.ContentField(e.Event, "m.federate"); ok && json.Unmarshal(raw, &federate) != nil {
				continue // of a wrong type: as good as absent
			}
			if federate != nil && !*federate {
				out = append(out, id)
			}
		}
	}
	return out, err
}

// crowd is who is in a room that warm has looked up.
func (r *roster) crowd(id matrix.RoomID) *crowd {
	if c := r.young[id]; c != nil {
		return c
	}
	if c := r.old[id]; c != nil {
		return c
	}
	return &crowd{}
}

// meet brings the crowd up to date with an event, and returns the servers that it concerns: those that are in the room after it, and the one
// whose user it takes out of the room, or out of being invited.
func (r *roster) meet(ctx context.Context, e *storage.Event) ([]matrix.ServerName, error) {
	c := r.crowd(e.RoomID)
	servers := c.at(e.Pos)
	if e.Type != "m.room.member" || e.StateKey == nil || e.Flags&(storage.Rejected|storage.SoftFailed|storage.Outlier) != 0 {
		return servers, nil
	}
	server := matrix.UserID(*e.StateKey).Server()
	if server == "" || c.closed || r.o.Rooms.IsLocal(server) {
		return servers, nil
	}
	there := slices.Contains(servers, server)
	switch event.Membership(e.Event) {
	case "join":
		if there {
			return servers, nil
		}
		return append(servers, server), r.put(ctx, c, storage.RoomServer{RoomID: e.RoomID, Server: server, Since: e.Pos})
	case "leave", "ban":
		if there {
			return servers, r.leave(ctx, c, e, server)
		}
		return r.retract(ctx, c, e, server)
	}
	return servers, nil
}

func (r *roster) put(ctx context.Context, c *crowd, s storage.RoomServer) error {
	c.set(s)
	return r.update(ctx, func(tx *storage.Tx) error { return tx.PutRoomServers([]storage.RoomServer{s}) })
}

// leave notes that a server is in the room no more when its last user has left. It still hears of that.
func (r *roster) leave(ctx context.Context, c *crowd, e *storage.Event, server matrix.ServerName) error {
	var stays bool
	err := r.o.DB.View(ctx, func(tx *storage.Tx) (err error) {
		stays, err = tx.HasServerMember(e.RoomID, server, e.Pos, e.StateRoot)
		if err == nil || errors.Is(err, storage.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		// The state of then cannot be read: one damaged room must not keep all others waiting.
		r.o.log.WithError(err).WithFields(map[string]any{"room_id": e.RoomID, "event_id": e.ID}).Error("the members of a room at an event are not known; those of now are taken")
		joined, err := tx.LoadJoinedServers([]matrix.RoomID{e.RoomID})
		_, stays = joined[e.RoomID][server]
		return err
	})
	if err != nil || stays {
		return err
	}
	i := slices.IndexFunc(c.servers, func(o storage.RoomServer) bool { return o.Server == server })
	s := c.servers[i]
	s.Until = e.Pos
	return r.put(ctx, c, s)
}

// retract tells a server that is not in the room that the invitation or the knock of its user is over.
func (r *roster) retract(ctx context.Context, c *crowd, e *storage.Event, server matrix.ServerName) ([]matrix.ServerName, error) {
	servers := c.at(e.Pos)
	if e.Replaces == "" || !r.o.Rooms.IsLocal(e.Sender.Server()) {
		return servers, nil
	}
	var before map[matrix.EventID]*storage.Event
	err := r.o.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		before, err = tx.LoadEvents([]matrix.EventID{e.Replaces})
		return err
	})
	if err != nil || before[e.Replaces] == nil {
		return servers, err
	}
	switch event.Membership(before[e.Replaces].Event) {
	case "invite", "knock":
		return append(servers, server), r.put(ctx, c, storage.RoomServer{RoomID: e.RoomID, Server: server, Since: e.Pos, Until: e.Pos})
	}
	return servers, nil
}

// recount looks at the members of a room again, whose state changed by more than an event.
func (r *roster) recount(ctx context.Context, id matrix.RoomID, pos int64) error {
	c := r.crowd(id)
	if c.closed {
		return nil
	}
	var all map[matrix.RoomID]map[matrix.ServerName]int64
	err := r.o.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		all, err = tx.LoadJoinedServers([]matrix.RoomID{id})
		return err
	})
	if err != nil {
		return err
	}
	joined := all[id]
	present := c.at(pos)
	var changed []storage.RoomServer
	for server, since := range joined {
		if !r.o.Rooms.IsLocal(server) && !slices.Contains(present, server) {
			changed = append(changed, storage.RoomServer{RoomID: id, Server: server, Since: max(pos, since)})
		}
	}
	for _, s := range c.servers {
		if _, stays := joined[s.Server]; !stays && slices.Contains(present, s.Server) {
			s.Until = pos
			changed = append(changed, s)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	for _, s := range changed {
		c.set(s)
	}
	return r.update(ctx, func(tx *storage.Tx) error { return tx.PutRoomServers(changed) })
}
