// Package rego carries the policy library and the schemas of its input inside the binary.
//
// The library (package hansa and below, folder hansa) holds the rules that every tenant gets without writing Rego:
// whitelist, pools, domains, agreements, bridges, content, sessions and rooms, all driven by data. The schemas (folder
// schemas) are generated from the Go structs of package policy; the engine type-checks all Rego against them.
package rego

import "embed"

// Files holds the folders hansa and schemas.
//
//go:embed hansa schemas
var Files embed.FS
