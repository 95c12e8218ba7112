"""Collects the messages of the package's logger."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collect_log_lines() -> Iterator[list[str]]:
    """Yield a list that receives every message logged by ``guardreasoner`` at level INFO or above."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("guardreasoner")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
