# The same commands run here and in .ci/run.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

STATICCHECK := go tool -modfile=tools/go.mod staticcheck
FUZZTIME ?= 50000x

.PHONY: help
help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | while IFS=$$'\t' read -r name text; do printf '  %-16s %s\n' "$$name" "$$text"; done

.PHONY: build
build: ## Build the program as ./weir, static
	CGO_ENABLED=0 go build -trimpath -o weir ./cmd/weir

.PHONY: test
test: ## Run the tests
	go test ./...

.PHONY: race
race: ## Run the tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race ./...

.PHONY: vet
vet: ## Run go vet
	go vet ./...

.PHONY: lint
lint: ## Run staticcheck, at the version pinned in tools/go.mod
	$(STATICCHECK) ./...

.PHONY: fmt
fmt: ## Rewrite the sources as gofmt and go fix want them
	go fix ./...
	gofmt -w $$(git ls-files '*.go')

.PHONY: fmt-check
fmt-check: ## Fail when fmt would change something
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "not formatted: $$unformatted"; exit 1; fi
	go fix -diff ./...

.PHONY: proto
proto: ## Write internal/pb from schemas/proto, with the versions of tools/go.mod; deploy-check compares
	cd tools && go run ./proto -root ..

.PHONY: tidy-check
tidy-check: ## Fail when a go.mod is not tidy
	go mod tidy -diff
	cd tools && go mod tidy -diff
	cd conformance && go mod tidy -diff

.PHONY: deploy-check
deploy-check: ## Parse Dockerfile, docker-compose.yml and deploy/weir.yaml, and compare internal/pb with schemas/proto
	cd tools && go vet ./... && go test ./...
	WEIR_KEY_SHA256=$$(printf check | sha256sum | cut -d' ' -f1) go run ./cmd/weir check deploy/weir.yaml

# One instrumented binary for each package with targets; "<folder> <target>" for each target.
FUZZ_TARGETS = git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed -E 's,/[^/]*:func , ,' | sort

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME (50000x, or 10s), beginning with the inputs in testdata/fuzz
	@bin=$$(mktemp -d); trap 'rm -rf "$$bin"' EXIT; root=$$PWD; found=$$(go env GOCACHE)/fuzz/$$(go list -m); \
	$(FUZZ_TARGETS) | while read -r folder target; do \
		test="$$bin/$${folder//\//_}.test"; \
		[ -e "$$test" ] || go test -c -fuzz=. -o "$$test" "./$$folder"; \
		echo "== $$target in $$folder"; cd "$$root/$$folder"; \
		"$$test" -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(FUZZTIME) -test.fuzzcachedir "$$found/$$folder"; \
		cd "$$root"; done

# Those with as many lines, and so as many arguments, as the newest have; older ones may be of an older target.
.PHONY: fuzz-keep
fuzz-keep: ## Keep the smallest inputs that fuzzing found in testdata/fuzz, with which every run of the tests begins
	@found=$$(go env GOCACHE)/fuzz/$$(go list -m); \
	$(FUZZ_TARGETS) | while read -r folder target; do \
		[ -d "$$found/$$folder/$$target" ] || continue; \
		mkdir -p "$$folder/testdata/fuzz/$$target"; \
		(cd "$$found/$$folder/$$target"; lines=$$(ls -t | sed -n 1p | xargs wc -l | cut -d' ' -f1); \
			ls -rS | while read -r input; do [ $$(wc -l < "$$input") != "$$lines" ] || echo "$$PWD/$$input"; done | sed -n 1,16p) | \
			xargs -I{} cp -n {} "$$folder/testdata/fuzz/$$target/"; done

.PHONY: bench
bench: ## Compare with the upstream called directly and nginx; prints the table (needs nginx)
	go run ./bench

.PHONY: bench-streams
bench-streams: ## Measure what each of 1,000 open streams holds in an ingest of its own
	go run ./bench streams

.PHONY: bench-fairness
bench-fairness: ## Measure what tenants get beside one that floods, and shares by weight (five minutes)
	go run ./bench fairness

.PHONY: bench-stages
bench-stages: ## Measure a router and a worker, each in a process of its own
	go run ./bench router
	go run ./bench worker

.PHONY: chaos
chaos: ## Kill everything in turn, put it to sleep, and check every answer (needs root: it mounts a small disk)
	go run ./chaos

.PHONY: chaos-short
chaos-short: ## The fault run of CI, over a minute (needs root)
	go run ./chaos --short

.PHONY: conformance
conformance: ## Run the real clients: OpenAI SDKs, nats CLI, curl
	./conformance/run.sh

.PHONY: check
check: fmt-check tidy-check vet lint deploy-check test race fuzz conformance chaos-short ## Everything that CI runs
