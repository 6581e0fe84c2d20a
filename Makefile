# Commands for developers. `make demo` and `make test` set everything up; CI calls only these targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA_DIR ?= data

.PHONY: demo test check oldest bench gpu faults compatibility ui slow services postgresql

demo: $(READY)
	@$(BIN)/litlab fit digits-mlp
	@printf '\nNext:\n  . $(BIN)/activate          then litlab works without a path\n'
	@printf '  litlab list                every experiment\n'
	@printf '  litlab ui                  the run in the browser: curves, figures, model\n'
	@printf '  litlab fit digits-mlp --model.dropout 0.5     another run for comparison\n'
	@printf '  litlab compare digits-mlp                     compare the two; --seeds 5 in each fit shows what is noise\n'

test: check
	$(BIN)/pytest -m "not slow and not services" -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

slow: $(READY)
	$(BIN)/pytest -m slow -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# The tests on the oldest versions that pyproject.toml allows, in an environment of its own. Not part of CI.
oldest: .venv-oldest/.ready
	.venv-oldest/bin/python -m pytest -m "not slow and not services" -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

services: $(READY)
	$(BIN)/pytest tests/services -rs -n 2 --dist loadfile --no-loadscope-reorder

# Installs Debian's PostgreSQL if it is missing and this is allowed; without it, its tests are skipped.
APT := timeout 300 $(if $(filter 0,$(shell id -u)),,sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 \
	  || { $(APT) update && $(APT) install --yes --no-install-recommends postgresql; } \
	  || echo "PostgreSQL is not installed and cannot be installed here: tests that need it will be skipped"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/fit_overhead.py --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/fit_overhead.py --data-dir $(DATA_DIR) --batch-size 64
	$(BIN)/python benchmarks/cifar.py --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/tracking.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/whole_fit.py
	$(BIN)/python benchmarks/sweep_throughput.py
	$(BIN)/python benchmarks/ray_tune.py
	$(BIN)/python benchmarks/cluster.py --trials 1000
	$(BIN)/python benchmarks/cluster_agents.py
	$(BIN)/python benchmarks/stacked.py --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/floors.py --data-dir $(DATA_DIR)

# Everything that is measured on an NVIDIA GPU, in one call; make gpu ARGS=--dry runs it in small on a CPU.
gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py --data-dir $(DATA_DIR) $(ARGS)

faults: $(READY)
	$(BIN)/python benchmarks/faults/run.py --data-dir $(DATA_DIR) $(ARGS)

# Other people's modules with litlab, and with LightningCLI and MLFlowLogger: writes docs/COMPATIBILITY.md. Not part of CI.
compatibility: $(READY)
	$(BIN)/python benchmarks/compatibility/run.py $(ARGS)

ui: $(READY)
	$(BIN)/litlab ui

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "litlab needs Python 3.11 or newer: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

.venv-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "make oldest needs Python 3.11: make PYTHON=python3.11 oldest")'
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable ".[test]"
	@touch $@
