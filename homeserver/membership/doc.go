// Package membership makes rooms and changes who is in them: createRoom, join, leave, invite, knock, kick, ban, forget, upgrade,
// and display names and avatars in the rooms of those who changed them.
//
// Service is the only entrance. What it writes goes through package room, where every event is decided and authorised; what is
// decided here is what comes before there is an event: room.create, the alias and the publication of a new room, room.upgrade, and
// forgetting a room. Whoever is not in a room gets the same answer whether the room exists or not (room.ErrUnknownRoom, ErrNoEntry).
//
// All users of this process are reached directly, also those of other tenants. Into a room that nobody of ours is in they come with the
// help of a server that is: make_join and its like give a place in the graph, from which an event of our own is built and signed
// (template.go); nothing that another server has written is ever signed. Invitations and knocks in such rooms are kept beside the rooms
// (storage.RemoteMember). The other way round MakeJoin, SendJoin and their like help users of other servers into rooms of ours. What
// policy forbids is refused before anybody is dialled, and again when another server has told who is in the room.
//
// Display names and avatars are brought into rooms by Follower, which reads the log from its own cursor, so that a change reaches
// every room however often the server stops on the way.
//
// Reading order: service.go, create.go with preset.go, member.go with restricted.go, upgrade.go, profiles.go; then remote.go, joinafar.go,
// leaveafar.go, knockafar.go, inviteafar.go with hearsay.go, and for other servers serve.go and invited.go.
//
// spec: client-server-api#room-membership
// spec: client-server-api#creation
package membership
