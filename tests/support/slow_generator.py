"""The local engine, slowed down, so that a test can interrupt a run between two groups of outputs."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from guardreasoner.generators import Completion, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone


class SlowGenerator(LocalGenerator):
    """Generates groups of three requests and waits after each.

    Args:
        backbone: the model.
        temperature: sampling temperature.
        seconds: how long to wait after each group.
    """

    def __init__(self, backbone: Backbone, temperature: float = 1.0, seconds: float = 0.3) -> None:
        super().__init__(backbone, 8, temperature, workers=1, chunk=3)
        self.seconds = seconds

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the outputs; the pace does not."""
        return super().settings

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield a group after another."""
        for group in super().generate_groups(requests):
            time.sleep(self.seconds)
            yield group
