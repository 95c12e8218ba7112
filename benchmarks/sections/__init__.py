"""The parts of docs/performance.md: one file for each kind of result, each with the same three functions."""
