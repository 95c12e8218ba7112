"""Read rows of public data sets from the Hugging Face hub, or from a folder with the files of a hub repository.

``datasets.load_dataset`` reads both: the configurations, splits and files that a repository's ``README.md`` declares
also hold for a clone (https://huggingface.co/docs/datasets/repository_structure). Rows are read one by one from Arrow
files, so a data set is never in memory as a whole.
"""

import csv
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar, get_args

from guardreasoner.errors import InputError, unique_keys
from guardreasoner.records import MAX_ROW, Record, Split
from guardreasoner.sources.splits import split_of
from guardreasoner.workflow.manifest import content_hash, fingerprint

log = logging.getLogger("guardreasoner")

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)

CSV: Mapping[str, Any] = {"keep_default_na": False}
"""Options for CSV files; without them, the texts "None" and "NA" would be read as null."""

HARMFUL: Mapping[Any, str | None] = {"harmful": "harmful", "unharmful": "unharmful", None: None}
REFUSAL: Mapping[Any, str | None] = {"refusal": "refusal", "compliance": "compliance", None: None}

_URL = "https://huggingface.co/datasets/"


def read_dataset_rows(
    path: str,
    config: str | None,
    split: str,
    columns: Sequence[str],
    revision: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for each row of a split; ``where`` reads "allenai/wildguardmix wildguardtest/test row 17".

    Rows are numbered from 0, as in the hub's viewer.

    Args:
        path: repository on the hub, or a local folder with the same layout.
        config: name of the configuration; None for a data set with only one.
        split: name of the split on the hub.
        columns: columns to read.
        revision: branch, tag or commit of the repository; None for the newest; ignored for a folder.
        options: options of the file reader, such as :data:`CSV`.

    Raises:
        InputError: the repository cannot be read (missing, gated, no connection), the folder, configuration, split or
            column does not exist, the split is empty, or a file is damaged.
    """
    where = f"{path} {config}/{split}" if config else f"{path} {split}"
    folder = Path(path).expanduser()
    local = folder.is_dir()
    if not local and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise InputError(f"{path}: no such folder", _local_hint())
    arguments = {"name": config, "split": split, **(options or {})}
    if local:
        arguments["cache_dir"] = _cache_of(folder)
        yield from _rows(str(folder), arguments, columns, where, _local_hint())
    else:
        yield from _rows(path, {**arguments, "revision": revision}, columns, where, _hub_hint(path))


def read_csv_rows(
    file: str, columns: Sequence[str], optional: Sequence[str] = (), skip_lines: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for each row of a CSV file, given by path or URL.

    Args:
        file: path or URL.
        columns: columns to read.
        optional: further columns to read if the file has them.
        skip_lines: number of lines before the header.

    Raises:
        InputError: for the same reasons as :func:`read_dataset_rows`.
    """
    if Path(file).is_file():
        _require_columns_in_every_row(Path(file), skip_lines)
    arguments = {"data_files": file, "split": "train", "skiprows": skip_lines, **CSV}
    yield from _rows("csv", arguments, columns, file, _file_hint(file), optional)


def _require_columns_in_every_row(file: Path, skip_lines: int) -> None:
    """Raise ``InputError`` at a row with more cells than the header, whose texts pandas would give to other columns."""
    csv.field_size_limit(MAX_ROW)
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.reader(islice(lines, skip_lines, None))
        header = next(reader, [])
        try:
            for row in reader:
                if len(row) > len(header):
                    line = skip_lines + reader.line_num
                    raise InputError(
                        f"{file}:{line}: found {len(row)} cells, but the header has {len(header)}; "
                        "a text with a comma must be in quotes"
                    )
        except csv.Error as error:
            raise InputError(f"{file}:{skip_lines + reader.line_num}: not valid CSV: {error}") from None


def read_json_file(file: str) -> Any:
    """Read a JSON file, given by path or URL; a downloaded file is cached.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    import datasets

    try:
        with _quiet_datasets():
            return json.loads(
                Path(datasets.DownloadManager().download(file)).read_text(encoding="utf-8"),
                object_pairs_hook=unique_keys,
            )
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{file}: {_reason(error)}", _file_hint(file)) from None


def required_text(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return the text in a cell, which may be empty; raise ``InputError`` for null or another type."""
    value = optional_text(row, column, where)
    if value is None:
        raise InputError(f"{where}: {column}: found null, expected text")
    return value


def optional_text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    """Return the text in a cell, which may be empty, or None for null; raise ``InputError`` for another type."""
    value = row[column]
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {column}: found {type(value).__name__}, expected text")
    return value


def mapped_value(row: Mapping[str, Any], column: str, mapping: Mapping[Any, T], where: str) -> T:
    """Return the value that ``mapping`` has for a cell.

    Raises:
        InputError: the cell is not a key of ``mapping``.
    """
    value = row[column]
    try:
        return mapping[value]
    except (KeyError, TypeError):  # TypeError: a list is not hashable
        expected = ", ".join("null" if key is None else repr(key) for key in mapping)
        raise InputError(f"{where}: {column}: found {_shorten(value)}, expected one of {expected}") from None


def drop_unusable(records: Iterable[Record | None], name: str, reason: str) -> Iterator[Record]:
    """Yield the records that are not None; at the end, log how many rows were skipped, if any.

    Args:
        records: for each row, its record, or None if it is not used.
        name: name of the data set, for messages.
        reason: why rows are not used, for messages: "are not human-annotated".

    Raises:
        InputError: no row has a record.
    """
    rows = count = 0
    for record in records:
        rows += 1
        if record is not None:
            count += 1
            yield record
    if not count:
        raise InputError(f"{name}: none of {rows:,} rows can be used; they {reason}")
    if count < rows:
        log.info("%s: %s of %s rows used; the others %s", name, f"{count:,}", f"{rows:,}", reason)


def select_training_split(records: Iterable[Record], split: Split, validation_share: float) -> Iterator[Record]:
    """Yield the training or the validation records of a training set, assigned by a hash of the prompt."""
    if validation_share > 0:
        yield from (record for record in records if split_of(record.context(), validation_share) == split)
    elif split == "train":
        yield from records


def require_splits(where: str, splits: Sequence[Split]) -> tuple[Split, ...]:
    """Return the splits; raise ``InputError`` unless they are one or more valid names, each given once."""
    return require_distinct_choices(where, "splits", splits, get_args(Split))


def require_distinct_choices(
    where: str, name: str, chosen: Sequence[Choice], permitted: Sequence[Choice]
) -> tuple[Choice, ...]:
    """Return the chosen values; raise ``InputError`` unless they are one or more of the permitted, each given once."""
    if isinstance(chosen, str) or not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(permitted):
        raise InputError(f"{where}: {name} must be one or more of {', '.join(permitted)}, each once, got {chosen!r}")
    return tuple(chosen)


def source_identity(source: object, path: str) -> dict[str, object]:
    """Return the identity of a source: its class, its arguments and, for a local folder, its content hashes.

    Args:
        source: a source whose attributes are its arguments.
        path: folder or repository that it reads; a repository is identified by name and revision only.
    """
    identity: dict[str, object] = {"class": type(source).__name__, **vars(source)}
    folder = Path(path).expanduser()
    if folder.is_dir():
        identity["content"] = _content(folder)
    return identity


def _content(folder: Path) -> dict[str, str]:
    # Hidden files belong to git and to the hub client; they change even if no row does.
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return {entry.name: content_hash(entry) for entry in visible}


def _cache_of(folder: Path) -> str:
    import datasets

    # The default cache identifies a folder by its name and would return old rows after a change.
    return str(Path(datasets.config.HF_DATASETS_CACHE, "folders", fingerprint(_content(folder))[:16]))


def _rows(
    path: str,
    arguments: Mapping[str, Any],
    columns: Sequence[str],
    where: str,
    hint: str,
    optional: Sequence[str] = (),
) -> Iterator[tuple[str, dict[str, Any]]]:
    dataset = _load(path, arguments, where, hint)
    for column in columns:
        if column not in dataset.column_names:
            found = ", ".join(dataset.column_names)
            raise InputError(f"{where}: no column {column!r}, found {found}; expected {', '.join(columns)}")
    if not len(dataset):
        raise InputError(f"{where}: the split has no rows")
    present = [column for column in optional if column in dataset.column_names]
    for number, row in enumerate(dataset.select_columns([*columns, *present])):
        yield f"{where} row {number}", row


def _load(path: str, arguments: Mapping[str, Any], where: str, hint: str) -> Any:
    import datasets

    try:
        with _quiet_datasets():
            return datasets.load_dataset(path, **arguments)
    except StopIteration:  # raised for an empty file
        raise InputError(f"{where}: the split has no rows") from None
    except (OSError, ValueError, TypeError, RuntimeError, UnpicklingError, datasets.exceptions.DatasetsError) as error:
        if "corresponds to no data" in str(error):
            raise InputError(f"{where}: the split has no rows") from None
        raise InputError(f"{where}: {_reason(error)}", hint) from None


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Disable the progress bars of ``datasets`` and its log, which would repeat the error that is raised."""
    import datasets

    disabled, verbosity = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not disabled:
            datasets.enable_progress_bars()


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if "generating the dataset" in str(error) and error.__cause__ else error
    message = " ".join(str(cause).split()) or type(cause).__name__
    if "doesn't have a 'keep_default_na' key" in message:
        return "the files are not CSV, unlike those on the hub"
    return message if len(message) <= 300 else f"{message[:299]}…"


def _shorten(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _hub_hint(path: str) -> str:
    return f"log in (hf auth login) and accept the terms at {_URL}{path}, or give a folder with its files as path"


def _local_hint() -> str:
    return "path must be a repository on the hub, or a folder with its files and its README.md, which names the splits"


def _file_hint(file: str) -> str:
    if "://" not in file:
        return "path must hold the same files"
    if match := re.match(r"https://raw\.githubusercontent\.com/([^/]+/[^/]+)/", file):
        return f"clone https://github.com/{match[1]}, and give its folder as path"
    return "give a folder with the repository's files as path"
