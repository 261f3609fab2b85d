// Package chaos kills the real server under load and takes its surroundings away, and then asks whether it kept its word.
//
// A Server is the hansa binary in a process of its own. A Storm lets people act on it through the client-server API, in lanes of one
// act after the other, and remembers what was acknowledged with 200; meanwhile it kills the process with SIGKILL at moments that follow
// from a seed and starts it again. Acts that were under way are repeated with the same transaction IDs. At the end the ledgers are
// compared with what the server says: every acknowledged event, to-device message, key, account datum, receipt, room, membership and
// upload is there once, in an order that all agree on.
//
// The other tests of this package take away one thing at a time: the disk's room, the PostgreSQL behind the server, the connection
// at the moment of a commit, the connections to the database, sound rows; or send more than a server should take.
//
// HANSA_CHAOS_KILLS and HANSA_CHAOS_SEED set the number of kills for each database and the seed, which every run prints; `make chaos`
// uses the first. HANSA_CHAOS_BINARY names a binary to try instead of a new build.
package chaos
