# Verbs only: each calls cargo or a script. `make` alone prints them.
ARGS ?=
SECONDS ?= 120

.DEFAULT_GOAL := help
.PHONY: help run load test compose-test k8s-test test-faults lint fmt tidy deny doc conformance chart bench fuzz ci

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: ## build and start one node on the embedded broker (ARGS="--redis redis://..." adds flags)
	@scripts/run.sh $(ARGS)

load: ## build (release) and run the load tester (ARGS="chat --self"); ARGS="--help" lists what it can do
	@scripts/need.sh cargo cc && cargo run --release --package roomcast-loadtest --bin loadtest -- $(ARGS)

test: ## every test: cargo, RFC 6455 conformance, Python interop, browser (installs what is missing)
	@scripts/test.sh

compose-test: ## docker-compose.yml on real containers, 5 minutes and the image's build: scaling, failures, upgrade, audited (installs docker)
	@scripts/compose-test.sh

test-faults: ## the long forms of the fault tests, a quarter of an hour (FAULT_SEED=N repeats the random ones)
	@scripts/test-faults.sh

lint: ## fmt, clippy, tidy, deny, rustdoc, shellcheck
	@scripts/lint.sh

fmt: ## format the sources
	@cargo fmt --all

tidy: ## the rules of the house alone
	@cargo xtask tidy

deny: ## licences, bans and sources of the dependencies alone
	@scripts/need.sh cargo-deny && .cache/tools/bin/cargo-deny check bans licenses sources

doc: ## the API documentation, warnings denied
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

conformance: ## the Autobahn cases of RFC 6455 alone (ARGS="--cases 6.4." narrows them)
	@scripts/conformance.sh $(ARGS)

chart: ## what is derived from the Helm chart: k8s/, its README, its copies of dashboards and alerts (ARGS=--check only looks)
	@scripts/chart.sh $(ARGS)

bench: ## the benchmarks, short form, 6 minutes (ARGS="fanout --long" chooses); docs/benchmarks.md says what they measure
	@cargo bench --package roomcast-gateway --bench gateway -- $(ARGS)

fuzz: ## every fuzz target for SECONDS=120 each
	@scripts/fuzz.sh $(SECONDS)

k8s-test: ## the Helm chart on a real Kubernetes API (ARGS=--real: with pods that run); docs/k8s-test.md
	@scripts/k8s-test.sh $(ARGS)

ci: ## what CI runs: test, compose-test and lint, nothing skipped
	@.ci/run
