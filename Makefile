# Every target makes the virtual environment it needs by itself, once.  `make help` lists them.
#   make demo PYTHON=python3.12     another interpreter
#   make test ARGS="-k house"       more arguments for pytest
#   make bench BENCH=concept_neurons  one benchmark instead of all

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test fuzz lint style contract types format bench docs claims studio-page venv clean

# Both workers of the tests and the processes they start share what is compiled.
test: export PYTHONDONTWRITEBYTECODE =

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
BENCH ?= *
# The first interpreter that is new enough.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.stamp-run ## a new subject from its pictures to new scenes, then two in one, as one HTML report
	$(BIN)/photopic demo $(ARGS)

test: $(VENV)/.stamp-tests ## the test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

fuzz: $(VENV)/.stamp-tests ## a minute of mutated edit files for their reader
	$(BIN)/python tests/fuzz/fuzz_editfile.py $(or $(ARGS),--seconds 60)

lint: style contract types ## style, the import contract and types

style: $(VENV)/.stamp-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

contract: $(VENV)/.stamp-tests
	$(BIN)/lint-imports

types: $(VENV)/.stamp-tests
	$(BIN)/mypy

format: $(VENV)/.stamp-tests ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.stamp-tests ## measure: every benchmark, or those of a name or pattern with BENCH=<name>
	@for name in $$($(BIN)/python -m benchmarks --list '$(BENCH)'); do echo "$$name"; $(BIN)/python -m benchmarks "$$name" $(ARGS); done
	$(BIN)/python -m benchmarks.harness.ledger --docs

docs: $(VENV)/.stamp-tests ## write methods.json and the generated parts of the docs
	$(BIN)/python -m photopic.cli.manifest
	$(BIN)/python docs/build.py

claims: $(VENV)/.stamp-run ## every claim with what was measured, reached or not
	@$(BIN)/python -m benchmarks.harness.ledger

studio-page: ## build the page of photopic studio from its sources (needs Node.js and npm; the built page is committed)
	cd src/photopic/studio/frontend && npm ci --silent && npm run build

venv: $(VENV)/.stamp-tests ## the virtual environment with everything for development

clean: ## forget that the environment is installed, and delete caches
	rm -rf $(VENV)/.stamp-* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "photopic needs Python 3.11 or newer; none found: name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[peft]'
	@touch $@

$(VENV)/.stamp-tests: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[tests]'
	@touch $@ $(VENV)/.stamp-run
