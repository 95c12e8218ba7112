"""A few outputs as text in TensorBoard, so that one can read what the numbers are about."""

from itertools import islice
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.generators import Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.records import Record


class SampleTexts(Callback):
    """Show greedy outputs at the end of a fit, and the first outputs of a test.

    Args:
        count: how many.
        max_new_tokens: longest output at the end of a fit.
    """

    def __init__(self, count: int = 4, max_new_tokens: int = 256) -> None:
        self.count = count
        self.max_new_tokens = max_new_tokens
        self._seen = 0

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Answer the first validation records with the trained model."""
        records = list(islice(trainer.datamodule.source.records("validation"), self.count))
        if not (self.count and records and trainer.is_global_zero) or trainer.fast_dev_run:
            return
        encoder = module.backbone.encoder
        requests = [Request(r.id, tuple(encoder.prompt(r)), encoder.text(r), (0,)) for r in records]
        generator = LocalGenerator(module.backbone, self.max_new_tokens, temperature=0.0)
        for record, completion in zip(records, generator.generate(requests), strict=True):
            self._show(trainer, f"texts/{record.id}", record, completion.text, trainer.global_step)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show outputs until there are enough."""
        for answer in outputs[: max(0, self.count - self._seen)]:
            self._show(trainer, f"texts/{answer.record.id}", answer.record, answer.rollout.completion, 0)
            self._seen += 1

    def _show(self, trainer: Any, tag: str, record: Record, text: str, step: int) -> None:
        # indented: TensorBoard renders Markdown, which escapes the text of a code block
        shown = f"{record.prompt}\n\n→ {record.response}\n\ngold: {record.gold()}\n\n{text}"
        block = "\n".join(f"    {line}" for line in shown.splitlines())
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_text"):
                logger.experiment.add_text(tag, block, step)
