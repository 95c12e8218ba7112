"""Packed rows: many completions in one row without padding, with the shared parts of their prompts computed once.

A row consists of segments: each prompt, and each completion, whose parent is its prompt. To score many completions of a
prompt, segments form a tree instead (:class:`CompletionTree`). A token attends to its parent segments and to its own
segment up to itself. The prefix that all prompts of a step share (the instruction) is not in the row: it is encoded
once per step, and every segment attends to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from guardreasoner.model.batch import (
    Batch,
    Example,
    Segment,
    common_prefix_length,
    completion_order,
    per_completion,
)

_Group = list[tuple[tuple[int, ...], int]]
"""Token ids with the number of the completion that they belong to."""


class CompletionTree:
    """A prompt and its completions as a tree of token runs, in which a prefix that completions share occurs once.

    The last token of a completion is left out of the tree, since nothing is predicted from it.

    Args:
        prompt: token ids after the shared prefix; at least one.
        completions: token ids of each completion.
    """

    def __init__(self, prompt: tuple[int, ...], completions: Sequence[tuple[int, ...]]) -> None:
        self.prompt_length = len(prompt)
        self.completions = tuple(completions)
        self.runs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        """Token ids of each run, and the indices of the runs before it; the first run begins with the prompt."""
        self.paths: list[tuple[int, ...]] = [()] * len(self.completions)
        """The indices of the runs of each completion; empty for a completion without tokens."""
        inputs = sorted((prompt + ids[:-1], number) for number, ids in enumerate(self.completions) if ids)
        pending: list[tuple[_Group, int, tuple[int, ...]]] = [(inputs, 0, ())] if inputs else []
        while pending:
            group, start, path = pending.pop()
            first, last = group[0][0], group[-1][0]  # in sorted order all others lie between these
            pairs = zip(first[start:], last[start:], strict=False)
            end = start + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            self.runs.append((first[start:end], path))
            path = (*path, len(self.runs) - 1)
            branches: dict[int, _Group] = {}
            for ids, number in group:
                if len(ids) == end:
                    self.paths[number] = path
                else:
                    branches.setdefault(ids[end], []).append((ids, number))
            pending += [(branch, end, path) for branch in branches.values()]

    @property
    def tokens(self) -> int:
        """Number of tokens in the tree."""
        return sum(len(ids) for ids, _ in self.runs)


@dataclass(frozen=True)
class PackedTrees:
    """A row with the trees of many prompts.

    Each completion token that is predicted from the same tokens as another one, and equals it, is computed once.

    Args:
        input_ids: (1, T) int64.
        position_ids: (1, T) int64.
        segments: spans of the row.
        predictors: (N,) int64, the position in the row that precedes each target.
        targets: (N,) int64, distinct completion tokens.
        target: (M,) int64, the index among the N targets of each completion token, completion after completion.
        sequence: (M,) int64, the completion that each completion token belongs to, from 0 to B - 1.
        sequences: number of completions, B.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    predictors: Tensor
    targets: Tensor
    target: Tensor
    sequence: Tensor
    sequences: int


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


def packed_trees(trees: Sequence[CompletionTree], prefix_length: int, device: torch.device) -> PackedTrees:
    """Put trees into one row, in order.

    Args:
        trees: at least one with a completion that has tokens.
        prefix_length: tokens of the shared prefix that precedes every prompt.
        device: where the tensors are allocated.
    """
    row = _Row(prefix_length)
    indices: dict[tuple[int, int], int] = {}  # by predictor and target
    target: list[int] = []
    lengths = []
    for tree in trees:
        first = len(row.segments)
        for ids, path in tree.runs:
            parents = tuple(first + index for index in path)
            row.add(ids, parents, num_predict=len(ids) if path else len(ids) - tree.prompt_length + 1)
        for completion, path in zip(tree.completions, tree.paths, strict=True):
            positions = _positions(row.segments[first + index] for index in path)
            keys = zip(positions[tree.prompt_length - 1 :], completion, strict=True)
            target += [indices.setdefault(key, len(indices)) for key in keys]
            lengths.append(len(completion))
    predictors, targets = zip(*indices, strict=True)
    return PackedTrees(
        input_ids=torch.tensor([row.ids], device=device),
        position_ids=torch.tensor([row.positions], device=device),
        segments=tuple(row.segments),
        predictors=torch.tensor(predictors, device=device),
        targets=torch.tensor(targets, device=device),
        target=torch.tensor(target, device=device),
        sequence=torch.repeat_interleave(torch.tensor(lengths)).to(device),
        sequences=len(lengths),
    )


def _positions(segments: Iterator[Segment]) -> list[int]:
    return [position for segment in segments for position in range(segment.start, segment.end)]
