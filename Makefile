# Two commands for a bare machine with Python 3.11+, make and git: make quickstart, make test.
# Each creates .venv, installs into it (again only when pyproject.toml or constraints.txt
# changed), and runs. ARGS adds options, e.g. make quickstart ARGS="--scale full".

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,\
	$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CODE := alignlab tests benchmarks docs
ARGS ?=

.PHONY: quickstart test test-all robustness smoke servers mutations bench docs lint types check clean

quickstart: $(INSTALLED)
	$(BIN)/alignlab run experiments/quickstart $(ARGS)

# Two processes with one thread each. A file's tests stay in one process and share its fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test: $(INSTALLED)
	$(PYTEST) -m "not slow" $(ARGS)

# Hours: every test, 10,000 fuzz cases, 250 kills, all mutations.
test-all: $(INSTALLED)
	ALIGNLAB_FUZZ=10000 ALIGNLAB_KILLS=250 $(PYTEST) $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutations.py

robustness: $(INSTALLED)
	ALIGNLAB_FUZZ=1000 ALIGNLAB_KILLS=20 $(PYTEST) tests/robustness $(ARGS)

smoke: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/experiments/test_smoke.py tests/experiments/test_recipes.py \
		-k "not header" $(ARGS)

# Needs PostgreSQL and Chromium on the machine: apt-get install postgresql chromium.
servers: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/sweep/test_postgresql.py tests/report/test_browser.py $(ARGS)

mutations: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutations.py $(ARGS)

# Beside TRL, Hugging Face generate and the limit of matrix products; goes on where it was left.
# ARGS="--quick" looks at four cases in minutes; all of them and the sweep take hours.
bench: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py --sweep --results results/benchmarks $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/own.py --results results/benchmarks

# The documentation as a site in site/; a broken link is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/codespell

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("alignlab needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $(INSTALLED)

clean:
	rm -rf $(VENV)
