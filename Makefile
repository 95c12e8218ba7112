# `make demo` runs the whole pipeline on the embedded data, `make test` runs lint and tests. Both create .venv first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m guardreasoner

.PHONY: demo test lint campaign clean

demo: $(VENV)/installed
	$(RUN) fit --config configs/hsdpo.yaml
	$(RUN) test --config configs/evaluate.yaml --all
	$(RUN) score "R-SFT, 1 epoch=logs/predictions/rsft-1epoch" "R-SFT, 3 epochs=logs/predictions/rsft" "HS-DPO=logs/predictions/hsdpo"
	$(RUN) compare "R-SFT, 1 epoch=logs/predictions/rsft-1epoch" "R-SFT, 3 epochs=logs/predictions/rsft" "HS-DPO=logs/predictions/hsdpo"
	$(RUN) report "R-SFT, 1 epoch=logs/predictions/rsft-1epoch" "R-SFT, 3 epochs=logs/predictions/rsft" "HS-DPO=logs/predictions/hsdpo" --out logs/report.html

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

# Hours; goes on where it was stopped. PARTS="kills golden" runs some parts, FLAGS=--again failed trials again.
campaign: $(VENV)/installed
	PYTHONPATH=.:benchmarks $(VENV)/bin/python -m reliability $(PARTS) $(FLAGS)

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

# Remove all outputs of runs except ratings.
clean:
	find checkpoints logs -mindepth 1 -maxdepth 1 ! -name '.*' ! -path logs/ratings -exec rm -rf {} +
