"""Shared parts of the benchmarks: real data, one process per measurement, ratios, tables."""
