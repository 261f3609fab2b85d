// Package appservices connects the server with application services: bridges to other networks, and bots.
//
// A bridge is described by a registration file (Registration) in a directory that is watched like that of the policy: a set of files
// that does not hold together changes nothing and says why. Each bridge belongs to one tenant, and what it claims never reaches over
// it. Service is all of it: who a token belongs to, which names are reserved, and what is sent to bridges.
//
// What a bridge sends comes in through the client-server API, as any of its users (ghosts, and its bot), and passes the same decision
// points as everybody else; before any of them the point bridge.act is asked. What it gets is read from the log: each bridge has a
// reader of its own with a durable position, which one node at a time runs, so that a bridge that is slow or away delays nobody, and nothing is
// kept for it but that position and the end of the transaction that it has not confirmed. It is told of what its users could read
// themselves: the same history visibility, the same contact rules, the same point room.read.
//
// Other packages know a bridge as account.Bridge. Lookups of third-party protocols and locations are not part of this.
//
// spec: application-service-api#registration
package appservices
