// Package membership makes rooms and changes who is in them: createRoom, join, leave, invite, knock, kick, ban, forget, upgrade,
// and display names and avatars in the rooms of those who changed them.
//
// Service is the only entrance. What it writes goes through package room, where every event is decided and authorised; what is
// decided here is what comes before there is an event: room.create, the alias and the publication of a new room, room.upgrade, and
// forgetting a room. Whoever is not in a room gets the same answer whether the room exists or not (room.ErrUnknownRoom, ErrNoEntry).
//
// All users of this process are reached directly, also those of other tenants. A room that no tenant of this deployment is in is
// unknown here.
//
// Display names and avatars are brought into rooms by Follower, which reads the log from its own cursor, so that a change reaches
// every room however often the server stops on the way.
//
// Reading order: service.go, create.go with preset.go and power.go, member.go with restricted.go, upgrade.go, profiles.go.
//
// spec: client-server-api#room-membership
// spec: client-server-api#creation
package membership
