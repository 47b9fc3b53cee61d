# make run    installs the light core into .venv and compares the bundled methods on the bundled text-to-image model
# make test   installs the developer's tools too and runs the tests
# make lint   style, types and the direction of imports
# make clean  removes .venv and every cache; runs/ stays

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
CONSTRAINTS := constraints/light-cpu.txt
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: run test lint clean

run: $(VENV)/.core
	$(BIN)/ilf-bench run $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q --durations=10 -m "not gpu and not slow and not weights" $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: written when an installation has succeeded, so that a second call does not repeat it and a cut one does.
$(VENV)/.created:
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(VENV)/.core: pyproject.toml $(CONSTRAINTS) | $(VENV)/.created
	$(INSTALL) --editable .
	touch $@

$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/.created
	$(INSTALL) --editable ".[dev]"
	touch $(VENV)/.core $@
