// Package homeserver wires the server together: one database, one log, one policy engine, the services on top of them, and the
// listeners. New builds everything from a checked configuration and opens the database; Run serves until its context ends
// and then stops in the reverse order. Tests and `hansa serve` call the same two.
//
// Nothing here decides anything: what a request does stands in the service that it ends in.
package homeserver
