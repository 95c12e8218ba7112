"""Data of stage 1: records with the reasoning that leads to their labels."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.model.batch import Example
from guardreasoner.prompts import target
from guardreasoner.records import Record, Split
from guardreasoner.sources import Source
from guardreasoner.sources.rollouts import read_rollouts_of
from guardreasoner.synthesis.prompt import faults
from guardreasoner.tasks import Task
from guardreasoner.training.loaders import log, record_loader
from guardreasoner.training.training_data import OnFault, TrainingDataModule, TrainingItem
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.ranges import Count, CountOrZero

_CHUNK = 1024
"""Records that are tokenized together."""


class ReasoningDataModule(TrainingDataModule):
    """Records to reason about: with reasoning for ``fit``, without for ``predict`` (mining, synthesis).

    Args:
        source: data source; its test split counts as a benchmark of this run.
        rollouts: folders of rollouts whose correct outputs are the reasoning to learn, one per record, chosen by
            ``seed``. Outputs without reasoning, or that reveal that the answer was given, count as wrong. None uses
            the reasoning of the records themselves.
        batch_size: records per optimizer step, over all processes.
        epochs: epochs of the whole schedule. The trainer's own ``max_epochs`` stays 1.
        start_epoch: first epoch of this run, above 0 if it continues a finished run.
        chunk_size: records per generated chunk in ``predict``.
        **options: options of :class:`guardreasoner.training.training_data.TrainingDataModule`.

    Raises:
        InputError: raised by ``prepare_data()`` or ``setup()`` if a training prompt also occurs in a benchmark, a
            record has no label, or an example is too long.
    """

    def __init__(
        self,
        source: Source,
        rollouts: list[str] | None = None,
        batch_size: Count = 384,
        epochs: Count = 3,
        start_epoch: CountOrZero = 0,
        chunk_size: Count = 64,
        **options: Any,
    ) -> None:
        super().__init__(source, batch_size=batch_size, epochs=epochs, **options)
        self.rollouts = rollouts
        self.start_epoch = start_epoch
        self.chunk_size = chunk_size
        self.records: list[Record] = []

    def setup(self, stage: str) -> None:
        """Open the tokenised data, or read the records of ``predict``."""
        if stage == "predict":
            self.records = list(self.labelled_records())
        else:
            super().setup(stage)
            if self._trainer.is_global_zero:
                log.info(f"R-SFT: {len(self.train):,} training and {len(self.validation):,} validation records")

    def predict_dataloader(self) -> DataLoader:
        """Return the *training* records in chunks; mining never sees any other record."""
        return record_loader(self.records, self.chunk_size)

    def labelled_records(self) -> Iterator[Record]:
        """Yield the training records without contaminated ones.

        Raises:
            InputError: a record has no label, or there are no records.
        """
        record = None
        for record in self.drop_contaminated(self.source.records("train")):
            if not record.gold():
                raise InputError(f"record {record.id}: no label for any task")
            yield record
        if record is None:
            raise InputError("data.source: the training split is empty")

    def records_with_reasoning(self, split: Split, tasks: Sequence[Task]) -> Iterator[Record]:
        """Yield the records of a split with their reasoning: their own, or a correct output from ``rollouts``.

        Raises:
            InputError: no rollout of a training record is correct.
        """
        if split == "train":
            records = self.labelled_records()
        else:
            records = self.drop_contaminated(self.source.records(split), "validation data")
        if self.rollouts is None:
            yield from records
            return
        by_id = {record.id: record for record in records}
        traces: dict[str, list[str]] = {}
        for rollout in read_rollouts_of(self.rollouts, self.source, tasks):
            record = by_id.get(rollout.record_id)
            if record is not None and not faults(rollout.completion, record, tasks, steps=None):
                traces.setdefault(record.id, []).append(rollout.completion)
        if not traces and split == "train":
            raise InputError(f"data.rollouts: no output of a {split} record in {', '.join(self.rollouts)} is correct")
        if by_id:
            log.info(f"{split}: {len(traces)} of {len(by_id)} records have a correct trace, the others are left out")
        for record_id, record in by_id.items():
            if record_id in traces:
                chosen = random.Random(f"{self.seed}/{record_id}").choice(traces[record_id])
                yield replace(record, reasoning=chosen)

    def fingerprint_parts(self) -> list[object]:
        """Return the content of the rollouts."""
        return [content_hash(path) for path in self.rollouts or ()]

    def items(self, split: Split, on_fault: OnFault | None = None) -> Iterator[TrainingItem]:
        """Yield each record with its target, the trace and the answer block."""
        tokenizer = self.prompt_tokenizer
        tasks = tokenizer.format.tasks
        targets = _targets(self.records_with_reasoning(split, tasks), tasks, on_fault)
        while chunk := list(islice(targets, _CHUNK)):
            prompts = tokenizer.prompts([record for record, _ in chunk])
            completions = tokenizer.completions([text for _, text in chunk])
            for (record, text), prompt, completion in zip(chunk, prompts, completions, strict=True):
                yield TrainingItem(record, (text,), Example(record.id, tuple(prompt), (tuple(completion),)))


def _targets(
    records: Iterator[Record], tasks: Sequence[Task], on_fault: OnFault | None
) -> Iterator[tuple[Record, str]]:
    for record in records:
        try:
            text = target(record, tasks)
        except InputError as error:
            if on_fault is None:
                raise
            on_fault(record, error)
        else:
            yield record, text
