// Package api tests the client-server API from outside: real servers, real HTTP, both databases.
package api
