"""Read rows one at a time from JSONL, JSON, CSV and TSV files (each also gzipped) and from Parquet files."""

import codecs
import csv
import gzip
import json
import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from guardreasoner.errors import InputError
from guardreasoner.records.jsonl import MAX_ROW, parse_json, read_lines, without_bom

_BATCH = 128
_CHUNK = 2**20
_MAX_ROW_LINES = 2**16
_LONGEST_WORD = 16
"""No word of JSON, such as -Infinity or an escape sequence, has more characters."""
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
        yield from read_lines(file, path)


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
    """Yield the items of a JSON list one by one, each with its raw text."""
    with _open(path) as file:
        text = _JSONText(file, path)
        first = text.peek()
        if not first:
            return
        if first != "[":
            value = json.loads(text.value("the value"), parse_int=float)
            hint = "a file with an object on each line is named .jsonl" if isinstance(value, dict) else None
            raise InputError(f"{path}: found {_json_name(value)}, expected a JSON list of objects", hint)
        text.position += 1
        number = 0
        delimiter = text.peek()
        if delimiter == "]":
            text.position += 1
        while delimiter != "]":
            number += 1
            yield _json_row(f"item {number}", text.value(f"item {number}").encode())
            delimiter = text.peek()
            if delimiter not in (",", "]"):
                raise text.error("Expecting ',' or ']'", text.position)
            text.position += 1
        if text.peek():
            raise text.error("Extra data", text.position)


class _JSONText:
    """The text of a JSON file, of which only a part is in memory.

    Args:
        file: the file, decompressed.
        path: its path, for messages.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.position = 0
        """Index of the next character in the part of the text that is in memory."""
        self._file = file
        self._path = path
        self._text = ""
        self._lines_before = self._columns_before = 0
        self._is_at_start = True
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        # Used only to find the end of a value; int() refuses very long numbers.
        self._decoder = json.JSONDecoder(parse_int=float)

    def peek(self) -> str:
        """Move to the next character that is not white space and return it; "" at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._read(_CHUNK):
                return ""

    def value(self, name: str) -> str:
        """Return the text of the next value, and move past it.

        Args:
            name: what the value is, for messages.

        Raises:
            InputError: the value is not valid JSON, too deeply nested or longer than ``MAX_ROW``.
        """
        self.peek()
        size = _CHUNK
        while True:
            try:
                _, end = self._decoder.raw_decode(self._text, self.position)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_WORD
                if not (is_cut and self._read(size)):
                    raise self.error(error.msg, error.pos) from None
            except RecursionError:
                raise self.error("too deeply nested", self.position, with_column=False) from None
            else:
                # A number at the end of the text may go on.
                if end < len(self._text) or not self._read(size):
                    start, self.position = self.position, end
                    return self._text[start:end]
            if len(self._text) > MAX_ROW:
                line, _ = self._place(self.position)
                limit = f"longer than {MAX_ROW >> 20} MiB, the most that is read"
                raise InputError(f"{self._path}:{line}: {name} is {limit}")
            size *= 2

    def error(self, message: str, position: int, with_column: bool = True) -> InputError:
        """Return the error that the text is not valid JSON at a position in memory."""
        line, column = self._place(position)
        where = f" at column {column}" if with_column else ""
        return InputError(f"{self._path}:{line}: not valid JSON: {message.removesuffix(' at')}{where}")

    def _read(self, size: int) -> bool:
        """Read more text and forget what is before the position; return False at the end of the file."""
        chunk = self._file.read(size)
        if self._is_at_start:
            chunk, self._is_at_start = without_bom(chunk, self._path), False
        try:
            text = self._utf8.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode("utf-8")
            line, column = self._place(len(self._text))
            raise InputError(f"{self._path}:{line}: {_not_utf8(error.object[error.start], column - 1)}") from None
        if chunk:
            line, column = self._place(self.position)
            self._lines_before, self._columns_before = line - 1, column - 1
            self._text, self.position = self._text[self.position :] + text, 0
        return bool(chunk)

    def _place(self, position: int) -> tuple[int, int]:
        """Return line and column, from 1, of a position in memory."""
        newline = self._text.rfind("\n", 0, position)
        column = position - newline if newline >= 0 else self._columns_before + position + 1
        return self._lines_before + self._text.count("\n", 0, position) + 1, column


def _cells(path: Path) -> Iterator[tuple[int, list[str] | str, bytes]]:
    """Yield each row of a CSV or TSV file: its first line number, its cells or an error message, and its raw bytes.

    A quote that is not closed takes in the lines below it. Only its own line is then faulty, and reading goes on with
    the next line; of these, a line with an odd number of quotes is faulty too, since it may be a part of the broken
    row. A TSV file may also be written without quoting: a line whose quotes are not closed, or that would take in lines
    of as many cells as the header, is split at its tabs. In a file of one column, closed quotes are quotes.
    """
    csv.field_size_limit(sys.maxsize)
    kind = file_format(path)[1:].upper()
    lines = _TableLines(path)
    width = broken_until = 0
    while True:
        lines.taken.clear()
        try:
            reader = csv.reader(lines, delimiter=_DELIMITERS[file_format(path)], strict=True)
            cells: list[str] | str | None = next(reader, None)
        except csv.Error as error:
            messages = (message for part, message in _CSV_ERRORS.items() if part in str(error))
            cells = f"not valid {kind}: {next(messages, error)}"
        if cells is None:
            return
        start, line = lines.taken[0]
        text = line.decode("utf-8", errors="surrogateescape").rstrip("\r\n")
        literal = text.split("\t") if kind == "TSV" and "\r" not in text else []
        # in a file of one column, every line inside a quoted cell looks like a row
        takes_in_rows = min(len(lines.taken), width) > 1 and all(
            taken.count(b"\t") == width - 1 for _, taken in lines.taken
        )
        if isinstance(cells, str) or (literal and takes_in_rows):
            broken_until = max(broken_until, lines.taken[-1][0])
            lines.put_back_all_but_first()
            cells = literal if literal and len(literal) == width else cells
        elif kind == "CSV" and start <= broken_until and text.count('"') % 2:
            cells = f"not valid {kind}: {_UNCLOSED}"
        width = width or len(cells)
        yield start, cells, b"".join(taken for _, taken in lines.taken)


class _TableLines:
    """The decoded lines of a CSV or TSV file, which can be put back.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.taken: list[tuple[int, bytes]] = []
        """Number and bytes of the lines of the current row."""
        self._path = path
        self._lines = _lines(path)
        self._put_back: deque[tuple[int, bytes]] = deque()
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        """Return itself."""
        return self

    def __next__(self) -> str:
        """Return the next line of the row.

        Raises:
            InputError: the row is too long.
        """
        entry = self._put_back.popleft() if self._put_back else next(self._lines)
        self._size = (self._size if self.taken else 0) + len(entry[1])
        self.taken.append(entry)
        if self._size > MAX_ROW or len(self.taken) > _MAX_ROW_LINES:
            limit = f"{MAX_ROW >> 20} MiB or {_MAX_ROW_LINES:,} lines, the most that is read"
            raise InputError(f"{self._path}:{self.taken[0][0]}: the row is longer than {limit}", "close its quotes")
        return entry[1].decode("utf-8", errors="surrogateescape")

    def put_back_all_but_first(self) -> None:
        """Make the first line of the row a row of its own."""
        self._put_back.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


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
_UNCLOSED = "a quoted cell is not closed"
_CSV_ERRORS = {
    "unexpected end of data": _UNCLOSED,
    "expected after": "found text after the closing quote of a cell; a quote inside a quoted cell is written twice",
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
