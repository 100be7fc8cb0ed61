# Everything a fresh machine needs is Python 3.11, make and a package index.
#   make demo [VOICE=path] [FACE=path]   a voice to a face through a real TorchServe
#   make test                            lint, types, import directions, tests
.DEFAULT_GOAL := help
.PHONY: help demo serve test lint bench bench-quick clean lock train

PYTHON ?= python3.11
BIN := .venv/bin
VOICE ?= samples/slt.wav
FACE ?= face.png
ARCHIVE := model_store/voicestyle.mar

INSTALL := PYTHON='$(PYTHON)' sh scripts/install.sh

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/serve.stamp: pyproject.toml requirements.lock
	$(INSTALL) client,serve
	@touch $@

.venv/test.stamp: .venv/serve.stamp
	$(INSTALL) client,serve,test,dev
	@touch $@

.venv/train.stamp: .venv/serve.stamp
	$(INSTALL) client,serve,train
	@touch $@

.venv/bench.stamp: .venv/serve.stamp
	$(INSTALL) client,serve,bench
	@touch $@

demo: .venv/serve.stamp  ## VOICE=path FACE=path: a voice to a PNG through a real TorchServe
	$(BIN)/python scripts/demo.py --voice '$(VOICE)' --face '$(FACE)'

$(ARCHIVE): | .venv/serve.stamp
	$(BIN)/voicestyle bundle demo
	$(BIN)/voicestyle archive

serve: .venv/serve.stamp $(ARCHIVE)  ## the archive in model_store (the demo bundle's if there is none) in the foreground
	$(BIN)/voicestyle serve

lint: .venv/test.stamp  ## ruff, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Threads that spin for each other starve beside other work, such as the servers of the tests.
test: export GOMP_SPINCOUNT ?= 1000
test: lint  ## lint, then every test that needs no GPU
	$(BIN)/voicestyle bundle demo
	$(BIN)/python -m pytest

bench: .venv/bench.stamp  ## hours: step, serving and cold start, into docs/benchmarks.md
	$(BIN)/voicestyle bundle demo
	$(BIN)/voicestyle archive
	$(BIN)/python -m benchmarks.step --quality 2
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.cold_start
	$(BIN)/python -m benchmarks.tables

bench-quick: .venv/bench.stamp  ## minutes: the speed of the step
	$(BIN)/python -m benchmarks.step --quick

train: .venv/train.stamp  ## VOICES=folder: train the demo bundle's encoders anew
	$(BIN)/python scripts/train_demo.py --voices '$(VOICES)'

lock: $(BIN)/python  ## resolve requirements.lock anew
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --all-extras --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --output-file requirements.lock pyproject.toml
	@sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements.lock  # the build (CPU, CUDA) is the index's choice

clean:  ## everything that make made
	rm -rf .venv .cache bundles build logs *.egg-info model_store/*.mar face*.png
