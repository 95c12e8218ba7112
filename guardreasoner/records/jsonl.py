"""Read JSON lines strictly: one object a line, no duplicate keys, no NaN, no line of gigabytes."""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from guardreasoner.errors import InputError, unique_keys

MAX_ROW = 16 * 2**20
"""Most bytes of one row of a file: a compressed file of a few kilobytes may hold a line of gigabytes."""


def read_jsonl(
    path: str | Path, truncated: Callable[[int], None] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each line of a JSONL file; blank lines are skipped.

    Args:
        path: the file.
        truncated: called with the number of a truncated last line of an interrupted writer, which is then skipped.
            None: such a line is an error.

    Raises:
        InputError: the file is missing, not UTF-8 or cannot be read, or a line is too long or not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            for number, line in read_lines(file, path):
                if not line.strip():
                    continue
                try:
                    row = parse_json(line.decode())
                except ValueError as error:
                    if truncated is None or line.endswith(b"\n"):
                        raise InputError(f"{path}:{number}: {_fault(error)}") from None
                    truncated(number)
                    return
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
                yield number, row
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def read_lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of an open file, without its byte-order mark.

    Args:
        file: the file, decompressed.
        path: its path, for messages.

    Raises:
        InputError: a line has more than ``MAX_ROW`` bytes, or the file is UTF-16.
    """
    number = 0
    while line := file.readline(MAX_ROW + 1):
        number += 1
        if len(line) > MAX_ROW:
            raise InputError(f"{path}:{number}: the line is longer than {MAX_ROW >> 20} MiB, the most that is read")
        if number == 1:
            line = without_bom(line, path)
        yield number, line


def without_bom(start: bytes, path: Path) -> bytes:
    """Return the start of a file without its UTF-8 byte-order mark; raise ``InputError`` if the mark is UTF-16."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}: found UTF-16, expected UTF-8", "save the file as UTF-8")
    return start.removeprefix(codecs.BOM_UTF8)


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
        error.args = (_fault(error),)
        raise
    except RecursionError:
        raise ValueError("not valid JSON: too deeply nested") from None
    except ValueError as error:
        if "set_int_max_str_digits" not in str(error):
            raise
        raise ValueError("found a number with thousands of digits, which Python cannot read") from None


def _fault(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    return f"not valid UTF-8: {error.reason}" if isinstance(error, UnicodeDecodeError) else str(error)
