"""Data of stage 2 with GRPO: the prompts and gold labels of records whose outputs are unstable, without outputs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.mining import VALIDATION_SHARE, Pairing
from guardreasoner.mining.findings import Findings
from guardreasoner.model.batch import Example
from guardreasoner.records import Record, Speed, Split, require_unique_ids
from guardreasoner.sources import Source, cut_share
from guardreasoner.sources.splits import is_held_out
from guardreasoner.training.loaders import StepLoader, log, step_loader, validation_loader
from guardreasoner.training.mined_rollouts import mine_rollouts, read_findings, write_findings
from guardreasoner.training.prompt_step import PromptCollator
from guardreasoner.training.training_data import OnFault, TrainingDataModule, TrainingItem
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.ranges import Count, ShareBelowOne

_LABELS = "labels.json"


class PromptDataModule(TrainingDataModule):
    """Serve prompts as optimizer steps; the module samples their outputs.

    The records are those that mining finds hard, as for HS-DPO: some of their rollouts are right and some wrong.

    Args:
        source: data source; its training records may be used, its test split counts as a benchmark of this run.
        rollouts: folders of rollouts of one or several models; empty uses all training records.
        pairing: how rollouts are graded; the options that choose outputs for pairs have no effect.
        validation_share: share of the prompts held out to watch rewards, selected by a hash of the prompt.
        batch_size: prompts per optimizer step, over all processes.
        epochs: epochs of the whole schedule. The trainer's own ``max_epochs`` stays 1.
        **options: options of :class:`guardreasoner.training.training_data.TrainingDataModule`. ``max_length`` limits
            the prompt, ``micro_batch_size`` counts prompts with all their outputs.

    Raises:
        InputError: ``validation_share`` is out of range. Also raised by ``prepare_data()`` or ``setup()`` if a rollout
            belongs to an unknown record, a prompt also occurs in a benchmark, no record is hard, or one has no label.
    """

    example_name = "prompts"

    def __init__(
        self,
        source: Source,
        rollouts: list[str] = [],  # noqa: B006 - never changed
        pairing: Pairing = Pairing(),  # noqa: B008 - frozen
        validation_share: ShareBelowOne = VALIDATION_SHARE,
        batch_size: Count = 16,
        epochs: Count = 1,
        **options: Any,
    ) -> None:
        super().__init__(source, batch_size=batch_size, epochs=epochs, **options)
        if not 0 <= validation_share < 1:
            raise InputError(f"data.validation_share must be at least 0 and below 1, got {validation_share}")
        self.rollouts = rollouts
        self.pairing = pairing
        self.validation_share = validation_share
        self.labels: Mapping[str, Mapping[str, str]] = {}
        """Gold labels of each record by task, known after setup."""
        self.findings: Findings | None = None
        """What mining found, known after setup."""

    def setup(self, stage: str) -> None:
        """Open the tokenized prompts."""
        super().setup(stage)
        self.__dict__.pop("records", None)  # the texts, which training does not need
        if self._trainer.is_global_zero:
            log.info(f"GRPO: {len(self.train):,} prompts to train on, {len(self.validation):,} held out")

    @cached_property
    def records(self) -> list[tuple[Record, Speed]]:
        """The records to train on, and the speed that their prompt asks for.

        Raises:
            InputError: a rollout belongs to an unknown record, no record is hard, or a record has no label.
        """
        format = self.prompt_tokenizer.format
        if self.rollouts:
            pairing = replace(self.pairing, chosen="random", rejected="random")  # no pair is used
            mined, self.findings = mine_rollouts(self.rollouts, self.source, format, pairing, "GRPO")
            chosen = {pair.record.id: (pair.record, pair.chosen.speed) for pair in mined.pairs}
        else:
            records = list(self.judged("train"))
            require_unique_ids(records, "data.source")
            chosen = {record.id: (record, format.speed()) for record in records}
        names = {task.name for task in format.tasks}
        for record, _ in chosen.values():
            if names.isdisjoint(record.gold()):
                raise InputError(f"record {record.id}: no label for any task ({', '.join(sorted(names))})")
        clean = {record.id for record in self.drop_contaminated(record for record, _ in chosen.values())}
        return [entry for record_id, entry in chosen.items() if record_id in clean]

    def train_dataloader(self) -> StepLoader:
        """Return the loader of optimizer steps."""
        return step_loader(self.train, self._sampler(), self._trainer, self._prompt_collator())

    def val_dataloader(self) -> DataLoader:
        """Return the loader of the held-out prompts."""
        return validation_loader(self.validation, self.batch_size, self._prompt_collator())

    def fingerprint_parts(self) -> list[object]:
        """Return the content of the rollouts, the mining options and the share that is held out."""
        return [[content_hash(path) for path in self.rollouts], repr(self.pairing), self.validation_share]

    def items(self, split: Split, on_fault: OnFault | None = None) -> Iterator[TrainingItem]:
        """Yield the prompts of a split, which a hash of the normalized prompt determines."""
        cut = cut_share(self.source)
        for record, speed in self.records:
            if is_held_out(record.context(), self.validation_share, cut) == (split == "validation"):
                prompt = tuple(self.prompt_tokenizer.prompt(record, speed))
                yield TrainingItem(record, (), Example(record.id, prompt, ()), speed)

    def _prompt_collator(self) -> PromptCollator:
        return PromptCollator(self._collator(self.micro_batch_size or self.batch_size))

    def _write_extra(self, folder: Path) -> None:
        write_findings(folder, self.findings)
        labels = {record.id: record.gold() for record, _ in self.records}
        (folder / _LABELS).write_text(json.dumps(labels), encoding="utf-8")

    def _read_extra(self, folder: Path) -> None:
        self.findings = read_findings(folder)
        labels = json.loads((folder / _LABELS).read_text(encoding="utf-8"))
        if not isinstance(labels, dict):
            raise ValueError(f"{folder / _LABELS}: expected the labels of each record")
        self.labels = labels
