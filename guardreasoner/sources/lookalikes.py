"""Harmless requests that look harmful. A guard that calls them harmful makes an assistant refuse too much.

A record says so in a column of its own: ``extra: {"lookalike": "yes"}``. Sources of such benchmarks set it, and a file
can have it (``columns.extra: [lookalike]``). In the embedded corpus, the intent in the record's id says so.
"""

from guardreasoner.records import Record
from guardreasoner.sources.embedded import has_lookalike_intent

LOOKALIKE = {"lookalike": "yes"}
"""The column of a look-alike."""

_YES = ("yes", "true", "1")


def is_lookalike(record: Record) -> bool:
    """Return whether a record is a look-alike; whether it is harmless, its gold label says."""
    return record.extra.get("lookalike", "").casefold() in _YES or has_lookalike_intent(record.id)
