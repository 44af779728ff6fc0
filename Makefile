SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build plugin demo demo-down test test-deps beside clustered unit rest fuzz fuzz-short integration on-cassandra on-kafka frontend lint prose bench bench-plugin queries report sample clean up down status logs kubernetes chaos bench-load bench-docs soak

GOLANGCI_LINT_VERSION := v2.15.0
VALE_VERSION := v3.7.1
BIN := bin
PLUGIN := grafana-datasource
NODE_MODULES := $(PLUGIN)/node_modules/.package-lock.json
# Names of servers, separated by commas, whose tests may be skipped, such as grafana. Tests fail without the others.
export FLEET_ALLOW_SKIP ?=
# Packages whose tests need a real Cassandra or a real Kafka. A package that is missing here fails in rest, which has neither.
ON_CASSANDRA := ./cassandra/... ./dev/bench/queries ./dev/cluster ./etl/internal/api/query
AS_PROGRAMS := ./etl ./grafana ./grafana-datasource/pkg ./prometheus ./dev/chaos
ON_KAFKA := ./dev/kafka ./etl/internal/notifier ./etl/internal/source/kafka
# Packages without concurrency, apart from the tests in RACED_PURE.
PURE := $(addprefix ./etl/internal/,alerting alerting/rules eventorder geofence rollup source/generator telemetry validate)
RACED_PURE := ^(TestOneEngineServesSeveralGoroutines|TestIndexServesSeveralGoroutines)$$
# Tests of ./etl that run all of fleet-etl, under the race detector.
RACED := ^(TestAcknowledgedRecordsSurviveKills|TestRunDrainsOnSIGTERM)$$
# Tests that measure or limit the memory of their process: the race detector takes several times as much, and as long.
LIMITED := ^(TestNoViewerExhaustsTheMemory|TestHostileRequestsTakeLittleMemory)$$
# golangci-lint includes go vet.
GO_TEST := go test -vet=off
# Nodes and brokers of tests run for minutes: the fast JIT compiler suffices. Those that tests start inherit the setting.
QUICK_JAVA := JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1
# A make that another program starts takes no part in this make's job server.
SUBMAKE := env -u MAKEFLAGS $(MAKE) --no-print-directory
LINT := .dev/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
VALE := .dev/bin/vale-$(VALE_VERSION)

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## Build fleet-etl and the developer tool into bin/
	go build -o $(BIN)/fleet-etl ./etl
	go build -o $(BIN)/dev ./dev

plugin: $(NODE_MODULES) ## Build the Grafana data source into grafana-datasource/dist
	cd $(PLUGIN) && npm run build && go tool mage -v build:linux

demo: ## Run the whole platform without Docker, with four Cassandra nodes; Ctrl-C or make demo-down stops it
	go run ./dev demo

demo-down: ## Stop the demo
	go run ./dev down

# Two lanes: the checks that need no cluster run at low priority beside the tests on the cluster, which often wait.
test: test-deps ## All checks: lint, unit tests, short fuzzing, manifests, front end, and tests on a real four-node Cassandra cluster and a real Kafka broker
	$(MAKE) --no-print-directory -j 2 beside clustered

test-deps: ## Install the programs that make test needs (Debian, root), or print the command that does
	@dev/install-test-deps.sh

beside:
	nice $(MAKE) --no-print-directory lint frontend rest kubernetes fuzz-short
	DEV_KAFKA_DIR=$(abspath .dev/kafka-beside) DEV_KAFKA_PORT=19292 $(QUICK_JAVA) nice go run ./dev with-kafka -- $(SUBMAKE) on-kafka

up: ## Start the whole platform under Docker, wait until it is healthy, and explain a failure
	@docker compose up -d --wait || { status=$$?; dev/compose/why.sh; exit $$status; }

down: ## Stop the platform under Docker and keep its data
	docker compose --profile '*' down

status: ## Show the state of the platform under Docker: services, Cassandra nodes, Prometheus targets
	@dev/compose/status.sh

logs: ## Follow the logs of the platform under Docker, of one service by SERVICE=etl
	docker compose --profile '*' logs --follow --tail 50 $(SERVICE)

lint: $(LINT) prose ## Check style, import rules and wording
	$(LINT) run --allow-parallel-runners ./...

# File names after -- are the patterns to check and, with :!, to leave out: data, recorded findings and files of other projects.
PROSE_FILES = $(shell git ls-files -- '*.go' '*.ts' '*.tsx' '*.yml' '*.yaml' '*.json' '*.sh' '*.cql' \
	':!*testdata*' ':!*package-lock.json' ':!*/.config/*' ':!.vale' ':!.golangci.yml')

prose: $(VALE) # the rules are in .vale/styles/FleetTracing
	@$(VALE) --output=line $(PROSE_FILES)

$(VALE):
	mkdir -p $(dir $@)
	GOBIN=$(abspath .dev/bin) go install github.com/errata-ai/vale/v3/cmd/vale@$(VALE_VERSION)
	mv .dev/bin/vale $@

$(LINT):
	mkdir -p $(dir $@)
	GOBIN=$(abspath .dev/bin) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .dev/bin/golangci-lint $@

unit: ## Tests that need no cluster, with the race detector where code is concurrent
	@CASSANDRA_TEST_HOSTS= KAFKA_TEST_BROKERS= $(MAKE) --no-print-directory rest \
		FLEET_ALLOW_SKIP='$(FLEET_ALLOW_SKIP),cassandra,kafka' ON_CASSANDRA= AS_PROGRAMS= ON_KAFKA=

