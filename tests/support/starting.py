"""Starts of R-SFT that are counted: how many texts each of them tokenizes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardreasoner.model.backbone import Backbone
from guardreasoner.sources.files import Files
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.rsft import RSFTModule
from tests.support.tiny import quiet_trainer

LIMIT = 200
"""Tokens of the longest example that is kept."""


class Start:
    """Starts runs on one model, and counts the texts that they tokenize.

    Args:
        base: the model's folder.
        counted: how many texts were tokenized so far.
    """

    def __init__(self, base: Path, counted: Callable[[], int]) -> None:
        self.base = base
        self.counted = counted
        self.texts = 0
        self.module = ReasoningDataModule
        """The class of the data."""

    def __call__(self, **arguments: Any) -> ReasoningDataModule:
        settings: dict[str, Any] = {"cache": "kept", "max_length": LIMIT, "skip_too_long": True}
        settings["source"] = Files(train="train.jsonl", validation="validation.jsonl")
        data = self.module(**(settings | arguments))
        data.trainer = quiet_trainer()
        data.trainer.strategy.connect(RSFTModule(Backbone(str(self.base))))
        before = self.counted()
        try:
            data.setup("fit")
        finally:
            self.texts = self.counted() - before
        return data
