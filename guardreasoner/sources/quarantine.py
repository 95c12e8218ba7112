"""Faulty rows set aside, unchanged, in files of the same form, so that they can be mended and read again."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.manifest import replacing_folder
from guardreasoner.sources.rows import header, kind

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
            for path, own in rows.items():
                _write(partial / _name(path, rows), own, header(path))
            partial.joinpath(FAULTS).write_text("".join(f"{fault}\n" for fault in faults), encoding="utf-8")
    except OSError as error:
        raise InputError(f"data.source.quarantine: {folder} cannot be written: {error.strerror}") from None


def _name(path: Path, rows: dict[Path, list[Any]]) -> str:
    alike = [other for other in rows if other.name == path.name]
    return path.name if len(alike) == 1 else f"{alike.index(path)}-{path.name}"


def _write(path: Path, rows: Sequence[Any], first: bytes) -> None:
    if kind(path) == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return
    if kind(path) == ".json":
        content = json.dumps([json.loads(row) for row in rows], indent=1, ensure_ascii=True).encode()
    else:
        content = first + b"".join(row if row.endswith(b"\n") else row + b"\n" for row in rows)
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
