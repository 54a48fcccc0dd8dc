# Everything works from a bare checkout with python3.11, pip and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
NIST := $(VENV)/nist_strd
WORKERS ?= 2

.PHONY: help demo nist test test-postgres-15 setup check lint bench soak clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(VENV)/.server  ## start the service, fit real curves, predict unseen schedules
	$(BIN)/isoloss demo $(DEMO_FLAGS)

setup: $(VENV)/.everything  ## make .venv with everything

nist: $(NIST)/.unpacked  ## fetch the certified regression sets that the golden tests need

test: $(VENV)/.everything  ## run the tests
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not soak"

test-postgres-15: $(VENV)/.everything  ## run the store's tests on Debian's PostgreSQL 15
	ISOLOSS_POSTGRES_BIN=/usr/lib/postgresql/15/bin $(BIN)/pytest -n $(WORKERS) -m "not soak" tests/store

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

$(VENV)/.everything: $(VENV)/bin/python pyproject.toml constraints.txt $(NIST)/.unpacked
	$(PIP) -e ".[server,proxy,hooks,importers,dev]"
	@touch $@ $(VENV)/.server

# Only lmfit's source distribution carries the certified sets; of it nothing else is kept.
$(NIST)/.unpacked: | $(VENV)/bin/python
	@mkdir -p $(NIST)
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --no-binary lmfit -c constraints.txt \
		--dest $(NIST)/source lmfit
	tar --extract --gzip --file $(NIST)/source/lmfit-*.tar.gz --directory $(NIST) --strip-components 2 \
		--wildcards '*/NIST_STRD/*.dat'
	@rm -r $(NIST)/source
	@touch $@
