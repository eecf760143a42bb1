# Everything here needs only make and Python 3.11 or newer with venv; the rest is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9

# The words that follow a test target's name: make test ARGS="-k elizaos"
ARGS :=

.PHONY: help
help:
	@echo "make demo    simulator, bridge and status page until Ctrl-C; ONCE=1 runs it through and stops"
	@echo "make test    the tests; those that need a real Jaeger, Phoenix or elizaOS skip where there is none"
	@echo "make soak    a quarter of an hour of attacks, and their figures into README.md"
	@echo "make live    the tests against a real Jaeger, Phoenix and elizaOS, which are built (Go) and installed (pip, npm)"
	@echo "make check   linters, types, layers, docs, deploy files"
	@echo "make docs    write anew what the docs take from the program"
	@echo "make traces  write docs/traces anew, from what real backends show"
	@echo "make jaeger  a Jaeger on its usual ports until Ctrl-C, built with Go where there is none"
	@echo "make lock    pin the newest allowed versions of everything"
	@echo "make clean   remove what make made"

.PHONY: demo
demo: $(VENV)/installed
	$(BIN)/runspan demo $(if $(ONCE),--once)

.PHONY: test
test: $(VENV)/installed
	$(BIN)/pytest -n 3 $(ARGS)

.PHONY: soak
soak: $(VENV)/installed
	$(BIN)/python -m scripts.soak $(ARGS)

.PHONY: live
live: $(VENV)/installed
	RUNSPAN_LIVE=required $(BIN)/pytest tests/live $(ARGS)

.PHONY: check
check: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/docs.py --check
	deploy/lint $(BIN)

.PHONY: docs
docs: $(VENV)/installed
	$(BIN)/python scripts/docs.py

.PHONY: traces
traces: $(VENV)/installed
	RUNSPAN_DOCS=write RUNSPAN_LIVE=required $(BIN)/pytest tests/live/test_trace_docs.py

.PHONY: jaeger
jaeger: $(VENV)/installed
	$(BIN)/python -m tests.live.jaeger

# Runtime and build pins are taken from the developers' ones, so that what is tested is what is shipped.
COMPILE := $(BIN)/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes \
	--no-emit-index-url --no-annotate --no-header
.PHONY: lock
lock: $(VENV)/installed
	$(BIN)/pip install --quiet 'uv==$(UV_VERSION)'
	$(COMPILE) --upgrade --extra dev --extra prices --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	$(COMPILE) --constraint requirements-dev.lock --extra prices --output-file requirements-prices.lock pyproject.toml
	echo hatchling | $(COMPILE) --constraint requirements-dev.lock --output-file requirements-build.lock -

.PHONY: clean
clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: requirements-dev.lock pyproject.toml
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		echo "making $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); \
	done; echo "Python 3.11 or newer is needed, as python3 or python3.11 to python3.14 on PATH" >&2; exit 1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
