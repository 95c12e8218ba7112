"""The things that travel between stages, and the JSONL files they travel in."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from guardreasoner.errors import InputError

log = logging.getLogger("guardreasoner")

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation to judge.

    Args:
        id: unique within a run; stable when the data grow.
        prompt: the human user's text.
        response: the AI assistant's text, or None where there is none.
        labels: gold label by task name; a task that is absent or None has no gold label.
        reasoning: a trace that leads to the verdicts, with or without its answer block; None where there is none.
        source: data set (or part of one) that the record comes from.
    """

    id: str
    prompt: str
    response: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    reasoning: str | None = None
    source: str = ""

    def gold(self) -> dict[str, str]:
        """Return the labels that are there, by task name."""
        return {task: label for task, label in self.labels.items() if label is not None}


@dataclass(frozen=True, slots=True)
class Rollout:
    """One output that a model gave for a record. It holds no verdict, since more than one reading exists.

    Args:
        record_id: the record that was judged.
        model: name of the model, as people call it.
        fingerprint: hash of the model's weights and tokenizer; where they are unknown, ``FILE_FINGERPRINT`` followed by
            the hash of the file that holds the output.
        index: which of the k outputs, from 0.
        seed: seed of the run that sampled it.
        completion: the generated text, without special tokens.
    """

    record_id: str
    model: str
    fingerprint: str
    index: int
    seed: int
    completion: str


FILE_FINGERPRINT = "file:"
"""How the fingerprint of a rollout begins whose model's weights are not known."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A hard record with one right and one wrong output.

    Args:
        id: the record's; where a record has several pairs, ``#1``, ``#2`` … behind it.
        record: the conversation with its gold labels.
        chosen: a right output.
        rejected: a wrong one.
        task: name of the task that was graded, or "all" when every gold label had to be met.
        rule: how chosen and rejected were picked, for example "random/random".
        excess_errors: wrong outputs minus right outputs among the votes.
        weight: alpha, 1 + Norm(excess_errors, gamma) (paper, equation 5).
        votes: right (True) or wrong (False), per output, ordered by model, fingerprint, seed and index.
    """

    id: str
    record: Record
    chosen: Rollout
    rejected: Rollout
    task: str
    rule: str
    excess_errors: int
    weight: float
    votes: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A rollout read: what the model said of a record.

    Args:
        record: the conversation.
        rollout: the output.
        verdicts: label by task name; None where the output gives none.
    """

    record: Record
    rollout: Rollout
    verdicts: Mapping[str, str | None]

    def to(self, device: object, **_: object) -> "Answer":
        """Return itself: a trainer that gathers predictions moves them, and refuses frozen dataclasses without this."""
        return self


@runtime_checkable
class HasRecords(Protocol):
    """A data module that serves records.

    Args:
        records: those to answer; empty before ``setup``.
    """

    records: Sequence[Record]


def read_jsonl(path: str | Path, torn: Callable[[int], None] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each line of a JSONL file; blank lines are passed over.

    Args:
        path: the file.
        torn: called with the number of a last line that has no end and is no JSON, since its writer was stopped; the
            line is then passed over. None: it is an error, as anywhere else.

    Raises:
        InputError: the file is missing, is not UTF-8, or a line is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode())
            except ValueError as error:
                if torn is None or line.endswith(b"\n"):
                    raise InputError(f"{path}:{number}: {_fault(error)}") from None
                torn(number)
                return
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
            yield number, row


def read_records(path: str | Path) -> list[Record]:
    """Read records from JSONL.

    Raises:
        InputError: a field is missing, unknown or of the wrong type, an id comes twice, or the file holds no record.
    """
    records = [_build(Record, row, f"{path}:{number}") for number, row in read_jsonl(path)]
    if not records:
        raise InputError(f"{path}: the file holds no record")
    require_unique_ids(records, str(path))
    return records


def read_rollouts(path: str | Path) -> list[Rollout]:
    """Read rollouts from JSONL. A last line that its writer did not finish is left out, with a line that says so.

    Raises:
        InputError: as :func:`read_records`.
    """
    rollouts, torn = list[Rollout](), list[int]()
    for number, row in read_jsonl(path, torn.append):
        for name in ("record_id", "model", "fingerprint"):
            if isinstance(row.get(name), str):
                row[name] = sys.intern(row[name])  # one text for all rollouts that share it
        rollouts.append(_build(Rollout, row, f"{path}:{number}"))
    if not rollouts:
        raise InputError(f"{path}: the file holds no rollout")
    if torn:
        where = f"{path}:{torn[0]}"
        log.warning(f"{where}: cut off while it was written: 1 rollout left out, {len(rollouts):,} read")
    return rollouts


def require_unique_ids(records: Iterable[Record], where: str) -> None:
    """Raise ``InputError`` when two records share an id."""
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise InputError(f"{where}: record id {record.id!r} occurs twice; ids must be unique")
        seen.add(record.id)


def write_jsonl(path: str | Path, rows: Iterable[Record | Rollout | Pair | Mapping[str, Any]]) -> int:
    """Write rows as JSONL, whole or not at all; return how many."""
    count = 0
    # half a surrogate pair has no UTF-8, but a JSON escape, and that is what the error handler writes
    with replacing_file(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as lines:
        for row in rows:
            lines.write(json.dumps(_as_dict(row), ensure_ascii=False, default=_as_dict) + "\n")
            count += 1
    return count


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; move it there when the block ends well, else ``path`` stays as is."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "prompt", "source", "record_id", "model", "fingerprint", "completion"), (str,)),
    **dict.fromkeys(("response", "reasoning"), (str, type(None))),
    **dict.fromkeys(("index", "seed"), (int,)),
    "labels": (dict,),
}


def _build(cls: type, row: Mapping[str, Any], where: str) -> Any:
    known = _names(cls)
    for name, value in row.items():
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r}; a {cls.__name__} has {', '.join(sorted(known))}")
        if type(value) not in _TYPES[name]:  # what JSON gives has no subclasses, and bool is none of them
            allowed = " or ".join("null" if t is type(None) else t.__name__ for t in _TYPES[name])
            raise InputError(f"{where}: {name}: expected {allowed}, found {type(value).__name__}")
    try:
        return cls(**row)
    except TypeError:
        required = ("id", "prompt") if cls is Record else known
        absent = [name for name in required if name not in row]
        raise InputError(f"{where}: missing field {absent[0]!r}") from None


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    kind: type = type(value)
    if not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is not JSON serializable")
    return {name: getattr(value, name) for name in _names(kind)}


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def _fault(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    return f"not valid UTF-8: {error.reason}" if isinstance(error, UnicodeDecodeError) else f"not valid JSON: {error}"
