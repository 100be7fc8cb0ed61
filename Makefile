# A fresh machine needs Python 3.11, make and a package index. `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help demo serve test test-fast test-gpu lint docs wheel image coverage bench bench-quick clean lock train

PYTHON ?= python3.11
BIN := .venv/bin
VOICE ?= samples/slt.wav
FACE ?= face.png
BUNDLE ?= demo
EXTRAS = client,serve
LOCK ?= requirements.lock

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/test.stamp: private EXTRAS = client,serve,photos,landmarks,videos,ray,evaluate,test,dev,docs
.venv/photos.stamp: private EXTRAS = client,serve,photos
.venv/train.stamp: private EXTRAS = client,serve,train
.venv/bench.stamp: private EXTRAS = client,serve,bench
.venv/test.stamp .venv/photos.stamp .venv/train.stamp .venv/bench.stamp: .venv/serve.stamp
.venv/%.stamp: pyproject.toml $(LOCK)
	LOCK='$(LOCK)' PYTHON='$(PYTHON)' sh scripts/install.sh $(EXTRAS) --editable
	@touch $@

demo: .venv/serve.stamp $(if $(PHOTOS),.venv/photos.stamp)  ## [VOICE=path] [FACE=path] [PHOTOS=folder] make a face from a voice with a real TorchServe
	$(if $(PHOTOS),$(BIN)/voicestyle bundle demo)
	$(if $(PHOTOS),$(BIN)/voicestyle bundle photos '$(PHOTOS)' --steps 100 --workers 2 -o bundles/photographs)
	$(BIN)/python scripts/demo.py --voice '$(VOICE)' --face '$(FACE)' $(if $(PHOTOS),--bundle bundles/photographs)

serve: .venv/serve.stamp  ## [BUNDLE=name] serve bundles/BUNDLE in the foreground, with a current archive
	$(if $(filter demo,$(BUNDLE)),$(BIN)/voicestyle bundle demo)
	$(BIN)/voicestyle archive --bundle 'bundles/$(BUNDLE)'
	$(BIN)/voicestyle serve

lint: .venv/test.stamp  ## run ruff, pyright and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# OpenMP threads that spin for long slow down the servers that some tests start.
test test-fast: export GOMP_SPINCOUNT ?= 1000
test: lint  ## lint, then run all tests but those that need a GPU or minutes
	$(BIN)/voicestyle bundle demo
	$(BIN)/python -m pytest

test-fast: .venv/test.stamp  ## run the tests that start no server and take no longer than seconds (two minutes in all)
	$(BIN)/voicestyle bundle demo
	$(BIN)/python -m pytest -q -m 'not serving and not long'

# Not .venv/serve.stamp first: without a lock of its own, it would install the build of torch that the index prefers.
.venv/gpu.stamp: private EXTRAS = client,serve,bench,test
.venv/gpu.stamp: private LOCK = requirements-cuda.lock
.venv/gpu.stamp: requirements-cuda.lock
test-gpu: .venv/gpu.stamp  ## on a machine with a GPU: test what it computes, then measure it for docs/benchmarks.md
	@$(BIN)/python -m benchmarks.gpu --check
	$(BIN)/python -m pytest -m gpu tests/gpu $$(grep -rl --include='test_*.py' 'mark\.gpu' tests)
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.tables

docs: .venv/test.stamp  ## build the documentation site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(BIN)/python  ## build the wheel into dist/
	$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .

image:  ## build the container image for CPUs
	docker build --target cpu --build-arg PIP_INDEX_URL --build-arg PIP_EXTRA_INDEX_URL --tag voicestyle:cpu .

coverage: export GOMP_SPINCOUNT ?= 1000
coverage: .venv/test.stamp  ## run the tests without servers and measure the share of lines that they run
	$(BIN)/voicestyle bundle demo
	$(BIN)/python -m pytest -m 'not serving' --cov

bench: .venv/bench.stamp  ## measure step, inversion, serving and cold start for docs/benchmarks.md (hours)
	$(BIN)/voicestyle bundle demo
	$(BIN)/voicestyle archive
	$(BIN)/python -m benchmarks.step --quality 2
	$(BIN)/python -m benchmarks.inversion
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.cold_start
	$(BIN)/python -m benchmarks.tables

bench-quick: .venv/bench.stamp  ## minutes: the speed of the step
	$(BIN)/python -m benchmarks.step --quick

train: .venv/train.stamp  ## VOICES=folder train the demo bundle's encoders again
	$(BIN)/python scripts/train_demo.py --voices '$(VOICES)'

# uv reads no setting of pip, so torch is PyPI's CUDA build, and downloads metadata instead of wheels.
lock: $(BIN)/python  ## resolve requirements.lock again, and requirements-cuda.lock, the same with torch's CUDA build
	$(BIN)/python -m pip install -qq pip-tools uv
	$(BIN)/pip-compile --quiet --all-extras --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --output-file requirements.lock pyproject.toml
	@sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements.lock  # the index decides on the build (CPU, CUDA)
	$(BIN)/uv pip compile --quiet --no-config --all-extras --constraint requirements.lock --annotation-style line \
		--python $(BIN)/python --python-platform x86_64-manylinux_2_28 --custom-compile-command 'make lock' \
		--output-file requirements-cuda.lock pyproject.toml

clean:  ## remove all generated files, also bundles and their inversions
	rm -rf .venv .cache bundles build dist logs site *.egg-info model_store/*.mar face*.png
