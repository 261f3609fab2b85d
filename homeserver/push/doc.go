// Package push keeps the push rules of users: which events notify whom.
//
// What is stored of a user is only what differs from the defaults (pushrule.Custom). A change writes that and, in the same
// transaction, the account datum m.push_rules with all rules as clients read them, so that it reaches /sync as an entry of the log.
//
// Compiled rules are kept in memory, bounded. Users without own rules share those of the defaults. Whoever wires the server calls
// Invalidate when the log shows a user's m.push_rules, which another node may have written.
//
// Counting unread messages is for package clientsync.
//
// spec: client-server-api#push-rules
package push
