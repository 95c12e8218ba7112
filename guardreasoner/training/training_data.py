"""What the data modules of both stages share: contamination check, tokenization with a cache, optimizer steps."""

import fcntl
import json
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from pyarrow import ArrowException
from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import JudgedRecords
from guardreasoner.model.batch import Collator, Example, StepCollator, two_row
from guardreasoner.model.packing import packed
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.records import Record, Speed, Split
from guardreasoner.sources import Identified, Source
from guardreasoner.sources.contamination import SIMILARITY, ContaminationIndex
from guardreasoner.training.example_store import ExampleStore, write_examples
from guardreasoner.training.loaders import (
    StepLoader,
    format_of,
    log,
    prompt_tokenizer_of,
    step_loader,
    supports_packing,
    validation_loader,
)
from guardreasoner.training.sampler import StepSampler
from guardreasoner.workflow.log_lines import collect_log_lines
from guardreasoner.workflow.manifest import code_fingerprint, code_of, file_hashes, fingerprint
from guardreasoner.workflow.ranges import Count, Seed, Share
from guardreasoner.workflow.replacing import replacing_folder, restore_output

_LOG_LINES = "notes.json"
_HASHES = "hashes.json"

OnFault = Callable[[Record, InputError], None]


@dataclass(frozen=True, slots=True)
class TrainingItem:
    """A record with its training targets, as text and as ids.

    Args:
        record: the conversation with its labels.
        completions: target texts: one in R-SFT, chosen and rejected in HS-DPO, none in GRPO.
        example: the same as token ids.
        speed: whether the prompt asks for reasoning.
        truncated: which targets have no end token, since the limit on tokens ended them; empty: none.
    """

    record: Record
    completions: tuple[str, ...]
    example: Example
    speed: Speed = "reasoned"
    truncated: tuple[bool, ...] = ()


