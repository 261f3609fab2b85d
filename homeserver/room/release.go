package room

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

const (
	// releaseStep is how many withheld events are judged again at a time.
	releaseStep = 200
	// memberStep is how many people of other servers are looked at at a time.
	memberStep = 2000
)

// WatchPolicy puts a notice into the log whenever rules, their data or agreements have changed in this process, until ctx ends. It says so
// at the start, too: something may have changed while no node ran.
func (s *Service) WatchPolicy(ctx context.Context) error {
	retry := time.Duration(0)
	for {
		changed := s.Policy.Changed()
		err := s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.Announce(storage.NoticePolicy, s.Policy.Revision()) })
		if err == nil {
			retry = 0
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if ctx.Err() == nil {
			s.log.WithError(err).Warn("a change of policy could not be announced; trying again")
		}
		retry = min(max(2*retry, 50*time.Millisecond), 5*time.Second)
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil
		}
	}
}

// Compliance returns the follower that keeps rooms as policy wants them: after a change of policy or agreements it judges withheld events
// again and releases those that are allowed now, and in rooms that hold a server which a tenant of ours does not approve, it keeps that
// server out as far as our people have the power (govern).
func (s *Service) Compliance() stream.Follower {
	return stream.Follower{Name: "room.compliance", Handle: s.comply}
}

