# Everything on a fresh clone: `make demo`, `make test`. Needs Python 3.11 or newer and make.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
# A file at a time to each process: its tests share their fixtures.
PARALLEL ?= -n 2 --dist loadfile
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: setup demo test test-slow lint format claims lock clean

setup: $(READY)

$(READY): pyproject.toml requirements/lock.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@$(PIP) install uv || echo "uv cannot be had: pip installs the same versions, only slower"
	@if test -x $(BIN)/uv; then install="$(BIN)/uv pip install --quiet --python $(BIN)/python"; \
	else install="$(PIP) install"; fi; \
	$$install -r requirements/lock.txt && $$install --no-deps -e .
	@touch $@

demo: setup
	$(BIN)/flyweight fit sample --budget "latency_p90<2ms,size<500KB" --minutes 5 --out demo

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: setup
	$(BIN)/python -m pytest -m slow $(PARALLEL)

format: setup
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

claims: setup
	$(BIN)/python benchmarks/check_claims.py

lock: setup
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --python-version 3.11 --all-extras \
		--constraint requirements/torch.txt pyproject.toml -o requirements/lock.txt

clean:
	rm -rf demo build dist
