"""Engines for tests of Ray; in a module of their own, because every actor has to import them."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from guardreasoner.generators import Completion, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone

NEW = 16
CHUNK = 4
GATE_DEADLINE = 300.0
"""Seconds after which a closed gate is an error."""


class GatedGenerator(LocalGenerator):
    """Logs node, process and first record of each chunk, then waits before later chunks until a gate is opened.

    Args:
        backbone: the model.
        folder: where ``log`` is written and the file ``gate`` is awaited.
        free: chunks whose first record is below this number do not wait.
    """

    def __init__(self, backbone: Backbone, folder: str, free: int) -> None:
        super().__init__(backbone, NEW, chunk=CHUNK)
        self.folder = folder
        self.free = free

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        import ray

        chunk = list(requests)
        first, gate = chunk[0].record_id, Path(self.folder, "gate")
        with open(Path(self.folder, "log"), "a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()} {os.getpid()} {first}\n")
        deadline = time.monotonic() + GATE_DEADLINE
        while int(first.rpartition("/")[2]) >= self.free and not gate.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{gate} was not opened")
            time.sleep(0.05)
        yield from super().generate_groups(chunk)


class FailingGenerator(LocalGenerator):
    """Raises an error on every request."""

    needs_weights = False

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        raise RuntimeError("CUDA out of memory\nand more lines")
