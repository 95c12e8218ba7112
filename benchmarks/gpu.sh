#!/bin/sh
# Measures training and decoding on one GPU in at most 10 minutes, prints a table and writes benchmarks/results/gpu.json:
#
#     benchmarks/gpu.sh                                # --help lists the flags; run it again to measure what is missing
#     PYTHON=/path/to/python benchmarks/gpu.sh         # default: .venv/bin/python, else python3
cd "$(dirname "$0")/.." || exit 1
[ -n "$PYTHON" ] || { [ -x .venv/bin/python ] && PYTHON=.venv/bin/python || PYTHON=python3; }
PYTHONPATH="$PWD:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" -m gpu "$@"
