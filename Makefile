# The verbs of a developer. `make demo` and `make test` do all the set-up; CI calls only these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA_DIR ?= data

.PHONY: demo test check bench ui slow

demo: $(READY)
	@$(BIN)/litlab fit digits-mlp
	@printf '\nNext:\n  . $(BIN)/activate          then litlab works without a path\n'
	@printf '  litlab list                every experiment\n'
	@printf '  litlab ui                  the run in the browser: curves, figures, model\n'
	@printf '  litlab fit digits-mlp --model.dropout 0.5     a run to compare it with\n'
	@printf '  litlab compare digits-mlp                     the two side by side; with --seeds 5 at each, also what is noise\n'

test: check
	$(BIN)/pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

slow: $(READY)
	$(BIN)/pytest -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/sweep_throughput.py
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/fit_overhead.py --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/stacked.py --data-dir $(DATA_DIR)

ui: $(READY)
	$(BIN)/litlab ui

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "litlab needs Python 3.11 or newer: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)
