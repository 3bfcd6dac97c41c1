# Every target sets up what it needs in .venv; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The version the suite runs on; on Linux without a GPU set TORCH to a CPU build to save gigabytes.
TORCH ?= torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help demo test coverage test-long check bench quality docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@

demo: $(VENV)/.ready ## The main job on made-up data, on the CPU, in minutes; RL=1 reinforces the model too
	$(BIN)/sidtune demo $(if $(RL),--rl)

SUITE := pytest --numprocesses logical --maxprocesses 8 --dist worksteal

test: $(VENV)/.ready ## The whole suite on all cores
	$(BIN)/python -m $(SUITE)

coverage: $(VENV)/.ready ## The same with coverage, which takes half as long again
	$(BIN)/python -m coverage erase
	$(BIN)/python -m $(SUITE) --cov --cov-report=term:skip-covered

test-long: $(VENV)/.ready ## The tests that take minutes: many kills, thousands of hostile files, very long lines
	$(BIN)/python -m pytest -m long -s

check: $(VENV)/.ready ## Ruff, mypy, and known vulnerabilities of what is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/audit.py

bench: $(VENV)/.ready ## The benchmarks behind the README's figures, in an hour or so
	$(BIN)/python -m pip install --quiet -e ".[bench]"
	$(BIN)/python benchmarks/encoding.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/baselines.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/prepare.py
	$(BIN)/python benchmarks/sids_scale.py
	$(BIN)/python benchmarks/sharing.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/training.py

quality: $(VENV)/.ready ## The benchmarks behind docs/quality.md, in several days of two cores
	$(BIN)/python -m pip install --quiet -e ".[baselines]"
	$(BIN)/python -m pytest tests/integration/test_sasrec.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/instruments.py
	$(BIN)/python benchmarks/sids.py --folder runs/sids-benchmark

docs: $(VENV)/.ready ## Check the documentation, and build it as a site in site/
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	$(BIN)/python docs/reference.py --check
	$(BIN)/python -m pytest tests/unit/project -k 'docs or site or code_blocks or languages'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -c docs -d build/doctrees . site
	@echo "The site: site/index.html"

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build site .mypy_cache .pytest_cache .ruff_cache .coverage*
