// Package e2ee keeps what clients need for end-to-end encryption: the public keys of devices, one-time and fallback keys,
// cross-signing keys and the signatures between them, to-device messages on their way, and encrypted key backups.
//
// A Service stores and hands out; it never holds a private key and cannot read a message. What must stay true: a one-time key
// is given out once, on whatever node and however often its upload is repeated; a message that was acknowledged reaches every
// device it was for, in order, until the device acknowledges it; whoever changes keys is heard of by those who share a room.
//
// Whoever asks about another user is judged by policy (keys.query, keys.claim, keys.sign, todevice.send), and a user who is
// refused cannot be told from one who does not exist. The same holds for other servers that ask (ServeQuery, ServeClaim,
// ServeDevices), and for what they send (ReceiveToDevice, ReceiveDeviceList, ReceiveSigningKey).
//
// Keys of users of other servers are fetched when somebody asks for them, after policy was asked, and kept while the user shares a room
// with somebody here: then the server tells of every change. Run fetches a list anew of which something was missed; Announcer, which
// follows the log, tells other servers of changes here by way of the outbox.
//
// Keys are stored in canonical form without their signatures, which have a table of their own: who may see a signature is
// decided when it is read. In memory stands, per device that syncs, how many keys are left; it follows the log, so it is right on
// every node. Messages are brought to devices, and forgotten once acknowledged, by package clientsync.
//
// Locks: watch.turn is taken before watch.mu; neither is held during a transaction.
//
// spec: client-server-api#end-to-end-encryption
// spec: client-server-api#send-to-device-messaging
package e2ee
