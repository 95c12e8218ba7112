"""Writers of generated outputs: rollouts of a mining run, predictions of a test."""

import logging
import signal
import time
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.errors import InputError
from guardreasoner.evaluation.guard_module import AnswerSink
from guardreasoner.generators.progress import RecordProgress, record_total
from guardreasoner.generators.rollout_log import RolloutLog
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import answer_block
from guardreasoner.records import Answer, Record, write_jsonl
from guardreasoner.tasks import TASKS_FILE, write_tasks
from guardreasoner.workflow.manifest import MANIFEST
from guardreasoner.workflow.replacing import replacing_folder
from guardreasoner.workflow.safe_names import folder_names

log = logging.getLogger("guardreasoner")


class RolloutModule(Protocol):
    """A module whose ``predict`` samples rollouts and passes them to a sink as they are made."""

    backbone: Backbone
    k: int
    sink: AnswerSink | None

    def decides(self) -> dict[str, Any]:
        """Return the settings that determine the rollouts."""


class RecordData(Protocol):
    """A data module that serves records to ``predict``."""

    records: Sequence[Record]
    chunk_size: int


class RolloutWriter(Callback):
    """Write the records to ``records.jsonl`` and their outputs to ``rollouts.jsonl``.

    Outputs are committed to a ``RolloutLog`` as they are made; the folder itself is made when all outputs exist. An
    interrupted run is resumed unless a setting that determines its rows has changed. Several processes share the
    records.

    Args:
        folder: Folder to write.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.done: Set[str] = frozenset()
        self._log: RolloutLog | None = None
        self._progress: RecordProgress | None = None
        self._trainer: Trainer | None = None
        self._last_time = 0.0
        self._resumed = self._finished = self._tokens = 0

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Open the rollout log, repair it after an interruption, and tell the module which records are done."""
        if stage != "predict":
            return
        data = cast(RecordData, trainer.datamodule)  # type: ignore[attr-defined]
        guard = cast(RolloutModule, module)
        tasks = guard.backbone.prompt_tokenizer.format.tasks
        settings = {
            **guard.decides(),
            "tasks": [asdict(task) for task in tasks],
            "records": [asdict(record) for record in data.records],
            "chunk_size": data.chunk_size,
        }
        self._log = rollout_log = RolloutLog(self.folder, settings)
        dropped = rollout_log.prepare(data.records, tasks) if trainer.is_global_zero else 0
        trainer.strategy.barrier()
        self.done = rollout_log.done(guard.k)
        if trainer.is_global_zero and (self.done or dropped):
            log.info(
                "resuming: %s of %s records are done%s",
                f"{len(self.done):,}",
                f"{len(data.records):,}",
                f", {dropped} lines of an unfinished group dropped" if dropped else "",
            )
        trainer.strategy.barrier()  # every process must read what is done before any process adds to it
        rollout_log.open(trainer.global_rank, module.device.type)
        guard.sink = self
        self._trainer = trainer

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        loader: Any = trainer.predict_dataloaders
        self._resumed = sum(record.id in self.done for chunk in loader.dataset for record in chunk)
        self._finished = self._tokens = 0
        self._progress = RecordProgress("mining", record_total(trainer)) if trainer.is_global_zero else None
        self._last_time = time.monotonic()

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Make the folder from the committed outputs."""
        if self._log is None:
            return
        self._close()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._log.finish(trainer.datamodule.records)  # type: ignore[attr-defined]
        trainer.strategy.barrier()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leave an existing folder as it is, and keep the committed outputs for resuming."""
        self._close()
        if self._log is not None:
            self._log.discard_if_empty()

    def store(self, answers: list[Answer], tokens: int) -> None:
        """Commit answers to the log."""
        assert self._log is not None
        now = time.monotonic()
        self._log.append((answer.rollout for answer in answers), now - self._last_time, tokens)
        self._last_time = now
        self._finished += len({answer.record.id for answer in answers})
        self._tokens += tokens
        if self._progress is not None:
            self._progress.show(self._resumed + self._finished, self._finished, tokens=self._tokens or None)
        if self._trainer is not None and self._trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM)  # the trainer would react only after the last chunk

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.close()
        if self._log is not None:
            self._log.close()


class PredictionWriter(Callback):
    """Write ``<benchmark>/generated_predictions.jsonl`` in the released format with additional fields.

    The sampled outputs on the hard records are written to ``<benchmark>/hard_samples.jsonl``. The folder is written
    completely or not at all.

    Args:
        folder: Folder to write.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._answers: dict[int, list[Answer]] = defaultdict(list)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Forget the answers of an earlier test."""
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
        """Collect the answers of a batch by data loader."""
        self._answers[dataloader_idx] += outputs

    def on_test_end(self, trainer: Any, module: Any) -> None:
        """Write the answers in the order of the benchmark."""
        order = {record.id: index for index, record in enumerate(trainer.datamodule.records)}
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

        sources = (answer.record.source for answers in self._answers.values() for answer in answers)
        folders = folder_names(sources, empty="records", taken=(TASKS_FILE, MANIFEST))
        with replacing_folder(self.folder) as folder:
            write_tasks(folder, prompt_tokenizer.format.tasks)
            for loader, name, row in ((0, "generated_predictions", prediction), (1, "hard_samples", sample)):
                answers = sorted(self._answers[loader], key=lambda a: (order[a.rollout.record_id], a.rollout.index))
                groups: dict[str, list[Answer]] = defaultdict(list)
                for answer in answers:
                    groups[folders[answer.record.source]].append(answer)
                for benchmark, group in groups.items():
                    write_jsonl(folder / benchmark / f"{name}.jsonl", map(row, group))


def _require_one_process(trainer: Trainer) -> None:
    if trainer.world_size > 1:
        raise InputError(
            f"a test runs in one process, but the trainer has {trainer.world_size}", "set trainer.devices: 1"
        )
