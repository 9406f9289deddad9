# Two commands for a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A process a core, and one more, since some tests wait for cameras, servers and programs.
# A file's tests stay together, so that what they share is made once.
PYTEST := $(BIN)/pytest -n $(shell expr $$(nproc 2>/dev/null || echo 2) + 1) --dist loadfile
DEPENDENCIES := $(VENV)/.dependencies

.PHONY: demo test fast slow test-all explore fuzz lint install clean

demo: install
	$(BIN)/edge-fg demo --output demo-out

test: lint fast

fast: install
	$(PYTEST) -m "not slow"

# Builds of the real models take minutes each; `make test-all` has them.
slow: install
	$(PYTEST) -m "slow and not real_data"

test-all: install lint
	$(PYTEST)
	$(MAKE) explore fuzz

# The property tests with ten times as many examples, which are new in every run.
explore: install
	$(PYTEST) -m hypothesis --hypothesis-profile explore

# 100,000 spoilt inputs, which are new in every run: FUZZ="--cases 1000 --kind image" for others.
fuzz: install
	$(BIN)/python tests/fuzzing $(FUZZ)

lint: $(DEPENDENCIES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The suite and the demo run against the installed package, never against the checkout.
install: $(DEPENDENCIES)
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	rm -rf build

$(DEPENDENCIES): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'setuptools>=77' wheel
	$(BIN)/python -m pip install --quiet '.[dev]'
	$(BIN)/python -m pip install --quiet '.[rtx]' || \
	  echo "TensorRT-RTX can't be installed here: the demo will build no plan"
	rm -rf build
	touch $@

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info .mypy_cache .ruff_cache .pytest_cache
