"""Public data sets as rows: from the Hugging Face hub, or from a folder with the files of the hub's repository.

``datasets.load_dataset`` reads both: what a repository's ``README.md`` says of configurations, splits and files holds
in a clone of it as well (https://huggingface.co/docs/datasets/repository_structure). Rows come one after the other from
its Arrow files, so a set is never in memory as a whole.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.splits import split_of
from guardreasoner.workflow.manifest import content_hash, fingerprint

log = logging.getLogger("guardreasoner")

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)

CSV: Mapping[str, Any] = {"keep_default_na": False}
"""How CSV files of texts are read; without it, a user who wrote just "None" or "NA" would have written nothing."""

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
    """Yield (where, row) for each row of a split, where being "allenai/wildguardmix wildguardtest/test row 17".

    Rows count from 0, as in the hub's viewer.

    Args:
        path: repository of the hub, or a local folder of the same layout.
        config: configuration; None for a set that has one only.
        split: the hub's name of the split.
        columns: what a row shall hold; nothing else is read.
        revision: branch, tag or commit of the repository; None for the newest. A folder has none.
        options: of the reader of the files' format (:data:`CSV`).

    Raises:
        InputError: the repository cannot be read (missing, gated, no connection), there is no such folder,
            configuration, split or column, the split is empty, or a file is not as it must be.
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


def read_csv_rows(file: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for each row of a CSV file, which may be a path or an address on the web.

    Raises:
        InputError: as :func:`read_dataset_rows`.
    """
    yield from _rows("csv", {"data_files": file, "split": "train", **CSV}, columns, file, _file_hint(file))


def read_json_file(file: str) -> Any:
    """Return what a JSON file holds, which may be a path or an address on the web (then it is kept in the cache).

    Raises:
        InputError: the file cannot be had, or is not JSON.
    """
    import datasets

    try:
        with _silence():
            return json.loads(Path(datasets.DownloadManager().download(file)).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{file}: {_reason(error)}", _file_hint(file)) from None


def required_text(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return a text, which may be blank but must be there; raise ``InputError`` for anything else."""
    found = optional_text(row, column, where)
    if found is None:
        raise InputError(f"{where}: {column}: found null, expected a text")
    return found


def optional_text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    """Return a text, which may be empty, or None where the cell is null; raise ``InputError`` for anything else."""
    found = row[column]
    if found is not None and not isinstance(found, str):
        raise InputError(f"{where}: {column}: found {type(found).__name__}, expected a text")
    return found


def mapped_value(row: Mapping[str, Any], column: str, words: Mapping[Any, T], where: str) -> T:
    """Return what a cell stands for.

    Raises:
        InputError: the cell is none of ``words``.
    """
    found = row[column]
    try:
        return words[found]
    except (KeyError, TypeError):  # a list cannot be looked up
        expected = ", ".join("null" if one is None else repr(one) for one in words)
        raise InputError(f"{where}: {column}: found {_cell(found)}, expected one of {expected}") from None


def drop_unusable(records: Iterable[Record | None], name: str, others: str) -> Iterator[Record]:
    """Yield the records that are there, and log at the end how many rows gave none, if any did.

    Args:
        records: a record a row, or None for a row that is left out.
        name: of the data set.
        others: what is said of the others: "are not human-annotated".

    Raises:
        InputError: no row gave a record.
    """
    rows = count = 0
    for record in records:
        rows += 1
        if record is not None:
            count += 1
            yield record
    if not count:
        raise InputError(f"{name}: none of {rows:,} rows can be used; they {others}")
    if count < rows:
        log.info("%s: %s of %s rows used; the others %s", name, f"{count:,}", f"{rows:,}", others)


def select_training_split(records: Iterable[Record], split: Split, validation_share: float) -> Iterator[Record]:
    """Yield those of a data set's training records that train or that validate; a hash of the prompt decides."""
    if validation_share > 0:
        yield from (record for record in records if split_of(record.prompt, validation_share) == split)
    elif split == "train":
        yield from records


def require_splits(where: str, splits: Sequence[Split]) -> tuple[Split, ...]:
    """Return the splits; raise ``InputError`` unless they are one or more of ours, each once."""
    return require_distinct_choices(where, "splits", splits, get_args(Split))


def require_distinct_choices(
    where: str, name: str, chosen: Sequence[Choice], permitted: Sequence[Choice]
) -> tuple[Choice, ...]:
    """Return what was chosen; raise ``InputError`` unless it is one or more of what is permitted, each once."""
    if isinstance(chosen, str) or not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(permitted):
        raise InputError(f"{where}: {name} must be one or more of {', '.join(permitted)}, each once, got {chosen!r}")
    return tuple(chosen)


def source_identity(source: object, path: str) -> dict[str, object]:
    """Return what decides the records of a source: its class, its arguments and, for a local folder, what it holds.

    Args:
        source: keeps its arguments as attributes of the same names.
        path: where it reads. A repository of the hub is known by its name and revision alone.
    """
    known: dict[str, object] = {"class": type(source).__name__, **vars(source)}
    folder = Path(path).expanduser()
    if folder.is_dir():
        known["content"] = _content(folder)
    return known


def _content(folder: Path) -> dict[str, str]:
    # Hidden files are git's and the hub client's own, and change when no row does.
    shown = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return {entry.name: content_hash(entry) for entry in shown}


def _cache_of(folder: Path) -> str:
    import datasets

    # Its own cache knows the rows of a folder by its name: rows that were changed since would be read as they were.
    return str(Path(datasets.config.HF_DATASETS_CACHE, "folders", fingerprint(_content(folder))[:16]))


def _rows(
    path: str, arguments: Mapping[str, Any], columns: Sequence[str], where: str, hint: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    dataset = _load(path, arguments, where, hint)
    for column in columns:
        if column not in dataset.column_names:
            raise InputError(f"{where}: no column {column!r}, found {', '.join(dataset.column_names)}")
    if not len(dataset):
        raise InputError(f"{where}: the split holds no row")
    for number, row in enumerate(dataset.select_columns(list(columns))):
        yield f"{where} row {number}", row


def _load(path: str, arguments: Mapping[str, Any], where: str, hint: str) -> Any:
    import datasets

    try:
        with _silence():
            return datasets.load_dataset(path, **arguments)
    except StopIteration:  # what comes of a file without a line
        raise InputError(f"{where}: the split holds no row") from None
    except (OSError, ValueError, TypeError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if "corresponds to no data" in str(error):
            raise InputError(f"{where}: the split holds no row") from None
        raise InputError(f"{where}: {_reason(error)}", hint) from None


@contextmanager
def _silence() -> Iterator[None]:
    """Let ``datasets`` show no progress bar and log no error, which the one raised says again."""
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
        return "the files are not CSV, as the hub's are"
    return message if len(message) <= 300 else f"{message[:299]}…"


def _cell(found: object) -> str:
    shown = "null" if found is None else repr(found)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _hub_hint(path: str) -> str:
    return f"log in (hf auth login) and accept the terms at {_URL}{path}, or give a folder with its files as path"


def _local_hint() -> str:
    return "path must be a repository of the hub or a folder with its files, README.md too: it names the splits"


def _file_hint(file: str) -> str:
    return "give a folder with the repository's files as path" if "://" in file else "path must hold the same files"
