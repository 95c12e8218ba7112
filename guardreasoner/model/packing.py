"""Packed rows: many completions in one row without padding, with the shared parts of their prompts computed once.

A row consists of segments: each prompt, and each completion, whose parent is its prompt. A token attends to its parent
segments and to its own segment up to itself. The prefix that all prompts of a step share (the instruction) is not in
the row: it is encoded once per step, and every segment attends to it.
"""

from collections.abc import Sequence

import torch

from guardreasoner.model.batch import (
    Batch,
    Example,
    Segment,
    common_prefix_length,
    completion_order,
    per_completion,
)


class _Row:
    """A packed row under construction.

    Args:
        position: position of the first token after the shared prefix.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []

    def add(self, ids: Sequence[int], parents: tuple[int, ...], num_predict: int) -> tuple[int, ...]:
        """Append a segment whose last ``num_predict`` tokens predict; return the parents of a segment that follows."""
        if not ids:
            return parents
        first = self.position + sum(self.segments[index].end - self.segments[index].start for index in parents)
        self.segments.append(Segment(len(self.ids), len(self.ids) + len(ids), parents, num_predict))
        self.ids += ids
        self.positions += range(first, first + len(ids))
        return (*parents, len(self.segments) - 1)

    def last(self, path: tuple[int, ...]) -> int:
        """Return the index of the last token on a path of segments."""
        return self.segments[path[-1]].end - 1


def packed(examples: Sequence[Example], padding: int, prefix_length: int | None = None) -> Batch:
    """Put all examples of a micro-batch into one row: each prompt once, the shared prefix apart, no padding.

    The last token of a completion is left out of the row, since nothing is predicted from it.

    Args:
        examples: at least one.
        padding: not used.
        prefix_length: tokens that all prompts of the step share, fewer than any prompt has; None determines it from
            these examples.
    """
    if prefix_length is None:
        prefix_length = common_prefix_length([example.prompt for example in examples])
    row = _Row(prefix_length)
    predictors: dict[tuple[int, int], list[int]] = {}
    for index, example in enumerate(examples):
        prompt = row.add(example.prompt[prefix_length:], (), num_predict=1)
        for number, completion in enumerate(example.completions):
            start = len(row.ids)
            row.add(completion[:-1], prompt, num_predict=len(completion) - 1)
            predictors[number, index] = [row.last(prompt), *range(start, start + len(completion) - 1)]
    order = completion_order(examples)
    return Batch(
        input_ids=torch.tensor([row.ids]),
        attention_mask=None,
        position_ids=torch.tensor([row.positions]),
        predictors=torch.tensor([position for key in order for position in predictors[key]]),
        segments=tuple(row.segments),
        prefix_ids=torch.tensor(examples[0].prompt[:prefix_length], dtype=torch.int64),
        **per_completion(examples, order),
    )
