"""The rollouts of a run that is not finished: what was committed outlives the process, at any moment it may die."""

import fcntl
import json
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
from guardreasoner.workflow.manifest import fingerprint, replacing_folder

_SYNC_EVERY = 1.0
"""Seconds between forced writes to the disk. A killed process loses nothing; this is for a machine that goes down."""


@dataclass(frozen=True)
class RunCost:
    """What a run, or one of its processes, has taken.

    Args:
        seconds: wall time of sampling, added up over devices and over restarts.
        device: its type, "cpu" or "cuda".
        devices: how many processes sampled.
        outputs: rollouts.
        tokens: of the outputs.
    """

    seconds: float = 0.0
    device: str = "cpu"
    devices: int = 1
    outputs: int = 0
    tokens: int = 0


COST = "cost.manifest.json"
"""Beside the rollouts. As with manifests, no hash is taken of it: the same rows may take longer another time."""


class RolloutLog:
    """A folder beside the output, named after all that decides the rows; a run that decides otherwise has another one.

    Each process appends to a shard of its own, ``rollouts-00000.jsonl``: one part after the other, each closed by an
    empty line. What stands behind the last empty line was cut off by the end of the process and is dropped.

    Args:
        output: the folder that the finished run becomes.
        decides: what decides the rows, as JSON can hold it.
    """

    def __init__(self, output: str | Path, decides: Mapping[str, Any]) -> None:
        self.output = Path(output)
        self.folder = self.output.with_name(f".{self.output.name}.{fingerprint(decides)[:12]}.partial")
        self.cost = RunCost()
        self._shard: BinaryIO | None = None
        self._cost_file = self.folder
        self._synced = 0.0

    def prepare(self, records: Sequence[Record], tasks: Sequence[Task]) -> int:
        """Make the folder, or repair it; return how many outputs of unfinished parts were dropped. One process does it.

        Raises:
            InputError: another run is writing here.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(self.folder / "records.jsonl", records)
        write_tasks(self.folder, tasks)
        dropped = 0
        for path in self._shards():
            with path.open("r+b") as shard:
                lock(shard, self.folder)
                end, lines = _committed(shard)
                dropped += lines
                shard.truncate(end)
        return dropped

    def done(self, k: int) -> set[str]:
        """Return the ids of the records that have k outputs."""
        counts: dict[str, int] = {}
        for path in self._shards():
            for row, _, _ in _rows(path):
                counts[row["record_id"]] = counts.get(row["record_id"], 0) + 1
        return {record_id for record_id, count in counts.items() if count >= k}

    def open(self, process: int, device: str) -> None:
        """Make ready to append to a process's shard."""
        path = self.folder / f"rollouts-{process:05}.jsonl"
        self._shard = path.open("ab", buffering=0)
        lock(self._shard, self.folder)
        self._cost_file = self.folder / f"cost-{process:05}.json"
        self.cost = _read_cost(self._cost_file) or RunCost(device=device)

    def append(self, rollouts: Iterable[Rollout], seconds: float, tokens: int) -> None:
        """Commit a part.

        Args:
            rollouts: all outputs of its records.
            seconds: what it took.
            tokens: of the outputs.
        """
        assert self._shard is not None
        lines = [json.dumps(asdict(one), ensure_ascii=False).encode() + b"\n" for one in rollouts]
        write_all(self._shard, b"".join(lines) + b"\n")
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
        """Force what was committed to the disk, and let others write."""
        if self._shard is not None and not self._shard.closed:
            self._sync()
            self._shard.close()

    def discard_if_empty(self) -> None:
        """Take the folder away when nothing was committed."""
        if self.folder.is_dir() and not any(path.stat().st_size for path in self._shards()):
            shutil.rmtree(self.folder)

    def finish(self, records: Sequence[Record]) -> int:
        """Turn the folder into the output; return its rollouts. One process does it, when all have closed.

        The shards become one ``rollouts.jsonl`` in the order of records and indices: it does not matter which process
        did what, or how often it was interrupted.

        Args:
            records: all that were asked for, in their order.

        Raises:
            InputError: an output was written twice.
        """
        order = {record.id: place for place, record in enumerate(records)}
        shards = self._shards()
        found = sorted(
            (order[row["record_id"]], row["index"], number, start, end)
            for number, path in enumerate(shards)
            for row, start, end in _rows(path)
        )
        for one, other in pairwise(found):
            if one[:2] == other[:2]:
                raise InputError(f"{self.folder}: output {one[1]} of record {records[one[0]].id!r} was written twice")
        with replacing_folder(self.output) as whole, ExitStack() as opened:
            for name in ("records.jsonl", TASKS_FILE):
                shutil.copy(self.folder / name, whole)
            files = [opened.enter_context(path.open("rb")) for path in shards]
            with (whole / "rollouts.jsonl").open("wb") as lines:
                for _, _, number, start, end in found:
                    files[number].seek(start)
                    lines.write(files[number].read(end - start))
            self._write_cost(whole)
        shutil.rmtree(self.folder)
        return len(found)

    def _write_cost(self, folder: Path) -> None:
        costs = [cost for file in sorted(self.folder.glob("cost-*.json")) if (cost := _read_cost(file))]
        if costs:
            whole = RunCost(
                seconds=sum(cost.seconds for cost in costs),
                device=costs[0].device,
                devices=len(costs),
                outputs=sum(cost.outputs for cost in costs),
                tokens=sum(cost.tokens for cost in costs),
            )
            (folder / COST).write_text(json.dumps(asdict(whole)) + "\n")

    def _sync(self) -> None:
        assert self._shard is not None
        os.fsync(self._shard.fileno())
        with replacing_file(self._cost_file) as partial:
            partial.write_text(json.dumps(asdict(self.cost)))

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("rollouts-*.jsonl"))


def lock(file: BinaryIO, where: Path, who: str = "run") -> None:
    """Keep others from writing until the file is closed; file systems without locks let everybody.

    Args:
        file: open; closed where another process has it.
        where: what is written, and
        who: who writes, for the message.

    Raises:
        InputError: another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{where}: another {who} is writing here") from None
    except OSError:
        pass


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all bytes to a file without a buffer, which may take fewer at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _committed(shard: BinaryIO) -> tuple[int, int]:
    """Return the place behind the last whole part, and how many lines stand behind it."""
    place = end = lines = 0
    for line in shard:
        place += len(line)
        lines += 1
        if line == b"\n":
            end, lines = place, 0
    return end, lines


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield (row, where its line starts, where it ends) of all that is committed."""
    place = 0
    part: list[tuple[dict[str, Any], int, int]] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line == b"\n":
                yield from part
                part = []
            elif line.endswith(b"\n"):
                try:
                    part.append((json.loads(line), place, place + len(line)))
                except ValueError:
                    raise InputError(
                        f"{path}:{number}: not valid JSON", f"remove {path.parent} to begin anew"
                    ) from None
            place += len(line)


def _read_cost(path: Path) -> RunCost | None:
    with suppress(OSError, ValueError, TypeError):
        return RunCost(**json.loads(path.read_text()))
    return None
