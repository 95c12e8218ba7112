"""Read and check CSV files of public data sets, whose cells are texts.

pandas, with which ``datasets`` reads CSV files, does not report what is refused here: it gives the texts of a row with
more cells than the header to other columns, and renames the second of two equal columns.
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records.jsonl import MAX_ROW


def table_rows(
    file: Path,
    shown: str,
    names: Sequence[str] | None = None,
    skip_lines: int = 0,
    encoding: str = "utf-8-sig",
    **dialect: Any,
) -> Iterator[list[str]]:
    """Yield the names of the columns, then the cells of each row; blank lines are skipped, and missing cells are empty.

    Args:
        file: the file.
        shown: path or URL of the file, for messages.
        names: names of the columns, if the file has no header; None: the first row that is not blank.
        skip_lines: number of lines before the header.
        encoding: encoding of the file.
        **dialect: how cells are separated and quoted, as ``csv.reader`` takes it.

    Raises:
        InputError: the file is empty, two columns have the same name, a row has more cells than the header, or the file
            is not valid CSV.
    """
    csv.field_size_limit(MAX_ROW)
    header = list(names or ())
    if header:
        yield header
    with file.open(encoding=encoding, newline="") as lines:
        reader = csv.reader(islice(lines, skip_lines, None), **dialect)
        try:
            for row in filter(None, reader):
                where = f"{shown}:{skip_lines + reader.line_num}"
                if not header:
                    header = _distinct(row, where)
                elif len(row) > len(header):
                    raise InputError(
                        f"{where}: found {len(row)} cells, but the header has {len(header)}; "
                        "a text with a comma must be in quotes"
                    )
                yield [*row, *[""] * (len(header) - len(row))]
        except csv.Error as error:
            raise InputError(f"{shown}:{skip_lines + reader.line_num}: not valid CSV: {error}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{shown}: not valid {error.encoding.upper()}: {error.reason}") from None
    if not header:
        raise InputError(f"{shown}: the file is empty, expected a header with the names of the columns")


def _distinct(header: list[str], where: str) -> list[str]:
    """Return a header; refuse a name that two columns have. Columns without a name are never read."""
    for number, name in enumerate(header):
        if name and name in header[:number]:
            raise InputError(f"{where}: the column {name!r} occurs twice")
    return header
