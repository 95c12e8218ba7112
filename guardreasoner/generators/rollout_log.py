"""Append-only log of the rollouts of an unfinished run: committed rollouts survive a crash at any moment."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Rollout, replacing_file, write_jsonl
from guardreasoner.tasks import TASKS_FILE, Task, write_tasks
from guardreasoner.workflow.manifest import fingerprint
from guardreasoner.workflow.replacing import replacing_folder

log = logging.getLogger("guardreasoner")

COST = "cost.manifest.json"
"""File beside the rollouts. Like manifests, it is not hashed: the same rows may take longer another time."""

_SYNC_EVERY = 1.0
"""Seconds between calls of fsync. Only a crash of the machine, not of the process, loses what is not synced."""


@dataclass(frozen=True)
class RunCost:
    """Cost of a run, or of one of its processes.

    Args:
        seconds: wall time of sampling, summed over devices and restarts.
        device: device type, "cpu" or "cuda".
        devices: number of processes that sampled.
        outputs: number of rollouts.
        tokens: tokens of the rollouts.
    """

    seconds: float = 0.0
    device: str = "cpu"
    devices: int = 1
    outputs: int = 0
    tokens: int = 0


class RolloutLog:
    """The log of a run: a folder beside the run's output, named after a hash of what determines the rollouts.

    A run with other settings therefore has another log. Each process appends to a shard of its own,
    ``rollouts-00000.jsonl`` and so on. A commit is a group of rows, a line with their SHA-256 and an empty line; lines
    after the last empty line belong to an unfinished commit and are dropped. Commits without a hash, of earlier
    versions, are read too.

    Args:
        output: folder that the finished run becomes.
        identity: everything that determines the rollouts, JSON-serialisable.
    """

    def __init__(self, output: str | Path, identity: Mapping[str, Any]) -> None:
        self.output = Path(output)
        self.folder = self.output.with_name(f".{self.output.name}.{fingerprint(identity)[:12]}.partial")
        self.cost = RunCost()
        self._shard: BinaryIO | None = None
        self._cost_file = self.folder
        self._synced = 0.0

    def prepare(self, records: Sequence[Record], tasks: Sequence[Task]) -> int:
        """Create or repair the folder; only one process calls this, before the others open their shards.

        Damaged commits are removed with a warning, so that their records are sampled again.

        Returns:
            The number of uncommitted lines that were dropped.

        Raises:
            InputError: raised if another run is writing to the log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(self.folder / "records.jsonl", records)
        write_tasks(self.folder, tasks)
        dropped = 0
        for path in self._shards():
            with path.open("r+b") as shard:
                lock(shard, self.folder)
                end, uncommitted = _commit_end(shard)
                dropped += uncommitted
                shard.truncate(end)
                _remove_damaged(path)
        return dropped

    def done(self, k: int) -> set[str]:
        """Return the ids of the records that have at least k committed rollouts."""
        counts: dict[str, int] = {}
        for path in self._shards():
            for row, _, _ in _committed_rows(path):
                counts[row["record_id"]] = counts.get(row["record_id"], 0) + 1
        return {record_id for record_id, count in counts.items() if count >= k}

    def open(self, process: int, device: str) -> None:
        """Open a process's shard for appending."""
        path = self.folder / f"rollouts-{process:05}.jsonl"
        self._shard = path.open("ab", buffering=0)
        lock(self._shard, self.folder)
        self._cost_file = self.folder / f"cost-{process:05}.json"
        self.cost = _read_cost(self._cost_file) or RunCost(device=device)

    def append(self, rollouts: Iterable[Rollout], seconds: float, tokens: int) -> None:
        """Commit a group of rollouts.

        Args:
            rollouts: all rollouts of one or several records.
            seconds: wall time of sampling them.
            tokens: tokens of the rollouts.
        """
        assert self._shard is not None
        lines = [json.dumps(asdict(rollout), ensure_ascii=False).encode() + b"\n" for rollout in rollouts]
        if lines:
            write_all(self._shard, b"".join([*lines, _hash_line(lines), b"\n"]))
        self.cost = replace(
            self.cost,
            seconds=self.cost.seconds + seconds,
            outputs=self.cost.outputs + len(lines),
            tokens=self.cost.tokens + tokens,
        )
        if (now := time.monotonic()) - self._synced >= _SYNC_EVERY:
            self._sync()
            self._synced = now

    def close(self) -> None:
        """Sync the shard to the disk and release its lock."""
        if self._shard is not None and not self._shard.closed:
            self._sync()
            self._shard.close()

    def discard_if_empty(self) -> None:
        """Remove the folder if nothing was committed."""
        if self.folder.is_dir() and not any(path.stat().st_size for path in self._shards()):
            shutil.rmtree(self.folder)

    def finish(self, records: Sequence[Record]) -> int:
        """Turn the log into the output folder; only one process calls this, after all have closed their shards.

        The shards are merged into one ``rollouts.jsonl``, sorted by record and index, so that the result does not
        depend on which process wrote what, or how often the run was interrupted.

        Args:
            records: all requested records, in order.

        Returns:
            The number of rollouts.

        Raises:
            InputError: raised if a rollout was written twice.
        """
        order = {record.id: position for position, record in enumerate(records)}
        shards = self._shards()
        entries = sorted(
            (order[row["record_id"]], row["index"], shard, start, end)
            for shard, path in enumerate(shards)
            for row, start, end in _committed_rows(path)
        )
        for entry, following in pairwise(entries):
            if entry[:2] == following[:2]:
                record_id = records[entry[0]].id
                raise InputError(f"{self.folder}: output {entry[1]} of record {record_id!r} was written twice")
        with replacing_folder(self.output) as new_output, ExitStack() as stack:
            for name in ("records.jsonl", TASKS_FILE):
                shutil.copy(self.folder / name, new_output)
            files = [stack.enter_context(path.open("rb")) for path in shards]
            with (new_output / "rollouts.jsonl").open("wb") as merged:
                for _, _, shard, start, end in entries:
                    files[shard].seek(start)
                    merged.write(files[shard].read(end - start))
            self._write_cost(new_output)
        shutil.rmtree(self.folder)
        return len(entries)

    def _write_cost(self, folder: Path) -> None:
        costs = [cost for file in sorted(self.folder.glob("cost-*.json")) if (cost := _read_cost(file))]
        if costs:
            total = RunCost(
                seconds=sum(cost.seconds for cost in costs),
                device=costs[0].device,
                devices=len(costs),
                outputs=sum(cost.outputs for cost in costs),
                tokens=sum(cost.tokens for cost in costs),
            )
            (folder / COST).write_text(json.dumps(asdict(total)) + "\n")

    def _sync(self) -> None:
        assert self._shard is not None
        os.fsync(self._shard.fileno())
        with replacing_file(self._cost_file) as partial:
            partial.write_text(json.dumps(asdict(self.cost)))

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("rollouts-*.jsonl"))


