# Two commands do everything: `make run` shows Fleetline working, `make test` runs every test. Both install the
# system packages they need and say so. A first build takes about 20 minutes on two cores, most of it RocksDB;
# later ones take it from ccache.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
CARGO = . .ci/env.sh && cargo
WHAT ?= core
SECONDS ?= 5
PEERS ?= 1
SEED ?= 1

.PHONY: help run test setup fmt lint loom sim sim-test interop bench deny
# Seeds tokio's own draws, so that a simulation repeats exactly; other flags, so a folder of its own.
SIM = . .ci/env.sh && RUSTFLAGS="--cfg tokio_unstable" CARGO_TARGET_DIR=target/sim cargo

help: ## Shows this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18

setup:
	@.ci/setup.sh

run: setup ## Real flights as devices, two functions, a live page whose address is printed. Ctrl-C ends.
	@examples/flights/prepare.sh
	@echo "building fleetline (about 20 minutes the first time)"; $(CARGO) build -p fleetline
	@target/debug/fleetline demo

test: setup ## Runs every test: format, lints, units, contracts, crash points, simulation, real processes.
	@echo "== format";      $(CARGO) fmt --all --check
	@echo "== lints";       $(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@echo "== licences, bans, sources and advisories"; $(MAKE) --no-print-directory deny
	@echo "== the binary under test"; $(CARGO) build --quiet -p fleetline
	@echo "== what function workers need"; examples/flights/prepare.sh; broker/wasm/samples/build.sh target/wasm-samples
	@echo "== tests";       $(CARGO) test --workspace --features fleetline-state/rocks
	@echo "== the console's page in a browser"; broker/console/tests/browser/run.sh
	@echo "== public packages against real nodes"; $(MAKE) --no-print-directory interop
	@echo "== simulation, run twice and compared"; $(MAKE) --no-print-directory sim-test
	@echo "== loom models"; $(MAKE) --no-print-directory loom
	@echo "all tests passed"

deny: ## Checks licences, bans, sources and advisories of all dependencies (needs cargo-deny; FLEETLINE_DENY=1 installs it).
	@if [ "$${FLEETLINE_DENY:-0}" = 1 ] && ! command -v cargo-deny >/dev/null; then cargo install --locked cargo-deny; fi; \
	if ! command -v cargo-deny >/dev/null; then \
	  echo "cargo-deny is not installed: skipped (FLEETLINE_DENY=1 make deny installs it, some minutes)"; exit 0; fi; \
	cargo deny --log-level error check licenses bans sources; \
	if cargo deny --log-level off fetch db 2>/dev/null; then cargo deny --log-level error check advisories; \
	else echo "the advisory database can't be fetched: advisories skipped"; fi

loom: setup ## Explores the interleavings of what is synchronised by hand.
	@. .ci/env.sh && RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
	  cargo test --quiet -p fleetline-log --lib queue

sim: setup ## Simulates a cluster from a seed: make sim SEED=7
	@$(SIM) run --quiet -p fleetline-sim -- --seed $(SEED)

sim-test: setup
	@$(SIM) test --quiet -p fleetline-sim

interop: setup ## Runs the public SDKs and clients (Python, Node, mosquitto) against real nodes, over TLS.
	@$(CARGO) build --quiet -p fleetline
	@jepsen/interop/setup.sh
	@jepsen/interop/run.py --no-setup

bench: setup ## Measures: make bench WHAT=core|mqtt SECONDS=5 PEERS=1; JSON lines on standard output.
	@. .ci/env.sh && cargo build --quiet --release -p fleetline -p fleetline-load >&2
	@target/release/fleetline-bench $(WHAT) --seconds $(SECONDS) --peers $(PEERS)

fmt: ## Formats the source.
	@$(CARGO) fmt --all

lint: ## Lints the source.
	@$(CARGO) clippy --workspace --all-targets -- -D warnings
