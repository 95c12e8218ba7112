"""Data of stage 1: records with the reasoning that leads to their labels."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.model.batch import Collator, Example
from guardreasoner.model.packing import packed
from guardreasoner.prompts import target
from guardreasoner.records import Record, Split
from guardreasoner.sources import Source
from guardreasoner.sources.rollouts import read_rollouts_of
from guardreasoner.synthesis.prompt import faults
from guardreasoner.tasks import Task
from guardreasoner.training.loaders import log, record_loader
from guardreasoner.training.training_data import Faulty, TrainingDataModule, TrainingItem
from guardreasoner.workflow.manifest import content_hash

_AT_ONCE = 1024
"""Records that are tokenized together."""


class ReasoningDataModule(TrainingDataModule):
    """Records to reason about: for ``fit`` with reasoning, for ``predict`` (mining, synthesis) without.

    Args:
        source: gives the splits; its test split is a benchmark of the run.
        rollouts: folders of rollouts whose *right* outputs are the reasoning to learn, one a record, picked by
            ``seed``; an output that holds no reasoning, or betrays that the answer was given, counts as wrong.
            None: the records bring their own reasoning.
        benchmarks: more sources whose test split must not share a prompt with the training records.
        similarity: from which similarity on two prompts count as shared.
        skip_contaminated: leave out, and count, training records that a benchmark holds, instead of refusing to start.
        batch_size: records per optimizer step, over all processes.
        micro_batch_size: records that are computed at once; None: the whole step.
        micro_batch_tokens: tokens that are computed at once, each prompt counted once; None: any number.
        epochs: epochs of the whole schedule (the trainer's own ``max_epochs`` stays 1).
        start_epoch: first epoch of this run, for one that continues a finished run.
        max_length: longest prompt and completion together, in tokens; nothing is ever cut.
        skip_too_long: leave longer records out and count them, instead of refusing to start.
        chunk_size: records that are generated for at once in ``predict``.
        bucket_steps: steps whose examples are sorted by length together, so that little is padded; 1: none are.
        seed: of the order.
        collate: layout of a micro-batch.
        cache: folder that keeps the ids, under a fingerprint of all that decides them; None: they are made each time.

    Raises:
        InputError: on setup, for training records that a benchmark holds, that have no label, or do not fit.
    """

    def __init__(
        self,
        source: Source,
        rollouts: list[str] | None = None,
        benchmarks: Sequence[Source] = (),
        similarity: float = 0.85,
        skip_contaminated: bool = False,
        batch_size: int = 384,
        micro_batch_size: int | None = None,
        micro_batch_tokens: int | None = None,
        epochs: int = 3,
        start_epoch: int = 0,
        max_length: int = 2048,
        skip_too_long: bool = False,
        chunk_size: int = 64,
        bucket_steps: int = 1,
        seed: int = 0,
        collate: Collator = packed,
        cache: str | None = None,
    ) -> None:
        super().__init__(
            source,
            benchmarks,
            similarity,
            skip_contaminated,
            batch_size,
            micro_batch_size,
            micro_batch_tokens,
            epochs,
            start_epoch,
            max_length,
            skip_too_long,
            bucket_steps,
            seed,
            collate,
            cache,
        )
        self.rollouts = rollouts
        self.chunk_size = chunk_size
        self.records: list[Record] = []

    def setup(self, stage: str) -> None:
        """Read, check and encode what the stage needs."""
        if stage == "predict":
            self.records = list(self.asked())
        else:
            super().setup(stage)
            log.info(
                "R-SFT: %s training and %s validation records", f"{len(self.train):,}", f"{len(self.validation):,}"
            )

    def predict_dataloader(self) -> DataLoader:
        """Return the *training* records in chunks: mining never sees any other."""
        return record_loader(self.records, self.chunk_size, self.trainer)

    def asked(self) -> Iterator[Record]:
        """Yield the training records, each with a label, none of them held by a benchmark.

        Raises:
            InputError: a record is not so, or there is none.
        """
        record = None
        for record in self.apart(self.source.records("train")):
            if not record.gold():
                raise InputError(f"record {record.id}: no label for any task")
            yield record
        if record is None:
            raise InputError("data.source: the training split is empty")

    def reasoned(self, split: Split, tasks: Sequence[Task]) -> Iterator[Record]:
        """Yield the records of a split that have reasoning to learn: their own, or a right output from ``rollouts``.

        Raises:
            InputError: none of the rollouts of a training record is right.
        """
        records = self.asked() if split == "train" else self.apart(self.source.records(split), "validation data")
        if self.rollouts is None:
            yield from records
            return
        right: dict[str, list[str]] = {}
        known = {record.id: record for record in records}
        for rollout in read_rollouts_of(self.rollouts, self.source, tasks):
            record = known.get(rollout.record_id)
            if record is not None and not faults(rollout.completion, record, tasks, steps=None):
                right.setdefault(record.id, []).append(rollout.completion)
        if not right and split == "train":
            raise InputError(f"data.rollouts: no output of a {split} record in {', '.join(self.rollouts)} is right")
        if known:
            log.info(f"{split}: {len(right)} of {len(known)} records have a right trace, the others are left out")
        for identity, record in known.items():
            if traces := right.get(identity):
                yield replace(record, reasoning=random.Random(f"{self.seed}/{identity}").choice(traces))

    def fingerprint_parts(self) -> list[object]:
        """Return the content of the rollouts."""
        return [content_hash(path) for path in self.rollouts or ()]

    def items(self, split: Split, faulty: Faulty | None = None) -> Iterator[TrainingItem]:
        """Yield records with the trace and answer to write, a thousand tokenized together."""
        prompt_tokenizer = self.prompt_tokenizer
        tasks = prompt_tokenizer.format.tasks
        taught = self._taught(self.reasoned(split, tasks), tasks, faulty)
        while chunk := list(islice(taught, _AT_ONCE)):
            prompts = prompt_tokenizer.prompts([record for record, _ in chunk])
            completions = prompt_tokenizer.completions([text for _, text in chunk])
            for (record, text), prompt, completion in zip(chunk, prompts, completions, strict=True):
                yield TrainingItem(record, (text,), Example(record.id, tuple(prompt), (tuple(completion),)))

    def _taught(
        self, records: Iterator[Record], tasks: Sequence[Task], faulty: Faulty | None
    ) -> Iterator[tuple[Record, str]]:
        for record in records:
            try:
                text = target(record, tasks)
            except InputError as error:
                if faulty is None:
                    raise
                faulty(record, error)
            else:
                yield record, text
