"""Read rows one at a time from JSONL, JSON, CSV and TSV files (each also gzipped) and from Parquet files."""

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

from guardreasoner.errors import InputError, unique_keys

_BOM = b"\xef\xbb\xbf"
_BATCH = 1024
_ESCAPED = re.compile("[\udc80-\udcff]")
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Args:
        location: line number from 1 ("17"); "item 17" in a JSON list, "row 17" in a Parquet file.
        values: cell by column; None if the row cannot be parsed.
        fault: why the row cannot be parsed; None otherwise.
        raw: unchanged content of the row: bytes, or a dictionary of values for Parquet.
    """

    location: str
    values: dict[str, Any] | None
    fault: str | None
    raw: Any


def read_file_rows(path: str | Path) -> Iterator[Row]:
    """Yield the rows of a file; a row that cannot be parsed has a fault and does not stop the iteration.

    Raises:
        InputError: the file is missing, has an unknown extension, or cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file", f"give its files: {path}/*.jsonl")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    reader = READERS.get(file_format(path))
    if reader is None:
        raise InputError(f"{path}: expected a name that ends in {', '.join(READERS)}, the first four also with .gz")
    try:
        yield from reader(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read: {reason}") from None


def file_format(path: Path) -> str:
    """Return the extension in lower case, without ``.gz``: ".jsonl" for "a.JSONL.gz"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""


def header(path: Path) -> bytes:
    """Return the raw header line of a CSV or TSV file; empty for other formats."""
    if file_format(path) not in _DELIMITERS:
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


def _json_row(location: str, line: bytes) -> Row:
    try:
        value = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Row(location, None, _not_utf8(line[error.start], len(line[: error.start].decode("utf-8"))), line)
    except ValueError as error:
        return Row(location, None, str(error), line)
    if not isinstance(value, dict):
        return Row(location, None, f"found {_json_name(value)}, expected a JSON object", line)
    return Row(location, value, None, line)


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
    """Yield the items of a JSON list one by one, each with its raw text."""
    decoder = json.JSONDecoder(parse_int=float)  # used only to find the end of an item; int() refuses very long numbers

    def skip_space(position: int) -> int:
        match = _SPACE.match(text, position)
        return match.end() if match else position

    position = skip_space(0)
    if text[position] != "[":
        value, _ = decoder.raw_decode(text, position)
        hint = "a file with an object on each line is named .jsonl" if isinstance(value, dict) else None
        raise InputError(f"{path}: found {_json_name(value)}, expected a JSON list of objects", hint)
    position = skip_space(position + 1)
    delimiter, number = text[position : position + 1], 0
    if delimiter == "]":
        position = skip_space(position + 1)
    while delimiter != "]":
        start, number = position, number + 1
        _, end = decoder.raw_decode(text, start)
        yield _json_row(f"item {number}", text[start:end].encode())
        position = skip_space(end)
        delimiter = text[position : position + 1]
        if delimiter not in (",", "]"):
            raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
        position = skip_space(position + 1)
    if position < len(text):
        raise json.JSONDecodeError("Extra data", text, position)


def parse_json(text: str) -> Any:
    """Parse a JSON text strictly.

    Raises:
        ValueError: the text is not JSON, an object has a duplicate key, or a number is NaN or infinite.
    """

    def refuse_constant(constant: str) -> Any:
        raise ValueError(f"found {constant}, which is not JSON; use null for a missing value")

    try:
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        error.args = (_not_json(error),)
        raise
    except RecursionError:
        raise ValueError("not valid JSON: too deeply nested") from None
    except ValueError as error:
        if "set_int_max_str_digits" not in str(error):
            raise
        raise ValueError("found a number with thousands of digits, which Python cannot read") from None


def _cells(path: Path) -> Iterator[tuple[int, list[str] | str, bytes]]:
    """Yield each row of a CSV or TSV file: its first line number, its cells or an error message, and its raw bytes."""
    csv.field_size_limit(sys.maxsize)
    pending: list[bytes] = []

    def decoded_lines() -> Iterator[str]:
        for _, line in _lines(path):
            pending.append(line)
            yield line.decode("utf-8", errors="surrogateescape")

    reader = csv.reader(decoded_lines(), delimiter=_DELIMITERS[file_format(path)], strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells: list[str] | str | None = next(reader, None)
        except csv.Error as error:
            messages = (message for prefix, message in _CSV_ERRORS.items() if str(error).startswith(prefix))
            cells = f"not valid CSV: {next(messages, error)}"
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
    if (duplicate := _first_duplicate(names)) is not None:
        raise InputError(f"{where}: the column {duplicate!r} occurs twice")
    if any(map(_ESCAPED.search, names)):
        raise InputError(f"{where}: the column names are not valid UTF-8")
    return names


def _csv_row(location: str, header: Sequence[str], cells: Sequence[str], raw: bytes) -> Row:
    if len(cells) != len(header):
        count = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
        return Row(location, None, f"found {count}, expected {len(header)}: {', '.join(map(repr, header))}", raw)
    for name, cell in zip(header, cells, strict=True):
        if escaped := _ESCAPED.search(cell):
            return Row(location, None, f"{name}: {_not_utf8(ord(escaped[0]) - 0xDC00, escaped.start())}", raw)
    return Row(location, {name: cell or None for name, cell in zip(header, cells, strict=True)}, None, raw)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if (duplicate := _first_duplicate(file.schema_arrow.names)) is not None:
                raise InputError(f"{path}: the column {duplicate!r} occurs twice")
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"row {number}", values, None, values)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_CSV_ERRORS = {
    "unexpected end of data": "a quoted cell is not closed",
    "new-line character": "found a carriage return outside quotes, expected lines that end in \\n or \\r\\n",
}

READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


def _first_duplicate(names: Sequence[str]) -> str | None:
    return next((name for index, name in enumerate(names) if name in names[:index]), None)


def _not_json(error: json.JSONDecodeError) -> str:
    return f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"


def _not_utf8(byte: int, index: int) -> str:
    return f"not valid UTF-8: byte 0x{byte:02x} at character {index + 1}"


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
