"""Preference data that a trainer has set up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guardreasoner.model.backbone import Backbone
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.preference_data import PreferenceDataModule
from tests.support.tiny import TinySource, quiet_trainer


def prepared(base: Path, rollouts: Sequence[Path], **arguments: Any) -> PreferenceDataModule:
    """Return a data module that a trainer with a model has set up."""
    data = PreferenceDataModule(
        **({"source": TinySource(), "rollouts": [str(path) for path in rollouts], "validation_share": 0.0} | arguments)
    )
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(HSDPOModule(Backbone(str(base))))
    data.setup("fit")
    return data
