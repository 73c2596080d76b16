# The developer's loop. `make` alone lists it; every target installs what it needs first.
#
#   make run                      a node in the foreground, from nothing but Python and make
#   make join                     on a further machine
#   make quick                    while you write
#   make check && make test       before every commit
#   make test T=tests/core        one directory, file or test
#
# PYTHON=…  the interpreter to build .venv from (>= 3.11; found by itself)
# ARGS=…    more arguments for `overlay up`, pytest, the benchmarks

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
T ?= tests
ARGS ?=
# Tests run make too: what this run was told is not for them.
unexport T ARGS
PYTEST := env --unset=MAKEFLAGS --unset=MAKELEVEL $(BIN)/python -m pytest

# gcc, libgmp-dev and python3-dev build libp2p's fastecdsa; the rest make networks for the tests.
# Of coturn only the programs are used: the service that Debian starts with it is switched off.
SYSTEM_PACKAGES := gcc libgmp-dev python3-dev nftables iproute2 util-linux procps coturn
EXTRAS := sim,sweep,test,dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --constraint constraints.txt
# Below this share of the core's lines and branches its own tests fail.
COVERED := 95
# More processes than two cores: some wait for real nodes while another computes. Files stay
# together as long as they can; who has nothing left takes from who has most.
WORKERS = $(if $(wildcard $(T)/.),--numprocesses=3 --dist=worksteal)
ROOT_ON_DEBIAN := [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null

# --- using it ----------------------------------------------------------------------------------

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { \
	  line = sprintf("  make %-16s", $$1); words = split($$2, word, " "); \
	  for (i = 1; i <= words; i++) { \
	    if (length(line) + length(word[i]) > 78) { print line; line = sprintf("%23s", "") } \
	    line = line " " word[i]; \
	  } \
	  print line }' Makefile

.PHONY: run
run: $(VENV)/.run ## start a node in the foreground: prints its invite link, a QR code, the command for the second machine
	@exec $(BIN)/overlay up --print-invite $(ARGS)

.PHONY: join
join: $(VENV)/.run ## on a further machine: asks for the invite link, and enters that network
	@exec $(BIN)/overlay join - $(ARGS)

.PHONY: install
install: $(VENV)/.run ## only install: puts the overlay command into .venv/bin, and says how to go on
	@echo "overlay is installed in $(VENV); next, for a first node: $(BIN)/overlay up"

.PHONY: install-sim
install-sim: $(VENV)/.sim ## also what plots and sweeps of the simulator need: matplotlib, dask.distributed

.PHONY: demo
demo: $(VENV)/.run ## sixteen processes on this machine become a mesh and outlive its creator
	@exec $(BIN)/python demos/mesh.py $(ARGS)

.PHONY: demo-firewalled
demo-firewalled: $(VENV)/.run $(VENV)/.system ## sixteen nodes behind firewalls: only negotiation through the mesh can link them
	@exec $(BIN)/python demos/firewalled.py $(ARGS)

.PHONY: demo-nat
demo-nat: $(VENV)/.run $(VENV)/.system ## eight nodes behind eight kinds of NAT outlive both public ones, and the worst two still talk
	@exec $(BIN)/python demos/nat.py $(ARGS)

.PHONY: mesh-60
mesh-60: $(VENV)/.run ## sixty processes on this machine become a mesh, and half of them outlive the rest
	@exec $(BIN)/python demos/mesh60.py $(ARGS)

# --- working on it -----------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.test ## every test but the longest (T=tests/core for some)
	@$(PYTEST) $(WORKERS) -m "not soak" $(T) $(ARGS)

.PHONY: quick
quick: $(VENV)/.test ## the tests that take seconds, in a minute
	@$(PYTEST) $(WORKERS) -m "not slow and not netns and not soak" --ignore=tests/acceptance $(T) $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.test ## how much of the core its own tests run; too little fails
	@$(PYTEST) $(WORKERS) -m "not soak" --cov=overlay.core --cov-fail-under=$(COVERED) tests/core $(ARGS)

.PHONY: soak
soak: $(VENV)/.test ## the longest tests: full sizes, every seed, sixty processes (fifty minutes); docs/soak.md
	@$(BIN)/python demos/mesh60.py
	@$(PYTEST) $(WORKERS) -m soak $(T) $(ARGS)

.PHONY: check
check: $(VENV)/.test ## format, lint, types, arrows and docs, in seconds
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy overlay tests demos docs benchmarks .ci/wheel.py
	@arrows=$$($(BIN)/lint-imports --no-logo) || { echo "$$arrows"; exit 1; }
	@$(PYTEST) --quiet tests/test_style.py tests/docs -m "not slow"

.PHONY: format
format: $(VENV)/.test ## let ruff format and fix what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(VENV)/.test ## write the generated parts and the captures of docs/ again
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m docs.captures

.PHONY: bench
bench: $(VENV)/.test ## measure against the bars; writes benchmarks/results.json and docs/benchmarks.md
	@exec $(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-nat
bench-nat: $(VENV)/.test ## try every pair of homes behind NATs, the hard cases, and a mix (three quarters of an hour); writes benchmarks/nat*.json and docs/nat.md
	@exec $(BIN)/python -m benchmarks.nat $(ARGS)

.PHONY: bench-sim
bench-sim: $(VENV)/.test ## run the published experiments at full size (hours); writes docs/benchmarks.md
	@exec $(BIN)/python -m benchmarks.simulations $(ARGS)

.PHONY: wheel
wheel: $(VENV)/.test ## build the wheel and try it alone in a new environment
	@$(BIN)/python .ci/wheel.py

.PHONY: clean
clean: ## forget what was built and installed
	rm -rf $(VENV) build dist .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# --- what the targets need: each stamp is made once and again when what it depends on changes ---

$(BIN)/python:
	@python="$(PYTHON)"; \
	for found in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	  [ -n "$$python" ] && break; \
	  if "$$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$found; fi; \
	done; \
	[ -n "$$python" ] || { echo "No Python >= 3.11 found. Install one, or say where it is: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  if $(ROOT_ON_DEBIAN); then apt-get -qq update && apt-get -qq install -y python3-venv >/dev/null; \
	  else echo "$$python cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)." >&2; exit 1; fi; \
	fi; \
	echo "making a virtual environment in $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing overlay and the libraries it needs into $(VENV) (half a minute, once)"
	@$(INSTALL) --no-compile --editable .
	@touch $@

$(VENV)/.sim: $(VENV)/.run
	@echo "installing what plots and sweeps need (a minute, once)"
	@$(INSTALL) --editable '.[sim,sweep]'
	@touch $@

$(VENV)/.test: $(VENV)/.run $(VENV)/.system
	@echo "installing what development needs (a few minutes, once)"
	@$(INSTALL) --editable '.[$(EXTRAS)]'
	@$(INSTALL) --editable '.[interop]' || echo "libp2p did not install (it needs gcc and libgmp's headers): its tests will be skipped" >&2
	@touch $@

$(VENV)/.system: | $(BIN)/python
	@if ! $(ROOT_ON_DEBIAN); then \
	  echo "not root on Debian: tests that need one of these are skipped if it is missing: $(SYSTEM_PACKAGES)"; \
	elif ! dpkg-query --show --showformat='$${db:Status-Status}\n' $(SYSTEM_PACKAGES) 2>/dev/null \
	    | awk '$$1 == "installed" { n++ } END { exit n != $(words $(SYSTEM_PACKAGES)) }'; then \
	  echo "installing $(SYSTEM_PACKAGES)"; \
	  coturn=$$(dpkg-query --show --showformat='$${db:Status-Status}' coturn 2>/dev/null || :); \
	  apt-get -qq update; \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	  [ "$$coturn" = installed ] || systemctl --quiet disable --now coturn >/dev/null 2>&1 || :; \
	fi
	@touch $@
