// Package fedserver is the HTTP of the server-server API: who asks is verified, the door is asked, the request is parsed, one call is made
// and its answer written as JSON.
//
// All routes stand in tables (one function per chapter, gathered in routes.go). Each names how its caller is verified and the decision
// point that is asked below it beside the door, or the reason why the door is enough. A test walks the tables.
//
// A signed request goes this way: the Authorization headers are read, the tenant that they address is found, the door is asked about the
// server that they name (before its keys are looked up, so that a stranger costs no connection), the body is read within the limits,
// the signature is checked over the raw request target, the server's bucket and its place in the queue are waited for, and then the
// handler runs. Servers are served in turns: one that sends much waits for itself.
//
// What is inside an event, and whether it may enter or leave a room, is the business of homeserver/room and of the other services.
//
// spec: server-server-api#api-standards
// spec: server-server-api#request-authentication
// spec: server-server-api#unsupported-endpoints
package fedserver
