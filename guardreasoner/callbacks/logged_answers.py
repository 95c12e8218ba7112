"""The answers of a run in its rollout log, so that the run can be stopped at any moment and resumed."""

import logging
import signal
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from subprocess import Popen
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from guardreasoner.formats import GuardFormat
from guardreasoner.generators.progress import RecordProgress
from guardreasoner.generators.rollout_log import RolloutLog
from guardreasoner.records import Answer, Record, Rollout
from guardreasoner.workflow import stop_signals

log = logging.getLogger("guardreasoner")

_WAIT = 0.2
"""Seconds between two looks at whether the other processes are done."""


class LoggedAnswers:
    """Stores answers as they are generated; implements :class:`guardreasoner.evaluation.guard_module.AnswerSink`.

    Args:
        trainer: its processes share the records.
        folder: folder that the finished run becomes.
        identity: everything besides records and tasks that determines the answers, JSON-serializable.
        records: all records.
        format: format of the model.
        parts: number of outputs of each record, by the name of the part; one for each data loader.
        totals: number of records, by what the user calls them; one for each data loader.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        identity: Mapping[str, Any],
        records: Sequence[Record],
        format: GuardFormat,
        parts: Mapping[str, int],
        totals: Mapping[str, int],
    ) -> None:
        identity = {
            **identity,
            "tasks": [task.as_json() for task in format.tasks],
            "records": [record.as_json() for record in records],
        }
        self.log = RolloutLog(folder, identity, parts)
        self.records = records
        self.format = format
        self._trainer = trainer
        self._parts = list(parts)
        self._totals = totals
        self._done: list[Set[str]] = []
        self._stored: list[dict[str, list[Rollout]]] = []
        self._last_time = 0.0
        self._progress: RecordProgress | None = None
        self._finished = self._tokens = 0
        self._total = 0

    def open(self, device: str, keep: bool) -> None:
        """Open the log, repair it after an interruption, and read what is done.

        Args:
            device: device type, "cpu" or "cuda".
            keep: whether to keep the stored answers for :meth:`stored`.

        Raises:
            InputError: raised if another run is writing to the log.
        """
        trainer = self._trainer
        dropped = self.log.prepare(self.records, self.format) if trainer.is_global_zero else 0
        trainer.strategy.barrier()
        self._done = [self.log.done(part) for part in self._parts]
        for part, done in zip(self._parts if keep else (), self._done, strict=False):
            self._stored.append(defaultdict(list))
            for rollout in self.log.read(part):
                if rollout.record_id in done:
                    self._stored[-1][rollout.record_id].append(rollout)
        if trainer.is_global_zero and (any(self._done) or dropped):
            lines = f", {dropped} lines of an unfinished group dropped" if dropped else ""
            log.info("resuming: %s are done%s", self._counts(), lines)
        trainer.strategy.barrier()  # every process must read what is done before any process adds to it
        self.log.open(trainer.global_rank, device)

    def start(self) -> None:
        """Start the clock; from now on, signals are forwarded to the other processes."""
        self._last_time = time.monotonic()
        stop_signals.defer(self._forward if self._processes() else None)

    def show_progress(self, title: str, total: int | None) -> None:
        """Show from now on how many records are done, over all data loaders.

        Args:
            title: what the run does.
            total: number of records, over all data loaders; None if unknown.
        """
        self._total = total or len(self.records)
        self._progress = RecordProgress(title, total)

    def done(self, loader: int) -> Set[str]:
        """Return the ids of the records whose answers were stored before this run started."""
        return self._done[loader]

    def stored(self, loader: int, record_id: str) -> Sequence[Rollout]:
        """Return the outputs of a record that were stored before this run started."""
        return self._stored[loader].get(record_id, ())

    def store(self, loader: int, answers: Sequence[Answer], tokens: int) -> None:
        """Commit answers to the log."""
        now = time.monotonic()
        rollouts = (answer.rollout for answer in answers)
        self.log.append(self._parts[loader], rollouts, now - self._last_time, tokens)
        self._last_time = now
        self._finished += len({answer.record.id for answer in answers})
        self._tokens += tokens
        if self._progress is not None:
            # each process answers the same number of groups
            world = self._trainer.world_size
            done = min(self._total, sum(map(len, self._done)) + world * self._finished)
            self._progress.show(done, world * self._finished, tokens=world * self._tokens or None)

    def wait_for_all(self) -> None:
        """Close the log of this process and wait until every process has committed its answers.

        Processes wait in Python: a signal would not end the wait in a collective operation, and a long wait there is an
        error.

        Raises:
            Stopped: a signal arrived, or another process has ended early.
        """
        self.close()
        trainer = self._trainer
        self.log.mark_finished(trainer.global_rank)
        while self.log.finished() < trainer.world_size:
            stop_signals.check()
            if any(process.poll() is not None for process in self._processes()):
                raise stop_signals.Stopped(signal.SIGTERM, "another process of this run has ended")
            time.sleep(_WAIT)
        trainer.strategy.barrier()

    def abandon(self) -> None:
        """Close the log after an error or a signal, wait for the other processes, and say what is done."""
        self.close()
        if stop_signals.received() is not None:
            for process in self._processes():
                process.wait()
            if self._trainer.is_global_zero and self._done:
                stop_signals.note(f"{self._counts()} are done; run the same command again to resume")
        self.log.release()

    def close(self) -> None:
        """Stop the progress bar and close the log of this process."""
        if self._progress is not None:
            self._progress.close()
        self.log.close()

    def _counts(self) -> str:
        counts = [
            f"{len(self.log.done(part)):,} of {total:,} {name}"
            for part, (name, total) in zip(self._parts, self._totals.items(), strict=True)
        ]
        return " and ".join(counts)

    def _processes(self) -> Sequence[Popen[bytes]]:
        """Return the other processes of this run that the first one has started."""
        launcher = self._trainer.strategy.launcher
        return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else ()

    def _forward(self, number: int) -> None:
        for process in self._processes():
            process.send_signal(number)
