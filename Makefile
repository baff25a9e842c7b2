# Everything runs in .venv, which each target makes when it is missing or out of date.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help install demo serve check test format clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## make the virtual environment (done once; the other targets call it)
	@$(PYTHON) requirements/install.py --venv $(VENV)

demo: install  ## start the service on the demo core, ask, swap a fact, ask again, stop
	@$(BIN)/python demo.py

serve: install  ## serve the demo core with the demo facts on 127.0.0.1:8000
	@mkdir -p var
	@for file in knowledge/*.ndjson; do $(BIN)/metabolism knowledge import $$file --module $$(basename $$file .ndjson) --store var/knowledge.sqlite || exit $$?; done
	@$(BIN)/metabolism serve --core models/demo-core --store var/knowledge.sqlite

check: install  ## ruff, mypy strict, import-linter, and linters of Dockerfiles and compose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint --config docker/hadolint.yaml docker/Dockerfile docker/check/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

test: install  ## the whole test-suite, with every engine this machine has
	$(BIN)/python -m pytest

format: install  ## let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the virtual environment and what runs left behind
	rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
