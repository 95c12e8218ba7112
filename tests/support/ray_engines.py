"""Engines that tests let run in actors of Ray; in a file of their own, as every actor has to import it."""

import os
import time
from collections.abc import Iterable, Iterator

from guardreasoner.generators import Completion, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone

NEW = 16
CHUNK = 4


class Logged(LocalGenerator):
    """Writes into a file which process begins which chunk on which node, and takes its time.

    Args:
        backbone: the model.
        log: the file.
        seconds: that a chunk takes at least.
    """

    def __init__(self, backbone: Backbone, log: str, seconds: float = 0.0) -> None:
        super().__init__(backbone, NEW, chunk=CHUNK)
        self.log = log
        self.seconds = seconds

    def parts(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        import ray

        asked = list(requests)
        with open(self.log, "a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()} {os.getpid()} {asked[0].record_id}\n")
        time.sleep(self.seconds)
        yield from super().parts(asked)


class Broken(LocalGenerator):
    """Cannot answer."""

    needs_weights = False

    def parts(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        raise RuntimeError("CUDA out of memory\nand more lines")
