# Every habit one word. Each target does its own set-up: Python 3.11 or newer and a C++20 compiler with OpenMP are all it needs.
#
#   make demo VENV=/tmp/venv        another place for the virtual environment
#   make test ARGS=tests/spaces/test_cell.py
#   make demo PYTHON=python3.12     another Python

VENV ?= .venv
ARGS ?=
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
FUZZ_CXX ?= clang++
CXX_FILES := $(shell find csrc tests -name '*.hpp' -o -name '*.cpp')
PACKAGES := $(shell find spd_fast -name '__init__.py')
INSTALL := $(BIN)/python tools/environment.py

.PHONY: help demo test verify fuzz aarch64 lint format bench reproduction dev clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    the main job on the truth that ships with the package: 100 cells labelled, the others ranked and checked'
	@echo 'make test    the tests; ARGS= is handed to pytest'
	@echo 'make verify  the whole agreement with the plain PyTorch motifs, and clusters that lose machines (longer than test)'
	@echo 'make fuzz    libFuzzer on the reader of NAS-Bench-101 files, until Ctrl-C; needs clang++; ARGS=-runs=1000000'
	@echo 'make aarch64 the portable engine built for 64-bit Arm; run under qemu, its losses are those of this machine'
	@echo 'make lint    ruff, mypy, clang-format and codespell, as in CI'
	@echo 'make format  let ruff and clang-format lay out the code'
	@echo 'make bench   every spd-fast bench, into bench/results; half an hour on an idle machine'
	@echo 'make reproduction  docs/reproduction.md and its figures, drawn anew from the metrics in docs/reproduction/'
	@echo 'make dev     everything for working on the code: package, tests, tools, commit hooks'
	@echo 'make clean   remove the environment, builds and caches; runs/ stays'
	@echo
	@echo 'Nothing needs to be installed before: the first target makes $(VENV) with $(or $(PYTHON),a Python that is not here yet).'

demo: $(VENV)/.base
	$(BIN)/spd-fast demo --out runs/demo $(ARGS)

# Two processes, each with files of its own: half the time, and tests of one file still follow each other. ARGS="-n 0" runs all in one.
test: $(VENV)/.installed
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

verify: $(VENV)/.installed
	$(PIP) ray distributed
	$(BIN)/pytest -m 'verify or not verify' $(ARGS)

fuzz: $(VENV)/.installed
	mkdir -p build/fuzz/corpus
	rm -rf build/fuzz/seeds
	PYTHONPATH=tests:tests/nasbench101 $(BIN)/python -c 'import os, pathlib, test_nasbench101 as t; real = pathlib.Path(os.environ.get("SPD_FAST_DATA", "../shared/data")); \
	  t.write_seeds(pathlib.Path("build/fuzz/seeds"), sorted(real.glob("nb101/tfrecord/*.tfrecord")))'
	$(FUZZ_CXX) -std=c++20 -O2 -g -DLIBFUZZER -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Wno-psabi \
	  tests/fuzz/fuzz_tfrecord.cpp $(wildcard csrc/nasbench/*.cpp) -o build/fuzz/fuzz_tfrecord
	cd build/fuzz && ./fuzz_tfrecord -max_len=4096 $(ARGS) corpus seeds

# Debian's g++-aarch64-linux-gnu and qemu-user.
PORTABLE := tests/aarch64/smoke.cpp $(wildcard csrc/plan/*.cpp csrc/threads/*.cpp) csrc/isa/baseline.cpp
PORTABLE_FLAGS := -std=gnu++20 -O2 -fopenmp -Wall -Wextra -Wno-psabi -Wno-ignored-attributes -Wno-unknown-pragmas
aarch64:
	mkdir -p build/aarch64
	aarch64-linux-gnu-g++ $(PORTABLE_FLAGS) $(PORTABLE) csrc/isa/dispatch.cpp $(wildcard csrc/nasbench/*.cpp) -o build/aarch64/smoke
	$${CXX:-c++} $(PORTABLE_FLAGS) $(PORTABLE) -o build/aarch64/smoke-here
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/smoke $$(build/aarch64/smoke-here)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/codespell

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

bench: $(VENV)/.installed
	for bench in peak kernels inner hypergradient proxies score; do $(BIN)/spd-fast bench $$bench --out bench/results || exit; done
	for shape in A B C S; do $(BIN)/spd-fast bench profile --shape $$shape --out bench/results || exit; done

reproduction: $(VENV)/.installed
	$(BIN)/spd-fast reproduce --draw docs/reproduction.md

dev: $(VENV)/.lint
	$(PIP) pre-commit
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The environment, with what builds the extension: without build isolation a second build compiles only what changed.
$(VENV)/.tools: pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or newer found: install one, or name it with PYTHON=.' >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo 'No C++ compiler found: install g++ or clang++, or name it with CXX=.' >&2; exit 1; }
	@echo 'making the environment in $(VENV)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) build
	@touch $@

# Editable: Python files are used where they lie, so only the extension needs building again, and packages that are new need installing.
$(VENV)/.base: $(VENV)/.tools CMakeLists.txt $(CXX_FILES) $(PACKAGES)
	@$(INSTALL) base --package
	@touch $@

# The CPU build of PyTorch is at https://download.pytorch.org/whl/cpu; where that cannot be reached, pip takes what it finds.
$(VENV)/.installed: $(VENV)/.base
	@$(INSTALL) test
	@touch $@

# mypy reads the types of torch and the others, so linting needs the whole installation.
$(VENV)/.lint: $(VENV)/.installed
	@$(INSTALL) lint
	@touch $@
