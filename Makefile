# Every command here is safe to repeat: .venv is made once, and again only when the lock or the project file changes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
WORKERS ?= auto
WEB = $(shell sed -n 's/^VERSION = "\(.*\)"/\1/p' src/antiphon/export/browser.py)
FILES ?= $(wildcard bench/[a-z]*.py)

.PHONY: help install demo test browser reliability bench check fix lock docs clean
.DEFAULT_GOAL := help

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.venv/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no python3 found; install Python 3.11 or newer" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is older than Python 3.11; type: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv: once, a few minutes"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib src || true  # pip does this on one core; some packages ship what is no Python
	@touch $@

install: .venv/.installed  ## make .venv from the lock file

demo: export OMP_NUM_THREADS :=
demo: .venv/.installed  ## learn to pronounce English, then show it
	$(BIN)/antiphon demo $(ARGS)

test: .venv/.installed  ## run the tests (ARGS="-m slow" for the long ones)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

browser:  ## install Chromium and onnxruntime-web, for the tests of web pages (Debian and its kin)
	$(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y --no-install-recommends chromium fonts-noto-cjk
	@command -v npm > /dev/null || echo "no npm: the tests of models in a page are skipped"
	@! command -v npm > /dev/null || npm install --no-save --no-package-lock onnxruntime-web@$(WEB)

reliability: .venv/.installed  ## what runs and the server promise, at length: an hour (SERVING_SLACK=3 on a slow machine)
	$(BIN)/python -m pytest -q -n 0 -m slow tests/test_serving_reliability.py tests/test_serving_fuzz.py \
		tests/test_resume.py tests/test_bad_input.py $(ARGS)

bench: .venv/.installed  ## measure speed and memory: hours (FILES=bench/limits.py ARGS="--models t128" for one)
	@for file in $(FILES); do echo "== $$file"; $(BIN)/python $$file $(ARGS) || exit 1; done

check: .venv/.installed  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fix: .venv/.installed  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What pip would install for every extra, as exact pins; a build mark such as +cpu is left out.
PINS := import json, sys; \
	rows = [row["metadata"] for row in json.load(sys.stdin)["install"] if row["metadata"]["name"] != "antiphon"]; \
	pins = sorted((row["name"].lower(), row["name"] + "==" + row["version"].split("+")[0]) for row in rows); \
	print("\# Exact pins for Python 3.11, made by `make lock`."); \
	print("\n".join(pin for _, pin in pins))

lock:  ## write requirements.lock anew
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --dry-run --ignore-installed --report .lock.json '.[all]'
	$(BIN)/python -c '$(PINS)' < .lock.json > requirements.lock
	@rm .lock.json

docs: .venv/.installed  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

clean:  ## remove what the commands above made
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache site dist antiphon-demo node_modules
	rm -rf bench/.work bench/peers/*/.venv
