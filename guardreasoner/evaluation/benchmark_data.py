"""Data module of the benchmarks: the held-out records and the hard records among them."""

from typing import Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import Attacks
from guardreasoner.formats.verdicts import JudgedRecords
from guardreasoner.mining import Pairing, mine
from guardreasoner.records import Record
from guardreasoner.sources import Source
from guardreasoner.sources.rollouts import read_rollouts_of, require_output_format
from guardreasoner.training.loaders import format_of, log, prompt_tokenizer_of, record_loader
from guardreasoner.workflow.ranges import Count


class BenchmarkDataModule(LightningDataModule):
    """Held-out records for ``test``, and for the ``predict`` run that finds the hard records among them.

    The hard set is fixed once, by rollouts of the R-SFT model on these records: the records with both correct and wrong
    outputs. Every model, including the R-SFT model, is then tested on it with newly sampled outputs. Records
    without any label are only judged, without a hard set.

    Args:
        source: data source; the ``source`` of a record is its benchmark.
        rollouts: folders of rollouts that define the hard set; None for no hard set.
        split: split to test on.
        chunk_size: number of records in a batch.
        attacks: attacks that rewrite a share of the records; the attacked records are tested in addition to the
            originals. None for no attacks.

    Raises:
        InputError: raised by setup() if the split is empty, if only some records have a label, or if no rollout
            belongs to a record of the split.
    """

    def __init__(
        self,
        source: Source,
        rollouts: list[str] | None = None,
        split: Literal["validation", "test"] = "test",
        chunk_size: Count = 64,
        attacks: Attacks | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.rollouts = rollouts
        self.split = split
        self.chunk_size = chunk_size
        self.attacks = attacks
        self.records: list[Record] = []
        self.hard: list[Record] = []

    def setup(self, stage: str) -> None:
        """Read the records and, for a test, find the hard ones."""
        format = None if self.trainer is None else format_of(self.trainer)
        judged = JudgedRecords(format)
        self.records = list(judged.of(self.source.records(self.split)))
        if note := judged.note():
            log.info(f"{self.split}: {note}")
        if not self.records:
            raise InputError(f"data.source: {note or f'the {self.split} split is empty'}")
        unlabelled = [record for record in self.records if not record.gold()]
        if unlabelled and len(unlabelled) < len(self.records):
            raise InputError(
                f"record {unlabelled[0].id}: no label for any task, one of {len(unlabelled):,} such records",
                "records without labels are judged if no record of the split has any",
            )
        if unlabelled:
            log.info(
                "%s: %s records without labels: they are judged, nothing can be scored",
                self.split,
                f"{len(unlabelled):,}",
            )
        if self.attacks is not None:
            self.records = self.attacks.with_attacked(self.records)
        if stage == "test" and self.rollouts is not None and not unlabelled:
            ids = {record.id for record in self.records}
            rollouts = [rollout for rollout in read_rollouts_of(self.rollouts, self.source) if rollout.record_id in ids]
            if not rollouts:
                named = ", ".join(self.rollouts) or "an empty list"
                raise InputError(
                    f"data.rollouts: {named}: no output for a {self.split} record",
                    "set data.rollouts to null to test without hard records",
                )
            assert self.trainer is not None
            format = prompt_tokenizer_of(self.trainer).format
            require_output_format(self.rollouts, format)
            mined = mine(self.records, rollouts, format.tasks, Pairing(), format)
            hard_ids = {pair.record.id for pair in mined.pairs}
            self.hard = [record for record in self.records if record.id in hard_ids]
            log.info("test: %s records, %s of them hard", f"{len(self.records):,}", f"{len(self.hard):,}")

    def test_dataloader(self) -> list[DataLoader]:
        """Return a loader of all records and, if there are any, a second loader of the hard records."""
        loaders = [record_loader(self.records, self.chunk_size)]
        return [*loaders, record_loader(self.hard, self.chunk_size)] if self.hard else loaders

    def predict_dataloader(self) -> DataLoader:
        """Return a loader of all records, whose rollouts define the hard set."""
        return record_loader(self.records, self.chunk_size)
