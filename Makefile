SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build plugin demo demo-down test beside clustered unit rest fuzz fuzz-short integration on-cassandra on-kafka frontend lint bench bench-plugin queries report sample clean up down status logs kubernetes chaos bench-load bench-docs soak

GOLANGCI_LINT_VERSION := v2.15.0
BIN := bin
PLUGIN := grafana-datasource
NODE_MODULES := $(PLUGIN)/node_modules/.package-lock.json
# Packages whose tests need a real Cassandra or a real Kafka.
ON_CASSANDRA := ./cassandra/... ./dev/cluster ./etl/internal/api/query
AS_PROGRAMS := ./etl ./grafana ./grafana-datasource/pkg ./prometheus ./dev/chaos
ON_KAFKA := ./dev/kafka ./etl/internal/notify ./etl/internal/source/kafka
# Rooms in which nothing goes on at the same time, but for what RACED_PURE tests.
PURE := $(addprefix ./etl/internal/,alerting eventorder geofence rollup telemetry transform)
RACED_PURE := ^(TestOneEngineServesSeveralGoroutines|TestManyMayAskAtOnce)$$
# Tests of ./etl that have all of fleet-etl at work, under the race detector.
RACED := ^(TestWhatWasAcknowledgedSurvivesKills|TestRunDrainsWhenItIsToldToStop)$$
# Lint has all that go vet has.
GO_TEST := go test -vet=off
# Nodes and brokers of tests live for minutes: they compile no more than they must. Those that tests start inherit it.
QUICK_JAVA := JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1
# A make that a program starts for us is its own.
SUBMAKE := env -u MAKEFLAGS $(MAKE) --no-print-directory
LINT := .dev/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## Build fleet-etl and the developers' tool into bin/
	go build -o $(BIN)/fleet-etl ./etl
	go build -o $(BIN)/dev ./dev

plugin: $(NODE_MODULES) ## Build the Grafana data source into grafana-datasource/dist
	cd $(PLUGIN) && npm run build && go tool mage -v build:linux

demo: ## Run the whole platform without Docker, on a four-node Cassandra; Ctrl-C or make demo-down ends it
	go run ./dev demo

demo-down: ## End what make demo started
	go run ./dev down

# Two lanes: what needs no cluster works while the tests on the cluster wait, and stands back when they do not.
test: ## All checks: lint, unit tests, a little fuzzing, the manifests, the front end, tests on a real four-node cluster and a real Kafka
	$(MAKE) --no-print-directory -j 2 beside clustered

beside:
	nice $(MAKE) --no-print-directory lint rest kubernetes fuzz-short frontend
	DEV_KAFKA_DIR=$(abspath .dev/kafka-beside) DEV_KAFKA_PORT=19292 $(QUICK_JAVA) nice go run ./dev with-kafka -- $(SUBMAKE) on-kafka

up: ## Start the whole platform under Docker and wait until it is usable; where it does not get there, say why
	@docker compose up -d --wait || { status=$$?; dev/compose/why.sh; exit $$status; }

down: ## Stop what make up started; its data stay
	docker compose --profile '*' down

status: ## How the platform under Docker is: services, Cassandra's nodes, Prometheus' targets
	@dev/compose/status.sh

logs: ## Follow the logs of the platform under Docker; make logs SERVICE=etl for one service
	docker compose --profile '*' logs --follow --tail 50 $(SERVICE)

lint: $(LINT) ## Check style and the rules of who imports whom
	$(LINT) run --allow-parallel-runners ./...

$(LINT):
	mkdir -p $(dir $@)
	GOBIN=$(abspath .dev/bin) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .dev/bin/golangci-lint $@

unit: ## Tests that need no cluster, with the race detector
	CASSANDRA_TEST_HOSTS= KAFKA_TEST_BROKERS= $(GO_TEST) -race ./...

rest: # of the packages: those with nothing on a cluster
	$(GO_TEST) -race $$(go list ./... | grep -vxF "$$(go list $(PURE) $(ON_CASSANDRA) $(AS_PROGRAMS) $(ON_KAFKA))")
	$(GO_TEST) $(PURE)
	$(GO_TEST) -race -run '$(RACED_PURE)' ./etl/internal/alerting ./etl/internal/geofence

FUZZ_TIME ?= 10m

