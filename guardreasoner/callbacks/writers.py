"""What generation leaves behind: rollouts of a mining run, predictions of a test."""

import logging
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.errors import InputError
from guardreasoner.generators.progress import RecordProgress, record_total
from guardreasoner.generators.rollout_log import RolloutLog
from guardreasoner.prompts import answer_block
from guardreasoner.records import Answer, Record, write_jsonl
from guardreasoner.tasks import write_tasks
from guardreasoner.workflow.manifest import replacing_folder

log = logging.getLogger("guardreasoner")


class RolloutWriter(Callback):
    """Write ``records.jsonl`` (what was asked) and ``rollouts.jsonl`` (what came back).

    Outputs are committed to a ``RolloutLog`` as they come; the folder itself is
    made when all are there. A run that was interrupted goes on where it stood, if nothing that decides its rows has
    changed. Several processes share the records.

    Args:
        folder: where to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._journal: RolloutLog | None = None
        self._progress: RecordProgress | None = None
        self._trainer: Trainer | None = None
        self._began = 0.0
        self._before = self._fresh = self._tokens = 0

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Repair the journal, or begin one, and tell the module what is done."""
        if stage != "predict":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        guard: Any = module
        tasks = guard.backbone.prompt_tokenizer.format.tasks
        decides = {
            **guard.decides(),
            "tasks": [asdict(task) for task in tasks],
            "records": [asdict(record) for record in data.records],
            "chunk_size": getattr(data, "chunk_size", None),
        }
        self._journal = journal = RolloutLog(self.folder, decides)
        dropped = journal.prepare(data.records, tasks) if trainer.is_global_zero else 0
        trainer.strategy.barrier()
        guard.done = journal.done(guard.k)
        if trainer.is_global_zero and (guard.done or dropped):
            log.info(
                "going on: %s of %s records are done%s",
                f"{len(guard.done):,}",
                f"{len(data.records):,}",
                f", {dropped} lines of an unfinished part are dropped" if dropped else "",
            )
        trainer.strategy.barrier()  # what is done is the same for all before anyone adds to it
        journal.open(trainer.global_rank, module.device.type)
        guard.keep = self._keep
        self._trainer = trainer

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        done: Set[str] = getattr(module, "done", frozenset())
        loader: Any = trainer.predict_dataloaders
        self._before = sum(record.id in done for chunk in loader.dataset for record in chunk)
        self._fresh = self._tokens = 0
        self._progress = RecordProgress("mining", record_total(trainer)) if trainer.is_global_zero else None
        self._began = time.monotonic()

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Make the folder of what is committed."""
        if self._journal is None:
            return
        self._end()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._journal.finish(trainer.datamodule.records)  # type: ignore[attr-defined]
        trainer.strategy.barrier()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leave what was at the folder before, and what is committed to go on with."""
        self._end()
        if self._journal is not None:
            self._journal.discard_if_empty()

    def _keep(self, answers: list[Answer], tokens: int) -> None:
        assert self._journal is not None
        now = time.monotonic()
        self._journal.append((answer.rollout for answer in answers), now - self._began, tokens)
        self._began = now
        self._fresh += len({answer.record.id for answer in answers})
        self._tokens += tokens
        if self._progress is not None:
            self._progress.show(self._before + self._fresh, self._fresh, tokens=self._tokens or None)
        if self._trainer is not None and self._trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM)  # the trainer would not look before the last chunk

    def _end(self) -> None:
        if self._progress is not None:
            self._progress.close()
        if self._journal is not None:
            self._journal.close()


class PredictionWriter(Callback):
    """Write ``<benchmark>/generated_predictions.jsonl`` in the released form plus our fields, whole or not at all.

    The sampled outputs on the hard set go to ``<benchmark>/hard_samples.jsonl``.

    Args:
        folder: where to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._answers: dict[int, list[Answer]] = defaultdict(list)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start empty."""
        _require_one_process(trainer)
        self._answers.clear()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a chunk's answers."""
        self._answers[dataloader_idx] += outputs

    def on_test_end(self, trainer: Any, module: Any) -> None:
        """Write them in the order of the benchmark."""
        order = {record.id: place for place, record in enumerate(trainer.datamodule.records)}
        prompt_tokenizer = module.backbone.prompt_tokenizer

        def prediction(answer: Answer) -> dict[str, Any]:
            record = answer.record
            return {
                "prompt": prompt_tokenizer.text(record),
                "label": answer_block(record.labels, prompt_tokenizer.format.tasks),
                "predict": answer.rollout.completion,
                "record_id": record.id,
                "labels": record.gold(),
            }

        def sample(answer: Answer) -> dict[str, Any]:
            rollout = answer.rollout
            return {
                "record_id": rollout.record_id,
                "labels": answer.record.gold(),
                "index": rollout.index,
                "seed": rollout.seed,
                "predict": rollout.completion,
            }

        with replacing_folder(self.folder) as folder:
            write_tasks(folder, prompt_tokenizer.format.tasks)
            for loader, name, row in ((0, "generated_predictions", prediction), (1, "hard_samples", sample)):
                answers = sorted(self._answers[loader], key=lambda a: (order[a.rollout.record_id], a.rollout.index))
                for benchmark, group in _by_benchmark(answers):
                    write_jsonl(folder / benchmark / f"{name}.jsonl", map(row, group))


def _by_benchmark(answers: Iterable[Answer]) -> Iterable[tuple[str, list[Answer]]]:
    groups: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[_folder_name(answer.record)].append(answer)
    return groups.items()


def _folder_name(record: Record) -> str:
    return (record.source or "records").replace("/", "-")


def _require_one_process(trainer: Trainer) -> None:
    if trainer.world_size > 1:
        raise InputError(
            f"generation runs in one process, the trainer has {trainer.world_size}", "set trainer.devices: 1"
        )
