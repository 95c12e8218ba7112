"""Append-only log of the rollouts of an unfinished run: committed rollouts survive a crash at any moment."""

import fcntl
import glob
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.stored import write_output_format
from guardreasoner.records import Record, Rollout, write_jsonl
from guardreasoner.records.atomic_file import replacing_file
from guardreasoner.workflow.file_lock import FileLock
from guardreasoner.workflow.manifest import fingerprint

log = logging.getLogger("guardreasoner")

COST = "cost.manifest.json"
"""File beside the rollouts. Like manifests, it is not hashed: the same rows may take longer another time."""

_FORMAT = 3
"""Version of the log's files; logs of other versions are not read, so that all rows of a file have the same fields."""

_HASH_LENGTH = 12
"""Digits of the hash in a log's name."""

_COMPLETE = "complete"
"""File in a log whose output is written."""

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

    A run with other settings therefore has another log. The rollouts are in one or several parts. Each process appends
    to a file of its own in each part, ``rollouts-00000.jsonl`` and so on. A commit is a group of lines followed by a
    line ``#`` with their SHA-256; lines after the last such line belong to an unfinished commit and are dropped.

    Only the process that has called :meth:`prepare` removes anything: it holds the lock of the folder.

    Args:
        output: folder that the finished run becomes.
        identity: everything that determines the rollouts, JSON-serializable.
        parts: number of rollouts of each record, by the name of the part.
    """

    def __init__(self, output: str | Path, identity: Mapping[str, Any], parts: Mapping[str, int]) -> None:
        self.output = Path(output)
        self.parts = dict(parts)
        name = fingerprint({"format": _FORMAT, "parts": self.parts, **identity})[:_HASH_LENGTH]
        self.folder = self.output.with_name(f".{self.output.name}.{name}.partial")
        self.cost = RunCost()
        self._lock = FileLock(self.folder / "lock", str(self.output))
        self._files: dict[str, BinaryIO] = {}
        self._cost_file = self.folder
        self._synced = 0.0

    def prepare(self, records: Sequence[Record], format: GuardFormat) -> int:
        """Lock the folder and create or repair it; only one process calls this, before the others open their files.

        Damaged groups are removed with a warning, so that their rollouts are generated again. Logs of other settings
        are left alone and named in a line.

        Returns:
            The number of uncommitted lines that were dropped.

        Raises:
            InputError: raised if another run is writing to the log.
        """
        while not self._lock.held:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the former owner has just removed the folder
                self._lock.acquire()
        try:
            return self._prepare_locked(records, format)
        except BaseException:
            self.release()
            raise

    def done(self, part: str) -> set[str]:
        """Return the ids of the records all of whose rollouts in a part are committed."""
        counts = Counter(row["record_id"] for path in self._shards(part) for row, _, _ in _committed_rows(path))
        return {record_id for record_id, count in counts.items() if count >= self.parts[part]}

    def read(self, part: str) -> Iterator[Rollout]:
        """Yield the committed rollouts of a part, in no particular order."""
        for path in self._shards(part):
            yield from (Rollout(**row) for row, _, _ in _committed_rows(path))

    def open(self, process: int, device: str) -> None:
        """Open a process's files for appending.

        Raises:
            InputError: raised if another process is writing to them.
        """
        for part in self.parts:
            self._files[part] = (self.folder / f"{part}-{process:05}.jsonl").open("ab", buffering=0)
            lock(self._files[part], self.output)
        self._cost_file = self.folder / f"cost-{process:05}.json"
        self.cost = _read_cost(self._cost_file) or RunCost(device=device)

    def append(self, part: str, rollouts: Iterable[Rollout], seconds: float, tokens: int) -> None:
        """Commit a group of rollouts.

        Args:
            part: the part that the rollouts belong to.
            rollouts: all rollouts of one or several records.
            seconds: wall time of sampling them.
            tokens: tokens of the rollouts.
        """
        lines = [json.dumps(rollout.as_json(), ensure_ascii=False).encode() + b"\n" for rollout in rollouts]
        if lines:
            group = b"".join(lines)
            write_all(self._files[part], group + _end_line(hashlib.sha256(group)))
        self.cost = replace(
            self.cost,
            seconds=self.cost.seconds + seconds,
            outputs=self.cost.outputs + len(lines),
            tokens=self.cost.tokens + tokens,
        )
        if (now := time.monotonic()) - self._synced >= _SYNC_EVERY:
            self._sync()
            self._synced = now

    def mark_finished(self, process: int) -> None:
        """Note that a process has committed all its rollouts."""
        (self.folder / f"finished-{process:05}").touch()

    def finished(self) -> int:
        """Return how many processes have committed all their rollouts."""
        return sum(1 for _ in self.folder.glob("finished-*"))

    def close(self) -> None:
        """Sync this process's files to the disk and close them; the folder stays locked."""
        if any(not file.closed for file in self._files.values()):
            self._sync()
        for file in self._files.values():
            file.close()

    def release(self) -> None:
        """Free the lock; remove the folder if nothing was committed and no process of the run writes to it."""
        if self._lock.held:
            is_empty = not any(path.stat().st_size for path in self._shards())
            if is_empty and not any(map(_is_locked, self._shards())):
                self.remove()
            self._lock.release()

    def merge(self, part: str, records: Sequence[Record], path: Path) -> int:
        """Write the rollouts of a part to one file; only one process calls this, after all have closed their files.

        The rows are sorted by record and index, so that the result does not depend on which process wrote what, or how
        often the run was interrupted.

        Args:
            part: the part.
            records: all requested records, in order.
            path: the file to write.

        Returns:
            The number of rollouts.

        Raises:
            InputError: raised if a rollout was written twice.
        """
        order = {record.id: position for position, record in enumerate(records)}
        shards = self._shards(part)
        entries = sorted(
            (order[row["record_id"]], row["index"], shard, start, end)
            for shard, path in enumerate(shards)
            for row, start, end in _committed_rows(path)
        )
        for entry, following in pairwise(entries):
            if entry[:2] == following[:2]:
                record_id = records[entry[0]].id
                raise InputError(f"{self.folder}: output {entry[1]} of record {record_id!r} was written twice")
        with ExitStack() as stack:
            files = [stack.enter_context(shard.open("rb")) for shard in shards]
            with path.open("wb") as merged:
                for _, _, shard, start, end in entries:
                    files[shard].seek(start)
                    merged.write(files[shard].read(end - start))
        return len(entries)

    def write_cost(self, folder: Path) -> None:
        """Write the cost of the run, summed over its processes, into a folder."""
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

    def complete(self, keep: bool) -> None:
        """Free the lock after the output is written; remove the folder, or keep it for :func:`discard_complete`."""
        if not keep:
            self.remove()
        elif self._lock.held:
            (self.folder / _COMPLETE).touch()
            self._lock.release()

    def remove(self) -> None:
        """Remove the folder, if this process holds its lock, and free the lock."""
        if self._lock.held:
            removed = _renamed(self.folder)
            self._lock.release()
            shutil.rmtree(removed, ignore_errors=True)

    def _prepare_locked(self, records: Sequence[Record], format: GuardFormat) -> int:
        """Create or repair the files; return the number of uncommitted lines that were dropped."""
        for removed in self.folder.parent.glob(f"{glob.escape(self.folder.name)}.*.removed"):
            shutil.rmtree(removed, ignore_errors=True)
        for mark in (*self.folder.glob("finished-*"), self.folder / _COMPLETE):
            mark.unlink(missing_ok=True)
        self._name_others()
        write_jsonl(self.folder / "records.jsonl", records)
        write_output_format(self.folder, format)
        return sum(map(self._repair, self._shards()))

    def _name_others(self) -> None:
        """Log a line for each log of this output with other settings."""
        for folder in _logs_of(self.output):
            size = sum(file.stat().st_size for file in folder.glob("*-[0-9]*.jsonl"))
            if folder != self.folder and size:
                log.info(
                    "%s: %.1f MB of an unfinished run with other settings; remove it unless you resume that run",
                    folder,
                    size / 1e6,
                )

    def _repair(self, path: Path) -> int:
        """Remove damaged and unfinished groups from a file; return the number of unfinished lines.

        Raises:
            InputError: raised if a process of an earlier run is still writing to the file.
        """
        with path.open("r+b") as file:
            lock(file, self.output)
            intact, end, is_damaged = list[tuple[int, int]](), 0, False
            for group in _groups(file):
                end = group.end
                if group.is_intact:
                    intact.append((group.start, group.end))
                else:
                    is_damaged = True
                    log.warning("%s:%d: damaged; the outputs of this group are generated again", path, group.line)
            file.seek(end)
            uncommitted = sum(1 for _ in file)
            if is_damaged:
                with replacing_file(path) as partial, partial.open("wb") as repaired:
                    for start, end in intact:
                        file.seek(start)
                        repaired.write(file.read(end - start))
            else:
                file.truncate(end)
        return uncommitted

    def _sync(self) -> None:
        for file in self._files.values():
            os.fsync(file.fileno())
        with replacing_file(self._cost_file) as partial:
            partial.write_text(json.dumps(asdict(self.cost)))

    def _shards(self, part: str | None = None) -> list[Path]:
        parts = self.parts if part is None else (part,)
        return [path for name in parts for path in sorted(self.folder.glob(f"{name}-[0-9]*.jsonl"))]


