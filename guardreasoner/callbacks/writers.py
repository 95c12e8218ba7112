"""What generation leaves behind: rollouts of a mining run, predictions of a test."""

import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.errors import InputError
from guardreasoner.manifest import replacing_folder
from guardreasoner.prompts import answer_block
from guardreasoner.records import Answer, Record, write_jsonl
from guardreasoner.tasks import write_tasks


class RolloutWriter(Callback):
    """Write ``records.jsonl`` (what was asked) and ``rollouts.jsonl`` (what came back), whole or not at all.

    Args:
        folder: where to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._open = ExitStack()
        self._lines: TextIO | None = None
        self._partial = self.folder

    def on_predict_start(self, trainer: Any, module: Any) -> None:
        """Open the files and write the records."""
        _require_one_process(trainer)
        self._partial = self._open.enter_context(replacing_folder(self.folder))
        write_jsonl(self._partial / "records.jsonl", trainer.datamodule.records)
        write_tasks(self._partial, module.backbone.encoder.format.tasks)
        self._lines = (self._partial / "rollouts.jsonl").open("w", encoding="utf-8")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a chunk's rollouts."""
        assert self._lines is not None
        for answer in outputs:
            self._lines.write(json.dumps(asdict(answer.rollout), ensure_ascii=False) + "\n")

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Move the folder into place."""
        assert self._lines is not None
        self._lines.close()
        self._open.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leave what was at the folder before."""
        if self._lines is not None:
            self._lines.close()
        self._open.__exit__(type(exception), exception, exception.__traceback__)


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
        encoder = module.backbone.encoder

        def prediction(answer: Answer) -> dict[str, Any]:
            record = answer.record
            return {
                "prompt": encoder.text(record),
                "label": answer_block(record.labels, encoder.format.tasks),
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
            write_tasks(folder, encoder.format.tasks)
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
