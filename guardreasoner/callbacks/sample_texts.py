"""A few sample outputs as texts in TensorBoard."""

import textwrap
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.callbacks.tensorboard import write_text
from guardreasoner.generators import Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.records import Record
from guardreasoner.report.plot import shorten
from guardreasoner.training.sharding import is_sharded
from guardreasoner.workflow.ranges import Count, CountOrZero
from guardreasoner.workflow.shown_parts import shown_parts

_MAX_CHARACTERS = 8_000
_MAX_CHARACTERS_OF_MESSAGE = 1_000
"""The same for a message of a longer conversation."""
_WIDTH = 110


class SampleTexts(Callback):
    """Show greedy outputs on validation records after a fit, and the first outputs of a test.

    Args:
        count: Number of outputs.
        max_new_tokens: Longest output after a fit, in tokens.
    """

    def __init__(self, count: CountOrZero = 4, max_new_tokens: Count = 256) -> None:
        self.count = count
        self.max_new_tokens = max_new_tokens
        self._shown = 0

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Answer the first validation records with the trained model, unless its weights are sharded."""
        if is_sharded(trainer):
            return
        records = list(islice(trainer.datamodule.source.records("validation"), self.count))
        if not (self.count and records and trainer.is_global_zero) or trainer.fast_dev_run:
            return
        prompt_tokenizer = module.backbone.prompt_tokenizer
        speed = prompt_tokenizer.format.speed()
        requests = [
            Request(r.id, tuple(prompt_tokenizer.prompt(r, speed)), prompt_tokenizer.text(r, speed), (0,))
            for r in records
        ]
        generator = LocalGenerator(module.backbone, self.max_new_tokens, temperature=0.0)
        for record, completion in zip(records, generator.generate(requests), strict=True):
            _write(trainer, record, completion.text, trainer.global_step)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start to count anew."""
        self._shown = 0

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show outputs until ``count`` are shown."""
        for answer in outputs[: max(0, self.count - self._shown)]:
            _write(trainer, answer.record, answer.rollout.completion, 0)
            self._shown += 1


def _write(trainer: Any, record: Record, output: str, step: int) -> None:
    write_text(trainer, f"texts/{shorten(record.id, 80)}", _as_code_block(record, output), step)


def _as_code_block(record: Record, output: str) -> str:
    """Return record and output as an indented code block, the only Markdown that TensorBoard shows verbatim."""
    gold = ", ".join(f"{task} {label}" for task, label in record.gold().items())
    limit = _MAX_CHARACTERS if record.is_one_turn else _MAX_CHARACTERS_OF_MESSAGE
    parts = [f"{name.capitalize()}:\n{_truncate(part, limit)}" for name, part in shown_parts(record)]
    parts += [f"Gold labels:\n{gold}", f"Output:\n{_truncate(output, _MAX_CHARACTERS)}"]
    text = "\n\n".join(parts)
    return "\n".join(f"    {line}" for line in _wrapped_lines(text))


def _truncate(text: str, limit: int) -> str:
    hidden = f"\n… {len(text) - limit:,} more characters" if len(text) > limit else ""
    return text[:limit] + hidden


def _wrapped_lines(text: str) -> Iterator[str]:
    """Yield wrapped lines with invisible characters (control codes, direction marks) replaced by their escapes."""
    for line in text.splitlines():
        visible = "".join(
            letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else _escape(letter)
            for letter in line.replace("\t", "    ")
        )
        yield from textwrap.wrap(visible, _WIDTH, replace_whitespace=False, drop_whitespace=False) or [""]


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
