# make demo  – set up everything and show the main job      make test – set up everything and run the tests
# make check – what CI runs: format, lint, types, tests      make sanitize – native tests under ASan and UBSan
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt $(wildcard native/*.* native/*/*.*)
INSTALLED := $(VENV)/.installed

.PHONY: demo test check format lint types bench sanitize clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/python examples/quickstart.py

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: lint types test

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(INSTALLED)
	$(BIN)/mypy

# One stamp: the environment is made again when the dependencies or the native sources change.
$(INSTALLED): pyproject.toml $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

# Takes minutes, writes 2.4 GB into the user's cache directory, and wants the machine for itself.
bench: $(VENV)/.bench
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/prefill.py

$(VENV)/.bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
