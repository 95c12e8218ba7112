"""Faulty rows set aside, unchanged, in files of the same form, so that they can be mended and read again."""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.sources.rows import header, kind
from guardreasoner.workflow.manifest import replacing_folder

FAULTS = "faults.txt"


def set_aside(folder: str | Path, rows: dict[Path, list[Any]], faults: Sequence[str]) -> None:
    """Write the rows of each file to a file of the same name, and all faults to ``faults.txt``, whole or not at all.

    Args:
        folder: where to; what an earlier run wrote there is replaced.
        rows: by file, the rows as they stand in it.
        faults: one a line.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / FAULTS).is_file()):
        raise InputError(f"data.source.quarantine: {folder} holds other things, expected a folder of its own")
    try:
        with replacing_folder(folder) as partial:
            for path, name in _names(rows).items():
                _write(partial / name, rows[path], path)
            content = "".join(f"{fault}\n" for fault in faults)
            (partial / FAULTS).write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"data.source.quarantine: {folder} cannot be written: {error.strerror}") from None


def _names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a name of its own for each file: the one it has, with a number before it where that is taken."""
    names: dict[Path, str] = {}
    for path in paths:
        number, name = 1, path.name
        while name in names.values():
            number, name = number + 1, f"{number + 1}-{path.name}"
        names[path] = name
    return names


def _write(path: Path, rows: Sequence[Any], origin: Path) -> None:
    if kind(path) == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows), schema=pq.read_schema(origin)), path)
        return
    if kind(path) == ".json":
        content = b"[\n" + b",\n".join(rows) + b"\n]\n"
    else:
        content = b"".join(row if row.endswith(b"\n") else row + b"\n" for row in (header(origin), *rows) if row)
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
