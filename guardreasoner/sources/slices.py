"""Columns by which scores are split: language, source and turns of a record, and the further columns it carries."""

from collections.abc import Iterable

from guardreasoner.records import Record

SLICES = ("language", "source", "turns")
"""Columns of every record; others are in ``Record.extra``."""

MAX_SLICE = 100
"""Most characters of a value by which scores are split."""


def slice_value(record: Record, column: str) -> str | None:
    """Return the value of a record in a column; None if it has none."""
    if column == "turns":
        return str(sum(message.role == "user" for message in record.messages))
    if column == "source":
        return record.source or None
    return record.language if column == "language" else record.extra.get(column)


def slice_columns(records: Iterable[Record]) -> list[str]:
    """Return the columns in which some record has a value."""
    extra = dict.fromkeys(name for record in records for name in record.extra)
    known = [column for column in SLICES if any(slice_value(record, column) is not None for record in records)]
    return [*known, *extra]
