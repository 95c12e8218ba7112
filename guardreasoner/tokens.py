"""Text to token ids, and examples to batches."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.prompts import PromptFormat, render
from guardreasoner.records import Record

_SLOT = "\u2063user text\u2063"
"""Stands for the user's text while the chat template is rendered; its invisible separators keep it from being text."""


class Encoder:
    """Turn records and completions into ids, the same ones at training, mining and serving.

    Prompt and completion are tokenized apart and joined as ids, so that no merge crosses the boundary. Text from a
    record never becomes a control token, whatever it spells.

    Args:
        tokenizer: a Hugging Face tokenizer with an end-of-sequence token.
        format: how the model is asked.

    Raises:
        InputError: the tokenizer has no end-of-sequence token, or no chat template where one is asked for.
    """

    def __init__(self, tokenizer: Any, format: PromptFormat) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"the tokenizer {tokenizer.name_or_path} has no end-of-sequence token")
        self.tokenizer = tokenizer
        self.format = format
        self._before, self._after = self._frame()
        self._text = _of_text(tokenizer)

    @property
    def end(self) -> int:
        """Id of the token that ends a completion."""
        return self.tokenizer.eos_token_id

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """Ids that stand before and after the text of every prompt."""
        return list(self._before), list(self._after)

    @property
    def padding(self) -> int:
        """Id that fills the room beside shorter rows; it is always masked."""
        pad = self.tokenizer.pad_token_id
        return self.end if pad is None else pad

    def text(self, record: Record) -> str:
        """Return the prompt as text, without the chat template."""
        return render(record, self.format.tasks, self.format.opening)

    def prompt(self, record: Record) -> list[int]:
        """Return the ids of the prompt, with the tokens that open a sequence."""
        return self.prompts([record])[0]

    def prompts(self, records: Sequence[Record]) -> list[list[int]]:
        """Return the ids of many prompts; together they are tokenized side by side."""
        return [[*self._before, *ids, *self._after] for ids in self._plain([self.text(r) for r in records])]

    def completion(self, text: str) -> list[int]:
        """Return the ids of a completion and the end token."""
        return self.completions([text])[0]

    def completions(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of many completions, each with its end token."""
        return [[*ids, self.end] for ids in self._plain(list(texts))]

    def identity(self) -> object:
        """Return what decides the ids, so that ids that were kept can be told from those that it would give now."""
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        words = fast.to_str() if fast is not None else sorted(self.tokenizer.get_vocab().items())
        template = self.tokenizer.chat_template if self.format.chat_template else None
        return [type(self.tokenizer).__name__, words, self._before, self._after, self.end, template, repr(self.format)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a completion without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _plain(self, texts: list[str]) -> list[list[int]]:
        if self._text is not None:
            return [encoding.ids for encoding in self._text.encode_batch_fast(texts, add_special_tokens=False)]
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []

    def _frame(self) -> tuple[list[int], list[int]]:
        if not self.format.chat_template:
            bos = self.tokenizer.bos_token_id
            return ([] if bos is None else [bos]), []
        if self.tokenizer.chat_template is None:
            raise InputError(
                f"the tokenizer {self.tokenizer.name_or_path} has no chat template; set chat_template: false"
            )
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": _SLOT}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split(_SLOT)
        return tuple(self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))


def _of_text(tokenizer: Any) -> Any:
    """Return a copy of a tokenizer for which no added token is more than text; None where the tokenizer can do so.

    ``split_special_tokens`` splits special tokens alone, and some models have added tokens that are not special and yet
    steer them (``<tool_call>``). Runs of white space stay: as added tokens they are how some models read code.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    added = backend.get_added_tokens_decoder().values() if backend is not None else ()
    if all(token.special or not token.content.strip() for token in added):
        return None
    from tokenizers import Tokenizer

    content = json.loads(backend.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["special"] or bool(token["content"].strip())
    copy = Tokenizer.from_str(json.dumps(content))
    copy.encode_special_tokens = True
    copy.no_padding()
    copy.no_truncation()
    return copy


@dataclass(frozen=True, slots=True)
class Example:
    """One training example as ids: a prompt with one completion (R-SFT), or with a chosen and a rejected one (HS-DPO).

    Args:
        id: record id.
        prompt: token ids.
        completions: token ids of each completion, its end token included.
        weight: α of a pair.
        reference_logps: log π_ref of each completion, in nats, where they were computed before.
    """

    id: str
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    weight: float = 1.0
    reference_logps: tuple[float, ...] | None = None

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return len(self.prompt) + max(map(len, self.completions))


@dataclass
class Batch:
    """What the network is given at once: R rows of T tokens, and where in them N completion tokens are predicted.

    Sequence ``i`` of example ``e`` is numbered ``i * examples + e``: all chosen ones first, then all rejected ones.

    Args:
        input_ids: (R, T) int64.
        attention_mask: (R, T) int64, or (R, 1, T, T) bool where rows hold several branches.
        position_ids: (R, T) int64.
        predictors: (N,) int64, places in the flattened (R · T) hidden states, each just before its target.
        targets: (N,) int64, the completion tokens.
        sequence: (N,) int64, which completion each belongs to.
        sequences: how many completions.
        weight: (examples,) float32, α.
        reference_logps: (sequences,) float64 in nats, or None.
        ids: record ids.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    predictors: Tensor
    targets: Tensor
    sequence: Tensor
    sequences: int
    weight: Tensor
    reference_logps: Tensor | None
    ids: list[str] = field(default_factory=list)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Return the batch with all its tensors on ``device``."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


@dataclass
class Step:
    """One whole optimizer step of this process, with the denominators of the step over all processes.

    Args:
        batches: micro-batches, in the order they are computed.
        tokens: completion tokens of the whole step.
        examples: examples of the whole step.
    """

    batches: list[Batch]
    tokens: int
    examples: int
    share: float = 1.0

    def to(self, device: torch.device, non_blocking: bool = False) -> "Step":
        """Return the step with all its tensors on ``device``."""
        return replace(self, batches=[batch.to(device, non_blocking) for batch in self.batches])


class Collator(Protocol):
    """Turns the examples of a micro-batch into tensors."""

    def __call__(self, examples: Sequence[Example], padding: int) -> Batch: ...


def two_row(examples: Sequence[Example], padding: int) -> Batch:
    """Give every completion a row of its own, prompt repeated, padded on the right: the plain, readable reference."""
    rows = [
        (number * len(examples) + place, example.prompt, example.completions[number])
        for number in range(len(examples[0].completions))
        for place, example in enumerate(examples)
    ]
    width = max(len(prompt) + len(completion) for _, prompt, completion in rows)
    input_ids = torch.full((len(rows), width), padding)
    attention_mask = torch.zeros_like(input_ids)
    predictors, targets, sequence = [], [], []
    for row, (number, prompt, completion) in enumerate(rows):
        length = len(prompt) + len(completion)
        input_ids[row, :length] = torch.tensor(prompt + completion)
        attention_mask[row, :length] = 1
        predictors.append(torch.arange(len(prompt) - 1, length - 1) + row * width)
        targets.append(torch.tensor(completion))
        sequence.append(torch.full((len(completion),), number))
    references = [e.reference_logps for e in examples]
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=torch.arange(width).expand(len(rows), width),
        predictors=torch.cat(predictors),
        targets=torch.cat(targets),
        sequence=torch.cat(sequence),
        sequences=len(rows),
        weight=torch.tensor([e.weight for e in examples], dtype=torch.float32),
        reference_logps=_reference_column(references),
        ids=[e.id for e in examples],
    )


def _reference_column(references: Sequence[tuple[float, ...] | None]) -> Tensor | None:
    known = [r for r in references if r is not None]
    if len(known) < len(references):
        return None
    return torch.tensor(known, dtype=torch.float64).T.reshape(-1)


@dataclass
class StepCollator:
    """Turn the examples of one optimizer step into micro-batches, longest rows together.

    Args:
        padding: id that fills rows.
        micro_batch_size: examples that are computed at once.
        collate: the layout of a micro-batch.
        rank: number of this process; it takes every ``world``-th example.
        world: how many processes share the step.
    """

    padding: int
    micro_batch_size: int
    collate: Collator = two_row
    rank: int = 0
    world: int = 1

    def __call__(self, examples: Sequence[Example]) -> Step:
        """Return the step; it may hold no micro-batch where there are fewer examples than processes."""
        ordered = sorted(examples, key=lambda example: example.length, reverse=True)
        # a process without an example computes one for nothing, as the others wait for its gradient
        own = ordered[self.rank :: self.world]
        mine = own or ordered[-1:]
        parts = [mine[i : i + self.micro_batch_size] for i in range(0, len(mine), self.micro_batch_size)]
        tokens = sum(len(completion) for example in examples for completion in example.completions[:1])
        return Step([self.collate(part, self.padding) for part in parts], tokens, len(examples), float(bool(own)))
