"""Read the user's own files: JSONL, JSON, CSV, TSV (also gzipped) and Parquet, with columns and labels mapped in YAML.

A row of a CSV file such as ``text,label`` / ``How do I bake bread?,0`` becomes a record of the task "request" with
``columns: {prompt: text, labels: {request: label}, label_map: {request: {0: unharmful, 1: harmful}}}``. If the file has
no ids, the id is file and line: "train.csv:17". If files of one split share ids, their ids start with the file's name.
"""

import glob
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.arguments import require_count
from guardreasoner.sources.consistency import ConsistencyCheck
from guardreasoner.sources.conversations import LeftOut
from guardreasoner.sources.policy_files import read_policies, read_policy
from guardreasoner.sources.quarantine import write_quarantine
from guardreasoner.sources.row_parser import Columns, RowParser, cell_value, display_value, text_forms
from guardreasoner.sources.rows import Row, read_file_rows
from guardreasoner.sources.splits import require_shares, split_of
from guardreasoner.tasks import GUARD_TASKS, Task
from guardreasoner.workflow.integrity import warn_if_changed
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.ranges import Count, ShareBelowOne

log = logging.getLogger("guardreasoner")

_MAX_LISTED = 1000
"""Largest number of faults listed in an error; the quarantine lists all."""


