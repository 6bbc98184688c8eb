# The one door. `make demo` runs the main job, `make test` everything that is tested; both set up what
# they need and keep it in .build and .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.9
UV := $(shell command -v uv || echo $(CURDIR)/.build/uv/bin/uv)
# Without the slash at its end: with it, the shims of pyenv do not know themselves on PATH and call each other for ever.
export PATH := $(patsubst %/,%,$(dir $(UV))):$(PATH)
RUN := $(UV) run --frozen --no-sync
ENVS := .build/envs
PROCESSOR := processor/identityprocessor
GO = PATH="$$(collector/build.sh go):$$PATH" CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local go
BENCH_GO = PATH="$$(../../collector/build.sh go):$$PATH" CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local go
E2E_PROCESSES ?= 2
SYNC := $(UV) sync --frozen --quiet

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup binaries envs ## Run the sample app with Collector and Jaeger, and find its traces by who (KEEP=1 leaves it running)
	@$(RUN) python -m examples.saas.demo

.PHONY: test
test: unit calendar upstream-calendar-sample go-test reliability-short contract e2e ## Run every test, on real binaries

.PHONY: unit
unit: setup ## Python unit tests
	@$(RUN) pytest tests/unit

.PHONY: calendar
calendar: setup ## Calendars against real Radicale and Xandikos, over each HTTP client, in an environment of their own
	@UV_PROJECT_ENVIRONMENT=$(ENVS)/calendar $(SYNC) --no-default-groups --group calendar
	@$(ENVS)/calendar/bin/python -m pytest tests/calendar
	@CALENDAR_TRANSPORT=others $(ENVS)/calendar/bin/python -m pytest tests/calendar

.PHONY: upstream-calendar
upstream-calendar: setup ## The own tests of caldav and icalendar, without and with our instrumentors: they must end alike
	@$(RUN) python -m tests.calendar.upstream

.PHONY: upstream-calendar-sample
upstream-calendar-sample: setup ## A fixed part of them, for every change
	@$(RUN) python -m tests.calendar.upstream --sample

.PHONY: go-test
go-test: setup ## Go tests of the processor, and the shorter ones again with the race detector where there is a C compiler
	@cd $(PROCESSOR) && PATH="$$(../../collector/build.sh go):$$PATH" && export GOWORK=off GOTOOLCHAIN=local && CGO_ENABLED=0 go test ./... && \
	if command -v cc >/dev/null; then CGO_ENABLED=1 go test -race -short ./...; fi

.PHONY: contract
contract: setup binaries monitoring-binaries ## What the rooms promise each other: names, golden files, configurations
	@$(RUN) pytest tests/contract

.PHONY: e2e
e2e: setup binaries monitoring-binaries envs ## Real launcher, Collector and Jaeger (E2E_PROCESSES=2 at once; 0: all in one process)
	@$(RUN) pytest --numprocesses $(E2E_PROCESSES) --dist loadfile --no-loadscope-reorder tests/e2e

.PHONY: hour
hour: setup ## Streams and WebSockets that stay open for an hour, all at once, with an eye on their memory
	@STREAM_SECONDS=3600 $(RUN) pytest --numprocesses 4 --dist load tests/e2e/test_streams.py -k long

.PHONY: simulate
simulate: setup binaries monitoring-binaries envs ## Make each alert fire, be delivered and resolve, on real programs (HEALTHY=300: seconds without a fault first)
	@$(RUN) python -m monitoring.simulation --healthy $(or $(HEALTHY),20)

