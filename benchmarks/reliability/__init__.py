"""The reliability campaign: kills, signals, bad inputs, damaged files and fuzzing, with the figures they must reach.

    PYTHONPATH=.:benchmarks python -m reliability [PART ...]

``part.py`` defines a trial, ``journal.py`` stores each result when it is known, and ``page.py`` writes
``docs/reliability.md`` from the stored results. Each other file is one part, or what several parts share.
"""
