// Package sim simulates several servers in one process that share rooms: homeserver/room on a real database each, connected by a network
// that delays, reorders, bundles, doubles and loses transactions, falls apart and heals. Everything is drawn from one seed and the room version:
// who says, sets, redacts, invites, kicks, bans, knocks, joins and leaves what where, what the network does, and which server restarts when. In
// the end the network is whole, who may come back does, and everybody speaks three times. The servers ask each other through room.Remote,
// answered by what room serves to others; no HTTP and no TLS is between them.
//
// Every server that knows the room, in it or not, must then have the verdict on each event, the state after it and the state at its head (in
// memory and in its tables) that truth makes of the events alone: with whole states, auth chains walked event by event, no index and nothing
// remembered. What came alone failed softly just where the state that was current then does not allow it. What a server shows is below its head,
// no end of the graph is followed there, and what users redacted of their server's is redacted. Two servers that take each other for being in the
// room and hear each other must have the same events and the same ends.
//
// The specification does not promise, and nobody asks here:
//   - that the same events failed softly everywhere: that depends on when a server heard of them;
//   - that servers have the same events of which one takes the other for not being in the room, or finds its last words wanting: who joins where
//     the rules have changed elsewhere is in by its own account only, and nobody talks to it any more. They are counted as apart;
//   - that a server has the last words of one that does not talk to it: another one brings them when it speaks next;
//   - that what a server shows leads to its head when it has left and come back to what others tell it of;
//   - that a room can be entered out of which state resolution threw the power levels or the join rules, as it can before version 12: what is
//     told of it cannot be told from a part of the truth, and is refused.
//
// `make sim` runs many seeds in every room version, `make test` some. A failure names its seed, and
//
//	HANSA_SIM_SEED=17 HANSA_SIM_VERSION=11 go test ./test/sim -run TestConverges -v
//
// runs that one again and tells what happens.
package sim
