# Every target builds .venv from requirements-dev.lock first, once.
.DEFAULT_GOAL := help
SHELL := bash

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# a process for each core, each test file in one of them: a test that starts Ray waits as much as it computes; one that
# dies ends the tests, since pytest-xdist has waited forever after such a death
TEST := $(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile --max-worker-restart 0 --durations 12

# the code paths of a processor without AVX-512 and bf16, on any other
PLAIN := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 OPENCV_IPP=avx2

.PHONY: help install demo test test-slow test-all test-plain check same docs cluster-smoke chaos lock clean clean-outputs

help:  ## list every target
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(READY): requirements-dev.lock
	@echo "building $(VENV) from requirements-dev.lock: some GB to download, which takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --require-hashes -r requirements-dev.lock
	$(VENV)/bin/pip install --quiet --no-deps --editable .
	@touch $@

install: $(READY)  ## build .venv from requirements-dev.lock, with the command genre

demo: $(READY)  ## the complete chain on composed music: features, search, leaderboard (some minutes)
	$(RUN) -m ray_jobs.demo

test: check  ## pass the tests
	$(TEST)

test-slow: $(READY)  ## the long tests: searches, kills, S3, submitted jobs, served pages, the documents' commands
	$(TEST) -m "slow and not cluster"

test-all: test test-slow  ## both

test-plain: $(READY)  ## models and training as on a processor without AVX-512 and bf16
	$(PLAIN) $(TEST) tests/contract/test_architectures_contract.py tests/unit/architectures \
		tests/unit/training tests/unit/model tests/parity

check: $(READY)  ## format, lint and types
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/mypy

same: $(READY)  ## show that the results are those of the last commit, or of REF
	rm -rf build/same && git worktree prune && git worktree add --quiet --detach build/same $(or $(REF),HEAD)
	$(RUN) build/same/benchmarks/same.py record build/before.json
	$(RUN) benchmarks/same.py record build/after.json
	$(RUN) benchmarks/same.py compare build/before.json build/after.json

docs: $(READY)  ## build the documentation site in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

cluster-smoke: $(READY)  ## ray up, every job and ray down on machines made of namespaces (root; some minutes)
	$(RUN) -m pytest -m cluster tests/cluster

chaos: $(READY)  ## kill workers, machines, drivers and the head at random and compare the results (long)
	$(RUN) benchmarks/chaos.py outputs/chaos --rounds 60

# requirements-light.lock: tagging with an exported model; requirements.lock: every job; requirements-dev.lock: developing
LOCK := $(VENV)/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet

lock: $(READY)  ## write the three lock files from pyproject.toml
	$(LOCK) --extra dev --output-file requirements-dev.lock
	$(LOCK) --extra all --constraint requirements-dev.lock --output-file requirements.lock
	$(LOCK) --constraint requirements-dev.lock --output-file requirements-light.lock

clean:  ## remove .venv and caches; outputs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find genre ray_jobs tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

clean-outputs:  ## delete outputs: features, models, leaderboards and tags
	@test ! -d outputs || { echo "deleting:"; du -h -d 1 outputs; }
	rm -rf outputs
