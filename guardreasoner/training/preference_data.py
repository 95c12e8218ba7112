"""Data of stage 2: hard samples, mined from rollouts, as weighted pairs."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset

from guardreasoner.errors import InputError
from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.findings import Findings, findings
from guardreasoner.model.batch import Collator, Example
from guardreasoner.model.packing import packed
from guardreasoner.records import Pair, Split
from guardreasoner.sources import Source
from guardreasoner.sources.rollouts import read_costs, read_training_rollouts
from guardreasoner.sources.splits import split_of
from guardreasoner.training.loaders import log
from guardreasoner.training.training_data import Faulty, TrainingDataModule, TrainingItem
from guardreasoner.workflow.manifest import content_hash

_FINDINGS = "findings.json"


class PreferenceDataModule(TrainingDataModule):
    """Derive hard samples, chosen, rejected and α from rollout files, and serve them as optimizer steps.

    Args:
        source: its training records are the ones that may be paired; its test split is a benchmark of the run.
        rollouts: folders of rollouts, of one model or of several.
        pairing: how outputs are graded, picked and weighed.
        benchmarks: more sources whose test split must not share a prompt with the pairs.
        similarity: from which similarity on two prompts count as shared.
        skip_contaminated: leave out, and count, pairs that a benchmark holds, instead of refusing to start.
        validation_share: part of the hard prompts that is held out to watch margins, by a hash of the prompt.
        batch_size: pairs per optimizer step, over all processes.
        micro_batch_size: pairs that are computed at once; None: the whole step.
        micro_batch_tokens: tokens that are computed at once, each prompt counted once; None: any number.
        epochs: epochs of the whole schedule (the trainer's own ``max_epochs`` stays 1).
        max_length: longest prompt and completion together, in tokens; nothing is ever cut.
        skip_too_long: leave longer pairs out and count them, instead of refusing to start.
        bucket_steps: steps whose examples are sorted by length together, so that little is padded; 1: none are.
        seed: of the order.
        collate: layout of a micro-batch.
        cache: folder that keeps the ids, under a fingerprint of all that decides them; None: they are made each time.

    Raises:
        InputError: on setup, for rollouts of other records, pairs that a benchmark holds, or no hard record at all.
    """

    called = "pairs"

    def __init__(
        self,
        source: Source,
        rollouts: list[str],
        pairing: Pairing = Pairing(),  # noqa: B008 - frozen
        benchmarks: Sequence[Source] = (),
        similarity: float = 0.85,
        skip_contaminated: bool = False,
        validation_share: float = 0.05,
        batch_size: int = 256,
        micro_batch_size: int | None = None,
        micro_batch_tokens: int | None = None,
        epochs: int = 2,
        max_length: int = 2048,
        skip_too_long: bool = False,
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
            0,
            max_length,
            skip_too_long,
            bucket_steps,
            seed,
            collate,
            cache,
        )
        if not 0 <= validation_share < 1:
            raise InputError(f"data.validation_share must be at least 0 and below 1, got {validation_share}")
        self.rollouts = rollouts
        self.pairing = pairing
        self.validation_share = validation_share
        self.findings: Findings | None = None
        """What mining found, known after setup."""

    def setup(self, stage: str) -> None:
        """Mine the pairs and encode them."""
        super().setup(stage)
        self.__dict__.pop("pairs", None)  # texts of all outputs, which training does not need
        log.info("HS-DPO: %s pairs to train on, %s held out", *(f"{len(e):,}" for e in (self.train, self.validation)))

    @cached_property
    def pairs(self) -> list[Pair]:
        """The mined pairs, none of them on a record that a benchmark of the run holds.

        Raises:
            InputError: rollouts of other records, or no hard record at all.
        """
        tasks = self.prompt_tokenizer.format.tasks
        records, rollouts = read_training_rollouts(self.rollouts, self.source, tasks)
        mined = mine(records, rollouts, tasks, self.pairing)
        self.findings = findings(mined, read_costs(self.rollouts))
        total = mined.total()
        if not mined.pairs:
            raise InputError(
                f"data.rollouts: none of {len(records)} records is hard: {total.summary()}", total.advice()
            )
        several = f", {total.pairs:,} pairs" if total.pairs > total.hard else ""
        log.info(f"HS-DPO: {total.hard:,} hard of {len(records):,} records{several}")
        hard = {pair.record.id: pair.record for pair in mined.pairs}
        kept = {record.id for record in self.apart(hard.values())}
        return [pair for pair in mined.pairs if pair.record.id in kept]

    def examples(self) -> Sequence[Example]:
        """Return every example that the reference will be asked for, read as it is looked at."""
        found: Any = ConcatDataset([self.train, self.validation])  # type: ignore[list-item]
        return found

    def fingerprint_parts(self) -> list[object]:
        """Return the content of the rollouts, the rules of pairing and the share that is held out."""
        return [[content_hash(path) for path in self.rollouts], repr(self.pairing), self.validation_share]

    def items(self, split: Split, faulty: Faulty | None = None) -> Iterator[TrainingItem]:
        """Yield the pairs of a split; a hash of the normalised prompt decides which that is."""
        prompt_tokenizer = self.prompt_tokenizer
        for pair in self.pairs:
            if split_of(pair.record.prompt, self.validation_share) == split:
                texts = (pair.chosen.completion, pair.rejected.completion)
                prompt = tuple(prompt_tokenizer.prompt(pair.record))
                completions = tuple(map(tuple, prompt_tokenizer.completions(texts)))
                yield TrainingItem(pair.record, texts, Example(pair.id, prompt, completions, pair.weight))

    def _keep(self, folder: Path) -> None:
        found = None if self.findings is None else self.findings.as_json()
        (folder / _FINDINGS).write_text(json.dumps(found), encoding="utf-8")

    def _recall(self, folder: Path) -> None:
        found = json.loads((folder / _FINDINGS).read_text(encoding="utf-8"))
        self.findings = None if found is None else Findings.from_json(found)
