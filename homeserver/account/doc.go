// Package account knows who the users of the hosted tenants are: accounts, passwords, sessions, devices, profiles, account
// data and filters, and the facts about a user that policies judge by.
//
// Service is the only entrance. A call that has an effect, or that shows one user to another, asks its decision point here, so
// that no HTTP handler can forget it; a call that must be confirmed with a password (user-interactive authentication) takes the
// request as it came (Proof) and answers 401 until it is.
//
// Tokens and authentication sessions are kept as hashes, passwords as argon2id. What a request needs each time, the session of a
// token and the facts about a user, is kept in memory, bounded, and forgotten when the log says that it changed: whoever wires the
// server calls Invalidate for every session and party notice. Changes of the rules are noticed by the policy's generation.
//
// Profiles of users of other servers are asked for there, once policy has been asked, and remembered for a few minutes; ServeProfile answers
// other servers.
//
// When and from where a device was last used is gathered in memory and written by Run, at most once every few minutes.
//
// Reading order: service.go, sessions.go and login.go, uia.go, register.go, then the files named for what they keep. It leaves
// HTTP to clientapi, keys of devices to e2ee (which hooks in through Deps.OnDrop), and member events to membership.
//
// Locks: each cache has its own; none is held while the database or the policy is asked.
//
// spec: client-server-api#client-authentication
package account
