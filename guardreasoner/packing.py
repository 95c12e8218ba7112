"""Many completions in one row without padding: what their prompts share is computed once.

A row is a tree of segments. Its root is what all prompts of the micro-batch begin with (the instruction); each prompt's
rest follows it, and each completion its prompt. A token sees its own segment up to itself, and all of those above it.
"""

from collections.abc import Sequence
from itertools import takewhile

import torch

from guardreasoner.tokens import Batch, Example, Segment, reference_column

_SHORTEST_ROOT = 16
"""Tokens that prompts must share for a segment of their own; below, it saves less than it costs."""


class _Row:
    """A packed row while it grows."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []

    def add(self, ids: Sequence[int], above: tuple[int, ...]) -> tuple[int, ...]:
        """Append a segment; return what follows it must name, which without tokens is what the segment names."""
        if not ids:
            return above
        before = sum(self.segments[number].end - self.segments[number].start for number in above)
        self.segments.append(Segment(len(self.ids), len(self.ids) + len(ids), above))
        self.ids += ids
        self.positions += range(before, before + len(ids))
        return (*above, len(self.segments) - 1)

    def last(self, path: tuple[int, ...]) -> int:
        """Return the place of the last token on a path."""
        return self.segments[path[-1]].end - 1


def packed(examples: Sequence[Example], padding: int) -> Batch:
    """Put all examples of a micro-batch into one row, each shared piece of prompt once, nothing padded.

    A completion's last token is not put in, as nothing is predicted from it.

    Args:
        examples: with as many completions each.
        padding: not needed here.
    """
    row = _Row()
    shared = _common([example.prompt for example in examples])
    root = row.add(examples[0].prompt[:shared], ()) if shared else ()
    places: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        prompt = row.add(example.prompt[shared:], root)
        for number, completion in enumerate(example.completions):
            start = len(row.ids)
            row.add(completion[:-1], prompt)
            inside = range(start, start + len(completion) - 1)
            places[number * len(examples) + place] = [row.last(prompt), *inside]
    order = sorted(places)
    completions = [examples[n % len(examples)].completions[n // len(examples)] for n in order]
    return Batch(
        input_ids=torch.tensor([row.ids]),
        attention_mask=None,
        position_ids=torch.tensor([row.positions]),
        predictors=torch.tensor([place for number in order for place in places[number]]),
        targets=torch.tensor([token for completion in completions for token in completion]),
        sequence=torch.repeat_interleave(torch.tensor([len(completion) for completion in completions])),
        sequences=len(order),
        weight=torch.tensor([example.weight for example in examples], dtype=torch.float32),
        reference_logps=reference_column([example.reference_logps for example in examples]),
        ids=[example.id for example in examples],
        segments=tuple(row.segments),
        tokens=sum(len(example.prompt) + len(c) for example in examples for c in example.completions),
    )


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, 0 where a segment of their own would not pay."""
    if len(prompts) < 2:
        return 0
    columns = zip(*prompts, strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return shared if shared >= _SHORTEST_ROOT else 0
