"""A callback that counts the tokens that a fit trains on, over stops and restarts."""

from typing import Any

from lightning.pytorch import Callback, LightningModule

from evidence.costs import TOKENS
from guardreasoner.model.batch import Step


class TrainedTokens(Callback):
    """Log the unpadded tokens of all steps of this process so far, prompts included, as ``train/tokens``.

    A checkpoint holds the count, so that a fit that was killed continues it.
    """

    def __init__(self) -> None:
        self._tokens = 0

    def on_train_batch_end(self, trainer: Any, module: LightningModule, outputs: Any, step: Step, index: int) -> None:
        """Add the tokens of a step."""
        self._tokens += sum(batch.tokens for batch in step.batches[: step.counted])
        module.log(TOKENS, float(self._tokens))

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"tokens": self._tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a count."""
        self._tokens = int(state["tokens"])
