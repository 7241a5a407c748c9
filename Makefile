# Lockgate. `make run` on a machine with Python 3.11 is all it takes; `make help` lists the rest.

# Overridable: make run PORT=9000 DATA=/srv/lockgate PYTHON=/opt/python3.11/bin/python3
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8080
DATA ?= data
ARGS ?=
JOBS ?= 2
ROUNDS ?= 300
SEED ?= 7
RECORDS ?= 10000

# Paths are relative on purpose: make cannot handle the spaces that the path of this folder may have.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip's hundreds of lines as one that counts; its errors come by standard error, and its exit status counts.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
COUNT = awk -v total="$$(grep -c '^[a-z0-9].*==' $(1))" -v tty="$$(test -t 1 && echo 1)" ' \
	/^Collecting / {n++; if (tty) printf "\r  %d of about %d packages", n, total; \
	                else if (n % 25 == 0) print "  " n " of about " total " packages"; fflush()} \
	/^Installing collected/ {printf "%s  unpacking them\n", tty ? "\n" : ""; fflush()}'
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet

.PHONY: help run install dev test conformance faults model bench lint fmt lock clean
.DEFAULT_GOAL := help

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

run: $(VENV)/run.stamp ## Set up what is missing, then run everything (PORT=9000 and DATA=/srv/lockgate stand for --port and --data)
	@echo "Starting on port $(PORT) with the data in $(DATA) (for others: make run PORT=9000 DATA=/srv/lockgate)"
	@exec "$(BIN)/lockgate" up --data "$(DATA)" --port "$(PORT)" $(ARGS)

install: $(VENV)/run.stamp ## Set up the environment in .venv, without running anything

dev: $(VENV)/dev.stamp ## Set up the environment with what tests and checks need

test: $(VENV)/dev.stamp ## Run the tests (ARGS="tests/unit -k nats")
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadscope $(ARGS)

conformance: $(VENV)/dev.stamp ## Run the official MCP conformance suite through two replicas, and show what it says (needs npm)
	@CI=true $(BIN)/python -m pytest -s tests/conformance $(ARGS)

faults: $(VENV)/dev.stamp ## Switch things off while replicas, NATS and policy fail, some hundred times (ROUNDS=300 SEED=7; an hour)
	@ROUNDS=$(ROUNDS) SEED=$(SEED) RECORDS=$(RECORDS) $(BIN)/python -m pytest -s tests/faults $(ARGS)

model: $(VENV)/dev.stamp ## Search the large scenarios of the lease protocol (docs/lease.md)
	@$(BIN)/python -m tests.model $(ARGS)

bench: $(VENV)/dev.stamp ## Measure token refreshes, the control log at its largest, and credentials (ARGS is for none)
	@$(BIN)/python -m bench.auth
	@$(BIN)/python -m bench.control
	@$(BIN)/python -m bench.credentials

lint: $(VENV)/dev.stamp ## Check style, types and the boundaries between services
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/dev.stamp ## Format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Pin the dependencies of pyproject.toml anew (needs uv; ARGS=--upgrade for newer ones)
	$(LOCK) $(ARGS) --extra embedded pyproject.toml requirements/build.in -o requirements/run.lock
	$(LOCK) $(ARGS) --extra dev -c requirements/run.lock --override requirements/overrides.in pyproject.toml requirements/build.in -o requirements/dev.lock

clean: ## Remove the environment and all caches; the data directory stays
	rm -rf $(VENV) tests/node/node_modules build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment. The stamps say what it was last made from, so that the next run starts at once.
$(VENV)/made.stamp:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Lockgate needs Python 3.11 or newer; \"$(PYTHON)\" is not. Try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Making the environment in $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV) || { \
		echo "Python could not make an environment. On Debian and Ubuntu: apt install python3.11-venv" >&2; exit 1; }
	@touch $@

$(VENV)/run.stamp: $(VENV)/made.stamp requirements/run.lock pyproject.toml
	@echo "Installing what requirements/run.lock names (about a minute)"
	@$(PIP) install --require-hashes --no-deps -r requirements/run.lock | $(call COUNT,requirements/run.lock)
	@echo "Installing Lockgate itself"
	@$(PIP) install --quiet --no-index --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.lock
	@echo "Installing what requirements/dev.lock adds for tests and checks"
	@$(PIP) install --require-hashes --no-deps -r requirements/dev.lock | $(call COUNT,requirements/dev.lock)
	@touch $@
