// Package clientsync is what a user may see, and since when: /sync, /messages, /context and single events.
//
// A /sync is a question about a range of the log: what is there for this user and device after the position in the token? For users
// who are online the hub has the answer in memory: it reads each new entry of the log once per node, and puts it into the
// inboxes of those whom it concerns. An entry's bytes are made once and spliced into every response that needs them. Everything else (a first
// sync, an old token, a room just joined) is answered from one snapshot of the database, with a fixed number of queries however
// many rooms there are.
//
// Nothing leaves this package that policy forbids: a room is silent for a user who may not be with everybody in it, and what
// somebody sent whom the user may not know of is left out (see visible.go). History visibility is judged by the state at the event.
//
// A token is the position in the log, and beside it the moment up to which typing and presence (which nobody stores) were told.
//
// spec: client-server-api#syncing
package clientsync
