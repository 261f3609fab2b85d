// Package policy answers the one question that stands before every effect of the server: may this happen? A caller
// gathers the facts into an Input, names a Point, and asks an Engine; the answer is a Decision.
//
// An Engine holds one active set of Rego: the embedded library (package hansa), the operator's guardrails (package
// operator) and the rules of each tenant (package tenants["name"]), with their data. Every layer can only narrow what
// the layers before it allowed: a deny from anyone wins, and only a result that is exactly one boolean true allows. An
// action between two tenants asks the layers of both.
//
// A set is compiled under an allow-list of builtins, type-checked against the JSON schemas made from Input, and passes
// its own tests before it becomes active in a single pointer swap; a bad set changes nothing and is reported with
// file, line and reason. Queries are prepared when the set is loaded; no name from a request is ever part of a query.
//
// Two things make asking cheap. A static analysis of the compiled rules finds which members of the input a point
// reads, and a memo is keyed by exactly those. And the most frequent question, contact (may these two know of each
// other), is answered from a matrix over audience classes: groups of users that no contact rule can tell apart.
//
// Reading order: points.go and input.go say what is asked; engine.go, decide.go, eval.go and contact.go answer; source.go,
// data.go, compile.go, layers.go and watch.go make a set active; analysis.go, memo.go and classes.go make it fast; verbs.go
// and explain.go serve the `hansa policy` commands. Lock order: Engine.mu (loading), Audience.mu, contacts.mu (classes);
// only an Audience is locked while rules are evaluated for a request.
//
// Everything an Input points to (Party, Room, Event, ...) must not change after it was handed to the Engine.
package policy