# Time runs out as by Ctrl-C: Go before 1.27 may call -fuzztime's own deadline a failure of the target (golang/go#75804).
fuzz: ## Search every parser for input that breaks it, FUZZ_TIME each (10m), one after the other
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z]+' etl grafana-datasource/pkg | sed 's/:func / /' | sort | while read -r file target; do \
		package=$$(dirname $$file); binary=$(abspath .dev/fuzz)/$$(echo $$package | tr / -).test; \
		if [ "$$package" != "$$built" ]; then go test -c -fuzz . -o $$binary ./$$package || exit 1; built=$$package; fi; \
		echo "$$package $$target"; \
		(cd $$package && timeout --foreground --preserve-status -s INT -k 1m $(FUZZ_TIME) $$binary -test.run '^$$' -test.fuzz "^$$target\$$" \
			$(FUZZ_COUNT:%=-test.fuzztime %x) -test.fuzzminimizetime 100x -test.parallel 1 -test.fuzzcachedir $(abspath .dev/fuzz/cache)/$$package) || exit 1; \
	done

fuzz-short: # so short that what a change breaks at once shows; the seeds and all that was found run with the unit tests
	$(MAKE) --no-print-directory fuzz FUZZ_COUNT=2000 FUZZ_TIME=1m

kubernetes: ## Check what deploy/kubernetes renders to against the published schemas; FLEET_CRDS names a folder of more of them
	cd deploy/kubernetes/check && go vet . && go test -count 1 .

frontend: $(NODE_MODULES) ## Types, style, tests and build of the data source's front end
	cd $(PLUGIN) && npm run typecheck && npm run lint && npm run test:ci && npm run build

$(NODE_MODULES): $(PLUGIN)/package-lock.json
	cd $(PLUGIN) && npm ci --no-audit --no-fund

integration: ## Tests on a real cluster of two data centres and a real Kafka, which are started for them, and stopped unless they were up
	$(QUICK_JAVA) go run ./dev with-kafka -- go run ./dev with-cluster -- $(SUBMAKE) on-kafka on-cassandra

clustered:
	$(QUICK_JAVA) go run ./dev with-kafka -- go run ./dev with-cluster -- $(SUBMAKE) on-cassandra

# One package after the other: some kill nodes. The race detector is for what works in the tests' own process.
on-cassandra:
	$(GO_TEST) -race -count 1 -p 1 -timeout 20m $(ON_CASSANDRA)
	$(GO_TEST) -race -count 1 -timeout 20m -run '$(RACED)' ./etl
	$(GO_TEST) -count 1 -p 1 -timeout 20m -skip '$(RACED)' $(AS_PROGRAMS)

on-kafka:
	$(GO_TEST) -race -count 1 -timeout 20m $(ON_KAFKA)

bench: ## Measure fleet-etl beside the bare driver, its sources beside each other, and what it derives (about eleven minutes)
	go run ./dev bench
	CASSANDRA_REPLICATION=dc1=1 DEV_CLUSTER_DIR=.dev/bench-sources FLEET_BENCH=1 go run ./dev with-cluster --dcs dc1=1 -- \
		go run ./dev with-kafka -- go test -count 1 -v -p 1 -timeout 20m -run 'TestMeasure(Sources|Derivation)$$' ./etl ./etl/internal/derive

bench-load: ## Measure what fleet-etl bears, where the time goes, and the growth with load, devices, history and nodes (about forty minutes)
	go run ./dev bench load

soak: ## Load fleet-etl for an hour, and tell whether memory, goroutines, files and latency stay flat
	go run ./dev bench soak

bench-docs: ## Put what bench-load and soak found last into docs/performance.md
	go run ./dev bench docs

bench-plugin: ## Measure the data source through its real binary on four nodes (about two minutes)
	go run ./dev with-cluster -- env FLEET_BENCH=1 go test -count 1 -v -timeout 20m -run TestMeasure ./grafana-datasource/pkg

report: ## Render performance, resilience and architecture into report.pdf; needs Chromium and npm
	go run ./dev report

queries: ## Fill a keyspace with 30 days of 10,000 vehicles, run every CQL statement on it, and write what each costs into docs/queries.md
	go run ./dev queries --write

chaos: ## Break a running platform on purpose, on a cluster of its own (at most twenty minutes; some faults need root)
	go run ./dev chaos --json .dev/chaos.json

sample: ## Make data/sample_telemetry.csv anew
	go test ./etl/internal/source/generator -run Sample -update

clean: ## Remove what was built and the clusters' data
	go run ./dev cluster down --delete
	rm -rf $(BIN) .dev $(PLUGIN)/dist $(PLUGIN)/node_modules $(PLUGIN)/coverage
