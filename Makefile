# make run    installs the light core into .venv and compares the bundled methods on the bundled text-to-image model
# make test   installs the developer's tools too and runs the tests
# make lint   style, types and the direction of imports
# make audit  looks the locked packages up in the public advisories; needs a network, and fails without one
# make clean  removes .venv and every cache; runs/ stays

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
CONSTRAINTS := constraints/light-cpu.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
INSTALL := $(PIP) --constraint $(CONSTRAINTS)
LOCK := constraints/ci.lock

.PHONY: run test lint audit clean

run: $(VENV)/.core
	$(BIN)/ilf-bench run $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q --durations=10 -m "not gpu and not slow and not weights" $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: | $(VENV)/.created
	$(PIP) pip-audit
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement $(LOCK)

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

# LOCKED=1 takes only files whose SHA-256 is in the lock; see docs/security.md for where that can hold.
$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/.created
	$(if $(LOCKED),$(PIP) --require-hashes --requirement $(LOCK) && $(PIP) --no-deps --editable .,$(INSTALL) --editable ".[dev]")
	touch $(VENV)/.core $@
