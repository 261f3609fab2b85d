// Package ephemeral is what users show each other in passing: who is typing, who is there, and how far they have read.
//
// Typing and presence live in memory alone (type Service). Each change takes a version, a moment in ms that only grows, and
// readers ask what changed since the version that they know; a channel wakes those who wait. Typing ends by itself when its
// time is over; somebody who does nothing becomes unavailable, and somebody whose devices stay away goes offline. Changes of
// presence are gathered for some seconds, so that they alone never keep clients busy. All of it has a bound.
//
// Where there are several nodes each tells the others of typing and of the presence of its users' devices (relay.go), as long as there is
// something that carries such messages; without it a node shows what happens on it.
//
// Other servers are told by Deps.Send of the typing and presence of users of this deployment, and what they send of their own users is taken
// in by ReceiveTyping, ReceivePresence and Receipts.Receive (federation.go).
//
// Receipts and read markers (type Receipts) are stored: they are entries of the log, move forward only, and saying again what
// is known costs no write.
//
// What is written here is asked of policy here: typing.send, receipt.send, presence.write and presence.read. Whether one user
// is shown the typing or the receipt of another is for the reader, package clientsync, to ask; for presence it asks MayRead.
//
// Locks: Service.mu guards all that is in memory; neither the database nor policy is asked while it is held.
//
// spec: client-server-api#typing-notifications
// spec: client-server-api#receipts
// spec: client-server-api#presence
package ephemeral
