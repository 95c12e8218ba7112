"""What the data of both stages share: kept apart from the benchmarks, tokenized once, served as optimizer steps."""

import json
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from pyarrow import ArrowException
from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.model.batch import Collator, Example, StepCollator, two_row
from guardreasoner.model.packing import packed
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.records import Record, Split
from guardreasoner.sources import Identified, Source
from guardreasoner.sources.contamination import ContaminationIndex
from guardreasoner.training.example_store import ExampleStore, write_examples
from guardreasoner.training.loaders import (
    StepLoader,
    log,
    prompt_tokenizer_of,
    step_loader,
    supports_packing,
    validation_loader,
)
from guardreasoner.training.sampler import StepSampler
from guardreasoner.workflow.log_lines import collect_log_lines
from guardreasoner.workflow.manifest import code_fingerprint, fingerprint, replacing_folder

_NOTES = "notes.json"

Faulty = Callable[[Record, InputError], None]


@dataclass(frozen=True, slots=True)
class TrainingItem:
    """One thing to learn.

    Args:
        record: the conversation, with its labels.
        completions: what is taught, as text: one (R-SFT), or the chosen and the rejected (HS-DPO).
        example: the same as ids.
    """

    record: Record
    completions: tuple[str, ...]
    example: Example


class TrainingDataModule(LightningDataModule, ABC):
    """Examples of a training and a validation split; the arguments are explained where a stage has them."""

    called = "records"
    """What an example is made from, in messages."""

    allow_contamination = False
    """Set by the flag of that name: train or mine on what a benchmark of the run holds."""

    def __init__(
        self,
        source: Source,
        benchmarks: Sequence[Source],
        similarity: float,
        skip_contaminated: bool,
        batch_size: int,
        micro_batch_size: int | None,
        micro_batch_tokens: int | None,
        epochs: int,
        start_epoch: int,
        max_length: int,
        skip_too_long: bool,
        bucket_steps: int,
        seed: int,
        collate: Collator,
        cache: str | None,
    ) -> None:
        super().__init__()
        for name, value in (("micro_batch_size", micro_batch_size), ("micro_batch_tokens", micro_batch_tokens)):
            if value is not None and value < 1:
                raise InputError(f"data.{name} must be at least 1, got {value}")
        self.source = source
        self.benchmarks = benchmarks
        self.similarity = similarity
        self.skip_contaminated = skip_contaminated
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.micro_batch_tokens = micro_batch_tokens
        self.epochs = epochs
        self.start_epoch = start_epoch
        self.max_length = max_length
        self.skip_too_long = skip_too_long
        self.bucket_steps = bucket_steps
        self.seed = seed
        self.collate = collate
        self.cache = cache
        self.train: Sequence[Example] = []
        self.validation: Sequence[Example] = []
        self._inspection_tokenizer: PromptTokenizer | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @abstractmethod
    def items(self, split: Split, faulty: Faulty | None = None) -> Iterator[TrainingItem]:
        """Yield what the training or validation split teaches, made anew, the too long included.

        Args:
            split: which.
            faulty: called for a record from which nothing can be learned, which is then passed over.

        Raises:
            InputError: nothing can be learned from a record, and ``faulty`` is not given.
        """

    @abstractmethod
    def fingerprint_parts(self) -> list[object]:
        """Return what decides the examples beside source, benchmarks and tokenizer.

        Raises:
            InputError: something is missing.
        """

    def setup(self, stage: str) -> None:
        """Read, check and tokenize, or take what an earlier run has kept of the very same."""
        key = self._key()
        if self.cache is None or key is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="guardreasoner-")
            self._make(Path(self._temporary.name) / "tokenised")
            return
        folder = Path(self.cache) / key[:32]
        try:
            self._open(folder)
        except (OSError, ValueError, ArrowException):
            if folder.exists():
                log.warning("%s is damaged and is made again", folder)
            shutil.rmtree(folder, ignore_errors=True)
            self._make(folder)

    def prepare_inspection(self, prompt_tokenizer: PromptTokenizer) -> None:
        """Make ready for :meth:`items` without a trainer; what a benchmark holds is then yielded, whatever is set.

        Args:
            encoder: that of the model that would be trained.
        """
        self._inspection_tokenizer = prompt_tokenizer

    def held(self) -> ContaminationIndex:
        """Return the prompts that the benchmarks of the run hold."""
        return ContaminationIndex(
            (r for one in (self.source, *self.benchmarks) for r in one.records("test")), self.similarity
        )

    def apart(self, records: Iterable[Record], where: str = "training data") -> Iterator[Record]:
        """Yield records; refuse, leave out or (with the flag) allow those whose prompt a benchmark of the run holds."""
        if self._inspection_tokenizer is not None:
            return iter(records)
        return self.held().checked(records, where, self.skip_contaminated, self.allow_contamination)

    def fitting(self, examples: Iterable[Example], what: str) -> Iterator[Example]:
        """Yield the examples that fit into ``max_length``; leave out or, after the last, refuse the others.

        Raises:
            InputError: some are longer and ``skip_too_long`` is off, or all are. Nothing is ever cut.
        """
        count, too_long, worst = 0, 0, None
        for example in examples:
            count += 1
            if not all(example.completions):
                raise InputError(f"record {example.id}: a completion of no token; one has at least its end token")
            if example.length > self.max_length:
                too_long += 1
                worst = max(worst or example, example, key=lambda one: one.length)
                continue
            yield example
        if worst is None:
            return
        if not self.skip_too_long:
            raise InputError(
                f"record {worst.id}: prompt of {len(worst.prompt)} and completion of "
                f"{max(map(len, worst.completions))} tokens exceed data.max_length {self.max_length}; "
                f"so do {too_long - 1} more {what}",
                "raise data.max_length, or leave such records out with data.skip_too_long: true",
            )
        if too_long == count:
            raise InputError(f"{what}: all {count} are longer than data.max_length {self.max_length}")
        log.info(f"{what}: {too_long} of {count} are longer than {self.max_length} tokens, left out")

    def train_dataloader(self) -> StepLoader:
        """Return the loader of optimizer steps."""
        lengths = self.train.lengths if isinstance(self.train, ExampleStore) else [e.length for e in self.train]
        sampler = StepSampler(lengths, self.batch_size, self.epochs, self.start_epoch, self.seed, self.bucket_steps)
        return step_loader(self.train, sampler, self._trainer, self._collator(self.micro_batch_size or self.batch_size))

    def val_dataloader(self) -> DataLoader:
        """Return the loader of what is held out to watch the loss."""
        size = self.micro_batch_size or self.batch_size
        return validation_loader(self.validation, size, self._collator(size))

    def _collator(self, size: int) -> StepCollator:
        return StepCollator(self.prompt_tokenizer.padding, size, self._layout(), tokens=self.micro_batch_tokens)

    def _layout(self) -> Collator:
        """Return the collator, the plain one where the network computes no packed rows."""
        if self.collate is packed and not supports_packing(self._trainer):
            log.info("this network computes no packed rows: each completion gets a row of its own")
            return two_row
        return self.collate

    @property
    def prompt_tokenizer(self) -> PromptTokenizer:
        """The encoder of the model that is trained, so that data and model cannot disagree."""
        return self._inspection_tokenizer or prompt_tokenizer_of(self._trainer)

    @property
    def _trainer(self) -> Trainer:
        assert self.trainer is not None
        return self.trainer

    def _key(self) -> str | None:
        sources = (self.source, *self.benchmarks)
        if not all(isinstance(source, Identified) for source in sources):
            return None
        try:
            more = [
                *self.fingerprint_parts(),
                *(source.identity() for source in sources if isinstance(source, Identified)),
            ]
        except InputError:
            return None  # what is missing is better named where it is read
        decides: list[Any] = [
            [self.similarity, self.skip_contaminated, self.allow_contamination],
            [self.max_length, self.skip_too_long, self.seed],
            self.prompt_tokenizer.identity(),
            code_fingerprint(),
        ]
        return fingerprint([type(self).__name__, *decides, *more])

    def _make(self, folder: Path) -> None:
        with replacing_folder(folder) as partial, collect_log_lines() as notes:
            for split in ("train", "validation"):
                examples = (subject.example for subject in self.items(split))
                write_examples(partial / f"{split}.arrow", self.fitting(examples, f"{split} {self.called}"))
            (partial / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
            self._keep(partial)
        self._open(folder, say=False)

    def _open(self, folder: Path, say: bool = True) -> None:
        notes = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
        self.train, self.validation = stores = [
            ExampleStore(folder / f"{split}.arrow") for split in ("train", "validation")
        ]
        self._recall(folder)
        for store in stores:
            self._require_room(store)
        for line in notes if say else ():
            log.info("%s", line)

    def _keep(self, folder: Path) -> None:
        """Write what else a later start has to know beside the ids."""

    def _recall(self, folder: Path) -> None:
        """Read it; ``OSError`` or ``ValueError`` where it is damaged."""

    def _require_room(self, examples: ExampleStore) -> None:
        """Raise ``InputError`` when an example has more tokens than a micro-batch may."""
        budget = self.micro_batch_tokens
        if budget is None or not len(examples) or examples.tokens.max() <= budget:
            return
        largest = int(examples.tokens.argmax())
        raise InputError(
            f"record {examples[largest].id}: its {examples.tokens[largest]} tokens exceed data.micro_batch_tokens "
            f"{budget}; so do {int((examples.tokens > budget).sum()) - 1} more {self.called}",
            "raise data.micro_batch_tokens, or lower data.max_length with data.skip_too_long: true",
        )
