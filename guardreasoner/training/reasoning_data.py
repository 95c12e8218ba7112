"""Data of stage 1: records with the reasoning that leads to their labels, or with the labels alone."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_reasoning
from guardreasoner.model.batch import Example
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record, Speed, Split
from guardreasoner.sources import Source
from guardreasoner.sources.rollouts import read_rollouts_of, rollout_format, rollout_tasks
from guardreasoner.sources.splits import sample_of, unit_interval_hash
from guardreasoner.synthesis.prompt import faults
from guardreasoner.training.loaders import log, record_loader
from guardreasoner.training.token_weights import TokenWeights
from guardreasoner.training.training_data import OnFault, TrainingDataModule, TrainingItem
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.ranges import Count, CountOrZero, Share

_CHUNK = 1024
"""Targets that are tokenized together."""

_SPEEDS = "speeds.json"

DIRECT_SUFFIX = "#direct"
"""Suffix of the id of an example whose record also has a reasoned target."""


class ReasoningDataModule(TrainingDataModule):
    """Labelled records for ``fit``, and for ``predict`` (mining, synthesis).

    The target of a record is its reasoning and the verdicts, or, without reasoning, the verdicts alone ("direct"). A
    share of the records with reasoning has both targets, so that one model learns both speeds.

    Args:
        source: data source; its test split counts as a benchmark of this run.
        rollouts: folders of rollouts whose correct outputs are the reasoning to learn, one per record, chosen by
            ``seed``. Outputs without reasoning, that reveal that the answer was given, or that the limit on tokens
            ended, count as wrong. None uses the reasoning of the records themselves.
        keep_own: with ``rollouts``, let records that none of them is right about keep their own reasoning, instead of
            leaving them out.
        use_reasoning: False trains the verdicts of all records alone.
        direct_share: share of the records with reasoning that have a direct target in addition, chosen by a hash of the
            id.
        batch_size: records per optimizer step, over all processes.
        epochs: epochs of the whole schedule. The trainer's own ``max_epochs`` stays 1.
        start_epoch: first epoch of this run, above 0 if it continues a finished run.
        chunk_size: records per generated chunk in ``predict``.
        predict_sample: number of records that ``predict`` generates for, those with the smallest SHA-256 of their id;
            None for all.
        token_weights: weights of reasoning tokens and answer tokens in the loss.
        **options: options of :class:`guardreasoner.training.training_data.TrainingDataModule`.

    Raises:
        InputError: raised by ``prepare_data()`` or ``setup()`` if a training prompt also occurs in a benchmark, a
            record has no label, or an example is too long.
    """

    def __init__(
        self,
        source: Source,
        rollouts: list[str] | None = None,
        keep_own: bool = False,
        use_reasoning: bool = True,
        direct_share: Share = 0.0,
        batch_size: Count = 384,
        epochs: Count = 3,
        start_epoch: CountOrZero = 0,
        chunk_size: Count = 64,
        predict_sample: Count | None = None,
        token_weights: TokenWeights = TokenWeights(),  # noqa: B008 - frozen
        **options: Any,
    ) -> None:
        super().__init__(source, batch_size=batch_size, epochs=epochs, **options)
        self.rollouts = rollouts
        self.keep_own = keep_own
        self.use_reasoning = use_reasoning
        self.direct_share = direct_share
        self.speeds: tuple[Speed, ...] = ()
        """Speeds of the training targets, known after setup."""
        self.start_epoch = start_epoch
        self.chunk_size = chunk_size
        self.predict_sample = predict_sample
        self.token_weights = token_weights
        self.records: Sequence[Record] = []

    def setup(self, stage: str) -> None:
        """Open the tokenized data, or read the records of ``predict``."""
        if stage == "predict":
            records = list(self.labelled_records())
            self.records = sample_of(records, self.predict_sample)
            if len(self.records) < len(records):
                log.info(f"a sample of {len(self.records):,} of {len(records):,} records (data.predict_sample)")
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
        for record in self.drop_contaminated(self.judged("train")):
            if not record.gold():
                raise InputError(f"record {record.id}: no label for any task")
            yield record
        if record is None:
            raise InputError("data.source: the training split is empty")

    def records_with_reasoning(self, split: Split, format: GuardFormat) -> Iterator[Record]:
        """Yield the records of a split with their reasoning: their own, or a correct output from ``rollouts``.

        Args:
            split: the split.
            format: format of the model, which names its tasks.

        Raises:
            InputError: no rollout of a training record is correct.
        """
        if split == "train":
            records = self.labelled_records()
        else:
            records = self.drop_contaminated(self.judged(split), "validation data")
        if self.rollouts is None:
            yield from records
            return
        by_id = {record.id: record for record in records}
        written = rollout_format(self.rollouts)
        same = isinstance(self.format, PromptFormat | None) if written is None else written == self.format
        answered = format.tasks if same else rollout_tasks(self.rollouts)
        traces: dict[str, list[str]] = {}
        for rollout in read_rollouts_of(self.rollouts, self.source, answered):
            record, text = by_id.get(rollout.record_id), rollout.completion
            if record is None or rollout.truncated or not record.gold().keys() <= {task.name for task in answered}:
                continue
            if not faults(text, record, answered, steps=None, format=written):
                # the answer of an output in another format is written anew
                traces.setdefault(record.id, []).append(text if same else read_reasoning(text, answered, written))
        if not traces and split == "train":
            raise InputError(f"data.rollouts: no output of a {split} record in {', '.join(self.rollouts)} is correct")
        if by_id:
            others = "keep their own reasoning" if self.keep_own else "are left out"
            log.info(f"{split}: {len(traces)} of {len(by_id)} records have a correct trace, the others {others}")
        for record_id, record in by_id.items():
            if record_id in traces:
                chosen = random.Random(f"{self.seed}/{record_id}").choice(traces[record_id])
                yield replace(record, reasoning=chosen)
            elif self.keep_own:
                yield record

    def fingerprint_parts(self) -> list[object]:
        """Return the content of the rollouts, and the options that choose the targets."""
        files = [content_hash(path) for path in self.rollouts or ()]
        return [*files, self.keep_own, self.use_reasoning, self.direct_share, repr(self.token_weights)]

    def items(self, split: Split, on_fault: OnFault | None = None) -> Iterator[TrainingItem]:
        """Yield each record with its targets: reasoned, direct, or one item for each."""
        tokenizer = self.prompt_tokenizer
        counts = Counter[Speed]()
        targets = self._targets(split, on_fault)
        while chunk := list(islice(targets, _CHUNK)):
            prompts = tokenizer.prompts([record for record, _, _, _ in chunk], [speed for _, _, speed, _ in chunk])
            completions = tokenizer.completions([text for _, _, _, text in chunk])
            for (record, name, speed, text), prompt, completion in zip(chunk, prompts, completions, strict=True):
                counts[speed] += 1
                weights = self.token_weights.of(tokenizer, (text,), (completion,))
                example = Example(name, tuple(prompt), (tuple(completion),), token_weights=weights)
                yield TrainingItem(record, (text,), example, speed)
        if counts["direct"]:
            log.info(f"{split}: {counts['reasoned']:,} reasoned and {counts['direct']:,} direct targets")
        if split == "train":
            self.speeds = tuple(speed for speed in get_args(Speed) if counts[speed])

    def _targets(self, split: Split, on_fault: OnFault | None) -> Iterator[tuple[Record, str, Speed, str]]:
        """Yield (record, id of the example, speed, text) for each target."""
        format = self.prompt_tokenizer.format
        without, no_verdict, reasons = 0, 0, self.use_reasoning and format.has("reasoned")
        for record in self.records_with_reasoning(split, format):
            if not (reasons and record.reasoning):
                without += 1
                text = format.target(record, "direct")
                no_verdict += None in format.parse(text).values()
                yield record, record.id, "direct", text
                continue
            try:
                text = format.target(record)
            except InputError as error:
                if on_fault is None:
                    raise
                on_fault(record, error)
                continue
            yield record, record.id, "reasoned", text
            if unit_interval_hash(f"{self.seed}/{record.id}") < self.direct_share:
                yield record, record.id + DIRECT_SUFFIX, "direct", format.target(record, "direct")
        if without and reasons:
            log.info(f"{split}: {without:,} records without reasoning train their verdicts alone")
        if no_verdict:
            log.info(f"{split}: {no_verdict:,} direct targets answer None to a task, for which the record has no label")

    def _write_extra(self, folder: Path) -> None:
        (folder / _SPEEDS).write_text(json.dumps(self.speeds), encoding="utf-8")

    def _read_extra(self, folder: Path) -> None:
        speeds = json.loads((folder / _SPEEDS).read_text(encoding="utf-8"))
        if not isinstance(speeds, list) or not set(speeds) <= set(get_args(Speed)):
            raise ValueError(f"{folder / _SPEEDS}: expected a list of speeds")
        self.speeds = tuple(speeds)