def discard_complete(output: str | Path) -> None:
    """Remove the logs of an output that are complete; the caller has written its manifest and holds its lock."""
    for folder in _logs_of(Path(output)):
        if (folder / _COMPLETE).exists():
            shutil.rmtree(_renamed(folder), ignore_errors=True)


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


def _logs_of(output: Path) -> list[Path]:
    """Return the folders of the logs of an output, of any settings."""
    pattern = f".{glob.escape(output.name)}.{'[0-9a-f]' * _HASH_LENGTH}.partial"
    return sorted(output.parent.glob(pattern))


def _renamed(folder: Path) -> Path:
    """Rename a log before it is removed, since another run may open the lock file meanwhile; return its new path."""
    return folder.rename(folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.removed"))


@dataclass(frozen=True)
class _Group:
    """A committed group of lines.

    Args:
        start: offset of its first line.
        end: offset after the line with its hash.
        line: number of its first line, from 1.
        rows: start and end offset of each line, and the line; without the line with the hash.
        is_intact: whether the hash is that of the lines.
    """

    start: int
    end: int
    line: int
    rows: Sequence[tuple[int, int, bytes]]
    is_intact: bool


def _groups(file: BinaryIO) -> Iterator[_Group]:
    """Yield the committed groups of a file."""
    start = offset = 0
    first = 1
    rows: list[tuple[int, int, bytes]] = []
    digest = hashlib.sha256()
    for number, line in enumerate(file, start=1):
        offset += len(line)
        if line.startswith(b"#") and len(line) == _END_LINE_LENGTH:
            yield _Group(start, offset, first, rows, line == _end_line(digest))
            start, first, rows, digest = offset, number + 1, [], hashlib.sha256()
        else:
            rows.append((offset - len(line), offset, line))
            digest.update(line)


def _end_line(digest: Any) -> bytes:
    """Return the line that ends a group."""
    return f"#{digest.hexdigest()}\n".encode()


_END_LINE_LENGTH = len(_end_line(hashlib.sha256()))


def _committed_rows(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield each committed row with the start and end offset of its line.

    Raises:
        InputError: raised if a group is damaged.
    """
    with path.open("rb") as file:
        for group in _groups(file):
            if not group.is_intact:
                raise InputError(f"{path}:{group.line}: damaged", "the same command repairs it and resumes the run")
            for start, end, line in group.rows:
                yield json.loads(line), start, end


def _is_locked(path: Path) -> bool:
    """Return whether another process is writing to a file."""
    with path.open("rb") as file:
        try:
            lock(file, path)
        except InputError:
            return True
    return False


def _read_cost(path: Path) -> RunCost | None:
    with suppress(OSError, ValueError, TypeError):
        return RunCost(**json.loads(path.read_text()))
    return None
