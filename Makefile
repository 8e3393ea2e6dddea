# Needs GNU make, bash and Go; everything else a target uses it builds itself. Run `make help` for the list.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -X millrace.dev/internal/version.linked=$(VERSION)
# Without it gRPC, of which we use nothing but what others link, renders pages about itself with templates; these call methods by
# names known at run time only, and the linker has to keep every method of the program: a third of it.
BUILDTAGS := grpcnotrace
# The race detector needs cgo; without a C compiler the tests run all the same.
RACE ?= $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
TESTFLAGS ?=
FUZZTIME ?= 10s
BENCH ?= .
BENCHTIME ?= 1s
MODE ?= quick
SCENARIOS ?=
BENCHFLAGS ?=
BASE ?= main
COUNT ?= 6
PKG ?= ./...
INSTALL ?= config/install.yaml
IMAGES ?= millrace
TAG ?= devel
DOWNLOADS ?=
CHARTVERSION ?= 0.0.0-devel

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build every program of cmd/ into bin/
	go build -trimpath -tags $(BUILDTAGS) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: run
run: build ## Run a broker on this machine with the live-stream example
	./bin/millrace dev -f examples/live-stream --demo

.PHONY: run-kafka
run-kafka: build ## Run a broker whose events come from Kafka, with viewers who write to it (KAFKA=host:port for one of yours)
	go build -o bin/ ./examples/live-stream-kafka/viewers
	data=$(if $(KAFKA),.millrace,$$(mktemp -d)); $(if $(KAFKA),,trap 'rm -rf "$$data"' EXIT;) \
		./bin/viewers $(if $(KAFKA),--kafka $(KAFKA)) ./bin/millrace dev -f examples/live-stream-kafka --data "$$data" --demo

##@ Check

.PHONY: test
test: ## Run all tests (PKG=./pkg/x/... TESTFLAGS='-v -run Name' RACE= to narrow or vary)
	go test $(RACE) -timeout 15m $(TESTFLAGS) $(PKG)

.PHONY: test-api
test-api: ## Test CRDs, controller and RBAC on a real Kubernetes API: that of KUBECONFIG, or one built once and run on loopback
	@[[ -n "$${KUBECONFIG:-}" ]] || { binaries=$$(hack/kube-binaries.sh); export MILLRACE_KUBE_BINARIES=$$binaries; }; \
		go test $(RACE) -count=1 -timeout 10m $(TESTFLAGS) ./test/api/...

.PHONY: e2e
e2e: ## Test config/install.yaml on a cluster that runs pods: that of KUBECONFIG, or a node started on this machine (as root)
	hack/e2e.sh $(TESTFLAGS)

.PHONY: cover
cover: ## Run all tests and print the coverage of each function (cover.out)
	go test -timeout 15m -coverprofile=cover.out -coverpkg=./api/...,./internal/...,./pkg/... $(TESTFLAGS) $(PKG)
	go tool cover -func=cover.out

.PHONY: lint
lint: ## Run golangci-lint (built once, outside the checkout)
	hack/golangci-lint.sh run --allow-parallel-runners $(PKG)

.PHONY: verify
verify: ## Fail if generated files, go.mod or the formatting are out of date
	hack/verify.sh
	go mod tidy -diff
	hack/golangci-lint.sh fmt --diff

.PHONY: fuzz
fuzz: ## Fuzz every target for FUZZTIME each (PKG=./pkg/x to narrow)
	hack/fuzz.sh $(FUZZTIME) $(PKG)

.PHONY: chaos
chaos: ## Break a running broker and account for every event (CHAOS_SEED= _EVENTS= _KILLS= _DURATION= _MODE=r1|r3 _REPORT=folder)
	CHAOS_SEED=$${CHAOS_SEED:-1} go test -count=1 -timeout 2h -v -run '^TestChaos$$' ./test/chaos

