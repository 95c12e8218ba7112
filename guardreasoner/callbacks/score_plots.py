"""Score plots of a test in TensorBoard, the same ones as on the comparison page."""

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.callbacks.tensorboard import write_plots
from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import origin
from guardreasoner.evaluation.intervals import RESAMPLES
from guardreasoner.evaluation.scoring import score
from guardreasoner.records import Answer
from guardreasoner.report.score_plots import score_plots
from guardreasoner.sources.label_scores import scores_by_kind, scores_of_verdicts
from guardreasoner.workflow.ranges import CountOrZero, Seed

log = logging.getLogger("guardreasoner")


class ScorePlots(Callback):
    """Show the images ``test/f1``, ``test/confusion-…`` and ``test/hard``, with the numbers that ``score`` prints.

    Answers with scores add ``test/roc-…`` and ``test/reliability-…``.

    The plots are made after the predictions are written, so that an error in a plot cannot lose the predictions.
    Attacked records are left out; ``robustness`` compares those. So are records without labels.

    Args:
        resamples: Number of bootstrap resamples; 0 for no intervals.
        seed: Seed of the resampling.

    Raises:
        InputError: ``resamples`` is below 0.
    """

    def __init__(self, resamples: CountOrZero = RESAMPLES, seed: Seed = 0) -> None:
        if resamples < 0:
            raise InputError(f"ScorePlots: resamples must be at least 0, got {resamples}")
        self.resamples = resamples
        self.seed = seed
        self._answers: list[Answer] = []
        self._hard: list[Answer] = []

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Forget the answers of an earlier test."""
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
        """Collect the answers of a batch; the second data loader holds the hard records."""
        answers = self._hard if dataloader_idx == 1 else self._answers
        answers += [answer for answer in outputs if answer.record.gold() and not origin(answer.record)]

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Score the answers and write the plots."""
        answers, hard = self._answers, self._hard
        self._answers, self._hard = [], []
        if not answers or not trainer.loggers or trainer.fast_dev_run:
            return
        if trainer.world_size > 1:
            log.info("no score plots in TensorBoard: each of %s processes has only its own answers", trainer.world_size)
            return
        format = module.backbone.prompt_tokenizer.format
        tasks = format.tasks
        model_score = score(
            module.backbone.name,
            [answer.record for answer in answers],
            [answer.rollout for answer in answers],
            tasks,
            hard_records=list({answer.record.id: answer.record for answer in hard}.values()),
            hard_answers=[answer.rollout for answer in hard],
            resamples=self.resamples,
            seed=self.seed,
            label_scores=scores_by_kind(
                (answer.record.id, scores_of_verdicts(answer.scores, answer.verdicts)) for answer in answers
            ),
            format=format,
        )
        write_plots(trainer, "test", score_plots([model_score], tasks))
