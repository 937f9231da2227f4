# Everything runs from .venv, which `setup` makes; nothing outside this folder is touched.
# `make demo` needs Python 3.11+ and make, and the network once, for the installs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet
# Half as many again as there are cores: many tests wait for sockets and slots.
CORES   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WORKERS ?= $(shell expr $(CORES) + $(CORES) / 2)
URL ?= http://127.0.0.1:8501

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test lint format lock pictures programs clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/installed ## Make .venv with what running needs
setup-dev: $(VENV)/installed-dev ## ... and with what tests and lint need

demo: setup ## Start a chain, the indexer, the engine and the dashboard
	$(BIN)/capstan demo

test: setup-dev ## Run all tests
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup $(ARGS)

lint: setup-dev ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

programs: setup-dev ## Build localnet's on-chain programs from C
	$(BIN)/python -m localnet.programs.build

pictures: setup-dev ## Take docs/pictures from a running demo (URL=...)
	$(BIN)/python docs/pictures/take.py $(URL) docs/pictures

lock: setup-dev ## Resolve the requirements again, by name, version and hash
	$(BIN)/uv pip compile $(LOCK) --group build -o requirements.lock
	$(BIN)/uv pip compile $(LOCK) --group dev -c requirements.lock -o requirements-dev.lock
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
        --custom-compile-command "make lock" pyproject.toml

clean: ## Remove .venv and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	    tests/clients/node_modules tests/clients/.installing

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] < (3, 15); \
	    sys.exit(None if ok else "capstan needs Python 3.11 to 3.14, and this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# The stamps hold the lock they were made from, so that a changed lock installs again and an unchanged one asks nobody.
$(VENV)/installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing what capstan needs into $(VENV) (about 900 MB, once)"
	$(PIP) install --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing what capstan and its tests need into $(VENV) (about 1.8 GB, once)"
	$(PIP) install --require-hashes --requirement requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@ $(VENV)/installed
