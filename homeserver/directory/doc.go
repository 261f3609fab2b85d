// Package directory is where people find rooms and each other: room aliases, the lists of published rooms, and the search for users.
//
// Each tenant has its own aliases and its own list. A look-up that policy refuses has the same answer as one that finds nothing. Lists
// are filtered entry by entry, before the limit: rooms by the point directory.rooms, users by their audience class inside the
// SQL query and then by directory.search, so that neither counts nor page sizes tell of what is hidden.
//
// Aliases and lists of other servers are asked for there, once policy has been asked, and what they say of servers that are no partners
// is left out (remote.go); ServeAlias and ServePublicRooms answer other servers.
//
// Hierarchy goes through the rooms of a space (hierarchy.go), Summary tells about one room. Who seeks, and what may be told, is a seeker's business
// (seek.go): the rules of the room, the policy, and the people and servers that have said something in it. Rooms that are not known here are asked
// for elsewhere (far.go); ServeHierarchy answers other servers.
//
// The user directory is a table that follows the log: Follower enters new users, changed names and changed facts, and Run makes the
// table anew when the rules change what makes an audience class. A search first waits for both to have caught up.
//
// Locks: those of walks and farRooms are held for a moment and alone. userIndex.build is held while the table is made anew, userIndex.mu only for a moment; never both in the other order.
//
// spec: client-server-api#room-aliases
// spec: client-server-api#published-room-directory
// spec: client-server-api#user-directory
// spec: client-server-api#spaces
package directory
