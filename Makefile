# Everything works from a bare clone: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stamp is newer than what it was made from exactly when the environment is complete.
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.PHONY: demo test test-all lint docs bench clean

demo: $(READY)
	$(BIN)/tunewright run examples/mnist/recipe.yaml

test: $(READY_DEV) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(READY_DEV) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: $(READY_DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python benchmarks/mnist_vs_keras.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(READY_DEV): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
