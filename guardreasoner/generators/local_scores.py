"""Log-probabilities of given continuations with the model in this process: packed trees, or plain rows."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import ceil
from typing import TypeVar

import torch

from guardreasoner.generators import ScoreRequest, Scores
from guardreasoner.generators.parallel import chunks, parallel_map, worker_count
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example, common_prefix_length, two_row
from guardreasoner.model.log_probs import sequence_logps
from guardreasoner.model.packed_attention import KeyValues, SharedPrefix, TreeContext
from guardreasoner.model.packing import CompletionTree, packed_trees

_WINDOW = 512
"""Requests that are sorted by length together; it bounds the number of requests in memory."""

_MAX_TOKENS = 8192
"""Maximum number of tokens in one forward pass, unless a single request has more; it bounds the memory."""

Result = TypeVar("Result")


def score_packed(backbone: Backbone, requests: Iterable[ScoreRequest], workers: int | None) -> Iterator[Scores]:
    """Yield the scores of each request, in order; many requests share one packed row.

    The prefix that all prompts of a window share is computed once for the window, each prompt once for its
    continuations, and each prefix that continuations share once.

    Args:
        backbone: a loaded model that supports packed rows.
        requests: the requests.
        workers: rows computed in parallel, as in :func:`~guardreasoner.generators.parallel.parallel_map`.
    """
    device = next(backbone.parameters()).device
    for window in chunks(requests, lambda first: _WINDOW):
        prefix_length = common_prefix_length([request.prompt for request in window])
        trees = [CompletionTree(request.prompt[prefix_length:], request.continuations) for request in window]
        with torch.inference_mode():
            prefix = backbone.encode_prefix(torch.tensor(window[0].prompt[:prefix_length], device=device).long())
        batches = _batches([tree.tokens for tree in trees], worker_count(backbone, workers), padded=False)
        score = partial(_score_batch, backbone, trees, prefix)
        logps = _in_order(batches, parallel_map(score, batches, backbone, workers))
        for request, values in zip(window, logps, strict=True):
            yield Scores(request.record_id, tuple(values))


def score_plain(backbone: Backbone, requests: Iterable[ScoreRequest], workers: int | None) -> Iterator[Scores]:
    """Yield the scores of each request, in order; each continuation is computed in a padded row with its prompt.

    Args:
        backbone: a loaded model.
        requests: the requests.
        workers: batches computed in parallel, as in :func:`~guardreasoner.generators.parallel.parallel_map`.
    """
    for window in chunks(requests, lambda first: _WINDOW):
        rows = [Example(r.record_id, r.prompt, (ids,)) for r in window for ids in r.continuations]
        batches = _batches([row.length for row in rows], worker_count(backbone, workers), padded=True)
        score = partial(_score_rows, backbone, rows)
        logps = iter(_in_order(batches, parallel_map(score, batches, backbone, workers)))
        for request in window:
            yield Scores(request.record_id, tuple(next(logps) for _ in request.continuations))


def _batches(sizes: Sequence[int], workers: int, padded: bool) -> list[list[int]]:
    """Return the indices of items in batches within the limit of tokens, the largest items first.

    Args:
        sizes: tokens of each item.
        workers: batches computed in parallel; a few items are divided among them.
        padded: whether an item takes as many tokens as the largest of its batch.
    """
    limit = min(_MAX_TOKENS, ceil(sum(sizes) / workers))
    batches: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(sizes)), key=lambda index: sizes[index], reverse=True):
        size = sizes[batches[-1][0]] if padded and batches else sizes[index]
        if not batches or tokens + size > limit:
            batches.append([])
            tokens, size = 0, sizes[index]
        batches[-1].append(index)
        tokens += size
    return batches


def _in_order(batches: Sequence[Sequence[int]], results: Iterable[Sequence[Result]]) -> list[Result]:
    """Return the results of all batches by the index of their items."""
    by_index = {
        index: result
        for indices, batch_results in zip(batches, results, strict=True)
        for index, result in zip(indices, batch_results, strict=True)
    }
    return [by_index[index] for index in range(len(by_index))]


@torch.inference_mode()
def score_trees(
    backbone: Backbone,
    trees: Sequence[CompletionTree],
    prefix: SharedPrefix | None,
    kv_out: dict[int, KeyValues] | None = None,
) -> list[list[float]]:
    """Return the summed log-probabilities of the completions of each tree, all trees computed in one row.

    Args:
        backbone: a loaded model that supports packed rows.
        trees: at least one with a completion that has tokens.
        prefix: tokens that precede every tree; None if there are none.
        kv_out: if given, receives the keys and values of each layer for the row; it begins with the first prompt.
    """
    device = next(backbone.parameters()).device
    row = packed_trees(trees, prefix.length if prefix else 0, device)
    context = TreeContext(row.segments, prefix, kv_out)
    hidden = backbone.packed_hidden(row.input_ids, row.position_ids, context)
    hidden = hidden[torch.searchsorted(context.predict_positions(device), row.predictors)]
    token_logps = backbone.target_logps(hidden, row.targets).double()
    logps = iter(sequence_logps(token_logps[row.target], row.sequence, row.sequences).tolist())
    return [[next(logps) for _ in tree.completions] for tree in trees]


def _score_batch(
    backbone: Backbone, trees: Sequence[CompletionTree], prefix: SharedPrefix | None, indices: Sequence[int]
) -> list[list[float]]:
    """Return the summed log-probabilities of the completions of the trees at ``indices``."""
    batch = [trees[index] for index in indices]
    if not any(tree.runs for tree in batch):
        return [[0.0] * len(tree.completions) for tree in batch]
    return score_trees(backbone, batch, prefix)


@torch.inference_mode()
def _score_rows(backbone: Backbone, rows: Sequence[Example], indices: Sequence[int]) -> list[float]:
    """Return the summed log-probability of the completion of each row at ``indices``, computed in one batch."""
    batch = two_row([rows[index] for index in indices], backbone.prompt_tokenizer.padding)
    batch = batch.to(next(backbone.parameters()).device)
    logps: list[float] = sequence_logps(backbone(batch).double(), batch.sequence, batch.sequences).tolist()
    return logps
