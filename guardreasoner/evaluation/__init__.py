"""Scores with intervals, comparison of runs, attacks, reasoning quality and the test module."""
