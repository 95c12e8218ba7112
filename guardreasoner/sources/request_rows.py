"""Records of data sets whose rows are requests alone, all of them harmful, or harmless ones in contrast."""

from collections.abc import Mapping
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.hub import required_text
from guardreasoner.sources.lookalikes import LOOKALIKE
from guardreasoner.sources.slices import MAX_SLICE


def request_record(
    source: str,
    number: int,
    row: Mapping[str, Any],
    where: str,
    prompt: str,
    label: str,
    extra: Mapping[str, str] | None = None,
) -> Record:
    """Return the record of a request with a label "request"; a harmless request is marked as a look-alike.

    Args:
        source: name of the benchmark, which becomes the start of the record's id.
        number: number of the row.
        row: the row.
        where: place of the row, for messages.
        prompt: column of the request.
        label: harmful or unharmful.
        extra: column of the row for each further column of the record.

    Raises:
        InputError: the request is empty, or a further column is no short text.
    """
    text = required_text(row, prompt, where)
    if not text.strip():
        raise InputError(f"{where}: {prompt}: found an empty text, expected text")
    columns = {name: slice_text(row, column, where) for name, column in (extra or {}).items()}
    lookalike = LOOKALIKE if label == "unharmful" else {}
    record_id = f"{source}/{number:06d}"
    return Record(record_id, text, None, {"request": label}, source=source, extra={**columns, **lookalike})


def slice_text(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return a text by which scores can be split; raise ``InputError`` if it is too long or not printable."""
    text = required_text(row, column, where)
    if not text.isprintable() or len(text) > MAX_SLICE:
        raise InputError(f"{where}: {column}: expected at most {MAX_SLICE} printable characters")
    return text
