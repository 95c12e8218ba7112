"""Read rows of public data sets from the Hugging Face hub, or from a folder with the files of a hub repository.

``datasets.load_dataset`` reads both: the configurations, splits and files that a repository's ``README.md`` declares
also hold for a clone (https://huggingface.co/docs/datasets/repository_structure). Rows are read one by one from Arrow
files, so a data set is never in memory as a whole.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar, get_args
from zipfile import BadZipFile
from zlib import error as ZlibError

import yaml

from guardreasoner.errors import InputError, unique_keys
from guardreasoner.records import Record, Split
from guardreasoner.sources.arguments import is_chosen
from guardreasoner.sources.csv_table import table_rows
from guardreasoner.sources.splits import split_of
from guardreasoner.workflow.manifest import content_hash, fingerprint

log = logging.getLogger("guardreasoner")

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)

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
        options: options of the file reader, such as those of :func:`csv_options`.

    Raises:
        InputError: the repository cannot be read (missing, gated, no connection), the folder, configuration, split or
            column does not exist, the split is empty, a file is damaged, or a CSV file has two columns of one name or a
            row with more cells than its header.
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
    file: str,
    columns: Sequence[str],
    further: Callable[[Sequence[str]], Sequence[str]] | None = None,
    skip_lines: int = 0,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for each row of a CSV file, given by path or URL; all cells are texts.

    Args:
        file: path or URL.
        columns: columns to read.
        further: returns the further columns to read, given the names of all columns of the file.
        skip_lines: number of lines before the header.

    Raises:
        InputError: for the same reasons as :func:`read_dataset_rows`.
    """
    with _reading(file, _file_hint(file)):
        local = _downloaded(file)
    rows = table_rows(local, file, skip_lines=skip_lines)
    names = next(rows)
    _require_columns(file, columns, names)
    wanted = [*columns, *(further(names) if further else ())]
    places = [names.index(column) for column in wanted]
    number = -1
    for number, cells in enumerate(rows):
        yield f"{file} row {number}", {column: cells[place] for column, place in zip(wanted, places, strict=True)}
    if number < 0:
        raise InputError(f"{file}: the split has no rows")


def csv_options(*texts: str) -> dict[str, Any]:
    """Return the options for a data set of CSV files.

    Without them, the texts "None" and "NA" would be read as null, and a column of texts such as "12" as numbers.

    Args:
        texts: columns of texts; the types of the others are guessed.
    """
    return {"keep_default_na": False, "converters": dict.fromkeys(texts, str)}


def read_json_file(file: str) -> Any:
    """Read a JSON file, given by path or URL; a downloaded file is cached.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    with _reading(file, _file_hint(file)):
        text = _downloaded(file).read_text(encoding="utf-8")
        try:
            return json.loads(text, object_pairs_hook=unique_keys)
        except json.JSONDecodeError as error:
            raise InputError(f"{file}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None


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
    if not is_chosen(chosen, permitted) or len(set(chosen)) < len(chosen):
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


def _downloaded(file: str) -> Path:
    """Return a file itself, or the cached copy of a URL's."""
    import datasets

    return Path(datasets.DownloadManager().download(file if "://" in file else str(Path(file).expanduser())))


def _content(folder: Path) -> dict[str, str]:
    # Hidden files belong to git and to the hub client; they change even if no row does.
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return {entry.name: content_hash(entry) for entry in visible}


def _cache_of(folder: Path) -> str:
    import datasets

    # The default cache identifies a folder by its name and would return old rows after a change.
    return str(Path(datasets.config.HF_DATASETS_CACHE, "folders", fingerprint(_content(folder))[:16]))


def _rows(
    path: str, arguments: Mapping[str, Any], columns: Sequence[str], where: str, hint: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    dataset = _load(path, arguments, where, hint)
    _require_columns(where, columns, dataset.column_names)
    if not len(dataset):
        raise InputError(f"{where}: the split has no rows")
    for number, row in enumerate(dataset.select_columns(list(columns))):
        yield f"{where} row {number}", row


def _require_columns(where: str, columns: Sequence[str], found: Sequence[str]) -> None:
    for column in columns:
        if column not in found:
            names = ", ".join(found)
            raise InputError(f"{where}: no column {column!r}, found {names}; expected {', '.join(columns)}")


def _load(path: str, arguments: Mapping[str, Any], where: str, hint: str) -> Any:
    """Do what ``datasets.load_dataset`` does, and check CSV files before they are converted."""
    import datasets
    from datasets.packaged_modules.csv.csv import CsvConfig

    given = dict(arguments)
    split = given.pop("split")
    if Path(path, datasets.config.DATASET_STATE_JSON_FILENAME).is_file():
        raise InputError(f"{where}: the folder was written by save_to_disk, which is another format", hint)
    with _reading(where, hint):
        try:
            builder = datasets.load_dataset_builder(path, **given)
        except yaml.YAMLError as error:
            raise InputError(_yaml_fault(path, error), hint) from None
        if isinstance(builder.config, CsvConfig):
            for file in (builder.config.data_files or {}).get(split, ()):
                _require_sound_csv(file, builder.config)
        builder.download_and_prepare()
        return builder.as_dataset(split)


def _require_sound_csv(file: str, config: Any) -> None:
    """Check a CSV file, or those of an archive, as the data set's config says that they are written."""
    import datasets

    if not isinstance(config.sep, str) or len(config.sep) != 1 or not isinstance(config.skiprows, int | None):
        return  # only pandas knows how to split such a file
    names = ("quotechar", "quoting", "escapechar", "doublequote", "skipinitialspace")
    dialect = {"delimiter": config.sep, **{name: getattr(config, name) for name in names}}
    downloads = datasets.DownloadManager()
    for part in downloads.iter_files(downloads.download_and_extract(file)):
        skip_lines, encoding = config.skiprows or 0, config.encoding or "utf-8-sig"
        for _ in table_rows(Path(part), file, config.names, skip_lines, encoding, **dialect):
            pass  # reading it all is the check


@contextmanager
def _reading(where: str, hint: str) -> Iterator[None]:
    """Keep ``datasets`` quiet, and replace its errors by an ``InputError`` of one line."""
    import datasets

    try:
        with _quiet_datasets():
            yield
    except StopIteration:  # raised for an empty file
        raise InputError(f"{where}: the split has no rows") from None
    except (
        *(OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, EOFError),
        *(UnpicklingError, BadZipFile, LZMAError, ZlibError, datasets.exceptions.DatasetsError),
    ) as error:
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


def _yaml_fault(path: str, error: yaml.YAMLError) -> str:
    """Return what is wrong with the metadata of a data set, at the start of its README.md or in a file of its own."""
    from datasets import config

    found = [name for name in (config.REPOCARD_FILENAME, config.REPOYAML_FILENAME) if Path(path, name).is_file()]
    mark = getattr(error, "problem_mark", None)
    place = f", line {mark.line + 1} of it" if mark else ""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{path}/{' or '.join(found or [config.REPOCARD_FILENAME])}: its YAML is not valid{place}: {problem}"


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
