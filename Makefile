# Two commands on a fresh clone: `make demo` and `make test`. Both make .venv and install into it.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow test-all lint bench clean

demo: $(INSTALLED)
	$(VENV)/bin/python -m examples.digits

test: $(INSTALLED) lint
	$(VENV)/bin/python -m pytest -n auto --dist worksteal

test-slow: $(INSTALLED)
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -m slow

test-all: test test-slow

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(INSTALLED)
	$(VENV)/bin/python -m benchmarks.peers

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install -qq --constraint constraints.txt --editable ".[demo,test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
