"""A few outputs as text in TensorBoard, so that one can read what the numbers are about."""

import textwrap
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.generators import Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.records import Record
from guardreasoner.report.plotting import short

_LONGEST = 8_000
_WIDTH = 110


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
        prompt_tokenizer = module.backbone.prompt_tokenizer
        requests = [Request(r.id, tuple(prompt_tokenizer.prompt(r)), prompt_tokenizer.text(r), (0,)) for r in records]
        generator = LocalGenerator(module.backbone, self.max_new_tokens, temperature=0.0)
        for record, completion in zip(records, generator.generate(requests), strict=True):
            self._show(trainer, record, completion.text, trainer.global_step)

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
            self._show(trainer, answer.record, answer.rollout.completion, 0)
            self._seen += 1

    def _show(self, trainer: Any, record: Record, text: str, step: int) -> None:
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_text"):
                logger.experiment.add_text(f"texts/{short(record.id, 80)}", _as_shown(record, text), step)


def _as_shown(record: Record, output: str) -> str:
    """Return a block of code: TensorBoard renders Markdown, and of its forms this alone leaves a text as it is."""
    gold = ", ".join(f"{task} {label}" for task, label in record.gold().items())
    parts = {"Prompt": record.prompt, "Response": record.response, "Gold labels": gold, "Output": output}
    shown = "\n\n".join(f"{name}:\n{_cut(text)}" for name, text in parts.items() if text is not None)
    return "\n".join(f"    {line}" for line in _lines(shown))


def _cut(text: str) -> str:
    more = f"\n… {len(text) - _LONGEST:,} more characters" if len(text) > _LONGEST else ""
    return text[:_LONGEST] + more


def _lines(text: str) -> Iterator[str]:
    """Yield lines that fit the screen; what cannot be seen, and might change what is, is written as its escape."""
    for line in text.splitlines():
        seen = "".join(
            letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else _escape(letter)
            for letter in line.replace("\t", "    ")
        )
        yield from textwrap.wrap(seen, _WIDTH, replace_whitespace=False, drop_whitespace=False) or [""]


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