rest: # unit tests of all packages but those that on-cassandra and on-kafka run
	$(GO_TEST) -race $$(go list ./... | grep -vxF "$$(go list $(PURE) $(ON_CASSANDRA) $(AS_PROGRAMS) $(ON_KAFKA))")
	$(GO_TEST) $(PURE)
	$(GO_TEST) -run '$(LIMITED)' ./grafana-datasource/pkg/plugin ./etl/internal/api
	$(GO_TEST) -race -run '$(RACED_PURE)' ./etl/internal/alerting ./etl/internal/geofence

FUZZ_TIME ?= 10m

# timeout sends SIGINT: Go before 1.27 may report the deadline of -fuzztime as a failure (golang/go#75804).
fuzz: ## Fuzz every parser, one after the other, FUZZ_TIME each (10m)
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z]+' etl grafana-datasource/pkg | sed 's/:func / /' | sort | while read -r file target; do \
		package=$$(dirname $$file); binary=$(abspath .dev/fuzz)/$$(echo $$package | tr / -).test; \
		if [ "$$package" != "$$built" ]; then go test -c -fuzz . -o $$binary ./$$package || exit 1; built=$$package; fi; \
		echo "$$package $$target"; \
		(cd $$package && timeout --foreground --preserve-status -s INT -k 1m $(FUZZ_TIME) $$binary -test.run '^$$' -test.fuzz "^$$target\$$" \
			$(FUZZ_COUNT:%=-test.fuzztime %x) -test.fuzzminimizetime 100x -test.parallel 1 -test.fuzzcachedir $(abspath .dev/fuzz/cache)/$$package) || exit 1; \
	done

fuzz-short: # finds what breaks at once; the seeds and saved findings run with the unit tests
	$(MAKE) --no-print-directory fuzz FUZZ_COUNT=500 FUZZ_TIME=20s

kubernetes: ## Validate the rendered manifests of deploy/kubernetes; FLEET_CRDS names a folder with further schemas
	cd deploy/kubernetes/check && go vet . && go test -count 1 .

frontend: plugin ## Type check, lint, test and build the front end of the data source
	cd $(PLUGIN) && npm run typecheck && npm run lint && npm run test:ci

$(NODE_MODULES): $(PLUGIN)/package-lock.json
	cd $(PLUGIN) && npm ci --no-audit --no-fund

integration: ## Tests on a real Cassandra cluster and a real Kafka broker; both are started unless they run, and stopped again
	$(QUICK_JAVA) go run ./dev with-kafka -- go run ./dev with-cluster -- $(SUBMAKE) on-kafka on-cassandra

clustered:
	$(QUICK_JAVA) go run ./dev with-kafka -- go run ./dev with-cluster -- $(SUBMAKE) on-cassandra

# One package after the other: some kill nodes. The race detector covers the code that runs inside the test process.
on-cassandra:
	$(GO_TEST) -race -count 1 -p 1 -timeout 20m $(ON_CASSANDRA)
	$(GO_TEST) -race -count 1 -timeout 20m -run '$(RACED)' ./etl
	$(GO_TEST) -count 1 -p 1 -timeout 20m -skip '$(RACED)' $(AS_PROGRAMS)

on-kafka:
	$(GO_TEST) -race -count 1 -timeout 20m $(ON_KAFKA)

bench: ## Measure fleet-etl against the bare driver, the sources against each other, and the derived rows (about eleven minutes)
	go run ./dev bench
	CASSANDRA_REPLICATION=dc1=1 DEV_CLUSTER_DIR=.dev/bench-sources FLEET_BENCH=1 go run ./dev with-cluster --dcs dc1=1 -- \
		go run ./dev with-kafka -- go test -count 1 -v -p 1 -timeout 20m -run 'TestMeasure(Sources|Derivation)$$' ./etl ./etl/internal/processor

bench-load: ## Measure the highest sustained load, the time per stage, and scaling with load, devices, history and nodes (about forty minutes)
	go run ./dev bench load

soak: ## Load fleet-etl for an hour and check that memory, goroutines, files and latency stay flat
	go run ./dev bench soak

bench-docs: ## Write the latest results of bench-load and soak into docs/performance.md
	go run ./dev bench docs

bench-plugin: ## Measure the data source through its binary on four nodes (about two minutes)
	go run ./dev with-cluster -- env FLEET_BENCH=1 go test -count 1 -v -timeout 20m -run TestMeasure ./grafana-datasource/pkg

report: ## Render performance, resilience and architecture into report.pdf; needs Chromium and npm
	go run ./dev report

queries: ## Measure every CQL statement on 30 days of 10,000 vehicles and write the results into docs/queries.md
	go run ./dev queries --write

chaos: ## Inject faults into a running platform with its own cluster and check the outcome (at most 25 minutes; some faults need root)
	go run ./dev chaos

sample: ## Regenerate data/sample_telemetry.csv
	go test ./etl/internal/source/generator -run Sample -update

clean: ## Remove build results and the data of the local cluster
	go run ./dev cluster down --delete
	rm -rf $(BIN) .dev $(PLUGIN)/dist $(PLUGIN)/node_modules $(PLUGIN)/coverage
