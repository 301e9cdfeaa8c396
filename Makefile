# Every target does its own set-up in .venv; a stamp in it says for which pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet
# Side by side; beyond so many, each one's start takes longer than its share of the tests.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
# The tests start many programs: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test thorough quick matrix lint docs clean

demo: .venv/.examples
	$(BIN)/nncompile train examples/digits.py
	$(BIN)/python examples/recognise.py runs/digits/latest/model.onnx

# An answer within five minutes; what it leaves out is in `thorough`, see CONTRIBUTING.md.
test: .venv/.test .venv/.kernels
	$(PYTEST) -m "not thorough"

# What takes long: CI runs both.
thorough: .venv/.test .venv/.kernels
	$(PYTEST) -m thorough

# An answer within a minute.
quick: .venv/.test .venv/.kernels
	$(PYTEST) -m "not slow"

# Every Python and onnxruntime that is promised, with and without torch: hours, in `.matrix/`.
matrix:
	$(PYTHON) -m tests.matrix

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_types.py
	$(BIN)/complexipy --failed

docs: .venv/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .matrix runs site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .complexipy_cache .hypothesis

# pip is the last thing that venv makes: where it is missing, an attempt was cut short.
$(BIN)/pip:
	$(PYTHON) -m venv .venv

.venv/.examples: pyproject.toml | $(BIN)/pip
	$(PIP) -e '.[examples]'
	touch $@

.venv/.test: pyproject.toml | $(BIN)/pip
	$(PIP) torch==2.13.0
	$(PIP) -e '.[test]'
	touch $@

# Native kernels are tested where they can be built.
.venv/.kernels: kernels/pyproject.toml kernels/CMakeLists.txt $(wildcard kernels/*/*) | .venv/.test
	@if command -v c++ >/dev/null; then echo "building native kernels"; $(PIP) ./kernels; \
	else echo "there is no C++ compiler: tests of native kernels are skipped"; fi
	touch $@

.venv/.dev: pyproject.toml | $(BIN)/pip
	$(PIP) -e '.[dev]'
	touch $@

.venv/.docs: pyproject.toml | $(BIN)/pip
	$(PIP) -e '.[docs]'
	touch $@
