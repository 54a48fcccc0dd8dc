# Everything works from a bare checkout with python3.11, pip and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2

.PHONY: help demo test setup check lint bench soak clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.server  ## start the service, fit real curves, predict unseen schedules
	$(BIN)/isoloss demo $(DEMO_FLAGS)

setup: $(VENV)/.everything  ## make .venv with everything

test: $(VENV)/.everything  ## run the tests
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not soak"

check: lint test  ## what CI runs: format, lint, types, architecture, tests

lint: $(VENV)/.everything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.everything  ## measure speed and accuracy; see benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

soak: $(VENV)/.everything  ## the long fault and fuzz suites
	$(BIN)/pytest -m soak --timeout 3600

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[server]"
	@touch $@

$(VENV)/.everything: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[server,proxy,hooks,dev]"
	@touch $@ $(VENV)/.server
