# Two commands of the README: `make demo` and `make test`. Both need only Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_DIR ?= runs/demo

.PHONY: help install demo test test-all lint types layers tests tests-without-ray tests-with-ray chaos kills fuzz benchmarks docs address clean

help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(VENV)/installed-dev  ## Make .venv with all that tests and benchmarks need, in pinned versions

PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cm_ray needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml setup.py constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[train,track]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml setup.py constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	@touch $(VENV)/installed $@

demo: $(VENV)/installed  ## Train a model on 8x8 digits, sample, score and register it
	$(BIN)/python jobs/ict_digits.py --run-dir $(RUN_DIR)
	$(BIN)/python jobs/sample.py $(RUN_DIR) --samples 100 --nfe 2 --out $(RUN_DIR)/samples/demo

test: lint types layers tests  ## Lint, types, layers and the test suite (about 40 minutes on two cores)

test-all: lint types layers install  ## The same with all combinations and repetitions, slow tests too (an hour)
	$(BIN)/python -m pytest --all

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

tests: install  # both kinds at once: a cluster lets the cores wait for a third of its time
	$(MAKE) --no-print-directory --jobs 2 tests-without-ray tests-with-ray

tests-without-ray: install
	$(BIN)/python -m pytest -m "not ray"

tests-with-ray: install
	$(BIN)/python -m pytest -m ray

chaos: install  ## A hundred random kills of everything on a cluster of four hosts, each to end bit-equal (hours)
	$(BIN)/python -m tests.cluster.chaos --kills 100 --out build/chaos.md

kills: install  ## Ten random kills of workers and drivers, each to end bit-equal (10 to 15 minutes)
	$(BIN)/python -m pytest --all tests/cluster/test_kills.py

fuzz: install  ## Ten minutes of damaged and hostile files; the test suite has a short form
	CM_RAY_FUZZ_SECONDS=600 $(BIN)/python -m pytest tests/fuzz

docs: install  ## The site, in build/site; a warning, a dead link or a missing anchor ends it
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --fresh-env docs build/site
	$(BIN)/python docs/_ext/links.py build/site

address:  ## Make the links of the README absolute, once the repository is public: make address ADDRESS=https://...
	test -n "$(ADDRESS)"
	sed -i -E 's|\]\(([^):]+)\)|]($(ADDRESS)/blob/main/\1)|g; s|\.png\)|.png?raw=true)|g' README.md
	sed -i 's|^\[project.urls\]|&\nRepository = "$(ADDRESS)"|' pyproject.toml

benchmarks: install  ## Speed and memory of a step, overhead of Ray, speed of the stream
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/overhead.py

clean:  ## Remove what was made, but not runs
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