.PHONY: rules-test
rules-test: setup monitoring-binaries ## Test the alert rules with promtool
	@.build/bin/promtool test rules monitoring/tests/*.yaml

.PHONY: relay-load
relay-load: setup ## 500 alerts a second for a minute through the alert relay, its backends silent
	@$(RUN) python -m monitoring.load

.PHONY: check
check: setup tools ## Format, lint, types, layers, generated files
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports
	@$(RUN) python semconv/generate.py --check && $(RUN) python docs/generate.py --check && $(RUN) python -m monitoring.generate --check
	@unformatted="$$(PATH="$$(collector/build.sh go):$$PATH" gofmt -l $(PROCESSOR) benchmarks/processor)" && \
	if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi
	@collector/build.sh generate-check
	@PATH="$$(collector/build.sh go):$$PATH" && export CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local && \
	for module in $(PROCESSOR) benchmarks/processor; do (cd $$module && go vet ./... && $(CURDIR)/.build/bin/staticcheck ./...) || exit 1; done
	@echo "check: all good"

.PHONY: format
format: setup ## Format and mend what can be mended
	@$(RUN) ruff format . && $(RUN) ruff check --fix .
	@PATH="$$(collector/build.sh go):$$PATH" gofmt -w $(PROCESSOR) benchmarks/processor

.PHONY: generate
generate: setup tools ## Write what is generated from semconv/ and metadata.yaml
	@PATH="$$(collector/build.sh go):$$PATH" $(RUN) python semconv/generate.py
	@$(RUN) python docs/generate.py
	@$(RUN) python -m monitoring.generate
	@collector/build.sh generate

.PHONY: bench
bench: bench-overhead bench-processor bench-jobs bench-calendar ## Every benchmark

.PHONY: bench-overhead
bench-overhead: setup binaries ## CPU and latency that telemetry adds to a request, beside the official packages
	@$(RUN) python -m benchmarks.overhead

.PHONY: bench-starts
bench-starts: setup ## What the launcher takes to start a process, beside the official one
	@$(RUN) python -m benchmarks.overhead.starts

.PHONY: bench-jobs
bench-jobs: setup ## What a job's instrumentation takes of CPU time, against 150 µs (JOBS=500 ROUNDS=21 ONLY=Celery)
	@$(RUN) python -m benchmarks.jobs

.PHONY: bench-calendar
bench-calendar: setup ## CPU that the launcher adds to a synchronisation of 1 000 events (ROUNDS=15 TOGETHER=5)
	@UV_PROJECT_ENVIRONMENT=$(ENVS)/calendar $(SYNC) --no-default-groups --group calendar
	@ROUNDS=$(or $(ROUNDS),15) TOGETHER=$(or $(TOGETHER),5) $(ENVS)/calendar/bin/python -m benchmarks.calendar

.PHONY: bench-processor
bench-processor: setup ## What completing identity costs a Collector, beside other processors (SPANS=500000, ONLY=alone,held,whole,delays)
	@collector/build.sh otelcol-shim
	@cd benchmarks/processor && $(BENCH_GO) run . -spans $(or $(SPANS),500000) -only '$(ONLY)'

.PHONY: reliability
reliability: setup ## Real Collectors killed, restarted, added and sampling under load: nothing acknowledged or audited is lost
	@collector/build.sh otelcol-shim
	@cd benchmarks/processor && $(BENCH_GO) test -count=1 -v ./...

.PHONY: reliability-short
reliability-short: setup binaries ## The same on a tenth of the traffic, in about 55 seconds
	@cd benchmarks/processor && $(BENCH_GO) test -count=1 -short ./...

.PHONY: fuzz
fuzz: setup ## Random OTLP and configurations at the processor (FUZZTIME=20s for each of the two)
	@cd $(PROCESSOR) && for target in FuzzConsumeTraces FuzzConfigValidate; do \
	$(BENCH_GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(or $(FUZZTIME),20s) . || exit 1; done

.PHONY: soak
soak: setup ## The processor's properties on a million random spans and more, refusals and kills included (about 10 minutes)
	@cd $(PROCESSOR) && IDENTITY_TEST_ROUNDS=17000 $(BENCH_GO) test -count=1 -timeout 60m -v \
	-run 'TestAnyOrder|TestQuietGives|TestContradicting|TestTightLimits|TestRefusalsLose|TestKilled|TestNothingIsLeft|TestLarge' .

.PHONY: setup
setup: $(UV)
	@$(SYNC)

$(CURDIR)/.build/uv/bin/uv:
	@echo "no uv on PATH: installing uv $(UV_VERSION) into .build/uv"
	@python3 -m venv .build/uv && .build/uv/bin/pip install --quiet uv==$(UV_VERSION) || \
	{ echo "python3 with venv and pip is needed (Debian: apt-get install python3-venv), or install uv: https://docs.astral.sh/uv"; exit 1; }

.PHONY: binaries
binaries: setup
	@collector/build.sh otelcol-shim && collector/build.sh jaeger

.PHONY: monitoring-binaries
monitoring-binaries: setup
	@collector/build.sh prometheus && collector/build.sh alertmanager

.PHONY: tools
tools: setup
	@collector/build.sh tools

# The environments of the sample's services: API and scheduler with the shim as a wheel, the connector
# and the calendar server without.
.PHONY: envs
envs: setup
	@UV_PROJECT_ENVIRONMENT=$(ENVS)/api $(SYNC) --no-default-groups --group saas-jobs --no-editable --reinstall-package otel-shim
	@UV_PROJECT_ENVIRONMENT=$(ENVS)/connector $(SYNC) --only-group saas-connector
	@UV_PROJECT_ENVIRONMENT=$(ENVS)/radicale $(SYNC) --only-group saas-radicale

.PHONY: clean
clean: ## Remove what was built
	@rm -rf .build .venv
