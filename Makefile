# Two commands do everything: `make demo` and `make test`. Both need Python 3.10 to 3.13 and the package index.
# PYTHON=python3.12 chooses an interpreter; VENV=folder another place for the environment.

VENV ?= .venv
# The first interpreter that runs and fits: coremltools has no wheels for Python 3.14 yet.
FITS = import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$name -c '$(FITS)' 2>/dev/null && echo $$name && break; done)
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: demo test check install clean

demo: install ## Train, export, predict and compare on real brain images; ends with one page.
	$(BIN)/unet-edge demo

test: check ## Format, lint, types, tests.
	$(BIN)/python -m pytest -m 'slow or not slow'

check: install
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' || { echo "Python 3.10 to 3.13 is needed: make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and alone: the version asked for is the same on a CPU and a GPU machine.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# Real images for the demo and the tests come from this wheel's data files; the package is never imported.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps nilearn
	touch $(INSTALLED)

clean: ## Remove the environment and the demo's folder.
	rm -rf $(VENV) demo