.PHONY: e2e-sources
e2e-sources: ## Run sources against a real Kafka and a real RocketMQ, got from Maven Central (E2E_RECORDS=200000)
	kafka=$$(hack/kafka.sh) && rocketmq=$$(hack/rocketmq.sh) && \
		MILLRACE_KAFKA_JARS=$$kafka MILLRACE_ROCKETMQ_JARS=$$rocketmq go test -count=1 -timeout 20m -v $(TESTFLAGS) ./test/e2esources

.PHONY: bench
bench: ## Measure against the goals and write docs/benchmarks.md (MODE=quick|full|smoke; SCENARIOS='ingest dev' and BENCHFLAGS='-profiles DIR' only print)
	go run ./test/bench -mode $(MODE) $(if $(SCENARIOS)$(BENCHFLAGS)$(filter smoke,$(MODE)),,-out docs) $(BENCHFLAGS) $(SCENARIOS)

.PHONY: bench-micro
bench-micro: ## Run the benchmarks of the packages (BENCH=regexp BENCHTIME=1s PKG=./pkg/x to narrow)
	go test -run '^$$' -timeout 30m -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem $(TESTFLAGS) $(PKG)

.PHONY: bench-compare
bench-compare: ## Compare the benchmarks of the packages with those of another commit (BASE=main BENCH= BENCHTIME= COUNT=6 PKG=./pkg/...)
	hack/bench-compare.sh '$(BASE)' '$(BENCH)' '$(BENCHTIME)' '$(COUNT)' $(if $(filter ./...,$(PKG)),./pkg/...,$(PKG))

.PHONY: ci
ci: ## Run everything that continuous integration runs
	.ci/run

##@ Change

.PHONY: fmt
fmt: ## Format the Go files
	hack/golangci-lint.sh fmt

.PHONY: generate
generate: ## Regenerate deep copies, CRDs, docs/metrics.md and what the Helm chart copies from config/
	hack/generate.sh

.PHONY: captures
captures: ## Run the guides and draw the terminals that they show into docs/guides/captures
	go test -count=1 ./test/guides -run '^TestDayTwo$$' -captures

.PHONY: install-yaml
install-yaml: ## Render config/install.yaml (IMAGES=prefix TAG=tag INSTALL=file for one that names published images)
	hack/install-yaml.sh $(INSTALL) $(IMAGES) $(TAG)

.PHONY: images
images: ## Build images of all programs for amd64 and arm64 and push them (IMAGES=prefix TAG=tag; KO_DEFAULTBASEIMAGE=base)
	hack/images.sh $(IMAGES) $(TAG)

.PHONY: sbom
sbom: build ## List what is in the programs of bin/, as CycloneDX in bin/sbom; needs no network
	hack/sbom.sh bin/sbom $(VERSION) $(patsubst cmd/%,bin/%,$(wildcard cmd/*))

.PHONY: test-images
test-images: ## Test images and lists of their contents, with a registry on loopback, and the plugin for kubectl
	go -C tools/ko test -count=1 -timeout 20m $(TESTFLAGS) ./...
	go -C tools/sbom test -count=1 $(TESTFLAGS) ./...
	go -C tools/krew test -count=1 -timeout 20m $(TESTFLAGS) ./...

.PHONY: krew
krew: ## Build archives of kubectl-millrace and the manifest for krew into bin/krew (VERSION=v1.2.3 DOWNLOADS=URL of where the archives will be)
	go -C tools/krew run . -version '$(VERSION)' -downloads '$(DOWNLOADS)'

.PHONY: chart
chart: ## Package the Helm chart into bin/ (TAG=tag of the images, CHARTVERSION=1.2.3)
	go -C tools/helm tool helm package "$(CURDIR)/charts/millrace" --version $(CHARTVERSION) --app-version $(TAG) --destination "$(CURDIR)/bin"

.PHONY: clean
clean: ## Remove what build and cover made
	rm -rf bin cover.out
