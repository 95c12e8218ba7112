"""Many completions in one row without padding: what their prompts share is computed once.

A row is made of segments: each prompt, and each completion, which follows its prompt. A token sees its own segment up
to itself, and all of those above it. What all prompts of the step begin with (the instruction) is not in the row: it is
computed apart, once a step, and every segment follows it.
"""

from collections.abc import Sequence

import torch

from guardreasoner.model.batch import Batch, Example, Segment, common_prefix_length, reference_column


class _Row:
    """A packed row while it grows.

    Args:
        position: of a first token.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []

    def add(self, ids: Sequence[int], parents: tuple[int, ...], num_predict: int) -> tuple[int, ...]:
        """Append a segment whose last ``num_predict`` tokens predict; return what those must name that follow it."""
        if not ids:
            return parents
        before = self.position + sum(self.segments[number].end - self.segments[number].start for number in parents)
        self.segments.append(Segment(len(self.ids), len(self.ids) + len(ids), parents, num_predict))
        self.ids += ids
        self.positions += range(before, before + len(ids))
        return (*parents, len(self.segments) - 1)

    def last(self, path: tuple[int, ...]) -> int:
        """Return the place of the last token on a path."""
        return self.segments[path[-1]].end - 1


def packed(examples: Sequence[Example], padding: int, shared: int | None = None) -> Batch:
    """Put all examples of a micro-batch into one row, each prompt once, their common beginning apart, nothing padded.

    A completion's last token is not put in, as nothing is predicted from it.

    Args:
        examples: with as many completions each.
        padding: not needed here.
        shared: tokens with which all prompts of the whole step begin, fewer than any has; None: find out for these.
    """
    shared = common_prefix_length([example.prompt for example in examples]) if shared is None else shared
    row = _Row(shared)
    places: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        prompt = row.add(example.prompt[shared:], (), num_predict=1)
        for number, completion in enumerate(example.completions):
            start = len(row.ids)
            row.add(completion[:-1], prompt, num_predict=len(completion) - 1)
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
        prefix_ids=torch.tensor(examples[0].prompt[:shared], dtype=torch.int64),
        tokens=sum(len(example.prompt) + len(c) for example in examples for c in example.completions),
    )
