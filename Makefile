# The main jobs. `make help` lists them. Needs: git, make, and Python 3.11, 3.12 or 3.13 with venv.

.DEFAULT_GOAL := help
.PHONY: help install demo lint test quick test-slow docs up down bench faults mutants lock lock-check clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
LABEL_STUDIO := .venv-label-studio
UV := $(VENV)/.uv/bin/uv
HOME_DIR := .headrace
PEERS := .venv-bench
PYTEST_ARGS ?=
MUTANTS_ARGS ?=
BENCH_ARGS ?=

unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed $(LABEL_STUDIO)/headrace-lock.sha256 ## Make the environments (a second run reuses them)

demo: install ## Real data the whole way, on real servers, to a trained model
	@$(BIN)/python -m infra.demo

lint: install ## Style, spelling, types, layers, and the generated files
	@echo 'ruff' && $(BIN)/ruff check --quiet && $(BIN)/ruff format --quiet --check
	@echo 'codespell' && $(BIN)/codespell
	@echo 'import layers' && $(BIN)/lint-imports --no-logo >$(VENV)/layers.log || { cat $(VENV)/layers.log; exit 1; }
	@echo 'dvc.yaml and headrace.lock' && $(BIN)/headrace dvc-sync --check >/dev/null
	@$(BIN)/python tests/support/name_shares.py
	@echo 'mypy' && $(BIN)/mypy --no-error-summary

test: lint ## Lint, types, and the tests, on real servers where there are any
	@echo 'pytest' && $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=84 $(PYTEST_ARGS)

# Their imports alone take seconds.
HEAVY_TESTS := $(addprefix tests/headrace/,airflow feast publish)

quick: install ## The tests that need no server, for the inner loop
	@UNCHECKED_FEAST=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not server and not slow and not faults and not slow_lane' \
		$(addprefix --ignore ,$(HEAVY_TESTS)) $(PYTEST_ARGS)

test-slow: install lock-check ## The tests that need an environment of their own, or more than a minute
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow_lane and not faults' $(PYTEST_ARGS)

docs: install ## Run the commands that the docs show, and check their links
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/docs $(PYTEST_ARGS)

up: install ## Start the stack and leave it running; prints every page with user and password
	@$(BIN)/headrace stack up --home $(HOME_DIR)

down: ## Stop the stack; its data stays
	@if [ -x $(BIN)/headrace ]; then $(BIN)/headrace stack down --home $(HOME_DIR); fi

bench: install $(PEERS)/.installed ## Measure against peers; writes benchmarks/RESULTS.md
	@$(BIN)/python benchmarks/results.py $(BENCH_ARGS)

faults: install ## Kill, cut and corrupt things, and try new random values: nothing is lost
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'faults or (hypothesis and not slow_lane)' \
		--hypothesis-profile explore $(PYTEST_ARGS)

# The target is 90 %. A sample of 63 that falls short of 80 % is no chance any more.
mutants: install ## Make small mistakes in a copy of the code, and see whether the tests notice (MUTANTS_ARGS=--help)
	@$(BIN)/python tests/support/mutants.py --at-least 0.8 --report $(VENV)/mutants.md $(MUTANTS_ARGS)

clean: down ## Stop the stack; remove its data and the environments
	@rm -rf $(HOME_DIR) $(LABEL_STUDIO) $(PEERS) $(VENV)

# The environments. A stamp that is newer than its inputs means that there is nothing to do.

# Packages come from where pip is told to look; uv is told the same unless it has settings of its own.
uv = index=$$($(VENV)/.uv/bin/pip config get global.index-url 2>/dev/null) || index=; \
	if [ -n "$${PIP_INDEX_URL:-$$index}" ]; then \
		UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$index}}"; export UV_DEFAULT_INDEX; fi; \
	$(UV) --quiet

sync = pip sync --require-hashes --compile-bytecode --python

$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
			2>/dev/null || continue; \
		echo "environment $(VENV): $$("$$python" --version)"; \
		exec "$$python" -m venv --without-pip $(VENV); \
	done; \
	echo 'No Python 3.11, 3.12 or 3.13 with venv was found: looked for python3.11, python3.12, python3.13, python3.' >&2; \
	echo 'Next: install one, or name it: `make install PYTHON=/path/to/python3.12`.' >&2; exit 1

$(UV): requirements/bootstrap.txt | $(BIN)/python
	@echo 'installing uv'
	@$(BIN)/python -m venv --clear $(VENV)/.uv
	@$(VENV)/.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/.installed: requirements/dev.txt pyproject.toml $(UV)
	@echo 'installing the packages of requirements/dev.txt'
	@$(uv) $(sync) $(BIN)/python --build-constraints requirements/dev.txt $<
	@$(uv) pip install --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

$(LABEL_STUDIO)/headrace-lock.sha256: headrace/stack/label-studio.txt | $(VENV)/.installed
	@$(BIN)/headrace stack install
	@touch $@

$(PEERS)/.installed: requirements/bench.txt | $(VENV)/.installed
	@echo 'installing the packages of requirements/bench.txt'
	@$(uv) venv --clear --python $(BIN)/python $(PEERS)
	@$(uv) $(sync) $(PEERS)/bin/python $<
	@touch $@

# The locks: by name, version and hash, for every supported Python and platform; no address in them.

compile = pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock'

lock: $(UV) ## Bring requirements/*.txt up to date with pyproject.toml
	@echo 'locking'
	@$(uv) $(compile) requirements/bootstrap.in --output-file requirements/bootstrap.txt >/dev/null
	@$(uv) $(compile) pyproject.toml --extra dev --no-emit-package headrace \
		--output-file requirements/dev.txt >/dev/null
	@$(uv) $(compile) pyproject.toml --extra airflow --extra celery --extra excel --extra feast --extra postgres --extra redis --extra labeling --extra examples --constraints requirements/dev.txt \
		--output-file requirements/runtime.txt >/dev/null
	@$(uv) $(compile) pyproject.toml --extra gpu --constraints requirements/dev.txt \
		--output-file requirements/gpu.txt >/dev/null
	@$(uv) $(compile) requirements/kubernetes.in --constraints requirements/dev.txt \
		--output-file requirements/kubernetes.txt >/dev/null
	@$(uv) $(compile) requirements/bench.in --constraints requirements/dev.txt \
		--output-file requirements/bench.txt >/dev/null
	@$(uv) $(compile) headrace/stack/label-studio.in --output-file headrace/stack/label-studio.txt >/dev/null
	@touch $(UV)

lock-check: $(UV) ## Show that the lock holds for every supported Python
	@for python in 3.11 3.12 3.13; do \
		$(uv) pip compile pyproject.toml --extra dev --no-emit-package headrace --python-version $$python \
			--constraints requirements/dev.txt --no-header --no-annotate --output-file $(VENV)/lock-$$python.txt >/dev/null \
		&& echo "Python $$python: the lock holds, $$(grep -c == $(VENV)/lock-$$python.txt) packages" || exit 1; \
	done
