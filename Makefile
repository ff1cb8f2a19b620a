# Two commands do everything: `make demo` prints the tables, `make test` checks the project.
# Each makes .venv on first use and installs again only when pyproject.toml has changed.

PYTHON ?= python3
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
TESTED_VERSIONS := 3.11 3.12 3.13

# The builds for CPUs alone: those of PyPI bring gigabytes of CUDA on Linux. Where this index cannot be reached, pip
# takes what it finds elsewhere.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help demo test docs wheel test-training test-interop nightly certify bench bench-peers test-all clean

help:
	@echo "make demo           optimal scales and their errors for every common format"
	@echo "make test           ruff, mypy --strict and pytest"
	@echo "make docs           the documentation as pages, in build/docs: open index.html"
	@echo "make wheel          the wheel, in dist; installed alone and tried"
	@echo "make test-training  what needs PyTorch, in an environment of its own"
	@echo "make test-interop   GGUF, ONNX, URLs, Dask, numba and what loads exports, in an environment of its own"
	@echo "make nightly        what takes minutes: matrices of simulations against predictions"
	@echo "make certify        verify every certificate of the shipped table: ten minutes of one core"
	@echo "make bench          speed, as ratios to plain NumPy"
	@echo "make bench-peers    time and dB of other tools on the same arrays, in an environment of their own"
	@echo "make test-all       the tests on Python $(TESTED_VERSIONS), where installed"
	@echo "make clean          remove .venv and caches"
	@echo "Another interpreter: make PYTHON=python3.12 demo"

demo: $(VENV)/.installed
	@$(BIN)/qerror demo

# All three run, so that one look at the output shows everything that is wrong.
test: $(VENV)/.installed-test
	@status=0; \
	$(BIN)/ruff check qerror tests || status=1; \
	$(BIN)/mypy || status=1; \
	$(BIN)/python -m pytest -n auto --maxprocesses 8 $(PYTEST_ARGS) || status=1; \
	exit $$status

# Warnings are errors, and so is a link that leads nowhere.
docs: $(VENV)/.installed-test
	@$(BIN)/python -W error -m qerror.docs build/docs

# What a user would install, into an environment that has nothing else.
wheel: $(VENV)/.installed-test
	@rm -rf dist build/bare
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	@$(PYTHON) -m venv build/bare && build/bare/bin/python -m pip install --quiet dist/*.whl
	@! build/bare/bin/python -c 'import importlib.metadata as m; print(m.metadata("qerror")["Description"])' \
	  | grep -E '\]\([^h]' || { echo "README in the wheel has links that only the source tree has"; exit 1; }
	@cd build && bare/bin/qerror scale int4 --json >/dev/null && bare/bin/python -c 'import qerror; qerror.load_table()'
	@echo "dist/$$(ls dist) installs alone and answers"

# An environment of its own, so that `make test` always shows that the rest does without PyTorch.
test-training:
	@$(MAKE) --no-print-directory VENV=.venv-training .venv-training/.installed-torch
	@.venv-training/bin/python -c 'import torch; print("torch", torch.__version__)'
	.venv-training/bin/python -m pytest -n auto --maxprocesses 4 -k training $(PYTEST_ARGS)

# What the extras bring, in an environment of its own: `make test` shows that the rest does without them.
test-interop:
	@$(MAKE) --no-print-directory VENV=.venv-interop .venv-interop/.installed-interop
	.venv-interop/bin/python -m pytest -n auto --maxprocesses 2 tests/test_interop.py tests/test_interop_exports.py tests/test_typing.py tests/test_kernels.py $(PYTEST_ARGS)
	QERROR_KERNELS=numba .venv-interop/bin/python -m pytest -n auto --maxprocesses 2 tests/test_exact_samples.py -k 'not any_fit' $(PYTEST_ARGS)

nightly: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 8 -m nightly $(PYTEST_ARGS)

# What others need is installed apart; what cannot be had here is named and left out.
PEERS := llmcompressor torchao ckwrap kmeans1d numba 'absl-py ai-edge-litert immutabledict ml_dtypes scipy'
bench-peers:
	@$(MAKE) --no-print-directory VENV=.venv-peers .venv-peers/.installed-torch
	@for peer in $(PEERS); do .venv-peers/bin/python -m pip install --quiet $$peer || echo "$$peer cannot be installed"; done
	@.venv-peers/bin/python -m pip install --quiet --no-deps hqq termcolor ai-edge-quantizer || echo "hqq or ai-edge-quantizer cannot be installed"
	.venv-peers/bin/python tests/benchmarks/bench_peers.py

certify: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 8 -m nightly tests/test_certify.py -k all_shipped $(PYTEST_ARGS)

bench: $(VENV)/.installed-test
	@for script in $(filter-out %/bench_peers.py,$(wildcard tests/benchmarks/bench_*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# Every version found gets its own environment; a version that is not installed is said and passed over.
test-all:
	@status=0; for version in $(TESTED_VERSIONS); do \
	  found=; for candidate in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
	    if $$candidate -c 'import venv' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "== Python $$version: not installed, not tested"; continue; fi; \
	  echo "== Python $$version: $$found"; \
	  $(MAKE) --no-print-directory VENV=.venv-$$version PYTHON=$$found test || status=1; \
	done; exit $$status

clean:
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "qerror needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name a newer one, for example: make PYTHON=python3.12 $(or $(MAKECMDGOALS),demo)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu it needs: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-torch: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --quiet --retries 1 --no-compile --extra-index-url $(TORCH_INDEX) '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[test,data]'
	@touch $@

# What loads our exports, and the second type checker; of PyTorch the same build as for training.
LOADERS := 'transformers>=5,<6' 'compressed-tensors>=0.20,<0.21' onnxruntime 'basedpyright>=1.30'
$(VENV)/.installed-interop: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --quiet --retries 1 --no-compile --extra-index-url $(TORCH_INDEX) '$(TORCH)'
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[test,remote,gguf,onnx,dask,fast]' $(LOADERS)
	@touch $@
