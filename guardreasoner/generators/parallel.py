"""Chunks of requests, and their work side by side on threads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from guardreasoner.generators import Completion, Request
from guardreasoner.model.backbone import Backbone


def chunks(requests: Iterable[Request], size: Callable[[Request], int]) -> Iterator[list[Request]]:
    """Yield requests in their order, as many together as ``size`` says of the first of them."""
    waiting = iter(requests)
    for first in waiting:
        yield [first, *islice(waiting, size(first) - 1)]


def parallel_map(
    work: Callable[[Sequence[Request]], list[Completion]],
    parts: Sequence[Sequence[Request]],
    backbone: Backbone,
    workers: int | None,
) -> Iterator[list[Completion]]:
    """Yield what each part gives, in the order of the parts, whichever is done first.

    Args:
        work: returns the completions of a part.
        parts: requests.
        backbone: the model; its device decides how many parts are worked on at once.
        workers: how many, each on one thread; None: as many as torch has threads on a CPU, where a small network
            cannot keep two threads busy, and 1 on any other device.
    """
    on_cpu = next(backbone.parameters()).device.type == "cpu"
    workers = min(workers or (torch.get_num_threads() if on_cpu else 1), len(parts))
    if workers < 2:
        yield from map(work, parts)
        return
    with ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1)) as pool:
        yield from pool.map(work, parts)
