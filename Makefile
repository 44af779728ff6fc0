SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build plugin demo demo-down test unit rest fuzz fuzz-short integration frontend lint bench bench-plugin queries report sample clean

GOLANGCI_LINT_VERSION := v2.15.0
BIN := bin
PLUGIN := grafana-datasource
NODE_MODULES := $(PLUGIN)/node_modules/.package-lock.json
INTEGRATION := ./cassandra/... ./etl ./etl/internal/notify ./etl/internal/readapi ./etl/internal/source/kafka ./dev/... ./grafana ./grafana-datasource/pkg ./prometheus
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

test: lint rest fuzz-short frontend integration ## All checks: vet, lint, unit tests, a little fuzzing, the front end, tests on a real four-node cluster

lint: $(LINT) ## Check style and the rules of who imports whom
	go vet ./...
	$(LINT) run ./...

$(LINT):
	mkdir -p $(dir $@)
	GOBIN=$(abspath .dev/bin) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .dev/bin/golangci-lint $@

unit: ## Tests that need no cluster, with the race detector
	CASSANDRA_TEST_HOSTS= go test -race ./...

rest: # unit tests of the packages that integration leaves out
	CASSANDRA_TEST_HOSTS= go test -race $$(go list ./... | grep -vxF "$$(go list $(INTEGRATION))")

FUZZ_TIME ?= 10m

fuzz: ## Search every parser for input that breaks it, FUZZ_TIME each (10m), one after the other
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z]+' etl grafana-datasource/pkg | sed 's/:func / /' | sort | while read -r file target; do \
		package=$$(dirname $$file); binary=$(abspath .dev/fuzz)/$$(echo $$package | tr / -).test; \
		if [ "$$package" != "$$built" ]; then go test -c -fuzz . -o $$binary ./$$package || exit 1; built=$$package; fi; \
		echo "$$package $$target"; \
		(cd $$package && $$binary -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(FUZZ_TIME) -test.fuzzminimizetime 100x \
			-test.parallel 1 -test.fuzzcachedir $(abspath .dev/fuzz/cache)/$$package) || exit 1; \
	done

fuzz-short: # so short that what a change breaks at once shows; the seeds and all that was found run with the unit tests
	$(MAKE) --no-print-directory fuzz FUZZ_TIME=2s

frontend: $(NODE_MODULES) ## Types, style, tests and build of the data source's front end
	cd $(PLUGIN) && npm run typecheck && npm run lint && npm run test:ci && npm run build

$(NODE_MODULES): $(PLUGIN)/package-lock.json
	cd $(PLUGIN) && npm ci --no-audit --no-fund

integration: ## Tests on a real cluster of two data centres and a real Kafka, which are started for them, and stopped unless they were up
	go run ./dev with-cluster -- go run ./dev with-kafka -- go test -race -count 1 -p 1 -timeout 20m \
		$(INTEGRATION)

bench: ## Measure fleet-etl beside the bare driver, its sources beside each other, and what it derives (about twenty minutes)
	go run ./dev bench
	CASSANDRA_REPLICATION=dc1=1 DEV_CLUSTER_DIR=.dev/bench-sources FLEET_BENCH=1 go run ./dev with-cluster --dcs dc1=1 -- \
		go run ./dev with-kafka -- go test -count 1 -v -p 1 -timeout 20m -run 'TestMeasure(Sources|Derivation)$$' ./etl ./etl/internal/derive

bench-plugin: ## Measure the data source through its real binary on four nodes (about two minutes)
	go run ./dev with-cluster -- env FLEET_BENCH=1 go test -count 1 -v -timeout 20m -run TestMeasure ./grafana-datasource/pkg

report: ## Render performance, resilience and architecture into report.pdf; needs Chromium and npm
	go run ./dev report

queries: ## Fill a keyspace with 30 days of 10,000 vehicles, run every CQL statement on it, and write what each costs into docs/queries.md
	go run ./dev queries --write

sample: ## Make data/sample_telemetry.csv anew
	go test ./etl/internal/source/generator -run Sample -update

clean: ## Remove what was built and the clusters' data
	go run ./dev cluster down --delete
	rm -rf $(BIN) .dev $(PLUGIN)/dist $(PLUGIN)/node_modules $(PLUGIN)/coverage