class Files:
    """Read records from the user's own files. All rows are checked before the first record is yielded.

    Args:
        train: files or glob patterns ("data/*.jsonl") of the training split. With shares, the other splits are cut out
            of it.
        validation: files of the validation split.
        test: files of the test split.
        columns: names of the columns.
        tasks: tasks that the labels belong to; None for the three tasks of GuardReasoner.
        keep: for each column, the values of the rows to use; other rows are skipped and counted. A dot selects a field
            of an object, and each column must occur in every file.
        validation_share: share of the distinct prompts in ``train`` for the validation split, assigned by a hash of the
            normalized prompt or, in a conversation of more turns, of all before the response.
        test_share: share of the distinct prompts in ``train`` for the test split.
        quarantine: folder to which faulty rows are written unchanged; None: a faulty row ends the run.
        policies: file or folder with the policies that ``columns.policy_id`` names, see
            :func:`guardreasoner.sources.policy_files.read_policies`.
        policy: policy of the records whose rows have none, as text or as the path of a ``.txt`` or ``.md`` file.
        max_turns: most messages of the user in a conversation; longer ones are left out and counted. None: no limit.
        labelled: whether the rows have labels; False ignores labels and reasoning, for rows that ``test`` only judges.

    Raises:
        InputError: an argument is invalid. Files are read only when records are requested.
    """

    def __init__(
        self,
        train: str | list[str] = [],  # noqa: B006 - never changed
        validation: str | list[str] = [],  # noqa: B006
        test: str | list[str] = [],  # noqa: B006
        columns: Columns = Columns(),  # noqa: B008 - frozen
        tasks: list[Task] | None = None,
        keep: dict[str, list[Any]] | None = None,
        validation_share: ShareBelowOne = 0.0,
        test_share: ShareBelowOne = 0.0,
        quarantine: str | None = None,
        policies: str | None = None,
        policy: str | None = None,
        max_turns: Count | None = None,
        labelled: bool = True,
    ) -> None:
        self.patterns: dict[Split, list[str]] = {
            "train": [train] if isinstance(train, str) else list(train),
            "validation": [validation] if isinstance(validation, str) else list(validation),
            "test": [test] if isinstance(test, str) else list(test),
        }
        require_shares("data.source", validation_share, test_share)
        if max_turns is not None:
            require_count("data.source", "max_turns", max_turns)
        shares: dict[Split, float] = {"validation": validation_share, "test": test_share}
        for split, share in shares.items():
            if share and self.patterns[split]:
                raise InputError(f"data.source: {split} and {split}_share are both set, expected only one of them")
        if not labelled and (self.patterns["train"] or self.patterns["validation"]):
            raise InputError("data.source: rows without labels can only be tested: expected test alone")
        if not any(self.patterns.values()):
            raise InputError("data.source: no file is given (train, validation or test)")
        self.columns = columns
        self.tasks = tuple(tasks or GUARD_TASKS)
        self.keep = keep or {}
        self._kept_forms = {
            column: {form for value in values for form in text_forms(value)} for column, values in self.keep.items()
        }
        self.validation_share = validation_share
        self.test_share = test_share
        self.quarantine = quarantine
        self._uses_policy = any(task.uses_policy for task in self.tasks)
        self.policies = policies
        self.policy = policy
        self.max_turns = max_turns
        self.labelled = labelled
        RowParser(columns, self.tasks, None if policies is None else {})  # checks the names of columns and labels
        self._files_by_split: dict[Split, list[tuple[Path, str]]] | None = None
        self._faulty: frozenset[tuple[str, str]] | None = None
        self._sharing_ids: set[Path] = set()
        """Files whose ids another file of the same split has too."""

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split, file by file, reading from disk during the iteration.

        Raises:
            InputError: a file is missing or empty, no row remains, or rows are faulty (the details list each fault).
        """
        faulty = self._validate()
        for file_split in (split,) if self.patterns[split] else ("train",):
            for path, name in self._files()[file_split]:
                for row in read_file_rows(path):
                    if (name, row.location) in faulty or not self._is_kept(row):
                        continue
                    record = self._parse(row, path, name)
                    if isinstance(record, LeftOut):
                        continue
                    if not isinstance(record, Record):
                        raise InputError(f"{path}:{row.location}: {record[0]}", "the file changed while it was read")
                    if self._split_of(file_split, record) == split:
                        yield record

    @property
    def cut_share(self) -> float:
        """Share of the training files' prompts that the other splits have."""
        return self.validation_share + self.test_share

    def identity(self) -> object:
        """Return the arguments and the content hash of every file, with the policies."""
        files = [(name, content_hash(path)) for split in self._files().values() for path, name in split]
        arguments = [self.patterns, self.columns, self.tasks, self.keep, self.validation_share, self.test_share]
        policies = [self._parser.policies, self._parser.policy, self.max_turns]
        arguments += [] if self.labelled else ["unlabelled"]  # the identity of labelled files stays as it was
        return [*map(repr, arguments), self.quarantine, files, *(policies if any(policies) else [])]

    @cached_property
    def _parser(self) -> RowParser:
        """The parser of rows, with the policies, which are read when it is first used."""
        policies = None if self.policies is None else read_policies(self.policies)
        policy = None if self.policy is None else read_policy(self.policy, "data.source.policy")
        return RowParser(self.columns, self.tasks, policies, policy, self.max_turns, self.labelled)

    def _split_of(self, file_split: Split, record: Record) -> Split:
        if file_split != "train" or not (self.validation_share or self.test_share):
            return file_split
        return split_of(record.context(), self.validation_share, self.test_share)

    def _files(self) -> dict[Split, list[tuple[Path, str]]]:
        """Return the files of each split with the prefix of their record ids: file name if unique, otherwise path."""
        if self._files_by_split is None:
            paths: dict[Split, list[Path]] = {}
            for split, patterns in self.patterns.items():
                paths[split] = [path for pattern in patterns for path in _expand(pattern, split)]
            all_paths = [path for split_paths in paths.values() for path in split_paths]
            counts = Counter(path.name for path in all_paths)
            self._require_distinct(all_paths)
            self._files_by_split = {
                split: [
                    (path, _printable(path.name if counts[path.name] == 1 else path.as_posix())) for path in split_paths
                ]
                for split, split_paths in paths.items()
            }
        return self._files_by_split

    def _require_distinct(self, paths: Sequence[Path]) -> None:
        seen: set[Path] = set()
        for path in paths:
            real = path.resolve()
            if real in seen:
                raise InputError(f"data.source: {path} is given twice, expected each file once, in one split")
            if self.quarantine is not None and real.is_relative_to(Path(self.quarantine).resolve()):
                raise InputError(
                    f"data.source: {path} is inside data.source.quarantine {self.quarantine}, which is overwritten",
                    "move the corrected file out of that folder",
                )
            seen.add(real)

    def _is_kept(self, row: Row) -> bool:
        if row.values is None:
            return True
        values = row.values
        kept = self._kept_forms.items()
        return all(not forms.isdisjoint(text_forms(cell_value(values, column))) for column, forms in kept)

    def _parse(self, row: Row, path: Path, name: str) -> Record | LeftOut | list[str]:
        if row.values is None:
            return [str(row.fault)]
        prefix = f"{name}:" if path in self._sharing_ids else ""
        return self._parser.parse(row.values, f"{name}:{row.location}", Path(name).name.partition(".")[0], prefix)

    def _validate(self) -> frozenset[tuple[str, str]]:
        """Check the rows of all splits once, and return the (name, location) of those in quarantine."""
        if self._faulty is None:
            result = self._check_rows()
            while not result.sharing_ids <= self._sharing_ids:
                self._sharing_ids |= result.sharing_ids
                result = self._check_rows()
            if result.fault_count and self.quarantine is None:
                raise self._faulty_rows_error(result)
            if self.quarantine is not None and result.faults:
                write_quarantine(self.quarantine, result.raw_rows, result.faults)
                log.warning("%d of %d rows are in quarantine: %s", result.faulty_rows, result.count, self.quarantine)
            if result.skipped:
                log.info("%d of %d rows skipped: %s", result.skipped, result.count, self._keep_condition())
            for reason, number in result.left_out.items():
                log.info("%d of %d rows left out: %s", number, result.count, reason)
            if result.unused_policies:
                log.warning(
                    "%d of %d rows have a policy, which no task uses; it is part of their prompts",
                    *(result.unused_policies, result.count),
                )
            if result.tested_again:
                log.warning(
                    "test rows whose prompt is in the validation split too: %d, for example %s and %s; what is chosen "
                    "on the validation split, such as a threshold, looks better on them",
                    *(len(result.tested_again), *result.tested_again[0]),
                )
            if self._sharing_ids:
                log.info("%d files share ids: the name of the file is part of each id", len(self._sharing_ids))
            self._faulty = frozenset(result.faulty)
        return self._faulty

    def _check_rows(self) -> "_CheckResult":
        result = _CheckResult(self.quarantine is not None)
        splits = self._files()
        consistency = ConsistencyCheck(
            frozenset({"validation"}) if splits["train"] and splits["validation"] else frozenset()
        )
        for split, files in splits.items():
            for path, name in files:
                self._check_file(path, name, split, consistency, result)
        return result

    def _check_file(
        self, path: Path, name: str, split: Split, consistency: ConsistencyCheck, result: "_CheckResult"
    ) -> None:
        warn_if_changed(path)
        used = read = left_out = 0
        columns: dict[str, None] = {}
        absent = dict(self._parser.mapped)
        absent_kept = list(self.keep)
        for row in read_file_rows(path):
            read += 1
            if row.values is not None and (absent or self.keep):
                columns.update(dict.fromkeys(row.values))
                has_column = partial(self._parser.has_column, row.values)
                absent = {key: names for key, names in absent.items() if not any(map(has_column, names))}
                absent_kept = [column for column in absent_kept if not has_column(column)]
            if not self._is_kept(row):
                result.skipped += 1
                continue
            record = self._parse(row, path, name)
            if isinstance(record, LeftOut):
                left_out += 1
                result.left_out[record.reason] += 1
                continue
            faults = record if isinstance(record, list) else []
            if isinstance(record, Record):
                faults += self._id_faults(record, path, split, row.location, consistency, result)
                faults += consistency.faults(record, split, path, row.location)
                if self.patterns["test"] and (self.patterns["validation"] or self.validation_share):
                    of_split = self._split_of(split, record)
                    if first := consistency.validation_row(record, of_split, path, row.location):
                        result.tested_again.append((f"{path}:{row.location}", first))
                result.unused_policies += record.policy is not None and not self._uses_policy
            if faults:
                result.add(path, name, row, faults)
            used += not faults
        result.count += read
        if not read:
            raise InputError(f"{path}: the file has no rows")
        if absent_kept and columns:  # a null in keep would match every row
            there_are = f"there are {', '.join(map(repr, columns))}"
            raise InputError(f"data.source.keep: {path} has no column {absent_kept[0]!r}; {there_are}")
        # rows may lack the further columns, but a name that no row has is misspelt
        missing_keys = [key for key in absent if not used or key.startswith("extra.")]
        if missing_keys and columns:
            key, names = missing_keys[0], absent[missing_keys[0]]
            what = f"no column {names[0]!r}" if len(names) == 1 else f"none of the columns {', '.join(names)}"
            raise InputError(f"data.source.columns.{key}: {path} has {what}; there are {', '.join(map(repr, columns))}")
        if used:
            return
        if self.keep and path not in result.faulty_columns and not left_out:
            raise InputError(f"{path}: none of {read} rows matches {self._keep_condition()}")
        if path not in result.faulty_columns:
            raise InputError(f"{path}: none of {read} rows can be used: {', '.join(result.left_out)}")
        if read > 1 and len(result.faulty_columns[path]) == 1 and not left_out:
            (column,) = result.faulty_columns[path]
            raise InputError(
                f"{path}: all rows are faulty in {column}; the first fault: {result.first_fault(path)}",
                "check data.source.columns",
            )
        if self.quarantine is not None:
            raise InputError(f"{path}: all rows are faulty; the first fault: {result.first_fault(path)}")

    def _id_faults(
        self,
        record: Record,
        path: Path,
        split: Split,
        location: str,
        consistency: ConsistencyCheck,
        result: "_CheckResult",
    ) -> list[str]:
        """Return the fault of an id that occurs twice; files of one split that share ids are noted instead."""
        first = consistency.file_with_id(record, path, location)
        if first is None:
            return []
        of_split = {file for file, _ in self._files()[split]}
        if first != path and first in of_split and not {first, path} <= self._sharing_ids:
            result.sharing_ids |= {first, path}
            return []
        return [consistency.id_fault(record)]

    def _keep_condition(self) -> str:
        wanted = "; ".join(f"{column}: {', '.join(map(display_value, values))}" for column, values in self.keep.items())
        return f"data.source.keep ({wanted})"

    def _faulty_rows_error(self, result: "_CheckResult") -> InputError:
        listed = result.faults[:_MAX_LISTED]
        if more := result.fault_count - len(listed):
            listed.append(f"… and {more} more; data.source.quarantine lists them all")
        verb = "is" if result.faulty_rows == 1 else "are"
        return InputError(
            f"data.source: {result.faulty_rows} of {result.count} rows {verb} faulty, nothing was started",
            "correct them, or move them out with data.source.quarantine: FOLDER",
            details=listed,
        )


