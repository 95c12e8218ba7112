"""Rows of a file as they stand in it: JSONL, JSON, CSV and TSV (each also gzipped) and Parquet, one at a time."""

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from guardreasoner.errors import InputError

_BOM = b"\xef\xbb\xbf"
_BATCH = 1024


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
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None


def kind(path: Path) -> str:
    """Return how a file's name ends, without ``.gz``: ".jsonl" for "a.JSONL.gz"."""
    endings = [ending.lower() for ending in path.suffixes]
    return endings[-2] if len(endings) > 1 and endings[-1] == ".gz" else endings[-1] if endings else ""


def header(path: Path) -> bytes:
    """Return the first line of a file whose rows mean nothing without it; nothing for other files."""
    if kind(path) not in (".csv", ".tsv"):
        return b""
    return next((line for _, line in _lines(path)), b"")


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
        return Row(place, None, _not_utf8(line[error.start], error.start), line)
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
        value = parse_json(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: {_not_utf8(content[error.start], error.start)}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(value, list):
        raise InputError(f"{path}: found {_json_name(value)}, expected a JSON list of objects")
    for number, item in enumerate(value, start=1):
        raw = json.dumps(item).encode()
        if isinstance(item, dict):
            yield Row(f"item {number}", item, None, raw)
        else:
            yield Row(f"item {number}", None, f"found {_json_name(item)}, expected a JSON object", raw)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: not JSON, a key twice in one object, or a NaN or infinite number, which JSON does not have.
    """

    def once(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"the key {twice!r} occurs twice")
        return found

    def no_number(word: str) -> Any:
        raise ValueError(f"found {word}, which is not JSON; null says that there is no value")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except json.JSONDecodeError as error:
        error.args = (f"not valid JSON: {error.msg} at column {error.colno}",)
        raise
    except RecursionError:
        raise ValueError("not valid JSON: too deeply nested") from None


def _csv(path: Path, delimiter: str = ",") -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    pending: list[bytes] = []

    def texts() -> Iterator[str]:
        for _, line in _lines(path):
            pending.append(line)
            yield line.decode("utf-8", errors="surrogateescape")

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if header is None:
                raise InputError(f"{path}:{start}: not valid CSV: {error}") from None
            yield Row(str(start), None, f"not valid CSV: {error}", b"".join(pending))
            pending.clear()
            continue
        if cells is None:
            return
        raw = b"".join(pending)
        pending.clear()
        if header is None:
            header = _header(cells, path)
        elif cells:
            yield _csv_row(str(start), header, cells, raw)


def _header(cells: Sequence[str], path: Path) -> list[str]:
    if twice := next((name for name in cells if cells.count(name) > 1), None):
        raise InputError(f"{path}:1: the column {twice!r} occurs twice")
    if any("\udc80" <= character <= "\udcff" for name in cells for character in name):
        raise InputError(f"{path}:1: the names of the columns are not valid UTF-8")
    return list(cells)


def _csv_row(place: str, header: Sequence[str], cells: Sequence[str], raw: bytes) -> Row:
    if len(cells) != len(header):
        return Row(place, None, f"found {len(cells)} cells, expected {len(header)}: {', '.join(header)}", raw)
    for name, cell in zip(header, cells, strict=True):
        escaped = next((at for at, character in enumerate(cell) if "\udc80" <= character <= "\udcff"), None)
        if escaped is not None:
            return Row(place, None, f"{name}: {_not_utf8(ord(cell[escaped]) - 0xDC00, escaped)}", raw)
    return Row(place, {name: cell or None for name, cell in zip(header, cells, strict=True)}, None, raw)


def _tsv(path: Path) -> Iterator[Row]:
    return _csv(path, "\t")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"row {number}", values, None, values)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}


def _not_utf8(byte: int, at: int) -> str:
    return f"not valid UTF-8: byte 0x{byte:02x} at {at + 1}"


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
