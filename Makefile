SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build demo demo-down test unit integration lint bench sample clean

GOLANGCI_LINT_VERSION := v2.15.0
BIN := bin
LINT := .dev/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## Build fleet-etl and the developers' tool into bin/
	go build -o $(BIN)/fleet-etl ./etl
	go build -o $(BIN)/dev ./dev

demo: ## Run a four-node Cassandra and a streaming fleet-etl, without Docker; Ctrl-C or make demo-down ends it
	go run ./dev demo

demo-down: ## End what make demo started
	go run ./dev down

test: lint unit integration ## All checks: vet, lint, unit tests, tests on a real four-node cluster

lint: $(LINT) ## Check style and the rules of who imports whom
	go vet ./...
	$(LINT) run ./...

$(LINT):
	mkdir -p $(dir $@)
	GOBIN=$(abspath .dev/bin) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .dev/bin/golangci-lint $@

unit: ## Tests that need no cluster, with the race detector
	CASSANDRA_TEST_HOSTS= go test -race ./...

integration: ## Tests on a real cluster of two data centres; it is started for them, and stopped unless it was up
	go run ./dev with-cluster -- go test -race -count 1 -p 1 -timeout 20m ./cassandra/... ./etl ./dev/...

bench: ## Measure fleet-etl beside the bare driver, on one node and on four (about ten minutes)
	go run ./dev bench

sample: ## Make data/sample_telemetry.csv anew
	go test ./etl/internal/source/generator -run Sample -update

clean: ## Remove what was built and the clusters' data
	go run ./dev cluster down --delete
	rm -rf $(BIN) .dev
