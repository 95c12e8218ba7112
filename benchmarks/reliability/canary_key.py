"""A canary API key through synthesis, a crash and a report: it must occur in nothing that is written or shown."""

from collections.abc import Iterable

from reliability.part import Part, Trial, cases
from reliability.suite import suite


def _listed() -> Iterable[Trial]:
    return [suite("tests/synthesis/test_canary_key.py", 1)]


PART = Part(
    "canary-key",
    "canary key through synthesis, crash and report: runs without an occurrence in anything written or shown",
    0,
    "runs",
    cases(_listed),
)
