# Everything that one does with Sightline, from a fresh clone on: `make` prints the targets.
# Both environments are made on first use, with the versions of requirements.lock.

PYTHON ?= python3
RECIPE ?= lenet_digits
MODEL ?= cifar10-base
SIZE ?=
BUNDLE ?= $(MODEL)$(if $(SIZE),-$(SIZE))
SOURCE ?= demo://
DATA ?=
ARGS ?=
export PYTHON

RUNTIME := .venv-demo
DEV := .venv
PACKAGE := sightline.py $(shell find edge train calibration export -name '*.py' -o -path '*/bundles/*' -type f | sed 's/ /\\ /g')

.PHONY: help demo test test-slow train calibrate export run profile bench lint lock check-lock clean
.PHONY: needs-data needs-model

help:  ## print these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(RUNTIME)/.ready  ## stream the demo camera through the shipped models; writes out/ (no TensorFlow)
	$(RUNTIME)/bin/sightline run --source demo:// --frames 300 \
		--jsonl out/results.jsonl --video out/demo.mp4 --latency out/latency.json

test: lint  ## lint and all quick tests; ARGS go to pytest
	$(DEV)/bin/python -m pytest $(ARGS)

test-slow: $(DEV)/.ready  ## the tests that take minutes
	$(DEV)/bin/python -m pytest -m slow $(ARGS)

lint: $(DEV)/.ready  ## style, types and the one-way imports
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

train: $(DEV)/.ready  ## train RECIPE (lenet_digits), with DATA where the recipe needs it
	$(DEV)/bin/sightline train "$(RECIPE)" $(if $(DATA),--data "$(DATA)") $(ARGS)

calibrate: needs-model needs-data $(DEV)/.ready  ## how each tensor of models/MODEL.keras is quantized; needs DATA
	$(DEV)/bin/python -m calibration "models/$(MODEL).keras" --data "$(DATA)" $(ARGS)

export: needs-model needs-data $(DEV)/.ready  ## models/MODEL.keras (a detector at SIZE: 320, 320x192) to build/ and edge/bundles/BUNDLE; needs DATA
	$(DEV)/bin/sightline export "models/$(MODEL).keras" --data "$(DATA)" $(if $(SIZE),--size "$(SIZE)") \
		--out "build/bundles/$(BUNDLE)" --shipped "edge/bundles/$(BUNDLE)" $(ARGS)

run: $(RUNTIME)/.ready  ## stream SOURCE (demo://) through MODEL (cifar10-base)
	$(RUNTIME)/bin/sightline run --source "$(SOURCE)" --model "$(MODEL)" $(ARGS)

profile: $(RUNTIME)/.ready  ## the latency table of MODEL on SOURCE
	$(RUNTIME)/bin/sightline profile "$(MODEL)" --source "$(SOURCE)" $(ARGS)

bench: $(DEV)/.ready  ## every measurement of bench/; each says what it lacks
	@failed=; for script in $$(grep -l __main__ bench/*.py); do echo "== $$script"; \
		$(DEV)/bin/python "$$script" || failed="$$failed $$script"; done; \
		[ -z "$$failed" ] || { echo "Missed their goal, or lack something:$$failed" >&2; exit 1; }

lock:  ## write requirements.lock anew from pyproject.toml; ARGS=--upgrade for newest versions
	.ci/lock $(ARGS)

check-lock:  ## is the lock current, and does it resolve on JetPack 6, JetPack 7 and x86_64?
	.ci/lock --check

clean:  ## remove build/, out/ and caches; the environments, models/ and runs/ stay
	rm -rf build out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

needs-data:
	$(if $(DATA),,$(error Pass the data folder: make $(MAKECMDGOALS) DATA=path/to/cifar-10-batches-py))

needs-model:
	$(if $(wildcard models/$(MODEL).keras),,$(error There is no models/$(MODEL).keras; \
		there is: $(basename $(notdir $(wildcard models/*.keras)))))

# A real install, not a link to this folder: what `pip install .` gives a device is what the demo shows.
$(RUNTIME)/.ready: pyproject.toml requirements.lock .ci/setup $(PACKAGE)
	.ci/setup $(RUNTIME) '.[demo,onnx]'
	@touch $@

# jetpack7 for cuda-python alone: the tests' double of a GPU speaks with the real bindings' types.
$(DEV)/.ready: pyproject.toml requirements.lock .ci/setup
	.ci/setup $(DEV) --editable '.[dev,web,jetpack7]'
	@touch $@
