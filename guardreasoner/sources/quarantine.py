"""Write faulty rows unchanged to files of the same format, so that they can be corrected and read again."""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.sources.rows import file_format, header
from guardreasoner.workflow.replacing import replacing_folder

FAULTS_FILE = "faults.txt"


def write_quarantine(folder: str | Path, rows: dict[Path, list[Any]], faults: Sequence[str]) -> None:
    """Write the rows of each file to a file of the same name, and all faults to ``faults.txt``, atomically.

    Args:
        folder: destination; the quarantine of an earlier run is replaced.
        rows: raw faulty rows by file.
        faults: messages, one per line of ``faults.txt``.

    Raises:
        InputError: the folder contains other files, or cannot be written.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / FAULTS_FILE).is_file()):
        raise InputError(f"data.source.quarantine: {folder} contains other files, expected an empty or new folder")
    try:
        with replacing_folder(folder) as partial:
            for path, name in _names(rows).items():
                _write(partial / name, rows[path], path)
            content = "".join(f"{fault}\n" for fault in faults)
            (partial / FAULTS_FILE).write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"data.source.quarantine: {folder} cannot be written: {error.strerror}") from None


def _names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a unique name for each file: its own, prefixed by a number if that is taken."""
    names: dict[Path, str] = {}
    for path in paths:
        number, name = 1, path.name
        while name.casefold() in {other.casefold() for other in names.values()}:
            number, name = number + 1, f"{number + 1}-{path.name}"
        names[path] = name
    return names


def _write(path: Path, rows: Sequence[Any], origin: Path) -> None:
    if file_format(path) == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows), schema=pq.read_schema(origin)), path)
        return
    if file_format(path) == ".json":
        content = b"[\n" + b",\n".join(rows) + b"\n]\n"
    else:
        content = b"".join(row if row.endswith(b"\n") else row + b"\n" for row in (header(origin), *rows) if row)
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
