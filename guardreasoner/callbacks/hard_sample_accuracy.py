"""Hard-sample accuracy: how often new outputs are right on records whose outputs were mixed during mining."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class HardSampleAccuracy(Callback):
    """Log ``test/hard_sample_accuracy``: the share of outputs on the hard records that match every gold label."""

    def __init__(self) -> None:
        self._right: list[bool] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Grade the outputs of the second data loader, which holds the hard records."""
        if dataloader_idx == 1:
            self._right += [all(a.verdicts.get(t) == label for t, label in a.record.gold().items()) for a in outputs]

    def on_test_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Log the mean over outputs, if there are hard records."""
        if self._right:
            module.log("test/hard_sample_accuracy", sum(self._right) / len(self._right))
        self._right = []