class TrainingDataModule(LightningDataModule, ABC):
    """Training and validation examples, served as whole optimizer steps.

    ``prepare_data`` tokenizes once per node, on one process, into a folder; ``setup`` opens it on every process.

    Args:
        source: data source; its test split counts as a benchmark of this run.
        benchmarks: further sources whose test split must not share a prompt with the training data.
        similarity: similarity from which two prompts count as near-duplicates, from 0 to 1.
        skip_contaminated: leave out and count training data whose prompt a benchmark holds, instead of refusing to
            start.
        batch_size: examples per optimizer step, over all processes.
        micro_batch_size: examples per forward pass; None for the whole step.
        micro_batch_tokens: most tokens per forward pass, each prompt counted once; None for no limit.
        epochs: epochs of the whole schedule. The trainer's own ``max_epochs`` stays 1.
        max_length: most tokens of prompt and completion together. Nothing is ever truncated.
        skip_too_long: leave out and count longer examples, instead of refusing to start.
        bucket_steps: steps whose examples are sorted by length together, to reduce padding; 1 sorts none.
        seed: seed of the order.
        collate: layout of a micro-batch.
        cache: folder of tokenized data, stored under a fingerprint of everything that determines it; None tokenizes
            anew for each run.

    Raises:
        InputError: ``micro_batch_size`` or ``micro_batch_tokens`` is below 1.
    """

    example_name = "records"
    """What an example is made from, for messages."""

    allow_contamination = False
    """Whether training data may hold prompts of benchmarks; set by ``--allow_contamination``."""

    start_epoch = 0
    """First epoch of this run within the schedule."""

    def __init__(
        self,
        source: Source,
        benchmarks: Sequence[Source] = (),
        similarity: Share = SIMILARITY,
        skip_contaminated: bool = False,
        batch_size: Count = 256,
        micro_batch_size: Count | None = None,
        micro_batch_tokens: Count | None = None,
        epochs: Count = 1,
        max_length: Count = 2048,
        skip_too_long: bool = False,
        bucket_steps: Count = 1,
        seed: Seed = 0,
        collate: Collator = packed,
        cache: str | None = None,
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
        self.max_length = max_length
        self.skip_too_long = skip_too_long
        self.bucket_steps = bucket_steps
        self.seed = seed
        self.collate = collate
        self.cache = cache
        self.train: Sequence[Example] = []
        self.validation: Sequence[Example] = []
        self._folder: Path | None = None
        self._inspection_tokenizer: PromptTokenizer | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @abstractmethod
    def items(self, split: Split, on_fault: OnFault | None = None) -> Iterator[TrainingItem]:
        """Yield the training items of a split, tokenized anew, including those that are too long.

        Args:
            split: "train" or "validation".
            on_fault: called for each record without a valid target, which is then skipped.

        Raises:
            InputError: a record has no valid target, and ``on_fault`` is None.
        """

    @abstractmethod
    def fingerprint_parts(self) -> list[object]:
        """Return what determines the examples besides sources, tokenizer and the options of this class.

        Raises:
            InputError: an input is missing.
        """

    def prepare_data(self) -> None:
        """Read, check and tokenize the data, unless an earlier run has stored the same."""
        if self._trainer.state.fn in (TrainerFn.FITTING, TrainerFn.VALIDATING):
            self._prepare()

    def setup(self, stage: str) -> None:
        """Open the tokenized data.

        Raises:
            InputError: an example has more tokens than ``micro_batch_tokens``.
        """
        if self._folder is None and self._trainer.world_size == 1:
            self._prepare()
        folder = self._trainer.strategy.broadcast(self._folder)
        assert folder is not None, "prepare_data() comes first"
        if self._folder is None:
            self._open(folder)
        self._folder = folder
        for examples in (self.train, self.validation):
            self._require_token_budget(examples)

    def prepare_inspection(self, tokenizer: PromptTokenizer) -> None:
        """Make :meth:`items` usable without a trainer; it then also yields contaminated items.

        Args:
            tokenizer: tokenizer of the model that would be trained.
        """
        self._inspection_tokenizer = tokenizer

    def contamination_index(self) -> ContaminationIndex:
        """Return the index of the prompts that the benchmarks of this run hold."""
        sources = (self.source, *self.benchmarks)
        return ContaminationIndex((r for source in sources for r in source.records("test")), self.similarity)

    @property
    def format(self) -> GuardFormat | None:
        """Format of the model; None without a model of ours, as in synthesis or before there is a base model."""
        if self._inspection_tokenizer is not None:
            return self._inspection_tokenizer.format
        return None if self.trainer is None else format_of(self.trainer)

    def judged(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split that the model's format judges; the others are counted in a line."""
        judged = JudgedRecords(self.format)
        yield from judged.of(self.source.records(split))
        if note := judged.note():
            log.info(f"{split}: {note}")

    def drop_contaminated(self, records: Iterable[Record], where: str = "training data") -> Iterator[Record]:
        """Yield the records whose prompt no benchmark of this run holds; refuse, skip or allow the others."""
        if self._inspection_tokenizer is not None:
            return iter(records)
        return self.contamination_index().filter(records, where, self.skip_contaminated, self.allow_contamination)

    def drop_too_long(self, examples: Iterable[Example], name: str) -> Iterator[Example]:
        """Yield the examples of at most ``max_length`` tokens; skip the others, or refuse them after the last one.

        Raises:
            InputError: examples are longer and ``skip_too_long`` is off, or all examples are longer.
        """
        count, too_long, longest = 0, 0, None
        for example in examples:
            count += 1
            if not all(example.completions):
                raise InputError(f"record {example.id}: a completion without tokens; expected at least an end token")
            if example.length > self.max_length:
                too_long += 1
                longest = max(longest or example, example, key=lambda candidate: candidate.length)
                continue
            yield example
        if longest is None:
            return
        if not self.skip_too_long:
            raise InputError(
                f"record {longest.id}: prompt of {len(longest.prompt)} and completion of "
                f"{max(map(len, longest.completions), default=0)} tokens exceed data.max_length {self.max_length}; "
                f"so do {too_long - 1} more {name}",
                "raise data.max_length, or leave them out with data.skip_too_long: true",
            )
        if too_long == count:
            raise InputError(f"{name}: all {count} are longer than data.max_length {self.max_length}")
        log.info(f"{name}: {too_long} of {count} are longer than {self.max_length} tokens, left out")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of this run."""
        return len(self._sampler())

    def train_dataloader(self) -> StepLoader:
        """Return the loader of optimizer steps."""
        collator = self._collator(self.micro_batch_size or self.batch_size)
        return step_loader(self.train, self._sampler(), self._trainer, collator)

    def val_dataloader(self) -> DataLoader:
        """Return the loader of the held-out examples."""
        size = self.micro_batch_size or self.batch_size
        return validation_loader(self.validation, size, self._collator(size))

    @property
    def prompt_tokenizer(self) -> PromptTokenizer:
        """Tokenizer of the model that is trained, so that data and model use the same ids."""
        return self._inspection_tokenizer or prompt_tokenizer_of(self._trainer)

    def _sampler(self) -> StepSampler:
        lengths = self.train.lengths if isinstance(self.train, ExampleStore) else [e.length for e in self.train]
        return StepSampler(lengths, self.batch_size, self.epochs, self.start_epoch, self.seed, self.bucket_steps)

    def _collator(self, size: int) -> StepCollator:
        return StepCollator(self.prompt_tokenizer.padding, size, self._layout(), tokens=self.micro_batch_tokens)

    def _layout(self) -> Collator:
        """Return the layout: plain rows if the network does not support packed rows."""
        if self.collate is packed and not supports_packing(self._trainer):
            log.info("this network does not support packed rows: each completion gets a row of its own")
            return two_row
        return self.collate

    @property
    def _trainer(self) -> Trainer:
        assert self.trainer is not None
        return self.trainer

    def _key(self) -> str | None:
        """Return the fingerprint of everything that determines the examples; None if a source cannot tell."""
        sources = (self.source, *self.benchmarks)
        if not all(isinstance(source, Identified) for source in sources):
            return None
        try:
            identities = [source.identity() for source in sources if isinstance(source, Identified)]
            parts = [*self.fingerprint_parts(), *identities]
            own = code_of(self, *(part for source in sources for part in _with_parts(source)))
        except InputError:
            return None  # the reader of the missing input gives the better message
        options: list[Any] = [
            [self.similarity, self.skip_contaminated, self.allow_contamination],
            [self.max_length, self.skip_too_long, self.seed],
            self.prompt_tokenizer.identity(),
            code_fingerprint(),
        ]
        return fingerprint([type(self).__name__, *options, *parts, *([own] if own else [])])

    def _prepare(self) -> None:
        key = self._key()
        if self.cache is None or key is None:
            if self._trainer.num_nodes > 1:
                raise InputError("data.cache: none is set", "several nodes need a folder for the tokenized data")
            self._temporary = tempfile.TemporaryDirectory(prefix="guardreasoner-")
            self._folder = Path(self._temporary.name) / "tokenized"
            self._make(self._folder)
            return
        self._folder = Path(self.cache) / key[:32]
        with _locked(self._folder):  # another run or node may be at the same data
            restore_output(self._folder)
            try:
                self._open(self._folder)
            except (OSError, ValueError, ArrowException):
                if self._folder.exists():
                    log.warning("%s is damaged and is made again", self._folder)
                shutil.rmtree(self._folder, ignore_errors=True)
                self._make(self._folder)
                return
        for line in json.loads((self._folder / _LOG_LINES).read_text(encoding="utf-8")):
            log.info("%s", line)

    def _make(self, folder: Path) -> None:
        with replacing_folder(folder) as partial, collect_log_lines() as lines:
            for split in ("train", "validation"):
                examples = (item.example for item in self.items(split))
                write_examples(partial / f"{split}.arrow", self.drop_too_long(examples, f"{split} {self.example_name}"))
            (partial / _LOG_LINES).write_text(json.dumps(lines), encoding="utf-8")
            self._write_extra(partial)
            (partial / _HASHES).write_text(json.dumps(file_hashes(partial)), encoding="utf-8")
        self._open(folder)

    def _open(self, folder: Path) -> None:
        found = file_hashes(folder)
        found.pop(_HASHES, None)
        if json.loads((folder / _HASHES).read_text(encoding="utf-8")) != found:
            raise ValueError(f"{folder}: the hash of a file differs")
        lines = json.loads((folder / _LOG_LINES).read_text(encoding="utf-8"))
        if not isinstance(lines, list):
            raise ValueError(f"{folder / _LOG_LINES}: expected a list")
        self.train, self.validation = (ExampleStore(folder / f"{split}.arrow") for split in ("train", "validation"))
        self._read_extra(folder)

    def _write_extra(self, folder: Path) -> None:
        """Write what a subclass stores beside the tokenized examples; nothing by default."""

    def _read_extra(self, folder: Path) -> None:
        """Read what :meth:`_write_extra` wrote; raise ``OSError`` or ``ValueError`` if it is damaged."""

    def _require_token_budget(self, examples: Sequence[Example]) -> None:
        """Raise ``InputError`` if an example has more tokens than a micro-batch may have."""
        budget = self.micro_batch_tokens
        if budget is None or not isinstance(examples, ExampleStore) or not len(examples):
            return
        if examples.tokens.max() <= budget:
            return
        largest = int(examples.tokens.argmax())
        raise InputError(
            f"record {examples[largest].id}: its {examples.tokens[largest]} tokens exceed data.micro_batch_tokens "
            f"{budget}; so do {int((examples.tokens > budget).sum()) - 1} more {self.example_name}",
            "raise data.micro_batch_tokens, or lower data.max_length with data.skip_too_long: true",
        )


def _with_parts(source: object) -> Iterator[object]:
    """Yield a source and the sources that it is made from."""
    yield source
    for value in getattr(source, "__dict__", {}).values():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Identified):
                yield from _with_parts(part)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the tokenized data at ``folder``; it ends with the process if that is killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as lock:  # "w" would empty what a link points to
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
