"""Read ready preference pairs from files: rows with a prompt, a chosen and a rejected answer of a guard.

``prompt`` is the conversation to judge: the user's text, a list of messages, or a full prompt in the released layout
(also as ``instruction`` and ``input``, the form of the released hard samples). A full prompt begins with the
instruction of the model, or all prompts of the file have the layout; otherwise it is a user's text. ``chosen`` and
``rejected`` are outputs of a guard, as text or as messages whose last one is the output. If neither has reasoning, the
prompt asks for none. The verdicts of ``chosen`` are the record's labels. A file that ``pairs`` wrote is read too.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, InstanceOf, ValidationError, create_model

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_reasoning, read_verdicts
from guardreasoner.prompts import PromptFormat, instruction
from guardreasoner.records import FILE_FINGERPRINT, Message, Pair, Record, Rollout, Speed, record_of
from guardreasoner.sources.conversations import read_list, read_messages, require_unicode
from guardreasoner.sources.predictions import split_prompt
from guardreasoner.sources.row_parser import describe_value
from guardreasoner.sources.rows import Row, read_file_rows
from guardreasoner.sources.template_text import strip_end_tokens
from guardreasoner.sources.validation import validation_message
from guardreasoner.tasks import Task
from guardreasoner.workflow.disk_list import DiskList
from guardreasoner.workflow.manifest import content_hash

log = logging.getLogger("guardreasoner")

_MAX_LISTED = 1000
_pair_fields: dict[str, Any] = {
    f.name: (InstanceOf[Record] if f.name == "record" else f.type, ...) for f in fields(Pair)
}
_PairFields = create_model("_PairFields", __config__=ConfigDict(extra="forbid"), **_pair_fields)
_LAYOUT = "Human user:\n"


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class PairColumns:
    """Names of the columns of a file of preference pairs.

    Args:
        prompt: column of the conversation to judge.
        response: column of the assistant's text in it; None: "response", if the row has it.
        chosen: column of the preferred output.
        rejected: column of the other output.
        weight: column of the pair's weight, a positive number; None: "weight" if the row has it, else 1.
        id: column of the pair's id; the default is used if the row has it. None, or a row without it: file and line.
        policy: column of the policy that the conversation is judged by; None: no column.
    """

    prompt: str = "prompt"
    response: str | None = None
    chosen: str = "chosen"
    rejected: str = "rejected"
    weight: str | None = None
    id: str | None = "id"
    policy: str | None = None


def read_pairs(
    paths: Sequence[str | Path], columns: PairColumns, tasks: Sequence[Task], format: GuardFormat | None = None
) -> Sequence[Pair]:
    """Read preference pairs; their texts are on the disk.

    Args:
        paths: JSONL, JSON, CSV, TSV or Parquet files.
        columns: names of the columns.
        tasks: tasks of the instruction, for prompts in the released layout.
        format: format of the outputs; None: GuardReasoner's own.

    Raises:
        InputError: a file is given twice, cannot be read, has no pair or lacks a column, or rows are faulty (the
            details list each).
    """
    real = [Path(path).resolve() for path in paths]
    if twice := next((path for path, file in zip(paths, real, strict=True) if real.count(file) > 1), None):
        raise InputError(f"data.pairs: {twice} is given twice, expected each file once")
    reader = _PairReader(columns, tasks, format)
    pairs = DiskList(pair for path in paths for pair in reader.read(Path(path)))
    if reader.fault_count:
        verb = "is" if reader.faulty_rows == 1 else "are"
        raise InputError(
            f"data.pairs: {reader.faulty_rows} of {reader.rows} rows {verb} faulty, nothing was started",
            details=reader.faults,
        )
    for what, number in (+reader.changes).items():
        log.info("data.pairs: %s of %d rows", what, number)
    return pairs


class _PairReader:
    """Reads files of pairs, and collects their faults."""

    def __init__(self, columns: PairColumns, tasks: Sequence[Task], format: GuardFormat | None) -> None:
        self.columns = columns
        self.tasks = tasks
        self.format = format
        self.rows = self.faulty_rows = self.fault_count = 0
        self.faults: list[str] = []
        self.changes: Counter[str] = Counter()
        self._ids: dict[str, str] = {}
        opening = format.opening if isinstance(format, PromptFormat) else None
        self._instructions = (instruction(tasks, "").rstrip(), *filter(None, [opening]))
        """How a prompt of the model begins."""
        self._in_layout: dict[Path, bool] = {}
        """Whether every prompt of a file has the released layout."""

    def read(self, path: Path) -> Iterator[Pair]:
        """Yield the pairs of a file.

        Raises:
            InputError: the file cannot be read, has no row that can be used, or lacks a column.
        """
        fingerprint = ""
        read = 0
        seen: dict[str, None] = {}
        for row in read_file_rows(path):
            fingerprint = fingerprint or FILE_FINGERPRINT + content_hash(path)[:16]
            read += 1
            self.rows += 1
            seen.update(dict.fromkeys(row.values or ()))
            where = f"{path}:{row.location}"
            try:
                pair = self._pair(row, where, path, fingerprint)
            except ValueError as error:
                self._add_fault(f"{where}: {error}")
                continue
            yield pair
        if not read:
            raise InputError(f"{path}: the file has no rows")
        self._require_columns(path, seen)

    def _add_fault(self, fault: str) -> None:
        self.faulty_rows += 1
        self.fault_count += 1
        if len(self.faults) < _MAX_LISTED:
            self.faults.append("".join(c if c.isprintable() else ascii(c)[1:-1] for c in fault))
        elif len(self.faults) == _MAX_LISTED:
            self.faults.append("… and more")

    def _require_columns(self, path: Path, seen: Mapping[str, None]) -> None:
        """Raise ``InputError`` if no row of a file has a column that pairs need, or that the config names."""
        if not seen or "record" in seen:
            return
        for key in ("chosen", "rejected", "response", "weight", "id", "policy"):
            column = getattr(self.columns, key)
            if column is not None and column not in seen and (key, column) != ("id", "id"):
                raise InputError(
                    f"data.pair_columns.{key}: {path} has no column {column!r}; there are {', '.join(map(repr, seen))}"
                )

    def _pair(self, row: Row, where: str, path: Path, fingerprint: str) -> Pair:
        """Convert a row; raise ``ValueError`` with its fault."""
        if row.values is None:
            raise ValueError(row.fault)
        values = row.values
        if isinstance(values.get("record"), dict):
            pair = _own_pair(values)
            self._require_unique(pair.id, where)
            return pair
        chosen, before_chosen = self._output(values, self.columns.chosen)
        rejected, before_rejected = self._output(values, self.columns.rejected)
        messages = self._conversation(values, before_chosen, before_rejected, path)
        if chosen == rejected:
            raise ValueError(f"{self.columns.rejected}: is the same text as {self.columns.chosen}")
        pair_id = self._id(values, f"{path.name}:{row.location}")
        self._require_unique(pair_id, where)
        verdicts = read_verdicts(chosen, self.tasks, self.format)
        labels = {task: verdict for task, verdict in verdicts.items() if verdict is not None}
        source = path.name.partition(".")[0]
        policy = self._policy(values)
        record = Record(pair_id, labels=labels, source=source, messages=messages, policy=policy)
        speed = self._speed(chosen, rejected)
        better, worse = (
            Rollout(pair_id, path.stem, fingerprint, index, 0, text, speed)
            for index, text in enumerate((chosen, rejected))
        )
        return Pair(pair_id, record, better, worse, "all", "given", 0, self._weight(values), (True, False))

    def _output(self, values: Mapping[str, Any], column: str) -> tuple[str, tuple[Message, ...]]:
        """Return an output, and the messages before it."""
        value = values.get(column)
        before: tuple[Message, ...] = ()
        if isinstance(value, list | dict):
            try:
                *before_output, output_message = read_list([value] if isinstance(value, dict) else value)
            except ValueError as error:
                raise ValueError(f"{column}: {error}") from None
            if output_message.role != "assistant":
                raise ValueError(f"{column}: the last message is of the {output_message.role}, expected the assistant")
            if output_message.tool_calls:
                raise ValueError(f"{column}: found a tool call in the output, expected text")
            before, text = tuple(before_output), output_message.content
        elif isinstance(value, str):
            text = value
        elif column not in values:
            raise ValueError(f"{column}: this column is missing; there are {', '.join(map(repr, values)) or 'none'}")
        else:
            raise ValueError(f"{column}: found {describe_value(value)}, expected text or a list of messages")
        output = strip_end_tokens(text)
        self.changes["an end token was removed from the outputs"] += output != text
        if not output.strip():
            raise ValueError(f"{column}: found an empty text, expected text")
        return require_unicode(output, column), before

    def _messages(
        self,
        values: Mapping[str, Any],
        before_chosen: tuple[Message, ...] = (),
        before_rejected: tuple[Message, ...] = (),
    ) -> tuple[Message, ...]:
        """Return the messages of the prompt or, if there is none, those before the outputs."""
        column = self.columns.prompt
        value = values.get(column)
        if value is None and isinstance(values.get("input"), str):
            value = f"{values.get('instruction') or ''}\n{values['input']}"
        if value is None and before_chosen:
            if before_chosen != before_rejected:
                raise ValueError(f"{column}: the messages before the outputs differ, expected one conversation")
            value = [message.as_json() for message in before_chosen]
        if isinstance(value, list):
            try:
                return read_messages(value)
            except ValueError as error:
                raise ValueError(f"{column}: {error}") from None
        if isinstance(value, str) and value.strip():
            return (Message("user", require_unicode(value, column)),)
        if value is None and column not in values:
            raise ValueError(f"{column}: this column is missing; there are {', '.join(map(repr, values)) or 'none'}")
        raise ValueError(f"{column}: found {describe_value(value)}, expected text or a list of messages")

    def _conversation(
        self,
        values: Mapping[str, Any],
        before_chosen: tuple[Message, ...],
        before_rejected: tuple[Message, ...],
        path: Path,
    ) -> tuple[Message, ...]:
        messages = self._messages(values, before_chosen, before_rejected)
        name = self.columns.response or "response"
        response = values.get(name)
        if response is not None:
            if not isinstance(response, str) or messages[-1].role == "assistant":
                found = "a second response" if isinstance(response, str) else describe_value(response)
                raise ValueError(f"{name}: found {found}, expected text")
            return (*messages, Message("assistant", require_unicode(response, name)))
        split = self._split(messages)
        if split is None or not self._is_full_prompt(messages[0].content, path):
            return messages
        if not split[0].content.strip():
            raise ValueError(f"{self.columns.prompt}: found an empty text, expected text")
        self.changes["the released layout was split into prompt and response"] += 1
        return split

    def _split(self, messages: tuple[Message, ...]) -> tuple[Message, ...] | None:
        """Return the conversation in a single text of the released layout; None if there is no such text."""
        if len(messages) > 1 or _LAYOUT not in messages[0].content:
            return None
        try:
            return Record("", *split_prompt(messages[0].content.rstrip("\n") + "\n\n", self.tasks, "")).messages
        except InputError:
            return None

    def _is_full_prompt(self, text: str, path: Path) -> bool:
        """Return whether a text of the released layout is a full prompt, not a user's text that imitates one.

        It begins with the instruction of the model, or every prompt of its file has the layout.
        """
        if text.startswith(self._instructions):
            return True
        if path not in self._in_layout:
            self._in_layout[path] = all(map(self._has_layout, read_file_rows(path)))
        return self._in_layout[path]

    def _has_layout(self, row: Row) -> bool:
        try:
            return self._split(self._messages(row.values or {})) is not None
        except ValueError:
            return False

    def _speed(self, *outputs: str) -> Speed:
        """Return "direct" if the format has no other speed, or if none of the outputs has reasoning."""
        format = self.format
        if format is not None and not format.has("direct"):
            return "reasoned"
        has_reasoned = format is None or format.has("reasoned")
        if has_reasoned and any(read_reasoning(output, self.tasks, format) for output in outputs):
            return "reasoned"
        self.changes["the prompt asks for the verdicts without reasoning, as the outputs have none, in the pairs"] += 1
        return "direct"

    def _policy(self, values: Mapping[str, Any]) -> str | None:
        column = self.columns.policy
        value = None if column is None else values.get(column)
        if column is None or value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{column}: found {describe_value(value)}, expected text")
        return require_unicode(value.strip(), column)

    def _weight(self, values: Mapping[str, Any]) -> float:
        column = self.columns.weight or "weight"
        value = values.get(column)
        if value is None and self.columns.weight is None:
            return 1.0
        weight = None if isinstance(value, bool) else _number(value)
        if weight is None or not math.isfinite(weight) or weight <= 0:
            raise ValueError(f"{column}: found {describe_value(value)}, expected a number above 0")
        return weight

    def _id(self, values: Mapping[str, Any], default: str) -> str:
        value = None if self.columns.id is None else values.get(self.columns.id)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise ValueError(f"{self.columns.id}: found {describe_value(value)}, expected a text")
        if not str(value).isprintable() or len(str(value)) > 512:
            raise ValueError(f"{self.columns.id}: expected a name on one line, of at most 512 characters")
        return str(value)

    def _require_unique(self, pair_id: str, where: str) -> None:
        if (first := self._ids.setdefault(pair_id, where)) != where:
            raise ValueError(f"id: found {pair_id!r}, which is already the id of {first}, expected a unique id")


def _own_pair(values: Mapping[str, Any]) -> Pair:
    """Parse a pair in the form that ``pairs`` writes."""
    try:
        record = record_of(values["record"], "record")
        pair = Pair(**dict(_PairFields.model_validate({**values, "record": record})))
    except InputError as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        raise ValueError(validation_message(error)) from None
    if not math.isfinite(pair.weight) or pair.weight <= 0:
        raise ValueError(f"weight: found {describe_value(pair.weight)}, expected a number above 0")
    return pair


def _number(value: Any) -> float | None:
    """Return a number, or the number in a text; None for anything else."""
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None
