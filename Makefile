# make run    installs the light core into .venv and compares the bundled methods on the bundled text-to-image model
# make test   installs the developer's tools too and runs the tests
# make test-all      `make test`, then every family x method, a simulated GPU, the notebooks of examples/, `make test-metrics`; what .ci/run calls
# make test-low-bit  INT8 and FP8 on every family, with torchao beside the environment
# make test-notebooks  executes examples/*.ipynb
# make test-slow     full-size models, coverage of intervals, processes of their own: tens of minutes, not part of the others
# make metrics       installs the published metrics' packages into .venv-metrics (7 GB); the light core stays as it is
# make test-metrics  runs the tests of the metrics there
# make site   installs mkdocs into .venv-site and builds the documentation's site into build/site, with every warning an error
# make test-site     builds the site, then checks its links, its search and its pages in Chromium
# make lint   style, types and the direction of imports
# make audit  looks the locked packages up in the public advisories; needs a network, and fails without one
# WORKERS=N   the processes that share the files of `make test`; 0: none beside pytest's own
# make clean  removes all environments and every cache; runs/ stays

PYTHON ?= python3
VENV ?= .venv
VENV_METRICS ?= .venv-metrics
VENV_SITE ?= .venv-site
ARGS ?=
WORKERS ?= 2
CONSTRAINTS := constraints/light-cpu.txt
FULL := constraints/full-metrics.txt
PIP := python -m pip install --disable-pip-version-check
BIN := $(VENV)/bin
INSTALL := $(BIN)/$(PIP) --constraint $(CONSTRAINTS)
LOCK := constraints/ci.lock
FULL_LOCK := constraints/full-metrics.lock
SITE_CONSTRAINTS := constraints/site.txt
SITE_LOCK := constraints/site.lock

# Takes only files whose SHA-256 is in a lock, pip and setuptools first, which then build what has no wheel.
define locked # environment, lock
	grep -E '^(pip|setuptools)==' $(2) > $(1)/tools.txt
	$(1)/bin/$(PIP) --require-hashes --requirement $(1)/tools.txt
	$(1)/bin/$(PIP) --require-hashes --no-deps --no-build-isolation --requirement $(2)
	$(1)/bin/$(PIP) --no-build-isolation --no-deps --editable .
endef
# The long suites, one marker of pytest each. `make test` leaves them out; each runs in a process of its own.
LONG := slow simulated families documents notebooks site
SHORT := not gpu and not weights$(foreach suite,$(LONG), and not $(suite))

.PHONY: run test test-all $(LONG:%=test-%) test-low-bit metrics test-metrics site lint audit clean

run: $(VENV)/.core
	$(BIN)/ilf-bench run $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q --numprocesses $(WORKERS) --dist loadfile --durations=10 -m "$(SHORT)" $(ARGS)

test-all: test test-families test-low-bit test-documents test-simulated test-notebooks test-site test-metrics

$(LONG:%=test-%): test-%: $(VENV)/.dev
	$(BIN)/python -m pytest -q --durations=5 -m "$* and not gpu and not weights" $(ARGS)

test-low-bit: .torchao/.installed
	PYTHONPATH=.torchao $(BIN)/python -m pytest -q --durations=5 -m "not gpu" tests/families/test_low_bit.py tests/baselines/test_quantised.py $(ARGS)

metrics: $(VENV_METRICS)/.installed

test-metrics: metrics
	$(VENV_METRICS)/bin/python -m pytest -q --disable-warnings --durations=5 -m "not gpu and not weights" tests/metrics $(ARGS)

test-site: site

site: $(VENV_SITE)/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV_SITE)/bin/python -m mkdocs build --strict --quiet --config-file website/mkdocs.yml
	@echo "build/site: its search needs a server, for example: python -m http.server --directory build/site"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

audit: | $(VENV)/.created
	$(BIN)/$(PIP) pip-audit
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement $(LOCK) \
		|| { echo "NOT AUDITED: the advisories could not be read, or one of them names a package above" >&2; exit 1; }

clean:
	rm -rf $(VENV) .torchao $(VENV_METRICS) $(VENV_SITE) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: written when an installation has succeeded, so that a second call does not repeat it and a cut one does.
%/.created:
	$(PYTHON) -m venv --clear $*
	touch $@

$(VENV)/.core: pyproject.toml $(CONSTRAINTS) | $(VENV)/.created
	$(INSTALL) --editable .
	touch $@

# LOCKED=1 takes only files that the lock holds; see docs/security.md for where that can be.
$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/.created
	$(if $(LOCKED),$(call locked,$(VENV),$(LOCK)),$(INSTALL) --editable ".[dev]")
	touch $(VENV)/.core $@

$(VENV_SITE)/.installed: pyproject.toml $(SITE_CONSTRAINTS) | $(VENV_SITE)/.created
	$(if $(LOCKED),$(call locked,$(VENV_SITE),$(SITE_LOCK)),$(VENV_SITE)/bin/$(PIP) --quiet --constraint $(SITE_CONSTRAINTS) --editable ".[site]")
	touch $@

# Beside the environment: wherever torchao is installed diffusers imports it, which takes seconds of every start.
.torchao/.installed: constraints/torchao.lock | $(VENV)/.dev
	rm -rf .torchao
	$(BIN)/$(PIP) --quiet --require-hashes --no-deps --target .torchao --requirement constraints/torchao.lock
	touch $@

$(VENV_METRICS)/.installed: pyproject.toml $(FULL) | $(VENV_METRICS)/.created
	$(if $(LOCKED),$(call locked,$(VENV_METRICS),$(FULL_LOCK)),$(metrics-by-version))
	touch $@

define metrics-by-version
	$(VENV_METRICS)/bin/$(PIP) --quiet --constraint $(FULL) --editable ".[metrics,dev]"
	$(VENV_METRICS)/bin/$(PIP) --quiet --no-deps image-reward==1.5 fairscale==0.4.13
endef
