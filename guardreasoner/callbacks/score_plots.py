"""A test's scores as images in TensorBoard: what the report draws of its predictions."""

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.callbacks.tensorboard_plots import add_plots
from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import origin
from guardreasoner.evaluation.intervals import RESAMPLES
from guardreasoner.evaluation.scoring import score
from guardreasoner.records import Answer
from guardreasoner.report.score_plots import score_plots

log = logging.getLogger("guardreasoner")


class ScorePlots(Callback):
    """Show ``test/f1``, ``test/confusion-…`` and ``test/hard``, which ``score`` finds in the same predictions.

    They are made last, after the predictions are written, so that no plot can cost a night's answers. Records that are
    attacks are left out: ``robustness`` compares those.

    Args:
        resamples: how many the intervals are made of; 0 for no intervals.
        seed: of the resampling.

    Raises:
        InputError: resamples below 0.
    """

    def __init__(self, resamples: int = RESAMPLES, seed: int = 0) -> None:
        if resamples < 0:
            raise InputError(f"ScorePlots: resamples must be at least 0, got {resamples}")
        self.resamples = resamples
        self.seed = seed
        self._answers: list[Answer] = []
        self._hard: list[Answer] = []

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start empty."""
        self._answers, self._hard = [], []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a chunk's answers."""
        kept = self._hard if dataloader_idx == 1 else self._answers
        kept += [answer for answer in outputs if not origin(answer.record)]

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Score and draw."""
        answers, hard = self._answers, self._hard
        self._answers, self._hard = [], []
        if not answers or not trainer.loggers or trainer.fast_dev_run:
            return
        if trainer.world_size > 1:
            log.info("no figures of scores in TensorBoard: each of %s processes has a part", trainer.world_size)
            return
        tasks = module.backbone.prompt_tokenizer.format.tasks
        found = score(
            module.backbone.name,
            [answer.record for answer in answers],
            [answer.rollout for answer in answers],
            tasks,
            hard_records=list({answer.record.id: answer.record for answer in hard}.values()),
            hard_answers=[answer.rollout for answer in hard],
            resamples=self.resamples,
            seed=self.seed,
        )
        add_plots(trainer, "test", score_plots([found], tasks))
