"""Write folders in the layout of hub repositories, and keep ``datasets`` offline and its caches in a test folder."""

import csv
import gzip
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

Rows = Sequence[Mapping[str, Any]]


def stay_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caches of ``datasets`` in the test folder and prevent network requests."""
    import datasets
    import huggingface_hub

    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", cache / "downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", cache / "downloads" / "extracted")


def write_readme(folder: Path, configs: Mapping[str, Mapping[str, str]]) -> None:
    """Write a data card that lists the files by configuration and split."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "configs": [
            {"config_name": name, "data_files": [{"split": split, "path": file} for split, file in files.items()]}
            for name, files in configs.items()
        ]
    }
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(metadata)}---\n\nA card.\n", encoding="utf-8")


def write_rows(file: Path, rows: Rows) -> Path:
    """Write rows in the format of the file extension: Parquet, CSV, JSON, or JSON lines, also compressed (gz, xz)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    elif file.suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif file.suffix == ".json":
        file.write_text(json.dumps(list(rows)), encoding="utf-8")
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(file.suffix, bytes)
        file.write_bytes(compress(content))
    return file
