"""The user's own files: JSONL, JSON, CSV, TSV (also gzipped) and Parquet, with columns and label words mapped in YAML.

A row of a CSV file such as ``text,label`` / ``How do I bake bread?,0`` becomes a record of the task "request" with
``columns: {prompt: text, labels: {request: label}, label_map: {request: {0: unharmful, 1: harmful}}}``. Its
id is file and line, "train.csv:17", where the file has no ids of its own.
"""

import glob
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.consistency import ConsistencyCheck
from guardreasoner.sources.quarantine import write_quarantine
from guardreasoner.sources.row_check import Columns, RowParser, display_value, text_forms
from guardreasoner.sources.rows import Row, read_file_rows
from guardreasoner.sources.splits import require_shares, split_of
from guardreasoner.tasks import GUARD_TASKS, Task
from guardreasoner.workflow.manifest import content_hash

log = logging.getLogger("guardreasoner")

_SHOWN = 1000
"""Faults named on the screen; quarantine names all."""


class Files:
    """Records from files of one's own. Every line is checked before the first record is given.

    Args:
        train: files or patterns ("data/*.jsonl") of the training split. With shares, the other splits come out of it.
        validation: files of the validation split.
        test: files of the test split.
        columns: which column holds what.
        tasks: what the labels say; none given means the three of GuardReasoner.
        keep: by column the words of the rows to use; the others are left out and counted.
        validation_share: part of the distinct prompts in ``train`` that validate, by a hash of the normalised prompt.
        test_share: part of them that is tested on.
        quarantine: folder that faulty rows go to, unchanged; None: a faulty row ends the run.

    Raises:
        InputError: an argument that cannot be. Files are read when records are asked for.
    """

    def __init__(
        self,
        train: str | list[str] = [],  # noqa: B006 - never changed
        validation: str | list[str] = [],  # noqa: B006
        test: str | list[str] = [],  # noqa: B006
        columns: Columns = Columns(),  # noqa: B008 - frozen
        tasks: list[Task] | None = None,
        keep: dict[str, list[Any]] | None = None,
        validation_share: float = 0.0,
        test_share: float = 0.0,
        quarantine: str | None = None,
    ) -> None:
        self.patterns: dict[Split, list[str]] = {
            "train": [train] if isinstance(train, str) else list(train),
            "validation": [validation] if isinstance(validation, str) else list(validation),
            "test": [test] if isinstance(test, str) else list(test),
        }
        require_shares("data.source", validation_share, test_share)
        shares: dict[Split, float] = {"validation": validation_share, "test": test_share}
        for split, share in shares.items():
            if share and self.patterns[split]:
                raise InputError(f"data.source: {split} and {split}_share are both given; one of them makes the split")
        if not any(self.patterns.values()):
            raise InputError("data.source: no file is given (train, validation or test)")
        self.columns = columns
        self.tasks = tuple(tasks or GUARD_TASKS)
        self.keep = keep or {}
        self._wanted = {column: {s for word in words for s in text_forms(word)} for column, words in self.keep.items()}
        self.validation_share = validation_share
        self.test_share = test_share
        self.quarantine = quarantine
        self._check = RowParser(columns, self.tasks)
        self._names: dict[Split, list[tuple[Path, str]]] | None = None
        self._faulty: frozenset[tuple[str, str]] | None = None

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split, file by file, from the disk as they are needed.

        Raises:
            InputError: a file is missing or empty, no row is left, or rows are faulty; each fault is a line of its own.
        """
        faulty = self._validated()
        for own in (split,) if self.patterns[split] else ("train",):
            for path, name in self._files()[own]:
                for row in read_file_rows(path):
                    if (name, row.location) in faulty or not self._kept(row):
                        continue
                    record = self._record(row, name)
                    if not isinstance(record, Record):
                        raise InputError(f"{path}:{row.location}: {record[0]}", "the file changed while it was read")
                    if self._split(own, record) == split:
                        yield record

    def identity(self) -> object:
        """Return the arguments and the content of every file."""
        files = [(name, content_hash(path)) for split in self._files().values() for path, name in split]
        arguments = [self.patterns, self.columns, self.tasks, self.keep, self.validation_share, self.test_share]
        return [*map(repr, arguments), self.quarantine, files]

    def _split(self, own: Split, record: Record) -> Split:
        if own != "train" or not (self.validation_share or self.test_share):
            return own
        return split_of(record.prompt, self.validation_share, self.test_share)

    def _files(self) -> dict[Split, list[tuple[Path, str]]]:
        """Return the files of each split with the name that ids begin with: the file's own where it is the only one."""
        if self._names is None:
            found: dict[Split, list[Path]] = {}
            for split, patterns in self.patterns.items():
                found[split] = [path for pattern in patterns for path in _matching(pattern, split)]
            counts = Counter(path.name for paths in found.values() for path in paths)
            self._require_apart([path for paths in found.values() for path in paths])
            self._names = {
                split: [(path, _one_line(path.name if counts[path.name] == 1 else path.as_posix())) for path in paths]
                for split, paths in found.items()
            }
        return self._names

    def _require_apart(self, paths: Sequence[Path]) -> None:
        seen: set[Path] = set()
        for path in paths:
            real = path.resolve()
            if real in seen:
                raise InputError(f"data.source: {path} is given twice; a file belongs to one split, once")
            if self.quarantine is not None and real.is_relative_to(Path(self.quarantine).resolve()):
                raise InputError(
                    f"data.source: {path} lies in data.source.quarantine {self.quarantine}, which is written anew",
                    "move the file, once its rows are mended, out of there",
                )
            seen.add(real)

    def _kept(self, row: Row) -> bool:
        if row.values is None:
            return True
        values = row.values
        return all(not words.isdisjoint(text_forms(values.get(column))) for column, words in self._wanted.items())

    def _record(self, row: Row, name: str) -> Record | list[str]:
        if row.values is None:
            return [str(row.fault)]
        return self._check.record(row.values, f"{name}:{row.location}", Path(name).name.partition(".")[0])

    def _validated(self) -> frozenset[tuple[str, str]]:
        """Check every row of every split once; return (name, place) of those that went to quarantine."""
        if self._faulty is None:
            found = self._checked()
            if found.faults and self.quarantine is None:
                raise self._refusal(found)
            if self.quarantine is not None and found.faults:
                write_quarantine(self.quarantine, found.rows, found.faults)
                log.warning("%d of %d rows are in quarantine: %s", len(found.faulty), found.count, self.quarantine)
            if found.excluded_ids:
                log.info("%d of %d rows left out: %s", found.excluded_ids, found.count, self._filter())
            self._faulty = frozenset(found.faulty)
        return self._faulty

    def _checked(self) -> "_Findings":
        found = _Findings()
        splits = self._files()
        consistency = ConsistencyCheck(
            frozenset({"validation"}) if splits["train"] and splits["validation"] else frozenset()
        )
        for split, files in splits.items():
            for path, name in files:
                used = read = 0
                columns: dict[str, None] = {}
                for row in read_file_rows(path):
                    read += 1
                    columns.update(dict.fromkeys(row.values or ()) if self.keep else {})
                    if not self._kept(row):
                        found.excluded_ids += 1
                        continue
                    record = self._record(row, name)
                    if isinstance(record, Record):
                        faults = consistency.faults(record, split, path, row.location)
                    else:
                        faults = record
                    if faults:
                        found.add(path, name, row, faults)
                    used += not faults
                found.count += read
                if not read:
                    raise InputError(f"{path}: the file holds no row")
                if not used and self.keep and not found.rows.get(path):
                    absent = next((column for column in self.keep if column not in columns), None)
                    hint = f"there is no column {absent!r}, but {', '.join(map(repr, columns))}" if absent else None
                    raise InputError(f"{path}: none of {read} rows is left: {self._filter()}", hint)
                if not used and self.quarantine is not None:
                    raise InputError(f"{path}: no row is without fault; the first: {found.first(path)}")
        return found

    def _filter(self) -> str:
        wanted = "; ".join(f"{column}: {', '.join(map(display_value, words))}" for column, words in self.keep.items())
        return f"data.source.keep wants {wanted}"

    def _refusal(self, found: "_Findings") -> InputError:
        shown = found.faults[:_SHOWN]
        if more := len(found.faults) - len(shown):
            shown.append(f"… and {more} more; data.source.quarantine lists them all")
        rows = f"{len(found.faulty)} of {found.count} rows {'is' if len(found.faulty) == 1 else 'are'} faulty"
        return InputError(
            f"data.source: {rows}, nothing was started",
            "mend them, or set them aside with data.source.quarantine: FOLDER",
            details=shown,
        )


class _Findings:
    """What was found while all rows were read."""

    def __init__(self) -> None:
        self.count = self.excluded_ids = 0
        self.faults: list[str] = []
        self.faulty: list[tuple[str, str]] = []
        self.rows: dict[Path, list[Any]] = {}

    def add(self, path: Path, name: str, row: Row, faults: Sequence[str]) -> None:
        self.faulty.append((name, row.location))
        self.faults += [_one_line(f"{path}:{row.location}: {fault}") for fault in faults]
        self.rows.setdefault(path, []).append(row.raw)

    def first(self, path: Path) -> str:
        return next(fault for fault in self.faults if fault.startswith(_one_line(f"{path}:")))


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _matching(pattern: str, split: str) -> list[Path]:
    if not glob.has_magic(pattern) or Path(pattern).exists():
        return [Path(pattern)]
    found = sorted(Path(path) for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not found:
        raise InputError(f"data.source.{split}: no file matches {pattern}")
    return found
