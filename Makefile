# The memory of how this project is built, checked and tested.
#
#   make build    bin/hansa
#   make check    formatting, vet, staticcheck, the import table, docs, spec links, Rego   (no database, no network)
#   make test     everything, on SQLite and PostgreSQL, with real clients; installs what it needs with apt and npm
#   make bench    benchmarks of the pure parts, then the load driver on both databases
#   make demo     two organisations on this machine, to try with a Matrix client
#   make run      a server with hansa.yaml
#   make sim      servers on a network that loses and reorders, SEEDS runs in every room version, from seed FROM on; all must agree
#   make chaos    the server killed 100 times on each database under load, and its surroundings taken away
#   make interop   two servers over TLS, Hansa (on each database) and the Synapse of Debian sid; needs root, installs what it needs
#   make fuzz     every fuzz target for FUZZTIME each

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
CONFIG   ?= hansa.yaml
FUZZTIME ?= 10s
TESTTIME ?= 18m
LOADTIME ?= 20
KILLS    ?= 100
SEEDS    ?= 1000
FROM     ?= 0
PKGS     ?= ./...

# No C compiler is needed to build or to test.
export CGO_ENABLED ?= 0

.PHONY: build check test sim chaos bench bench-go bench-load demo run fuzz setup clean

build:
	$(GO) build -trimpath -tags timetzdata -ldflags "-s -w -X main.version=$(VERSION)" -o bin/hansa ./cmd/hansa

check:
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path '*/node_modules/*')); \
	if [ -n "$$unformatted" ]; then echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet $(PKGS)
	$(GO) tool staticcheck $(PKGS)
	$(GO) test -count=1 . ./config
	$(GO) test -count=1 -run 'Verbs|Documents' ./cmd/hansa
	$(GO) test -count=1 -run 'Routes|OpenAPI' ./homeserver/adminapi

setup:
	test/setup/install.sh

# postgres.sh run starts a PostgreSQL of its own, exports HANSA_TEST_POSTGRES and removes it afterwards, also on failure.
test: setup build
	test/setup/postgres.sh run $(GO) test -timeout $(TESTTIME) $(PKGS)

# The binary writes to the terminal itself, so that one can see how far it is.
sim:
	$(GO) test -c -o bin/sim.test ./test/sim
	HANSA_SIM_SEEDS=$(SEEDS) HANSA_SIM_FROM=$(FROM) HANSA_SIM_VERSION=$(VERSIONS) bin/sim.test -test.v -test.timeout 0 -test.run '^TestConverges$$'

chaos: setup
	HANSA_CHAOS_KILLS=$(KILLS) test/setup/postgres.sh run $(GO) test -count=1 -timeout 90m -v ./test/chaos

# The files carry the build tag interop, so that no other target runs them.
interop: setup
	test/interop/setup.sh
	$(GO) vet -tags interop ./test/interop
	test/setup/postgres.sh run $(GO) test -tags interop -count=1 -timeout 60m -v ./test/interop

bench: bench-go bench-load

bench-go:
	$(GO) test -run '^$$' -bench . -benchmem ./matrix/... ./policy/... ./storage/... ./homeserver/room

bench-load: setup build
	test/setup/postgres.sh run $(GO) run ./test/bench -start bin/hansa -databases sqlite,postgres -shape small,hot,wide -seconds $(LOADTIME)

demo: build
	bin/hansa demo

run: build
	bin/hansa serve -c $(CONFIG)

fuzz:
	@grep -rl --include='*_test.go' --exclude-dir=node_modules '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go | cut -c6- | sort -u); do \
			echo "fuzz $$dir $$target"; \
			$(GO) test "$$dir" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

clean:
	rm -rf bin demo
