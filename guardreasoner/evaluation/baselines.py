"""Baselines that a guard must beat: classifiers of the words of a conversation, tested like a guard.

The classifiers are scikit-learn's, one for each task, trained on the training split of the benchmark's source.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torchmetrics import Metric

from guardreasoner.errors import InputError
from guardreasoner.evaluation.benchmark_data import BenchmarkDataModule
from guardreasoner.evaluation.verdict_metrics import VerdictF1
from guardreasoner.formats.published import PublishedFormat
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import answer_block, conversation
from guardreasoner.records import Answer, Record, Rollout
from guardreasoner.sources.contamination import ContaminationIndex
from guardreasoner.tasks import Task

log = logging.getLogger("guardreasoner")


class Classifier(Protocol):
    """A classifier with scikit-learn's interface.

    Args:
        classes_: the labels that it was trained on, in the order of the columns of its probabilities.
    """

    classes_: NDArray[np.str_]

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> Any:
        """Train on texts and their labels."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return (texts, classes) probabilities."""
        ...


def majority() -> Classifier:
    """Return the classifier that gives every text the most frequent label; its score is the share of that label."""
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="prior")


def tf_idf() -> Classifier:
    """Return logistic regression on the TF-IDF weights of words and pairs of words, with balanced classes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    return make_pipeline(words, LogisticRegression(class_weight="balanced", C=10.0, max_iter=1000))


class BaselineModule(LightningModule):
    """Answers benchmarks with a classifier for each task, trained when the test begins.

    Its predictions have the form of a guard's: an answer block without reasoning, and the probability of each label. A
    task that no training record is labelled for has no verdict, and a line says so.

    Args:
        backbone: model whose tasks and prompts the predictions are written in; its weights are not loaded.
        classifier: function that returns a new classifier, such as :func:`majority` or :func:`tf_idf`.
        metric: factory of the metric that counts verdicts, called with the tasks.
        skip_contaminated: leave out and count training records whose prompt is tested, instead of refusing them.
    """

    def __init__(
        self,
        backbone: Backbone,
        classifier: Callable[[], Any] = tf_idf,
        metric: Callable[[Sequence[Task]], Metric] = VerdictF1,
        skip_contaminated: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.metric = metric
        self.skip_contaminated = skip_contaminated
        self._classifiers: dict[str, Classifier] = {}

    def setup(self, stage: str) -> None:
        """Train the classifiers.

        Raises:
            InputError: no training record is labelled for a task of the model, a training prompt is also tested, or the
                classifier cannot be made.
        """
        data: BenchmarkDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        tested = ContaminationIndex(data.records)
        found = tested.filter(data.source.records("train"), "training data of the baseline", self.skip_contaminated)
        records = list(found)
        tasks = self.backbone.prompt_tokenizer.format.tasks
        for task in tasks:
            labelled = [(_text(record), label) for record in records if (label := record.labels.get(task.name))]
            if labelled:
                texts, labels = zip(*labelled, strict=True)
                several = len(set(labels)) > 1
                classifier = self._new_classifier() if several else majority()
                classifier.fit(texts, labels)
                self._classifiers[task.name] = classifier
        without = ", ".join(task.name for task in tasks if task.name not in self._classifiers)
        if not self._classifiers:
            raise InputError(f"data.source: no training record has a label for {without}")
        if without:
            log.info(f"no training record has a label for {without}: no verdicts there")
        self.verdicts = self.metric(tasks)

    def _new_classifier(self) -> Classifier:
        try:
            made: Classifier = self.classifier()
        except TypeError as error:
            raise InputError(f"model.classifier: {self.classifier.__name__}() makes no classifier: {error}") from None
        return made

    def transfer_batch_to_device(self, batch: list[Record], device: torch.device, dataloader_idx: int) -> list[Record]:
        """Return the records unchanged."""
        return batch

    def test_step(  # type: ignore[override]
        self, records: list[Record], index: int, dataloader_idx: int = 0
    ) -> list[Answer]:
        """Return the answer to each record; none for the second loader, whose outputs a guard samples."""
        if dataloader_idx:
            return []
        tasks = self.backbone.prompt_tokenizer.format.tasks
        texts = [_text(record) for record in records]
        columns = {name: classifier.predict_proba(texts) for name, classifier in self._classifiers.items()}
        answers = [
            self._answer(record, tasks, {name: rows[row] for name, rows in columns.items()})
            for row, record in enumerate(records)
        ]
        self.verdicts.update([answer.verdicts for answer in answers], [record.labels for record in records])
        return answers

    def on_test_epoch_end(self) -> None:
        """Log the values of the metric."""
        self.log_dict({f"test/{name}": value for name, value in self.verdicts.compute().items()})

    def _answer(self, record: Record, tasks: Sequence[Task], probabilities: dict[str, NDArray[np.float64]]) -> Answer:
        scores: dict[str, dict[str, float]] = {}
        for name, row in probabilities.items():
            known = dict(zip(map(str, self._classifiers[name].classes_), map(float, row), strict=True))
            labels = next(task.labels for task in tasks if task.name == name)
            scores[name] = {label: known.get(label, 0.0) for label in labels}
        verdicts = {task.name: _most_likely(scores.get(task.name)) for task in tasks}
        name = self.classifier.__name__
        rollout = Rollout(record.id, name, name, 0, 0, self._text(record, verdicts), "direct")
        return Answer(record, rollout, verdicts, {"direct": scores})

    def _text(self, record: Record, verdicts: Mapping[str, str | None]) -> str:
        """Return the verdicts in the format that is stored with the predictions."""
        format = self.backbone.prompt_tokenizer.format
        if isinstance(format, PublishedFormat):
            return format.answer(replace(record, labels=verdicts))
        return answer_block(verdicts, format.tasks)


def _most_likely(probabilities: Mapping[str, float] | None) -> str | None:
    return max(probabilities, key=probabilities.__getitem__) if probabilities else None


def _text(record: Record) -> str:
    return f"{record.policy or ''}\n{conversation(record)}"
