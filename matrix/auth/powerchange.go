package auth

import (
	"hansa/matrix"
	"hansa/matrix/event"
)

// checkPowerLevels is the rule for a change of power levels by a sender of the given level.
//
// spec: rooms/v1#authorisation-rules
// spec: rooms/v6#authorisation-rules
// spec: rooms/v10#authorisation-rules
// spec: rooms/v12#authorisation-rules
func (r *Rules) checkPowerLevels(ev *event.Event, level Level) *Denied {
	next, err := ParsePowerLevels(r.version, ev.Content)
	if err != nil {
		return deny("power_levels.malformed", "The power levels cannot be read: %v.", err)
	}
	if r.version.PrivilegedCreators {
		for _, c := range r.creators {
			if _, ok := next.users[string(c)]; ok {
				return deny("power_levels.creator", "%s made the room and cannot have a level in it.", c)
			}
		}
	}
	if !r.explicit {
		return nil
	}
	for i, name := range scalarNames() {
		was, is := r.levels.scalar[i], next.scalar[i]
		before, after := r.levels.present[i], next.present[i]
		if before == after && was == is {
			continue
		}
		if before && was > level || after && is > level {
			return deny("power_levels.default", "%s has level %d and cannot change %s from %d to %d.",
				ev.Sender, level, name, was, is)
		}
	}
	if d := checkEntries(r.levels.events, next.events, ev.Sender, level, "power_levels.events"); d != nil {
		return d
	}
	if r.version.NotificationsAuth {
		d := checkEntries(r.levels.notifications, next.notifications, ev.Sender, level, "power_levels.notifications")
		if d != nil {
			return d
		}
	}
	return checkUsers(r.levels.users, next.users, ev.Sender, level)
}

// checkEntries compares the entries of events or notifications: neither the old nor the new value of what changes may be
// above the sender.
func checkEntries(was, is map[string]Level, sender matrix.UserID, level Level, rule string) *Denied {
	for name, old := range was {
		if now, stays := is[name]; (!stays || now != old) && old > level {
			return deny(rule, "%s has level %d and cannot change the entry %.80q, which is %d.", sender, level, name, old)
		}
	}
	for name, now := range is {
		if old, known := was[name]; (!known || now != old) && now > level {
			return deny(rule, "%s has level %d and cannot set the entry %.80q to %d.", sender, level, name, now)
		}
	}
	return nil
}

// checkUsers compares the entries of users: those of others can be changed only from below the sender.
func checkUsers(was, is map[string]Level, sender matrix.UserID, level Level) *Denied {
	const rule = "power_levels.users"
	for user, old := range was {
		if now, stays := is[user]; (!stays || now != old) && user != string(sender) && old >= level {
			return deny(rule, "%s has level %d and cannot change the level of %.80s, which is %d.", sender, level, user, old)
		}
	}
	for user, now := range is {
		if old, known := was[user]; (!known || now != old) && now > level {
			return deny(rule, "%s has level %d and cannot give %d to %.80s.", sender, level, now, user)
		}
	}
	return nil
}
