// Package config turns the one YAML file of a deployment into one typed, checked Config.
//
// Load reads the file, lays the environment over it and checks the whole; every mistake is named with its key and the
// line or the variable that it came from, and all of them are reported at once. A key that does not exist is a mistake.
// Defaults live in one function, defaults. The comments of the struct fields are the documentation: YAML and Sample write
// them above the keys, and hansa.example.yaml at the root of the repository is the output of Sample.
//
// Every key may come from the environment: HANSA_ and the path of the key in upper case, with underscores
// (listen.client is HANSA_LISTEN_CLIENT). Lists are separated by commas; an entry of tenants is counted from 0
// (HANSA_TENANTS_0_NAME). The environment wins over the file. Relative paths are relative to the file.
//
// Secrets are never keys: a key that ends in _file names a file, and the Read methods open it when it is needed, so that
// a command that needs no secret runs without the right to read one.
//
// Only cmd and homeserver import this package; everything else is handed plain values.
package config
