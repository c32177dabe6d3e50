# Two commands: `make demo` and `make test`. Both set up .venv first, by the versions in
# constraints.txt, and do nothing twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.set-up

BROWSER_VENV := .venv-browser
BROWSER_SETUP := $(BROWSER_VENV)/.set-up

.PHONY: demo test lint types unit test-browser setup clean

demo: $(SETUP)
	$(BIN)/corrsteer train --model mini --task mini-harmbench

test: lint types unit

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP)
	$(BIN)/mypy

unit: $(SETUP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# the demo and the report in headless Chromium, which has to be installed already
test-browser: $(BROWSER_SETUP)
	$(BROWSER_VENV)/bin/python -m pytest tests/test_browser.py

setup: $(SETUP)

# torch first and pinned: on Linux an unpinned one brings gigabytes of GPU libraries
$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	touch $@

$(BROWSER_SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BROWSER_VENV)
	$(BROWSER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$(grep '^torch==' constraints.txt)
	$(BROWSER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,demo]' playwright
	touch $@

clean:
	rm -rf $(VENV) $(BROWSER_VENV) runs
