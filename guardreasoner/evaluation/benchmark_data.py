"""Held-out data: the records a guard is measured on, and the hard ones among them."""

from typing import Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import Attacks
from guardreasoner.mining import Pairing, mine
from guardreasoner.records import Record
from guardreasoner.sources import Source
from guardreasoner.sources.rollouts import read_rollouts_of
from guardreasoner.training.loaders import log, prompt_tokenizer_of, record_loader


class BenchmarkDataModule(LightningDataModule):
    """Held-out records for ``test``, and for the ``predict`` run that finds the hard ones among them.

    The hard set is fixed once, by rollouts of the R-SFT model on these records: those with right and wrong outputs.
    Every model, the R-SFT model too, is then measured on it with fresh outputs.

    Args:
        source: gives the records; each record's ``source`` names its benchmark.
        rollouts: folders of rollouts that decide the hard set; None: no hard set.
        split: which split is measured.
        chunk_size: records that are generated for at once.
        attacks: rewrite a share of the records; what they make is tested beside the records. None: no attack.

    Raises:
        InputError: on setup, for an empty split, a record without a label, or rollouts of other records.
    """

    def __init__(
        self,
        source: Source,
        rollouts: list[str] | None = None,
        split: Literal["validation", "test"] = "test",
        chunk_size: int = 64,
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
        """Read the records and find the hard ones."""
        self.records = list(self.source.records(self.split))
        if not self.records:
            raise InputError(f"data.source: the {self.split} split is empty")
        for record in self.records:
            if not record.gold():
                raise InputError(f"record {record.id}: no label for any task")
        if self.attacks is not None:
            self.records = self.attacks.beside(self.records)
        if stage == "test" and self.rollouts is not None:
            known = {record.id for record in self.records}
            rollouts = [r for r in read_rollouts_of(self.rollouts, self.source) if r.record_id in known]
            if not rollouts:
                raise InputError(f"data.rollouts: {', '.join(self.rollouts)}: no output for a {self.split} record")
            assert self.trainer is not None
            tasks = prompt_tokenizer_of(self.trainer).format.tasks
            hard = {pair.record.id for pair in mine(self.records, rollouts, tasks, Pairing()).pairs}
            self.hard = [record for record in self.records if record.id in hard]
            log.info("test: %s records, %s of them hard", f"{len(self.records):,}", f"{len(self.hard):,}")

    def test_dataloader(self) -> list[DataLoader]:
        """Return all records, then the hard ones."""
        loaders = [record_loader(self.records, self.chunk_size)]
        return [*loaders, record_loader(self.hard, self.chunk_size)] if self.hard else loaders

    def predict_dataloader(self) -> DataLoader:
        """Return all records, to find the hard ones among them."""
        return record_loader(self.records, self.chunk_size, self.trainer)
