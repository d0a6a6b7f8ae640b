# Two commands: `make demo` shows it working, `make test` proves it. Everything goes into .venv/ here; system packages that
# only the tests need are installed by .ci/install-system-packages.
SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.installed
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)

.PHONY: demo test coverage test-long fuzz bench lint docs lock clean venv
.DEFAULT_GOAL := demo

venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	.ci/make-venv "$(PYTHON)" $(VENV)
	touch $@

demo: $(STAMP)
	$(VENV)/bin/dockwarden demo $(if $(KEEP),--keep)

test: $(STAMP)
	.ci/install-system-packages
	.ci/build-clair >/dev/null
	.ci/build-part kubernetes >/dev/null
	.ci/build-part pod-security >/dev/null
	.ci/test $(VENV)/bin/python

# Only the tests of `make test` whose coverage is measured, then what they cover by room and the gate.
coverage: $(STAMP)
	.ci/test $(VENV)/bin/python measured

test-long: $(STAMP)
	.ci/install-system-packages
	.ci/build-clair >/dev/null
	.ci/build-part pod-security >/dev/null
	$(VENV)/bin/python -m pytest -m long
	tests/shifted_clock/run +400d $(VENV)/bin/python -m pytest -m "not long and not real_clock" -p no:cacheprovider

# Every reader of foreign bytes (tests/fuzz/targets.py) for SECONDS each; one of them with TARGET=name.
SECONDS_EACH := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),10)
fuzz: $(STAMP)
	FUZZ_SECONDS=$(SECONDS_EACH) $(VENV)/bin/python -m pytest tests/fuzz -p no:cacheprovider $(if $(TARGET),-k "[$(TARGET)]")

# All benchmarks, in one table; see docs/performance.md. ONLY=scan runs one of them.
bench: $(STAMP)
	$(VENV)/bin/python -m benchmarks.run -o bench.md $(if $(ONLY),--only $(ONLY))

lint: $(STAMP)
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

# The lists in docs/ that are made from the plug-ins: checks, formats, schemes, targets.
docs: $(STAMP)
	$(VENV)/bin/python -m tests.documentation

# Hashes, no index addresses: a lock names packages, never where they come from. The second is the first without what only
# developers need: what an image of ours holds.
lock: $(STAMP)
	$(VENV)/bin/uv pip compile -q pyproject.toml --group dev --extra otel --extra pkcs11 --extra trivy --generate-hashes --universal \
	  --no-emit-index-url --no-header --no-annotate --upgrade -o requirements.lock
	$(VENV)/bin/uv pip compile -q pyproject.toml --extra otel --extra pkcs11 --extra trivy --generate-hashes --universal -c requirements.lock \
	  --no-emit-index-url --no-header --no-annotate -o requirements-runtime.lock

clean:
	rm -rf $(VENV) var dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
