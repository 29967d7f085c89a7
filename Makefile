# Everything sets itself up: a virtual environment in .venv, and the compiled decoder where there is a C compiler.

PYTHON  ?= python3
SECONDS ?= 30
BIN     := .venv/bin
CODE    := src tests benchmarks docs
NATIVE  := $(shell find src -name '*.pyx' -o -name '*.pxi' -o -name '*.pxd' -o -name '*.h')

.DEFAULT_GOAL := help
.PHONY: help demo test slow unit lint bench docs clean tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

demo: .venv/ready ## a live shop in PostgreSQL, followed into ClickHouse while you watch (SECONDS=30)
	@$(BIN)/penstock demo --seconds $(SECONDS)

test: tools .venv/ready ## every test but the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

slow: tools .venv/ready ## the slow tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

unit: .venv/ready ## the tests that need no server
	$(BIN)/python -m pytest -q tests/unit

lint: .venv/ready ## format, rules, types, layers, length of files
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy src
	$(BIN)/lint-imports --no-cache
	@find $(CODE) -name '*.py' -o -name '*.pyx' -o -name '*.pxi' | xargs wc -l \
	  | awk '$$2 != "total" && $$1 > 500 { print $$2 " has " $$1 " lines; 500 are the most"; bad = 1 } END { exit bad }'

bench: tools .venv/ready ## speed and memory, side by side with others, as a table and as JSON in results/
	$(BIN)/python -m benchmarks

docs: .venv/ready ## bring the catalogues up to date, write the generated pages of docs/ again
	$(BIN)/python docs/languages.py
	$(BIN)/python docs/generate.py

clean: ## remove the environment, what was built, and the tests' servers
	rm -rf .venv .servers build results .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src -name '*.so' -delete
	find src/penstock/decode -name '*.c' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +

tools:
	@PYTHON=$(PYTHON) .ci/tools

# The compiled decoder is built again when its sources change; without a C compiler the reference decoder is used.
.venv/ready: .venv/installed $(NATIVE)
	@if [ -f setup.py ]; then $(BIN)/python setup.py --quiet build_ext --inplace; fi
	@$(BIN)/penstock --version
	@touch $@

.venv/installed: pyproject.toml $(wildcard setup.py)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "On Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
