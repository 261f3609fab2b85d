// Package sim simulates several servers in one process that share rooms: homeserver/room on a real database each, connected by a network
// that delays, reorders and loses transactions, falls apart and heals. Everything is drawn from one seed: who says, sets, invites, kicks,
// bans, joins and leaves what where, what the network does, and which server restarts when. In the end the network is whole and everybody
// speaks once more; then all servers in a room must have one state, one set of events, one verdict on each and one state after each.
//
// The servers ask each other through room.Remote, answered by what room serves to others; no HTTP and no TLS is between them.
//
// `make sim` runs many seeds in every room version, `make test` some. A failure names its seed, and
//
//	HANSA_SIM_SEED=17 HANSA_SIM_VERSION=11 go test ./test/sim -run TestConverges -v
//
// runs that one again and tells what happens.
package sim
