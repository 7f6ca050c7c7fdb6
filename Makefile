# Two commands for a newcomer: `make demo` and `make test`. `make help` lists the others.
# Another interpreter: make PYTHON=python3.12 demo

SHELL := /bin/bash
BIN := .venv/bin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo demo-full aws-demo test test-thorough soak lint image bench lock clean runtime dev

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: runtime ## search 4,000 rows of letter images for the best model; again: reuses the finished run
	$(BIN)/submit run examples/letters.yaml

demo-full: runtime ## the same search on all 20,000 rows
	$(BIN)/submit run examples/letters-full.yaml

test: lint ## make the environment, then lint, check types and test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not thorough and not soak" $(ARGS)

test-thorough: dev ## the tests that `make test` leaves out: a crash at every single write, every place and story
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "thorough and not soak" $(ARGS)

soak: dev ## more seeds and places of what the other two test already, for an hour of an idle machine
	$(BIN)/python -m pytest -n 2 --dist worksteal -m soak $(ARGS)

lint: dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

image: runtime ## build the Docker image that `submit run --on docker` uses (needs a Docker engine)
	$(BIN)/submit image build $(ARGS)

aws-demo: dev ## AWS Batch on a stand-in: image, stack, a search with two hosts taken away, one by an upload (needs a Docker engine)
	@.ci/registry
	$(BIN)/python -m tests.aws.demo

bench: dev ## measure side by side with the peers (about 40 minutes; docs/benchmarks.md)
	$(BIN)/python benchmarks/run_all.py

# Existing versions are kept unless pyproject.toml forbids them; delete a line to let its package move.
lock: ## renew the locks from pyproject.toml (needs uv on PATH)
	uv pip compile pyproject.toml --group build -o requirements.lock $(LOCK_FLAGS)
	uv pip compile pyproject.toml --group build --extra h2o -o requirements-h2o.lock -c requirements.lock $(LOCK_FLAGS)
	uv pip compile pyproject.toml --group dev -o requirements-dev.lock -c requirements.lock $(LOCK_FLAGS)

LOCK_FLAGS := --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	--custom-compile-command "make lock" --quiet

clean: ## remove the environment and all caches; results (./foldfleet) stay
	rm -rf .venv .venv.lock .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info benchmarks/data
	find jobspec containers submitter tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

runtime:
	@.ci/environment runtime

dev:
	@.ci/environment dev
