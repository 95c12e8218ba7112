# `make demo` runs the whole pipeline on the embedded data, `make real` on real records and a pretrained model, `make test` runs lint
# and the quick tests, `make test-all` all tests. All create .venv first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m guardreasoner

.PHONY: demo real test test-all lint campaign evidence clean

demo: $(VENV)/installed
	$(RUN) fit --config configs/hsdpo.yaml
	$(RUN) test --config configs/evaluate.yaml --all
	$(RUN) score "R-SFT, 1 epoch=logs/predictions/rsft-1epoch" "R-SFT, 3 epochs=logs/predictions/rsft" "HS-DPO=logs/predictions/hsdpo"
	$(RUN) compare "R-SFT, 1 epoch=logs/predictions/rsft-1epoch" "R-SFT, 3 epochs=logs/predictions/rsft" "HS-DPO=logs/predictions/hsdpo"
	$(RUN) report "R-SFT, 1 epoch=logs/predictions/rsft-1epoch" "R-SFT, 3 epochs=logs/predictions/rsft" "HS-DPO=logs/predictions/hsdpo" --out logs/report.html

# Hours; goes on where it was stopped. BUDGET=full trains all weights on all records. GUARDREASONER_DATA is the folder of docs/released-data.md.
# Generates in bfloat16 where the processor multiplies it fast.
BUDGET ?= small
REAL_DTYPE := $(shell grep -qsw amx_bf16 /proc/cpuinfo && echo --recipe.inference_dtype bfloat16)
REAL_FLAGS ?=
REAL := logs/smollm2-135m/predictions
REAL_RUNS := majority=$(REAL)/majority TF-IDF=$(REAL)/tf-idf zero-shot=$(REAL)/zero-shot direct=$(REAL)/direct R-SFT=$(REAL)/rsft HS-DPO=$(REAL)/hsdpo
real: $(VENV)/installed
	$(RUN) run --config configs/pipeline_real.yaml --config configs/model/smollm2-135m.yaml --config configs/data/real.yaml --config configs/budget/$(BUDGET).yaml $(REAL_DTYPE) $(REAL_FLAGS)
	$(RUN) compare $(REAL_RUNS)
	$(RUN) report $(REAL_RUNS) --out logs/smollm2-135m/report.html

# Files with slow tests come first (tests/conftest.py), so that none of them is left to one worker at the end.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: lint
	$(PYTEST) -m "not slow"

# Also the tests that train for more than some steps, kill runs, start several processes, open a browser or run a benchmark.
test-all: lint
	$(PYTEST)

# Hours; goes on where it was stopped. PARTS="kills golden" runs some parts, FLAGS=--again failed trials again.
campaign: $(VENV)/installed
	PYTHONPATH=.:benchmarks $(VENV)/bin/python -m reliability $(PARTS) $(FLAGS)

# A day or two; goes on where it was stopped, and may be started several times at once. FLAGS="--seeds 1 --arms rsft hsdpo" runs some of
# it, FLAGS=--page-only writes docs/evidence.md from stored results, STUDY=benchmarks/evidence/studies/settings.yaml (or real.yaml) is another study.
# TRL, which an arm needs, is not part of what the other targets install, and the page does without it.
evidence: $(VENV)/installed$(if $(findstring --page-only,$(FLAGS)),,-bench)
	PYTHONPATH=.:benchmarks $(VENV)/bin/python -m evidence $(STUDY) $(FLAGS)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# With CUDA, install the torch build of your choice first, then `pip install -e .[dev]`; constraints.txt pins the tested versions.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt torch
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

# Remove all outputs of runs except ratings.
clean:
	find checkpoints logs -mindepth 1 -maxdepth 1 ! -name '.*' ! -path logs/ratings -exec rm -rf {} +
