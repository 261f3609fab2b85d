// Package room is the one way into a room: drafts of our own users by Send and Create, foreign bytes by Receive. Nothing else
// writes events.
//
// Whatever enters is decided by policy, authorised by the rules of the room version, resolved where the graph forks, and appended
// to the log, in that order and before anybody sees it. The points that are asked depend on the event alone (see decide.go), so
// that an invitation is an invitation whether it came by /invite, by /createRoom or by PUT /state.
//
// A node keeps hot rooms in memory (type live): head, current state, memberships, parsed rules, audience. A hot room costs no read per
// event, and events pipeline: one is built on the other while the first is still on its way to the disk. Rooms are optimistic:
// the batch that commits checks the head it was built on; when another node moved it, the room is loaded again and the event is built again.
//
// What policy refuses of foreign events is withheld, never rejected: it stays part of the graph, is shown to nobody, and can be
// released. Rejected and soft-failed events are kept as the specification wants.
//
// Foreign events pass a room's gate, many in one commit (gate.go), and are judged one after the other on what those before made of the room
// (batch.go, judge.go, join.go). What they lack is fetched from their servers without holding anything (ingest.go, missing.go). Forks
// are resolved by an index of auth chains (resolve.go, cover.go), so that a fork costs what differs; what was read of it and never changes
// stays in memory (remembered.go). Rooms that take in events at the same time share their look-ups (lookup.go) as they share their commits.
// Our own users go first: foreign events leave them a processor (labour.go), and the room as soon as they ask for it (gate.go).
//
// Every night the states after the newest events of some rooms are made anew, each from those before it (retrace.go), and what is stored of the room's
// state is compared and, where it differs, set right (stateaudit.go).
//
// Lock order: a room's gate, labour, Service.mu, then live.mu. live.mu may be held while the database is read, never while a commit is waited for;
// a gate may be held while a commit is waited for, never while another server is.
//
// spec: server-server-api#pdus
// spec: server-server-api#checks-performed-on-receipt-of-a-pdu
package room
