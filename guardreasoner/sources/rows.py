"""Rows of a file as they stand in it: JSONL, JSON, CSV and TSV (each also gzipped) and Parquet, one at a time."""

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from guardreasoner.errors import InputError

_BOM = b"\xef\xbb\xbf"
_BATCH = 1024
_ESCAPED = re.compile("[\udc80-\udcff]")
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Args:
        place: its line from 1 ("17"), or "row 17" in a file without lines.
        values: cell by column; None where the row cannot be read.
        fault: why it cannot be read.
        raw: the row as it stands in the file: bytes, or what a Parquet row holds.
    """

    place: str
    values: dict[str, Any] | None
    fault: str | None
    raw: Any


def read_rows(path: str | Path) -> Iterator[Row]:
    """Yield the rows of a file; what is wrong with a single row is told in it, and the next one follows.

    Raises:
        InputError: there is no such file, its name ends in no known way, or it cannot be read at all.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file", f"give its files: {path}/*.jsonl")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    reader = READERS.get(kind(path))
    if reader is None:
        raise InputError(f"{path}: expected a name that ends in {', '.join(READERS)}, the first four also with .gz")
    try:
        yield from reader(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read: {reason}") from None


def kind(path: Path) -> str:
    """Return how a file's name ends, without ``.gz``: ".jsonl" for "a.JSONL.gz"."""
    endings = [ending.lower() for ending in path.suffixes]
    return endings[-2] if len(endings) > 1 and endings[-1] == ".gz" else endings[-1] if endings else ""


def header(path: Path) -> bytes:
    """Return the names of the columns of a CSV or TSV file as they stand in it; nothing for other files."""
    if kind(path) not in _DELIMITERS:
        return b""
    return next((raw for _, cells, raw in _cells(path) if cells), b"")


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            yield number, line.removeprefix(_BOM) if number == 1 else line


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if line.strip():
            yield _json_row(str(number), line)


def _json_row(place: str, line: bytes) -> Row:
    try:
        value = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Row(place, None, _not_utf8(line[error.start], len(line[: error.start].decode("utf-8"))), line)
    except ValueError as error:
        return Row(place, None, str(error), line)
    if not isinstance(value, dict):
        return Row(place, None, f"found {_json_name(value)}, expected a JSON object", line)
    return Row(place, value, None, line)


def _json(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        content = file.read().removeprefix(_BOM)
    if not content.strip():
        return
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        fault = _not_utf8(content[error.start], len(before) - before.rfind("\n") - 1)
        raise InputError(f"{path}:{before.count(chr(10)) + 1}: {fault}") from None
    try:
        yield from _items(text, path)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: {_not_json(error)}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid JSON: too deeply nested") from None


def _items(text: str, path: Path) -> Iterator[Row]:
    """Yield the items of a JSON list one by one, each as it stands there."""
    decoder = json.JSONDecoder(parse_int=float)  # only to find where an item ends; an int may be too long for Python

    def after_space(at: int) -> int:
        found = _SPACE.match(text, at)
        return found.end() if found else at

    at = after_space(0)
    if text[at] != "[":
        value, _ = decoder.raw_decode(text, at)
        hint = "a file with an object on each line is named .jsonl" if isinstance(value, dict) else None
        raise InputError(f"{path}: found {_json_name(value)}, expected a JSON list of objects", hint)
    at = after_space(at + 1)
    mark, number = text[at : at + 1], 0
    if mark == "]":
        at = after_space(at + 1)
    while mark != "]":
        start, number = at, number + 1
        _, end = decoder.raw_decode(text, start)
        yield _json_row(f"item {number}", text[start:end].encode())
        at = after_space(end)
        mark = text[at : at + 1]
        if mark not in (",", "]"):
            raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        at = after_space(at + 1)
    if at < len(text):
        raise json.JSONDecodeError("Extra data", text, at)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: not JSON, a key twice in one object, or a NaN or infinite number, which JSON does not have.
    """

    def once(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError(f"the key {_twice([key for key, _ in items])!r} occurs twice")
        return found

    def no_number(word: str) -> Any:
        raise ValueError(f"found {word}, which is not JSON; null says that there is no value")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except json.JSONDecodeError as error:
        error.args = (_not_json(error),)
        raise
    except RecursionError:
        raise ValueError("not valid JSON: too deeply nested") from None
    except ValueError as error:
        if "set_int_max_str_digits" not in str(error):
            raise
        raise ValueError("found a number of thousands of digits, which Python does not read") from None


def _cells(path: Path) -> Iterator[tuple[int, list[str] | str, bytes]]:
    """Yield each row of a CSV or TSV file: its first line, its cells or what is wrong with it, and its bytes."""
    csv.field_size_limit(sys.maxsize)
    pending: list[bytes] = []

    def texts() -> Iterator[str]:
        for _, line in _lines(path):
            pending.append(line)
            yield line.decode("utf-8", errors="surrogateescape")

    reader = csv.reader(texts(), delimiter=_DELIMITERS[kind(path)], strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells: list[str] | str | None = next(reader, None)
        except csv.Error as error:
            known = (ours for theirs, ours in _CSV_ERRORS.items() if str(error).startswith(theirs))
            cells = f"not valid CSV: {next(known, error)}"
        if cells is None:
            return
        yield start, cells, b"".join(pending)
        pending.clear()


def _csv(path: Path) -> Iterator[Row]:
    names: list[str] | None = None
    for start, cells, raw in _cells(path):
        if isinstance(cells, str):
            if names is None:
                raise InputError(f"{path}:{start}: {cells}")
            yield Row(str(start), None, cells, raw)
        elif cells and names is None:
            names = _header(cells, f"{path}:{start}")
        elif cells and names is not None:
            yield _csv_row(str(start), names, cells, raw)


def _header(names: list[str], where: str) -> list[str]:
    if (twice := _twice(names)) is not None:
        raise InputError(f"{where}: the column {twice!r} occurs twice")
    if any(map(_ESCAPED.search, names)):
        raise InputError(f"{where}: the names of the columns are not valid UTF-8")
    return names


def _csv_row(place: str, header: Sequence[str], cells: Sequence[str], raw: bytes) -> Row:
    if len(cells) != len(header):
        count = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
        return Row(place, None, f"found {count}, expected {len(header)}: {', '.join(map(repr, header))}", raw)
    for name, cell in zip(header, cells, strict=True):
        if escaped := _ESCAPED.search(cell):
            return Row(place, None, f"{name}: {_not_utf8(ord(escaped[0]) - 0xDC00, escaped.start())}", raw)
    return Row(place, {name: cell or None for name, cell in zip(header, cells, strict=True)}, None, raw)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if (twice := _twice(file.schema_arrow.names)) is not None:
                raise InputError(f"{path}: the column {twice!r} occurs twice")
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"row {number}", values, None, values)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_CSV_ERRORS = {
    "unexpected end of data": "a quoted cell does not end",
    "new-line character": "found a carriage return outside quotes, expected lines that end in \\n or \\r\\n",
}

READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


def _twice(names: Sequence[str]) -> str | None:
    return next((name for at, name in enumerate(names) if name in names[:at]), None)


def _not_json(error: json.JSONDecodeError) -> str:
    return f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"


def _not_utf8(byte: int, at: int) -> str:
    return f"not valid UTF-8: byte 0x{byte:02x} at character {at + 1}"


def _json_name(value: Any) -> str:
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else names[type(value)]
