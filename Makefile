# `make demo` and `make test` start from nothing but make and Python 3.11 or newer; they share one environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
RESULTS ?= results
SEEDS ?= 0..2
BENCHMARKS = kernel_predictor size_learning_step epoch memory rendering flexconv_layer flexnet_kernels njet_layer
DEMO_ROWS = EffConv-20*,EffConv-32*,EffConv-44*,Wide-EffConv*,CIFARResNet-44

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint bench render stale lock clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 18

install: $(INSTALLED) ## make the environment and install the suite with its development tools into it

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: $(PYTHON) is missing or older than 3.11; name a newer one: make PYTHON=python3.12 ...' >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install ## Table 2's EffConv and ResNet rows on the bundled digits, as a smoke test
	$(BIN)/reproduce table2 --protocol tiny --rows '$(DEMO_ROWS)' --seeds $(SEEDS) --jobs 2

test: install ## every test that is not marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2

test-all: install ## every test, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

lint: install ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: install ## the benchmarks, one after the other
	@for script in $(BENCHMARKS); do \
	  $(BIN)/python -m benchmarks.$$script || exit 1; echo; done

render: install ## write RESULTS/rendered anew from the records
	$(BIN)/python -m tools.render --results $(RESULTS)

stale: install ## fail if RESULTS/rendered differs from what the records say
	$(BIN)/python -m tools.render --results $(RESULTS) --check

lock: install ## write requirements.txt from this environment, with hashes
	$(BIN)/python -m tools.lock

clean: ## remove what make and the tests made, except the environment
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
