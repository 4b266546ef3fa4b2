# `make demo` and `make test` do all of the set-up on a fresh machine, then the job.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# READY: what genaug needs is installed; DEV: what tests, linters and the documentation need, too
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
INSTALL = $(BIN)/python -m pip install --quiet $(if $(strip $(CONSTRAINTS)),-c $(CONSTRAINTS)) --editable
WORKERS ?= 2
CONSTRAINTS ?= constraints.txt  # empty: the newest versions that pyproject.toml allows

.PHONY: demo test test-fast lint docs clean

demo: $(READY)
	$(BIN)/python train.py -m experiment=demo/compare seed=0
	$(BIN)/genaug gallery da_fusion --out outputs/gallery.png
	$(BIN)/genaug report demo/compare
	$(BIN)/genaug verdict demo/compare

test: $(DEV) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: $(DEV)  # the edit loop: no whole runs, and of the rest as many as fit into a minute by the times of their last run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q -m "not slow" --within 50 \
		--ignore tests/integration --ignore tests/golden

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile
	$(BIN)/basedpyright --pythonpath $(BIN)/python

docs: $(DEV)  # the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "genaug needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $(READY)

$(DEV): $(READY)
	$(INSTALL) '.[dev]'
	touch $(DEV)

clean:
	rm -rf $(VENV)
