# Each target sets up all that it needs. `make demo` and `make test` are the two commands of the README.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help setup demo test test-unit test-slow test-engine test-drill fuzz lint rooms gpu-lock clean

help:
	@echo "make setup   the environment (.venv), CPU profile"
	@echo "make demo    a vision-language model learns by medical RL, on two CPU cores"
	@echo "make test    unit tests, slow ones, then the engine tests (real veRL, Ray, vLLM, FSDP2)"
	@echo "make test-drill   kill drills and large files, for minutes each; not part of make test"
	@echo "make fuzz    200 damaged or hostile inputs for each command, counted in a table"
	@echo "make rooms   the imports between rooms, as a list"
	@echo "make gpu-lock    recipes/medix/gpu.lock: the GPU profile's releases, resolved anew"
	@echo "make lint    ruff, mypy, shellcheck"

setup: $(BIN)/.ready

# The stamp makes a second run free; it is renewed when a pin in setup.py changes.
$(BIN)/.ready: setup.py recipes/medix/setup_cpu.sh recipes/medix/lib/setup.sh
	PYTHON=$(PYTHON) bash recipes/medix/setup_cpu.sh
	touch $@

demo: setup
	bash recipes/medix/run_cpu.sh

test: test-unit test-slow test-engine

test-unit: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --timeout 900

test-engine: setup
	$(BIN)/python -m pytest -m engine --timeout 900 --durations 12

test-drill: setup
	$(BIN)/python -m pytest -m drill --timeout 1800

fuzz: setup
	MEDIX_FUZZ=200 $(BIN)/python -m pytest -s -m slow tests/test_fuzz.py

rooms: setup
	$(BIN)/python -m pytest -s tests/test_tree.py -k imports_between_rooms

# For Python 3.12 on Linux, wherever it runs: nothing of the profile is installed here.
gpu-lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile setup.py --extra gpu --extra eval --extra dicom --extra loggers --python-version 3.12 \
	  --python-platform x86_64-manylinux_2_28 --no-annotate --no-emit-index-url --custom-compile-command "make gpu-lock" \
	  --output-file recipes/medix/gpu.lock

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x $$(git ls-files '*.sh' '*.sbatch') .ci/run

clean:
	rm -rf .venv outputs build *.egg-info
