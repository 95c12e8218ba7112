"""Read conversations without labels from logs: the files of :mod:`guardreasoner.sources.files`, and chat logs.

A row of a chat log holds a call of OpenAI's API and its answer, ``{"request": {"messages": […]}, "response":
{"choices": […]}}``, or ``{"messages": […], "response": {"choices": […]}}``; it becomes one conversation.
"""

import glob
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.conversations import LeftOut
from guardreasoner.sources.quarantine import write_quarantine
from guardreasoner.sources.row_parser import Columns, RowParser, describe_value
from guardreasoner.sources.rows import Row, read_file_rows
from guardreasoner.tasks import GUARD_TASKS, Task
from guardreasoner.workflow.manifest import content_hash

_MAX_LISTED = 1000
"""Largest number of faults listed in an error; the quarantine lists all."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """One conversation of a log.

    Args:
        place: file and line, such as ``chat.jsonl:17``. It is unique, unlike the id, which logs may repeat.
        record: the conversation; without an id of its own, its id is the place.
    """

    place: str
    record: Record


@dataclass(frozen=True, slots=True)
class LogCounts:
    """Number of rows in logs.

    Args:
        usable: rows that are conversations.
        faulty: rows that are none, which are in quarantine.
        unread_columns: columns of the usable rows that are not read.
    """

    usable: int
    faulty: int
    unread_columns: tuple[str, ...] = ()


class Logs:
    """Conversations in files, read row by row: the memory does not depend on their number.

    Args:
        paths: files or glob patterns.
        columns: names of the columns; labels and reasoning are not read.
        tasks: tasks of the guard that will judge them; a policy is read if one of them uses it.
        policy: policy of the rows that have none.
        names: name of a file in messages and ids, where it differs from that of its path.

    Raises:
        InputError: a file is given twice, no file matches a pattern, or a policy is given that no task uses.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        columns: Columns = Columns(),  # noqa: B008 - frozen
        tasks: Sequence[Task] = GUARD_TASKS,
        policy: str | None = None,
        names: Mapping[Path, str] | None = None,
    ) -> None:
        self._needs_policy = any(task.uses_policy for task in tasks)
        if not self._needs_policy and (policy is not None or columns.policy is not None):
            raise InputError("policy: given, but no task of the guard uses one")
        self.columns = columns
        self._parser = RowParser(columns, tasks, policy=policy, labelled=False)
        self._unwraps = columns.prompt is None and columns.messages is None
        self._names = _names([file for path in paths for file in matching_files(str(path))], names or {})

    def identity(self) -> list[list[str]]:
        """Return name and content hash of each file."""
        return [[name, content_hash(path)] for path, name in self._names.items()]

    def check(self, quarantine: str | Path | None = None) -> LogCounts:
        """Read all rows once, and count them.

        Args:
            quarantine: folder to which faulty rows are written unchanged; None: they are an error.

        Raises:
            InputError: a file cannot be read, rows are faulty (the details list them), or no row can be used.
        """
        usable = faulty = 0
        read = self._parser.read_columns | ({"request"} if self._unwraps else set())
        unread: dict[str, None] = {}
        faults: list[str] = []
        raw: dict[Path, list[Any]] = {}
        for path, name in self._names.items():
            for row in read_file_rows(path):
                found = self._parse(row, name)
                if isinstance(found, LogRow):
                    usable += 1
                    unread |= dict.fromkeys(column for column in row.values or () if column not in read)
                    continue
                faulty += 1
                shown = path if name == path.name else name
                if quarantine is not None or len(faults) < _MAX_LISTED:
                    faults += [f"{shown}:{row.location}: {fault}" for fault in found]
                if quarantine is not None:
                    raw.setdefault(path, []).append(row.raw)
        if faulty and quarantine is None:
            more = [f"… and more; {faulty:,} rows are faulty in all"] if len(faults) >= _MAX_LISTED else []
            raise InputError(
                f"{faulty:,} of {usable + faulty:,} rows {'is' if faulty == 1 else 'are'} faulty, nothing was started",
                "correct them, or move them out with --quarantine FOLDER",
                details=[*faults, *more],
            )
        if not usable:
            first = f"; the first fault: {faults[0]}" if faults else ""
            raise InputError(f"{', '.join(self._names.values())}: found no conversation{first}")
        if quarantine is not None and faulty:
            write_quarantine(quarantine, raw, faults)
        return LogCounts(usable, faulty, tuple(unread))

    def rows(self) -> Iterator[LogRow]:
        """Yield the conversations in the order of the files; faulty rows are passed over."""
        for path, name in self._names.items():
            for row in read_file_rows(path):
                found = self._parse(row, name)
                if isinstance(found, LogRow):
                    yield found

    def _parse(self, row: Row, name: str) -> LogRow | list[str]:
        """Return the conversation of a row, or its faults."""
        if row.values is None:
            return [str(row.fault)]
        place = f"{name}:{row.location}"
        try:
            values = unwrapped(row.values) if self._unwraps else row.values
        except ValueError as error:
            return [str(error)]
        record = self._parser.parse(values, place, Path(name).name.partition(".")[0])
        if isinstance(record, LeftOut):  # only with a limit of turns, which logs do not have
            return [record.reason]
        if isinstance(record, list):
            return record
        if self._needs_policy and record.policy is None:
            return ["policy: found none, expected one, which the guard judges by"]
        return LogRow(place, record)


