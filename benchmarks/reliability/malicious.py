"""Artefacts that try to run code or to write outside their folder: none does."""

from collections.abc import Iterable

from reliability.part import Part, Trial, cases
from reliability.suite import suite


def _listed() -> Iterable[Trial]:
    from tests.support import malicious

    return [suite("tests/test_security.py", len(list(malicious.cases())))]


PART = Part(
    "malicious",
    "malicious artefacts (pickles, URLs, polyglots, traversal, remote code): none executed, no file outside the folder",
    40,
    "artefacts",
    cases(_listed),
)