def lock(file: BinaryIO, path: Path, writer: str = "run") -> None:
    """Take an exclusive lock, held until the file is closed. On file systems without locks, do nothing.

    Args:
        file: an open file; it is closed if another process holds the lock.
        path: what the error message says is locked.
        writer: what the error message calls the other process.

    Raises:
        InputError: raised if another process holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{path}: another {writer} is writing here") from None
    except OSError:
        pass


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all bytes to an unbuffered file, whose ``write`` may write fewer."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[file.write(remaining) :]


def _commit_end(shard: BinaryIO) -> tuple[int, int]:
    """Return the offset after the last commit, and the number of lines that follow it."""
    offset = end = uncommitted = 0
    for line in shard:
        offset += len(line)
        uncommitted += 1
        if line == b"\n":
            end, uncommitted = offset, 0
    return end, uncommitted


def _committed_rows(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield each committed row with the start and end offset of its line."""
    for commit in _commits(path):
        try:
            rows = commit.rows()
        except ValueError:
            raise InputError(
                f"{path}:{commit.line}: the outputs committed here are damaged",
                "start the command again: they are sampled again",
            ) from None
        start = commit.start
        for row, line in zip(rows, commit.lines, strict=False):
            yield row, start, start + len(line)
            start += len(line)


@dataclass(frozen=True)
class _Commit:
    """A group of lines that ends with an empty line.

    Args:
        start: offset of the first line.
        line: number of the first line.
        lines: all lines but the empty one: rows, then their hash.
    """

    start: int
    line: int
    lines: list[bytes]

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows; raise ``ValueError`` if they are damaged."""
        lines = self.lines[:-1]
        has_hash = self.lines[-1:] == [_hash_line(lines)]
        rows = [json.loads(line) for line in (lines if has_hash else self.lines)]
        if not all(isinstance(row, dict) and {"record_id", "index"} <= row.keys() for row in rows):
            raise ValueError("not a rollout")
        return rows

    def is_intact(self) -> bool:
        """Return whether the rows are not damaged."""
        with suppress(ValueError):
            self.rows()
            return True
        return False


def _commits(path: Path) -> Iterator[_Commit]:
    offset = start = 0
    first, group = 1, list[bytes]()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            offset += len(line)
            if line != b"\n":
                group.append(line)
                continue
            yield _Commit(start, first, group)
            start, first, group = offset, number + 1, []


def _remove_damaged(path: Path) -> None:
    """Rewrite a shard without its damaged commits, if it has any."""
    damaged = {commit.line for commit in _commits(path) if not commit.is_intact()}
    if not damaged:
        return
    log.warning("%s:%s: damaged outputs, which are sampled again", path, ", ".join(map(str, sorted(damaged))))
    with replacing_file(path) as partial, partial.open("wb") as kept:
        for commit in _commits(path):
            if commit.line not in damaged:
                kept.write(b"".join([*commit.lines, b"\n"]))


def _hash_line(lines: Sequence[bytes]) -> bytes:
    return json.dumps({"sha256": hashlib.sha256(b"".join(lines)).hexdigest()}).encode() + b"\n"


def _read_cost(path: Path) -> RunCost | None:
    with suppress(OSError, ValueError, TypeError):
        return RunCost(**json.loads(path.read_text()))
    return None
