// Package interop_test lets Hansa meet a server that nobody here wrote: the Synapse of Debian sid, in a folder of its own, over TLS on
// loopback. setup.sh makes the folder; `make interop` runs it all, with Hansa on SQLite and then on PostgreSQL. It needs root, so that no
// other target runs it.
//
// Each server is on a loopback address of its own, with certificates of one test authority. Synapse finds Hansa as it would anywhere: by a
// name that resolves (in the folder's hosts file) and the well-known file behind it. Everything is done by clients, through the client-server
// API of both; the scenario of test/clients with matrix-js-sdk does the encryption.
package interop_test