func (s *Service) comply(ctx context.Context, entries []storage.Entry, _ int64) error {
	sweep := false
	rooms := map[matrix.RoomID]bool{}
	for i := range entries {
		switch e := &entries[i]; {
		case e.Kind == storage.KindNotice && e.Name == storage.NoticePolicy:
			sweep = true
		case e.Kind == storage.KindNotice && e.Name == storage.NoticeState:
			rooms[matrix.RoomID(e.Ref)] = true
		case e.Kind == storage.KindEvent && s.changesServers(e.Event):
			rooms[e.RoomID] = true
		}
	}
	if sweep {
		if err := s.releaseAll(ctx); err != nil {
			return err
		}
		return s.governAll(ctx)
	}
	for id := range rooms {
		if err := s.govern(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// changesServers tells whether an event may bring a server into a room, changes who keeps it out, or what a
// server in it may hand on.
func (s *Service) changesServers(e *storage.Event) bool {
	switch {
	case e.StateKey == nil || e.Flags&storage.Rejected != 0:
		return false
	case e.Type == typeMember:
		user, err := matrix.ParseUserID(*e.StateKey)
		return err == nil && !s.IsLocal(user.Server()) && isPresent(event.Membership(e.Event))
	}
	return !s.IsLocal(e.Sender.Server()) && (e.Type == typeServerACL || e.Type == typeHistory || e.Type == auth.TypePowerLevels)
}

// releaseAll judges all withheld events again.
func (s *Service) releaseAll(ctx context.Context) error {
	var mark storage.WithheldMark
	for {
		var list []*storage.Event
		next := mark
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { list, next, err = tx.LoadWithheld(mark, releaseStep); return err })
		if err != nil {
			return err
		}
		if next == mark {
			return nil
		}
		mark = next
		for len(list) > 0 {
			n := 1
			for n < len(list) && list[n].RoomID == list[0].RoomID {
				n++
			}
			if err := s.release(ctx, list[:n]); err != nil {
				return err
			}
			list = list[n:]
		}
	}
}

// release makes those of some withheld events of one room visible that policy allows now. Each enters the log once more, at its end.
func (s *Service) release(ctx context.Context, list []*storage.Event) error {
	room := list[0].RoomID
	l, err := s.live(ctx, room)
	if err != nil {
		return unavailable(err)
	}
	var allowed []*storage.Event
	l.mu.Lock()
	for _, e := range list {
		d, jerr := s.considerForeign(ctx, l, e.Event, s.Policy.Consider)
		if jerr != nil {
			err = jerr
			break
		}
		if d.Allow {
			allowed = append(allowed, e)
		}
	}
	l.mu.Unlock()
	if err != nil || len(allowed) == 0 {
		return err
	}
	effects, err := s.releasedRedactions(ctx, l, allowed)
	if err != nil {
		return err
	}
	err = s.DB.Update(ctx, func(tx *storage.Tx) error {
		for _, e := range allowed {
			released := *e // the transaction may run again
			if err := tx.Release(&released); err != nil {
				return err
			}
		}
		for _, r := range effects {
			if err := tx.Redact(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.drop(l) // what its events say of themselves in memory may have changed
	s.log.WithFields(logrus.Fields{"room_id": room, "events": len(allowed)}).Info("events that policy had withheld were released")
	return nil
}

// releasedRedactions are the effects that redactions among events have when they are released.
func (s *Service) releasedRedactions(ctx context.Context, l *live, list []*storage.Event) ([]storage.Redaction, error) {
	var ids []matrix.EventID
	for _, e := range list {
		if e.Type == typeRedaction && e.Redacts != "" && !(e.Flags &^ storage.Withheld).Hidden() {
			ids = append(ids, e.Redacts)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	var targets map[matrix.EventID]*storage.Event
	if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { targets, err = tx.LoadEvents(ids); return err }); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []storage.Redaction
	for _, e := range list {
		target := targets[e.Redacts]
		if target == nil || target.RoomID != e.RoomID || e.Type != typeRedaction || (e.Flags &^ storage.Withheld).Hidden() {
			continue
		}
		effects, err := l.redactions(e.Event, target.Event)
		if err != nil {
			continue // a redaction without the power to redact is an event without effect
		}
		out = append(out, effects...)
	}
	return out, nil
}

// governAll looks at every room in which a server takes part that some tenant of ours does not approve, or that shows the servers in it more of
// its past than it may, and at those where we have put a server on the list of denied ones.
func (s *Service) governAll(ctx context.Context) error {
	due := map[matrix.RoomID]bool{}
	if err := s.findRefused(ctx, due); err != nil {
		return err
	}
	if err := s.findACLs(ctx, due); err != nil {
		return err
	}
	for id := range due {
		if err := s.govern(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// findRefused adds the rooms that hold somebody whose server a tenant of ours does not approve, and those that show too much to servers that all
// approve.
func (s *Service) findRefused(ctx context.Context, due map[matrix.RoomID]bool) error {
	own, tenants := make([]matrix.ServerName, 0, len(s.Keys)), make([]string, 0, len(s.Keys))
	for name := range s.Keys {
		own, tenants = append(own, name), append(tenants, string(name))
	}
	type standing struct {
		refused bool
		most    string // of a room's past
	}
	known := map[matrix.ServerName]standing{}
	var last storage.ForeignMember
	for {
		var list []storage.ForeignMember
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { list, err = tx.LoadForeignMembers(own, last, memberStep); return err })
		if err != nil || len(list) == 0 {
			return err
		}
		open := map[matrix.RoomID]string{}
		for _, m := range list {
			server := m.UserID.Server()
			st, ok := known[server]
			if !ok {
				by, _, most, err := s.refusing(ctx, tenants, string(server))
				if err != nil {
					return err
				}
				st = standing{len(by) > 0, most}
				known[server] = st
			}
			if st.refused {
				due[m.RoomID] = true
			} else if st.most != "" {
				open[m.RoomID] = stricter(open[m.RoomID], st.most)
			}
		}
		if err := s.findOpenPasts(ctx, open, due); err != nil {
			return err
		}
		last = list[len(list)-1]
	}
}

// findACLs adds the rooms whose server ACL denies a server because we have said so.
func (s *Service) findACLs(ctx context.Context, due map[matrix.RoomID]bool) error {
	after := int64(0)
	for {
		var list []*storage.Event
		next := after
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { list, next, err = tx.LoadServerACLs(after, releaseStep); return err })
		if err != nil || next == after {
			return err
		}
		for _, e := range list {
			if ours, ok := event.ContentField(e.Event, keyRefused); ok && len(stringsIn(ours)) > 0 {
				due[e.RoomID] = true
			}
		}
		after = next
	}
}
