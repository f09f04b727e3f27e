# UMRGEN's targets; `make help` lists them. Everything runs inside .venv.
PYTHON ?= python3.11
CONFIG ?= config.toml
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := umrgen_core umrgen_api umrgen_infer umrgen_cli umrgen_client umrgen_mcp deploy examples migrations tests benchmarks training
TYPED := umrgen_core umrgen_api umrgen_infer umrgen_cli umrgen_client umrgen_mcp deploy benchmarks

export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo run api infer migrate test faults schemathesis bench bench-quick check audit format lint types screenshots train-tiny eval-tiny clean install upgrade rollback uninstall systemd

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## make .venv and install the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON) is needed: apt install python3 python3-venv, or make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[infer,safety,mcp,otel,dev]'
	@touch $@

demo: $(STAMP) ## the whole service once: upload, generate, save a PNG
	$(BIN)/python -m umrgen_cli.demo --config $(CONFIG)

run: $(STAMP) ## web tier and inference daemon in the foreground until Ctrl-C
	$(BIN)/python -m umrgen_cli.run --config $(CONFIG)

api: $(STAMP) ## the web tier alone
	$(BIN)/python -m umrgen_api --config $(CONFIG)

infer: $(STAMP) ## the inference daemon alone
	$(BIN)/python -m umrgen_infer --config $(CONFIG)

migrate: $(STAMP) ## bring the database to this version's schema
	$(BIN)/python -m umrgen_core.migrate --config $(CONFIG)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

faults: $(STAMP) ## the whole fault suite, with a table of what was tried and what broke
	rm -f build/faults.jsonl
	$(BIN)/python -m pytest tests/faults -m 'faults or not faults' --timeout 3600; status=$$?; \
	$(BIN)/python -m tests.faults.table; exit $$status

systemd: $(STAMP) ## the whole suite under a real systemd: restarts, hangs, upgrade, rollback, uninstall; needs root
	$(BIN)/python -m pytest tests/deploy -m 'systemd or not systemd' --timeout 1800; status=$$?; \
	cat build/systemd-*.txt; exit $$status

schemathesis: $(STAMP) ## fuzz a running service for minutes by its own OpenAPI description
	$(BIN)/python -m tests.e2e.fuzzing 300

bench: $(STAMP) ## measure against the bars, on a quiet machine; writes docs/performance.md
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP) ## the same with few counts: shows that it runs, not how fast
	$(BIN)/python -m benchmarks --quick

check: $(STAMP) ## format, lint, types and tests, as CI runs them
	$(BIN)/ruff format --check $(SOURCES)
	$(MAKE) --no-print-directory lint types test

format: $(STAMP) ## format the code and sort its imports
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: $(STAMP) ## ruff
	$(BIN)/ruff check $(SOURCES)

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy $(TYPED)

audit: $(STAMP) ## known vulnerabilities of the pinned packages; fails where a newer version mends one
	$(BIN)/python .ci/audit.py

screenshots: $(STAMP) ## the console's pictures in docs/, taken anew; needs chromium
	$(BIN)/python -m tests.console.screenshots

train-tiny: $(STAMP) ## train the embedded model from nothing to its shipped files; resumable
	$(BIN)/python -m training.train

eval-tiny: $(STAMP) ## the share of the embedded model's pictures that are right, by kind
	$(BIN)/python -m training.evaluate

install: ## sudo: install under systemd, or upgrade what is installed (docs/install.md)
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON) is needed: apt install python3.11 python3.11-venv, or make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -B -m deploy.install install $(if $(PACKAGES_FROM),--packages-from "$(PACKAGES_FROM)")

upgrade: install ## the same as install

rollback: ## sudo: back to the release before; YES=1 also where jobs made since are lost
	@"$(PYTHON)" -B -m deploy.install rollback $(if $(YES),--yes)

uninstall: ## sudo: remove everything but settings, data and backups; PURGE=1 also settings and data
	@"$(PYTHON)" -B -m deploy.install uninstall $(if $(PURGE),--purge)

clean: ## remove .venv, caches and the demo's data; the data of [storage] stays
	rm -rf $(VENV) var/demo .schemathesis *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
