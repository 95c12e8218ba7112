"""Tokens of the training data of a run: of the real data with the real tokenizer, or estimated from characters."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from zlib import crc32

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.model.batch import Example
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.records import Record, Speed
from guardreasoner.sources.splits import unit_interval_hash
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.training_data import TrainingDataModule

CHARACTERS_PER_TOKEN = 4.0
"""Usual for English text and a vocabulary of 32,000 tokens or more."""
HARD_SHARE = 0.11
"""Pairs per training record: 14,000 of 127,544 with Llama-3.2-3B (arXiv 2501.18492)."""

_END = 0


class CharacterTokenizer(PromptTokenizer):
    """Stands in for a tokenizer that is not here: every few characters are a token.

    Args:
        format: prompt format of the model.
        characters: characters per token.
    """

    def __init__(self, format: GuardFormat, characters: float = CHARACTERS_PER_TOKEN) -> None:
        self.format = format
        self.characters = characters

    @property
    def padding(self) -> int:
        """Return 0."""
        return _END

    def prompts(self, records: Sequence[Record], speeds: Sequence[Speed] | None = None) -> list[list[int]]:
        """Return ids of the right number for the prompts; equal texts have equal ids."""
        asked = zip(records, speeds or [self._speed(None)] * len(records), strict=True)
        return [self._ids(self.format.text(record, speed)) for record, speed in asked]

    def completions(self, texts: Sequence[str], truncated: Sequence[bool] | None = None) -> list[list[int]]:
        """Return ids of about the right number for the completions, all with an end token."""
        return [[*self._ids(text), _END] for text in texts]

    def _ids(self, text: str) -> list[int]:
        count = max(1, round(len(text) / self.characters)) if text else 0
        bounds = [round(number * self.characters) for number in range(count)] + [len(text)]
        return [crc32(text[start:end].encode("utf-8", "replace")) for start, end in pairwise(bounds)]


@dataclass(frozen=True)
class DataSizes:
    """Numbers of tokens of the training examples.

    Args:
        prompts: tokens of each prompt.
        completions: tokens of each example's completions.
        prefix: tokens that all prompts share at their start.
        source: what was counted, for the reader.
        too_long: examples left out because they are longer than ``data.max_length``.
        characters: characters per token if the tokens are estimated, else None.
    """

    prompts: list[int]
    completions: list[tuple[int, ...]]
    prefix: int
    source: str
    too_long: int = 0
    characters: float | None = None
    lengths: list[int] = field(init=False)

    def __post_init__(self) -> None:
        pairs = zip(self.prompts, self.completions, strict=True)
        object.__setattr__(self, "lengths", [prompt + max(completions) for prompt, completions in pairs])

    def shortened(self, limit: int) -> "DataSizes":
        """Return the sizes of the examples of at most ``limit`` tokens."""
        kept = [index for index, length in enumerate(self.lengths) if length <= limit]
        return DataSizes(
            [self.prompts[index] for index in kept],
            [self.completions[index] for index in kept],
            self.prefix,
            self.source,
            self.too_long + len(self.lengths) - len(kept),
            self.characters,
        )

    def example(self, index: int) -> Example:
        """Return an example of these sizes, whose ids mean nothing but the shared prefix."""
        own = self.prompts[index] - self.prefix
        prompt = (*range(1, self.prefix + 1), *[self.prefix + 1 + index] * own)
        completions = tuple((1,) * count for count in self.completions[index])
        return Example(str(index), prompt, completions)


def read_sizes(data: TrainingDataModule, tokenizer: PromptTokenizer, hard_share: float = HARD_SHARE) -> DataSizes:
    """Tokenize the training data of a fit and keep the sizes.

    Args:
        data: data module of the fit.
        tokenizer: the model's, or a :class:`CharacterTokenizer`.
        hard_share: pairs per record, if pairs are mined from rollouts that are not here.

    Raises:
        InputError: an input is missing or faulty, or no example is left.
    """
    data.prepare_inspection(tokenizer)
    origin = type(data.source).__name__
    if isinstance(data, PreferenceDataModule) and data.pair_files:
        origin = ", ".join(data.pair_files)
    name = f"{data.example_name} of {origin}"
    if isinstance(data, PreferenceDataModule) and not _has_rollouts(data):
        name = f"pairs, estimated as {hard_share:g} of the records of {type(data.source).__name__}"
        name += ", since the rollouts are not here (--hard_share)"
        examples = _estimated_pairs(data, tokenizer, hard_share)
    else:
        examples = (item.example for item in data.items("train", lambda record, error: None))
    sizes = _sizes(examples, name, tokenizer)
    kept = sizes.shortened(data.max_length)
    if not kept.prompts:
        raise InputError(f"data: no training example of at most data.max_length {data.max_length} tokens")
    return kept


def _has_rollouts(data: PreferenceDataModule) -> bool:
    return bool(data.pair_files) or all(Path(folder).exists() for folder in data.rollouts)


def _estimated_pairs(data: PreferenceDataModule, tokenizer: PromptTokenizer, share: float) -> Iterator[Example]:
    """Yield pairs of two outputs as long as the target of the record, for a share of the records."""
    records = ReasoningDataModule(data.source)
    records.prepare_inspection(tokenizer)
    for item in records.items("train", lambda record, error: None):
        if unit_interval_hash(item.record.id) < share:
            yield Example(item.example.id, item.example.prompt, item.example.completions * 2)


def _sizes(examples: Iterable[Example], name: str, tokenizer: PromptTokenizer) -> DataSizes:
    prompts: list[int] = []
    completions: list[tuple[int, ...]] = []
    first: tuple[int, ...] | None = None
    prefix = 0
    for example in examples:
        prompts.append(len(example.prompt))
        completions.append(tuple(map(len, example.completions)))
        if first is None:
            first, prefix = example.prompt, len(example.prompt)
        shared = zip(first[:prefix], example.prompt, strict=False)
        prefix = next(
            (index for index, (one, other) in enumerate(shared) if one != other), min(prefix, len(example.prompt))
        )
    characters = tokenizer.characters if isinstance(tokenizer, CharacterTokenizer) else None
    return DataSizes(
        prompts, completions, max(0, min([prefix, *(count - 1 for count in prompts)])), name, 0, characters
    )
