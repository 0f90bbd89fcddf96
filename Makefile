# Petal. `make` lists what it can do.

SHELL       := /bin/bash
export CGO_ENABLED := 0
export GOFLAGS     := -mod=readonly

VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X petal/appliance.Version=$(VERSION)
FUZZTIME    ?= 10m
SOAKTIME    ?= 1h
BENCHTIME   ?= 10s
NODES       ?= 1
ONLY        ?=
SIMFIRST    ?= 0
SIMTIME     ?= 3m
RACE        ?= ./journal/... ./cluster/... ./target/... ./appliance/...

.PHONY: help build demo test unit race integration sim bench soak fuzz lint deps clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: bin/petal ## the static binary bin/petal

# go build decides what is up to date.
.PHONY: bin/petal
bin/petal:
	@go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./appliance/cmd/petal

demo: build ## four nodes with a mirrored disk at iscsi://127.0.0.1:3260/iqn.2026-11.petal:demo/0
	@bin/petal demo

# The seeds of make test are the same from one run to the next, so that what is red
# was made so by a change; make sim and make soak take fresh ones.
test: SIMFIRST = 1000000
test: export RAPID_SEED = 1
test: deps lint unit race sim integration ## everything that CI runs, under 20 minutes on two cores

deps: ## the Debian packages that the tests use (installs them when root)
	@packaging/deps.sh

unit: ## unit tests, with the dear invariants checked
	go test -timeout 30m -tags invariants $$(go list ./... | grep -v appliance/integration)

race: ## unit tests of what runs concurrently, under the race detector
	@command -v cc >/dev/null || { echo "SKIPPED: the race detector needs a C compiler (apt install gcc libc6-dev)" >&2; exit 0; }; \
	CGO_ENABLED=1 go test -timeout 30m -race -short $$(go list $(RACE) | grep -v -e appliance/integration -e appliance/benchtab -e target/peers -e cluster/sim -e cluster/explore)

integration: build ## bin/petal as real processes, with real initiators
	PETAL_BIN=$(CURDIR)/bin/petal go test -count=1 -timeout 30m -v ./appliance/integration | grep -v -e '^=== ' -e '^    --- PASS'; exit $${PIPESTATUS[0]}

sim: ## whole clusters in one process: fresh seeds for SIMTIME=3m, or one again with SEED=n
ifdef SEED
	go test -count=1 -timeout 0 -v ./cluster/sim -run 'TestSeed$$' -args -seed $(SEED) $(if $(TRACE),-trace $(abspath $(TRACE)))
else
	go test -count=1 -timeout 0 -v ./cluster/sim -run TestFreshSeeds -args -simtime $(SIMTIME) -first $(SIMFIRST)
endif

bench: build ## petal beside tgtd and gotgt, alternating; BENCHTIME=10s a job; NODES=4: a cluster, healthy and with a node dead; ONLY=WORD: pairs with it in their names
	go run ./appliance/benchtab -petal bin/petal -time $(BENCHTIME) -nodes $(NODES) $(if $(ONLY),-only '$(ONLY)')

soak: build ## nodes are killed, stopped, paused, cut off, 100 kills at least, and slowed down under verified load, and fresh seeds; SOAKTIME=1h for each
	PETAL_BIN=$(CURDIR)/bin/petal PETAL_SOAK=$(SOAKTIME) go test -count=1 -timeout 0 -v -run 'TestNodeDeath|TestWithoutQuorum|TestKillUnderLoad|TestKills$$|TestSlowDisk' ./appliance/integration
	$(MAKE) sim SIMTIME=$(SOAKTIME)
	PETAL_SOAK=1 go test -count=1 -timeout 0 -v -run TestLarge ./cluster/explore

fuzz: ## every FuzzXxx for FUZZTIME=10m each
	@packaging/fuzz.sh $(FUZZTIME)

lint: ## gofmt, go vet, staticcheck (tools/go.mod) if it can be built
	@packaging/lint.sh

clean: ## remove what was built
	rm -rf bin
