# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo ui test lint soak bench lock clean

demo: .venv/installed
	@$(BIN)/stock-lakehouse demo

ui: .venv/installed
	@$(BIN)/stock-lakehouse ui

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout 3600

bench: .venv/installed
	$(BIN)/python -m benchmarks

lock: .venv/installed
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header \
	  --extra platform --extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv build *.egg-info

# Everything pinned comes from requirements.lock; the project itself is installed as it stands.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; say which with: make PYTHON=python3.12 demo") \
	  if sys.version_info < (3, 11) else None'
	@echo "Installing into .venv (a few minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
