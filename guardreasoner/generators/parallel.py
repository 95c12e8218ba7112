"""Split requests into chunks and process chunks in parallel threads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from guardreasoner.model.backbone import Backbone

AnyRequest = TypeVar("AnyRequest")
Results = TypeVar("Results")


def chunks(requests: Iterable[AnyRequest], size: Callable[[AnyRequest], int]) -> Iterator[list[AnyRequest]]:
    """Yield consecutive requests in chunks.

    Args:
        requests: the requests, in order.
        size: takes the first request of a chunk and returns how many requests the chunk may hold.
    """
    remaining = iter(requests)
    for first in remaining:
        yield [first, *islice(remaining, size(first) - 1)]


def worker_count(backbone: Backbone, workers: int | None) -> int:
    """Return how many chunks are processed in parallel.

    Args:
        backbone: the loaded model.
        workers: the number that was set. None: torch's number of threads on a CPU, where a small network cannot use two
            threads, and 1 on other devices.
    """
    on_cpu = next(backbone.parameters()).device.type == "cpu"
    return workers or (torch.get_num_threads() if on_cpu else 1)


def parallel_map(
    work: Callable[[Sequence[AnyRequest]], Results],
    chunks: Sequence[Sequence[AnyRequest]],
    backbone: Backbone,
    workers: int | None,
) -> Iterator[Results]:
    """Yield the results of each chunk, in the order of the chunks.

    Args:
        work: returns the results of a chunk.
        chunks: chunks of requests.
        backbone: the model; its device decides the default number of workers.
        workers: chunks processed in parallel, each on one thread; None as in :func:`worker_count`.
    """
    workers = min(worker_count(backbone, workers), len(chunks))
    if workers < 2:
        yield from map(work, chunks)
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1)) as pool:
            yield from pool.map(work, chunks)
    finally:
        torch.set_num_threads(threads)  # the workers also set it for MKL and for threads that start later