class _CheckResult:
    """Faults and counts from checking all rows.

    Args:
        keep_all: whether to keep every faulty row, for the quarantine; otherwise only as many faults as are listed.
    """

    def __init__(self, keep_all: bool) -> None:
        self.keep_all = keep_all
        self.count = self.skipped = self.faulty_rows = self.fault_count = self.unused_policies = 0
        self.left_out: Counter[str] = Counter()
        self.sharing_ids: set[Path] = set()
        self.tested_again: list[tuple[str, str]] = []
        """Places of each test row with a prompt of the validation split, and of the first row with it there."""
        self.faults: list[str] = []
        self.faulty: list[tuple[str, str]] = []
        self.raw_rows: dict[Path, list[Any]] = {}
        self.faulty_columns: dict[Path, set[str]] = {}
        self._first_faults: dict[Path, str] = {}

    def add(self, path: Path, name: str, row: Row, faults: Sequence[str]) -> None:
        self.faulty_rows += 1
        self.fault_count += len(faults)
        described = [_printable(f"{path}:{row.location}: {fault}") for fault in faults]
        self._first_faults.setdefault(path, described[0])
        # The fault of a row that cannot be parsed has no column.
        parts = faults if row.values is not None else ("",)
        self.faulty_columns.setdefault(path, set()).update(fault.partition(":")[0] for fault in parts)
        if self.keep_all or len(self.faults) < _MAX_LISTED:
            self.faults += described
        if self.keep_all:
            self.faulty.append((name, row.location))
            self.raw_rows.setdefault(path, []).append(row.raw)

    def first_fault(self, path: Path) -> str:
        return self._first_faults[path]


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _expand(pattern: str, split: str) -> list[Path]:
    if not glob.has_magic(pattern) or Path(pattern).exists():
        return [Path(pattern)]
    paths = sorted(Path(path) for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not paths:
        raise InputError(f"data.source.{split}: no file matches {pattern}")
    return paths
