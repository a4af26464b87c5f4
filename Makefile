# Each target makes .venv by itself when it is missing, older than pyproject.toml, or made in another folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The peers that the benchmark measures live in a venv of their own.
BENCH_VENV := .bench-venv
BENCH_STAMP := $(BENCH_VENV)/.installed

.PHONY: demo test one-half other-half quick check faults coverage pythons lint format docs bench chart pictures release-check clean
.DEFAULT_GOAL := test

# A virtual environment only works in the folder that it was made in: one that was moved or copied is made anew.
# Its stamp holds that folder.
HERE := $(shell pwd -P)
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(HERE))
.PHONY: $(STAMP)
endif
ifneq ($(shell cat $(BENCH_STAMP) 2>/dev/null),$(HERE))
.PHONY: $(BENCH_STAMP)
endif

$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "adbc-telemetry needs Python 3.10 or later; set one with: make PYTHON=/path/to/python3")'
	@if [ -f $(STAMP) ] && [ "$$(cat $(STAMP))" != "$$(pwd -P)" ]; then rm -rf $(VENV); fi
	@if [ -x $(BIN)/python ] && ! $(BIN)/python -c '' 2>/dev/null; then rm -rf $(VENV); fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[adbc,collector,delta,kafka,otel]' --group dev
	@pwd -P > $(STAMP)

# make demo OPEN=1 leaves the page of its queries running in the end.
demo: $(STAMP)
	@$(BIN)/adbc-telemetry demo $(if $(OPEN),--open,--no-open)

# Two runs at once, a core for each, of about the same length: units and the whole collector, and all else.
ONE_HALF := tests/unit $(wildcard tests/integration/test_collector_*.py)
test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync one-half other-half

one-half: $(STAMP)
	$(BIN)/python -m pytest $(ONE_HALF)

other-half: $(STAMP)
	$(BIN)/python -m pytest tests $(addprefix --ignore ,$(ONE_HALF))

# The quick tests, by a rule that needs no list: see tests/conftest.py.
quick: $(STAMP)
	$(BIN)/python -m pytest tests/unit --quick --quiet -rfE --durations 5

# Less than a minute: one core lints while the other one tests.
check: $(STAMP)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint quick

faults: $(STAMP)
	$(BIN)/python -m pytest tests/faults --faults-table docs/faults.md

# Unit tests and fault suite; CONTRIBUTING.md tells what they do not reach.
coverage: $(STAMP)
	$(BIN)/python -m coverage erase
	-$(BIN)/python -m coverage run -m pytest tests/unit tests/faults --quiet
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# `make test` by each Python that the project claims and this machine has: make pythons PYTHONS=3.13 TARGET=quick
PYTHONS := 3.10 3.11 3.12 3.13
TARGET := test
pythons:
	@for version in $(PYTHONS); do \
	  if python$$version -c '' 2>/dev/null; then \
	    echo "Python $$version:"; \
	    $(MAKE) --no-print-directory PYTHON=python$$version VENV=.venv-$$version $(TARGET) || exit 1; \
	  else \
	    echo "Python $$version: not installed, left out"; \
	  fi; \
	done

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/typos
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(BIN)/python -m mypy
	$(BIN)/basedpyright
	$(BIN)/python -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

format: $(STAMP)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# The documentation as a site, in build/site: open build/site/index.html. A warning is an error, and so is a broken link.
docs: $(STAMP)
	$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet --jobs auto docs build/site

$(BENCH_STAMP): pyproject.toml benchmarks/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "adbc-telemetry needs Python 3.10 or later; set one with: make PYTHON=/path/to/python3")'
	@if [ -f $(BENCH_STAMP) ] && [ "$$(cat $(BENCH_STAMP))" != "$$(pwd -P)" ]; then rm -rf $(BENCH_VENV); fi
	@if [ -x $(BENCH_VENV)/bin/python ] && ! $(BENCH_VENV)/bin/python -c '' 2>/dev/null; then rm -rf $(BENCH_VENV); fi
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@echo "setting up $(BENCH_VENV) ..."
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[adbc]" --requirement benchmarks/requirements.txt
	@pwd -P > $(BENCH_STAMP)

bench: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python benchmarks/run.py --docs docs $(BENCH_ARGS)
	$(BENCH_VENV)/bin/python benchmarks/instrumentation.py

# The picture alone, from the run that is there.
chart: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python benchmarks/chart.py docs/performance.json docs/performance.svg

# The page, as the documentation shows it.
pictures: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/page_pictures.py docs

# What is built here, looked at as its users get it. Needs a network.
release-check: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group release
	$(BIN)/python release/check.py

clean:
	rm -rf $(VENV) $(VENV)-* $(BENCH_VENV) build .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
