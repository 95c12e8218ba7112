"""Data of stage 2: weighted pairs, mined from rollouts as hard samples or read from files."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset

from guardreasoner.errors import InputError
from guardreasoner.mining import VALIDATION_SHARE, Pairing
from guardreasoner.mining.findings import Findings
from guardreasoner.model.batch import Example
from guardreasoner.records import Pair, Record, Split
from guardreasoner.sources import Source, cut_share
from guardreasoner.sources.pair_files import PairColumns, read_pairs
from guardreasoner.sources.splits import is_held_out
from guardreasoner.training.loaders import log
from guardreasoner.training.mined_rollouts import mine_rollouts, read_findings, write_findings
from guardreasoner.training.token_weights import TokenWeights
from guardreasoner.training.training_data import OnFault, TrainingDataModule, TrainingItem
from guardreasoner.workflow.disk_list import DiskList
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.ranges import Count, ShareBelowOne


class PreferenceDataModule(TrainingDataModule):
    """Mine hard samples, chosen and rejected outputs and α from rollouts, or read pairs; serve them as optimizer steps.

    Args:
        source: data source; its training records may be paired, its test split counts as a benchmark of this run.
        rollouts: folders of rollouts of one or several models; empty if ``pairs`` are given.
        pairing: how outputs are graded, paired and weighted.
        validation_share: share of the hard prompts held out to watch margins, selected by a hash of the prompt.
        batch_size: pairs per optimizer step, over all processes.
        epochs: epochs of the whole schedule. The trainer's own ``max_epochs`` stays 1.
        pairs: one or several files of ready pairs, which are used instead of mining.
        pair_columns: names of the columns in those files.
        token_weights: weights of reasoning tokens and answer tokens in margin and NLL.
        **options: options of :class:`guardreasoner.training.training_data.TrainingDataModule`.

    Raises:
        InputError: ``validation_share`` is out of range, or not exactly one of ``rollouts`` and ``pairs`` is given.
            Also raised by ``prepare_data()`` or ``setup()`` if a rollout belongs to an unknown record, a prompt of a
            pair also occurs in a benchmark, no record is hard, or a row of ``pairs`` is faulty.
    """

    example_name = "pairs"

    def __init__(
        self,
        source: Source,
        rollouts: list[str] = [],  # noqa: B006 - never changed
        pairing: Pairing = Pairing(),  # noqa: B008 - frozen
        validation_share: ShareBelowOne = VALIDATION_SHARE,
        batch_size: Count = 256,
        epochs: Count = 2,
        pairs: str | list[str] = [],  # noqa: B006
        pair_columns: PairColumns = PairColumns(),  # noqa: B008
        token_weights: TokenWeights = TokenWeights(),  # noqa: B008
        **options: Any,
    ) -> None:
        super().__init__(source, batch_size=batch_size, epochs=epochs, **options)
        if not 0 <= validation_share < 1:
            raise InputError(f"data.validation_share must be at least 0 and below 1, got {validation_share}")
        self.pair_files = [pairs] if isinstance(pairs, str) else list(pairs)
        if bool(rollouts) == bool(self.pair_files):
            found = (
                "both data.rollouts and data.pairs are set"
                if rollouts
                else "neither data.rollouts nor data.pairs is set"
            )
            raise InputError(
                f"{found}, expected one of them", "with data.pairs: data.rollouts: []" if rollouts else None
            )
        self.rollouts = rollouts
        self.pair_columns = pair_columns
        self.pairing = pairing
        self.token_weights = token_weights
        self.validation_share = validation_share
        self.findings: Findings | None = None
        """What mining found, known after setup."""

    def setup(self, stage: str) -> None:
        """Open the tokenized pairs."""
        super().setup(stage)
        self.__dict__.pop("pairs", None)  # closes the file of all outputs, which training does not need
        if self._trainer.is_global_zero:
            log.info(f"HS-DPO: {len(self.train):,} pairs to train on, {len(self.validation):,} held out")

    @cached_property
    def pairs(self) -> Sequence[Pair]:
        """The mined or given pairs without contaminated ones; read from the disk on demand.

        Raises:
            InputError: a rollout belongs to an unknown record, no record is hard, or a row of a pair file is faulty.
        """
        format = self.prompt_tokenizer.format
        if self.pair_files:
            given = read_pairs(self.pair_files, self.pair_columns, format.tasks, format)
            log.info(f"HS-DPO: {len(given):,} pairs from {', '.join(self.pair_files)}")
            return self._clean(given)
        mined, self.findings = mine_rollouts(self.rollouts, self.source, format, self.pairing, "HS-DPO")
        return self._clean(mined.pairs)

    def examples(self) -> Sequence[Example]:
        """Return all examples whose reference log-probabilities are needed; read on demand."""
        concatenated: Any = ConcatDataset([self.train, self.validation])  # type: ignore[list-item]
        return concatenated

    def fingerprint_parts(self) -> list[object]:
        """Return the content of rollouts and pairs, the pairing options and the share that is held out."""
        files = [content_hash(path) for path in (*self.rollouts, *self.pair_files)]
        return [files, repr(self.pairing), self.validation_share, repr(self.pair_columns), repr(self.token_weights)]

    def items(self, split: Split, on_fault: OnFault | None = None) -> Iterator[TrainingItem]:
        """Yield the pairs of a split, which a hash of the normalized prompt determines."""
        tokenizer = self.prompt_tokenizer
        cut = 0.0 if self.pair_files else cut_share(self.source)
        without_end = 0
        for pair in self.pairs:
            if is_held_out(pair.record.context(), self.validation_share, cut) == (split == "validation"):
                texts = (pair.chosen.completion, pair.rejected.completion)
                truncated = (pair.chosen.truncated, pair.rejected.truncated)
                speed = pair.chosen.speed
                prompt = tuple(tokenizer.prompt(pair.record, speed))
                completions = tuple(map(tuple, tokenizer.completions(texts, truncated)))
                without_end += sum(ids[-1] != tokenizer.end for ids in completions)
                weights = (pair.weight, pair.weight)
                token_weights = self.token_weights.of(tokenizer, texts, completions)
                example = Example(pair.id, prompt, completions, weights, token_weights=token_weights)
                yield TrainingItem(pair.record, texts, example, speed, truncated)
        if without_end:
            log.info(
                f"{split}: {without_end:,} outputs of pairs ended at the limit on tokens, so they have no end token"
            )

    def _clean(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """Return the pairs whose prompt no benchmark of this run holds."""
        left_out = set[bytes]()

        def distinct_records() -> Iterator[Record]:
            seen = set[bytes]()
            for pair in pairs:
                if (identity := _identity(pair.record)) not in seen:
                    seen.add(identity)
                    left_out.add(identity)
                    yield pair.record

        for record in self.drop_contaminated(distinct_records()):
            left_out.discard(_identity(record))
        return DiskList(pair for pair in pairs if _identity(pair.record) not in left_out) if left_out else pairs

    def _write_extra(self, folder: Path) -> None:
        write_findings(folder, self.findings)

    def _read_extra(self, folder: Path) -> None:
        self.findings = read_findings(folder)


def _identity(record: Record) -> bytes:
    """Return a hash of id and content: files of several data sets may use one id for different conversations."""
    return sha256(f"{record.content_key()} {record.id}".encode(errors="surrogatepass")).digest()[:16]