def unwrapped(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row in which the messages of a call of a chat API and of its answer are one list; others unchanged.

    Raises:
        ValueError: the answer is not that of a chat API; the message says what was found.
    """
    request, reply = row.get("request"), row.get("response")
    is_call = isinstance(request, Mapping) and "messages" in request
    if not is_call and not ("messages" in row and isinstance(reply, Mapping)):
        return row
    messages = request["messages"] if isinstance(request, Mapping) and is_call else row["messages"]
    if is_call and row.get("messages", messages) not in (messages, None):
        raise ValueError("messages: found other messages than request.messages, expected one of them")
    rest = {name: value for name, value in row.items() if name not in ("request", "response", "messages")}
    if not isinstance(reply, Mapping):  # a text, or no answer
        return {**rest, "messages": messages, "response": reply}
    if not isinstance(messages, list):
        raise ValueError(f"messages: found {describe_value(messages)}, expected a list of messages")
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        found = f"{len(choices)} choices" if isinstance(choices, list) else describe_value(choices)
        raise ValueError(f"response.choices: found {found}, expected a list with one choice")
    message = choices[0].get("message") if isinstance(choices[0], Mapping) else None
    if not isinstance(message, Mapping):
        raise ValueError(f"response.choices: message: found {describe_value(message)}, expected an object")
    rest = rest if rest.get("id") is not None else {**rest, "id": reply.get("id")}
    return {**rest, "messages": [*messages, {"role": "assistant", **message}]}


def matching_files(pattern: str) -> list[Path]:
    """Return the files that a pattern matches, or the path itself if it is none.

    Raises:
        InputError: no file matches.
    """
    if not glob.has_magic(pattern) or Path(pattern).exists():
        return [Path(pattern)]
    found = sorted(Path(path) for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not found:
        raise InputError(f"no file matches {pattern}")
    return found


def _names(paths: Sequence[Path], given: Mapping[Path, str]) -> dict[Path, str]:
    """Return the name of each file, which is its path where two have the same name."""
    counts = Counter(path.name for path in paths)
    if len({path.resolve() for path in paths}) < len(paths):
        twice = next(path for path in paths if [other.resolve() for other in paths].count(path.resolve()) > 1)
        raise InputError(f"{twice}: given twice, expected each file once")
    return {path: given.get(path, path.name if counts[path.name] == 1 else path.as_posix()) for path in paths}
