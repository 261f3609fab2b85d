// Package storage keeps everything that must survive: events, room state, memberships, and the one log with its positions.
//
// One SQL text serves SQLite (embedded, one process) and PostgreSQL (any number of nodes); what cannot be said once stands in
// sqlite.go, postgres.go and turn.go. All access goes through DB.View (a consistent snapshot), DB.Read (single statements) and
// DB.Update (a transaction that may be run again; those that put something into the log share one, see DB.UpdateShared), and every query
// is a method on Tx, so that what belongs together commits together.
// Events come in by DB.Append only: appends of many rooms and requests join one transaction (see writer.go).
//
// Everything that somebody may have to hear takes its position from one counter row. The row is raised inside the transaction
// and stays locked until commit, so positions are gapless, and whoever has seen N has seen everything below N, on every node. Nodes
// take turns at it, see turn.go.
// After a commit the entries are handed to Options.Publish in memory; other nodes read them by ReadLog.
//
// An event's number inside this package is its position; above it only real identifiers exist. State after an event is the
// root of a content-addressed tree (package statemap).
//
// Lock order: the writer's connection, then the turn, the counter row, room rows. Nothing waits for a request inside a transaction.
package storage
