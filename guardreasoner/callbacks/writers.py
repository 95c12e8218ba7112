"""Writers of generated outputs: rollouts of a mining run, predictions of a test."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.callbacks.logged_answers import LoggedAnswers
from guardreasoner.errors import InputError
from guardreasoner.evaluation.guard_module import ResumableModule
from guardreasoner.formats.stored import OUTPUT_FORMAT, write_output_format
from guardreasoner.generators.progress import record_total
from guardreasoner.prompts import answer_block
from guardreasoner.records import Answer, Record, write_jsonl
from guardreasoner.sources.predictions import content_fields
from guardreasoner.tasks import TASKS_FILE, Task
from guardreasoner.workflow.manifest import MANIFEST, content_hash
from guardreasoner.workflow.replacing import replacing_folder
from guardreasoner.workflow.safe_names import folder_names


class RecordData(Protocol):
    """A data module that serves records."""

    records: Sequence[Record]
    chunk_size: int


@runtime_checkable
class BenchmarkData(RecordData, Protocol):
    """A data module that serves records and hard records to ``test``."""

    hard: Sequence[Record]


class RolloutWriter(Callback):
    """Write the records to ``records.jsonl`` and their outputs to ``rollouts.jsonl``.

    Outputs are committed to a ``RolloutLog`` as they are made; the folder itself is made when all outputs exist. An
    interrupted run is resumed unless a setting that determines its rows has changed. Several processes share the
    records.

    Args:
        folder: Folder to write.
        checkpoint: Checkpoint that the trainer restores the weights from; None if they are those of the model folder.
        keep_log: Whether a complete log stays until its owner has written the manifest and removes it.
    """

    def __init__(self, folder: str, checkpoint: str | None = None, keep_log: bool = False) -> None:
        self.folder = Path(folder)
        self.checkpoint = checkpoint
        self.keep_log = keep_log
        self._answers: LoggedAnswers | None = None
        self._expected = 0

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Open the rollout log, repair it after an interruption, and tell the module which records are done."""
        if stage != "predict":
            return
        data = cast(RecordData, trainer.datamodule)  # type: ignore[attr-defined]
        guard = cast(ResumableModule, module)
        identity = {
            **guard.decides(),
            "chunk_size": data.chunk_size,
            "limit": trainer.limit_predict_batches,
            "checkpoint": _weights_of(self.checkpoint),
        }
        self._answers = LoggedAnswers(
            trainer,
            self.folder,
            identity,
            data.records,
            guard.backbone.prompt_tokenizer.format,
            {"rollouts": guard.k},
            {"records": len(data.records)},
        )
        self._answers.open(module.device.type, keep=False)
        guard.sink = self._answers

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock and the progress bar."""
        assert self._answers is not None
        self._answers.start()
        self._expected = record_total(trainer.predict_dataloaders, trainer.num_predict_batches) or 0
        if trainer.is_global_zero:
            self._answers.show_progress("mining", self._expected)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Write the output folder from the committed outputs.

        Raises:
            InputError: records of the run have no outputs.
        """
        if self._answers is None:
            return
        answers = self._answers
        answers.wait_for_all()
        if trainer.is_global_zero:
            with replacing_folder(self.folder) as folder:
                write_jsonl(folder / "records.jsonl", answers.records)
                write_output_format(folder, answers.format)
                written = answers.log.merge("rollouts", answers.records, folder / "rollouts.jsonl")
                _require_all(written, self._expected, cast(ResumableModule, module).k)
                answers.log.write_cost(folder)
            answers.log.complete(self.keep_log)
        trainer.strategy.barrier()
        cast(ResumableModule, module).sink = self._answers = None

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leave an existing folder as it is, and keep the committed outputs for resuming."""
        if self._answers is not None:
            self._answers.abandon()


class PredictionWriter(Callback):
    """Write ``<benchmark>/generated_predictions.jsonl`` in the released format with additional fields.

    The sampled outputs on the hard records are written to ``<benchmark>/hard_samples.jsonl``. Outputs are committed to
    a ``RolloutLog`` as they are made; the folder itself is made when all outputs exist. An interrupted test is resumed
    unless a setting that determines its outputs has changed.

    Args:
        folder: Folder to write.
        checkpoint: Checkpoint that the trainer restores the weights from; None if they are those of the model folder.
        keep_log: Whether a complete log stays until its owner has written the manifest and removes it.
    """

    def __init__(self, folder: str, checkpoint: str | None = None, keep_log: bool = False) -> None:
        self.folder = Path(folder)
        self.checkpoint = checkpoint
        self.keep_log = keep_log
        self._logged: LoggedAnswers | None = None
        self._answers: dict[int, list[Answer]] = defaultdict(list)

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Open the rollout log, repair it after an interruption, and tell the module which answers are stored.

        Raises:
            InputError: the trainer has several processes, or another run is writing to the log.
        """
        if stage != "test":
            return
        _require_one_process(trainer)
        self._answers.clear()
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not (isinstance(module, ResumableModule) and isinstance(data, BenchmarkData)):
            return  # another tool's module or data: the answers are only written at the end
        identity = {
            "verb": "test",
            "greedy": module.decides(module.greedy),
            "sampled": module.decides(),
            "hard": [record.id for record in data.hard],
            "chunk_size": data.chunk_size,
            "limit": trainer.limit_test_batches,
            "checkpoint": _weights_of(self.checkpoint),
        }
        self._logged = LoggedAnswers(
            trainer,
            self.folder,
            identity,
            data.records,
            module.backbone.prompt_tokenizer.format,
            {"generated_predictions": 1, "hard_samples": module.k} | ({"votes": module.votes} if module.votes else {}),
            {"records": len(data.records), "hard records": len(data.hard)}
            | ({"records with votes": len(data.records)} if module.votes else {}),
        )
        self._logged.open(module.device.type, keep=True)
        module.sink = self._logged

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock and the progress bar."""
        if self._logged is not None:
            self._logged.start()
            total = record_total(trainer.test_dataloaders, trainer.num_test_batches)
            votes = record_total(trainer.test_dataloaders, trainer.num_test_batches[:1]) if module.votes else 0
            self._logged.show_progress("testing", None if total is None else total + (votes or 0))

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

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leave an existing folder as it is, and keep the committed outputs for resuming."""
        if self._logged is not None:
            self._logged.abandon()

    def on_test_end(self, trainer: Any, module: Any) -> None:
        """Write the answers in the order of the benchmark, then complete the log."""
        order = {record.id: index for index, record in enumerate(trainer.datamodule.records)}
        prompt_tokenizer = module.backbone.prompt_tokenizer

        def prediction(answer: Answer) -> dict[str, Any]:
            record, rollout = answer.record, answer.rollout
            prompt = prompt_tokenizer.text(record, rollout.speed)
            return {
                "prompt": prompt,
                "label": answer_block(record.labels, prompt_tokenizer.format.tasks),
                "predict": rollout.completion,
                "record_id": record.id,
                "labels": record.gold(),
                **_optional_fields(answer, prompt, prompt_tokenizer.format.tasks),
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
        folders = folder_names(sources, empty="records", taken=(TASKS_FILE, OUTPUT_FORMAT, MANIFEST))
        if self._logged is not None:
            self._logged.close()
        with replacing_folder(self.folder) as folder:
            write_output_format(folder, prompt_tokenizer.format)
            if self._logged is not None:
                self._logged.log.write_cost(folder)
            for loader, name, row in ((0, "generated_predictions", prediction), (1, "hard_samples", sample)):
                answers = sorted(self._answers[loader], key=lambda a: (order[a.rollout.record_id], a.rollout.index))
                groups: dict[str, list[Answer]] = defaultdict(list)
                for answer in answers:
                    groups[folders[answer.record.source]].append(answer)
                for benchmark, group in groups.items():
                    write_jsonl(folder / benchmark / f"{name}.jsonl", map(row, group))
        if self._logged is not None:
            self._logged.log.complete(self.keep_log)
            module.sink = self._logged = None


def _optional_fields(answer: Answer, prompt: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return the fields of a prediction that cannot be read from its prompt, as far as they have values."""
    fields = content_fields(answer.record, prompt, tasks)
    if answer.rollout.speed != "reasoned":
        fields["speed"] = answer.rollout.speed
    return {**fields, "scores": answer.scores} if any(answer.scores.values()) else fields


def _require_all(written: int, records: int, k: int) -> None:
    if written < records * k:
        raise InputError(
            f"{written:,} outputs were written, but {records:,} records need {k} each",
            "set trainer.use_distributed_sampler: false, since the model shares the records among the processes itself",
        )


def _weights_of(checkpoint: str | None) -> str | None:
    """Return what identifies the weights of a checkpoint: its hash or, for a word such as "last", the word."""
    return content_hash(checkpoint) if checkpoint and Path(checkpoint).exists() else checkpoint


def _require_one_process(trainer: Trainer) -> None:
    if trainer.world_size > 1:
        raise InputError(
            f"a test runs in one process, but the trainer has {trainer.world_size}", "set trainer.devices: 1"
        )
