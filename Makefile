# Everything here needs only Python 3.11 or newer and make: what is missing is installed into .venv, once, and
# again when pyproject.toml changes. PYTHON=python3.12 names the interpreter, UV= keeps uv out (.ci/venv).

N ?= 100
MINUTES ?= 10
JOBS ?= 0
COVERAGE ?= .greenroom/coverage.json

BIN := .venv/bin
#: What a user gets. Short, so that the first `make demo` is.
INSTALLED := .venv/.installed
#: That, and everything that the tests and the checks need.
INSTALLED_ALL := .venv/.installed-all

RULES := tests/test_layers.py tests/test_cores.py tests/test_tidy.py tests/test_packaging.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check storm nightly selftest bench venv clean
.PHONY: check-lint check-format check-mypy check-pyright check-rules

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## run the demonstration
	$(BIN)/python examples/stdlib_index.py

test: $(INSTALLED_ALL) ## run every test: first those without processes, then the live ones in series
	$(BIN)/python -m pytest -n 2 -rs -m "not live"
	$(BIN)/python -m pytest -n 0 -rs -m live

check: check-lint check-format check-mypy check-pyright check-rules ## lint, format, types, layers and wheel

check-lint: $(INSTALLED_ALL)
	$(BIN)/ruff check .

check-format: $(INSTALLED_ALL)
	$(BIN)/ruff format --check .

check-mypy: $(INSTALLED_ALL)
	$(BIN)/mypy

check-pyright: $(INSTALLED_ALL)
	$(BIN)/basedpyright

check-rules: $(INSTALLED_ALL)
	$(BIN)/python -m pytest -n 0 -rs $(RULES)

storm: $(INSTALLED_ALL) ## kill children, nodes, brokers and clients under load, N times each
	$(BIN)/python tests/live/storm.py --n $(N)

nightly: $(INSTALLED_ALL) ## break simulated clusters for MINUTES=10, and tell which fault has struck at which moment
	$(BIN)/python -m pytest -n $(JOBS) -q --timeout=0 --gr-profile=nightly --gr-minutes=$(MINUTES) \
	  --gr-coverage=$(COVERAGE) tests/supervisor/harness/test_generic.py

selftest: $(INSTALLED_ALL) ## turn off each safeguard and see that an invariant notices (ONLY=words: some of them)
	$(BIN)/python -m greenroom.testing selftest $(if $(ONLY),--only '$(ONLY)')

bench: $(INSTALLED_ALL) ## measure the speed on this machine (ROW=latency: one row; FULL=1: long)
	$(BIN)/python benchmarks/run.py $(if $(ROW),--rows $(ROW)) $(if $(FULL),--full)

venv: $(INSTALLED_ALL) ## make .venv with everything in it

clean: ## remove caches and builds; .venv and .greenroom stay
	rm -rf build dist greenroom.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find actors transport supervisor tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter is a prerequisite, so that a .venv whose Python was removed or replaced is mended too. Its
# own rule does nothing: .ci/venv makes it in the step below.
$(BIN)/python: ;

$(INSTALLED): pyproject.toml .ci/venv $(BIN)/python
	@.ci/venv
	@touch $@

$(INSTALLED_ALL): pyproject.toml .ci/venv $(BIN)/python
	@.ci/venv check
	@touch $(INSTALLED) $@
