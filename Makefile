# Every target builds .venv from requirements-dev.lock first, once.
.DEFAULT_GOAL := help
SHELL := bash

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: help install demo test test-all check cluster-smoke chaos lock clean clean-outputs

help:  ## list every target
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(READY): requirements-dev.lock
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

install: $(READY)  ## build .venv from requirements-dev.lock

demo: $(READY)  ## the whole chain on composed music: features, search, leaderboard (some minutes)
	$(RUN) -m ray_jobs.demo

test: check  ## pass the tests
	$(RUN) -m pytest

test-all: check  ## the long tests as well: searches, kills, S3, submitted jobs, served pages
	$(RUN) -m pytest -m "not cluster"

check: $(READY)  ## format, lint and types
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/mypy

cluster-smoke: $(READY)  ## ray up, every job and ray down on machines made of namespaces (root; some minutes)
	$(RUN) -m pytest -m cluster tests/cluster

chaos: $(READY)  ## kill workers, machines and drivers at random and compare the results (root; long)
	$(RUN) -m pytest -m cluster tests/ray/test_chaos.py
	$(RUN) benchmarks/chaos.py outputs/chaos --kills 30

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
	@test ! -d outputs || { echo "deleting:"; du -sh outputs/*; }
	rm -rf outputs
