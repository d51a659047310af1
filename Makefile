SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help book html pdf test notebooks lab lint address bench clean

PORT ?= 8000
only ?=
args ?=
PY := .venv/bin/python
INSTALLED := .venv/.installed

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

book: $(INSTALLED)  ## build the book and serve it on http://127.0.0.1:8000 (another port: PORT=8001)
	@$(PY) tools/serve.py --port $(PORT) --check
	@$(PY) tools/build.py
	@$(PY) tools/serve.py --port $(PORT)

html: $(INSTALLED)  ## build the book into _build/html, warnings as errors
	@$(PY) tools/build.py

pdf: $(INSTALLED)  ## print the book into _build/genlib-course.pdf, with xelatex
	@$(PY) tools/pdf.py

test: html  ## run every test: the library, the notebooks, the site (more options for pytest: args="-k vae")
	@$(PY) tools/browser.py
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 $(args) tests book labs

notebooks: $(INSTALLED)  ## re-run the notebooks and store their outputs (some of them: only=labs or only=PATH)
	@OMP_NUM_THREADS=1 $(PY) tools/run_notebooks.py $(if $(only),"$(only)")

lab: $(INSTALLED)  ## open the labs in JupyterLab (the chapters are in book/)
	@$(PY) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/labs

lint: $(INSTALLED)  ## check the style of code and notebooks
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

address: $(INSTALLED)  ## write the repository's address of _config.yml into notebooks and README
	@$(PY) tools/address.py

bench: bench/.venv/.installed  ## time genlib beside its peers, for the page "How fast is it" (one family: args=distances)
	@bench/.venv/bin/python -m bench.run $(args)

bench/.venv/.installed: bench/requirements.txt bench/install.sh $(INSTALLED)
	@bash bench/install.sh

clean:  ## remove what was built (.venv stays)
	@rm -rf _build .pytest_cache .ruff_cache

# The environment is made anew where it belongs to another folder (a copy, a move) or its Python is gone.
ifneq ($(shell .venv/bin/python -c '' 2>/dev/null && cat $(INSTALLED) 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED)
endif
$(INSTALLED): requirements.txt pyproject.toml tools/install.sh
	@PYTHON="$(PYTHON)" bash tools/install.sh
