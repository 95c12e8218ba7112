"""Collecting the lines that the package logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collect_log_lines(level: int = logging.INFO) -> Iterator[list[str]]:
    """Yield a list that receives every message that the package logs inside the block.

    Args:
        level: lowest level to collect.
    """
    lines: list[str] = []
    log = logging.getLogger("guardreasoner")
    handler = logging.Handler(level)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
