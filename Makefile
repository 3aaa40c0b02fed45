# `make demo` and `make test` each work alone on a fresh machine: they make .venv and install what they need.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# The first Python between 3.10 and 3.13 that really runs (a pyenv shim may not).
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
JOBS ?= 2
EXAMPLES := $(wildcard examples/*/models.yaml)

.DEFAULT_GOAL := help
.PHONY: help install demo demo-short test lint types unit big-test compose-test bench chaos wheel clean \
	update-bench precision-bench coverage-bench gpu-bench ensemble-bench trust-bench fidelity-bench tuning-bench differential

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s'|'

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 to 3.13 on PATH"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[torch,serve,perf,examples,tensorrt-rtx,dev]'
	@touch $@

install: $(VENV)/installed ## create .venv with everything

demo: install ## build the examples, serve them, call them, benchmark them
	$(BIN)/build-repo $(EXAMPLES)
	$(BIN)/python examples/demo.py

demo-short: install ## the same in little time, for CI
	$(BIN)/build-repo $(EXAMPLES)
	$(BIN)/python examples/demo.py --short

test: install lint types unit ## lint, types and tests

lint: install ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy --strict on the packages
	$(BIN)/mypy

unit: install ## the tests
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup -m "not big"

big-test: install ## a model above 2 GB (8 GB of disk, 7 GB of memory), and other long tests: about half an hour
	$(BIN)/python -m pytest -q -m big tests

compose-test: ## run docker-compose.yml's cpu profile under podman (root, Debian)
	bash tests/compose/run.sh

update-bench: install ## updates under load, explicit and polling (about 6 minutes)
	$(BIN)/python benchmarks/update_under_load.py

precision-bench: install ## every variant of digits, MiniLM and EfficientNet: accuracy, size, speed (about 20 minutes)
	$(BIN)/python benchmarks/precision.py --write

coverage-bench: install ## twelve architectures in fp32, fp16 and int8 (about 20 minutes)
	$(BIN)/python benchmarks/coverage.py --write

ensemble-bench: install ## the examples' ensembles, step by step, and what fusion wins (about 6 minutes)
	$(BIN)/python benchmarks/ensembles.py --write

trust-bench: install ## one model under two names, and one 5% slower, 50 times (COUNT=50; 20 s each on a quiet machine, 95 s at most; RESUME=1)
	$(BIN)/python benchmarks/trust.py --count $(or $(COUNT),50) --defaults $(or $(DEFAULTS),1) $(if $(RESUME),--resume)

fidelity-bench: install ## our figures against perf_analyzer's own and against a queue (about 6 minutes)
	$(BIN)/python benchmarks/fidelity.py --write

tuning-bench: install ## tune-repo beside Model Analyzer and Triton's automatic configuration (about 45 minutes)
	$(BIN)/python benchmarks/tuning.py --write

gpu-bench: install ## the CUDA provider in Triton against PyTorch; needs an NVIDIA GPU
	$(BIN)/python benchmarks/gpu.py

bench: install ## the embedded server against raw onnxruntime (about 6 minutes)
	$(BIN)/python benchmarks/serving.py

differential: install ## check-repo against the real server: 2,000 mutated repositories (about 25 minutes, less when run again)
	$(BIN)/python -m benchmarks.differential --write

chaos: install ## kill -9 of build-repo at 100 random moments under a polling Triton (about 10 minutes, more on a busy machine)
	$(BIN)/python benchmarks/chaos.py --kills $(or $(KILLS),100) $(if $(SEED),--seed $(SEED))

wheel: install ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove .venv and what was built
	rm -rf $(VENV) .build dist model_repository_engines
	find model_repository -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
