"""F1 per class of verdicts during a test run, counted by torchmetrics, with "unparsed" as an outcome of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification.confusion_matrix import MulticlassConfusionMatrix

from guardreasoner.evaluation.scoring.metrics import ACCURACY, F1, classification_scores
from guardreasoner.evaluation.scoring.readings import counts_by_reading
from guardreasoner.prompts import Verdicts
from guardreasoner.tasks import Task


class VerdictF1(Metric):
    """F1 of each label of each task, accuracy and unparsed rate.

    The values equal those of ``score`` in mode ``strict`` with all records taken as one benchmark. Class L of a task
    with L labels is "unparsed". A record without a gold label for a task does not count for that task, and one without
    any label for none. A task with ordered labels also has the values of its two readings.

    Args:
        tasks: tasks that the verdicts are on.
    """

    full_state_update = False

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.confusion: Any = torch.nn.ModuleDict(
            {task.name: MulticlassConfusionMatrix(len(task.labels) + 1) for task in self.tasks}
        )
        self.unparsed: Tensor
        self.expected_verdicts: Tensor
        self.correct_records: Tensor
        self.records: Tensor
        for name in ("unparsed", "expected_verdicts", "correct_records", "records"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, verdicts: Sequence[Verdicts], labels: Sequence[Mapping[str, str | None]]) -> None:
        """Count verdicts against the gold labels of the same records."""
        for task in self.tasks:
            pairs = [
                (verdict.get(task.name), gold)
                for verdict, gold_labels in zip(verdicts, labels, strict=True)
                if (gold := gold_labels.get(task.name)) is not None
            ]
            if not pairs:
                continue
            predicted = torch.tensor([_class_index(verdict, task) for verdict, _ in pairs], device=self.device)
            target = torch.tensor([task.labels.index(gold) for _, gold in pairs], device=self.device)
            self.confusion[task.name].update(predicted, target)
            self.unparsed += (predicted == len(task.labels)).sum()
            self.expected_verdicts += len(pairs)
        for verdict, gold_labels in zip(verdicts, labels, strict=True):
            if all(gold is None for gold in gold_labels.values()):
                continue
            self.correct_records += all(
                verdict.get(task) == gold for task, gold in gold_labels.items() if gold is not None
            )
            self.records += 1

    def compute(self) -> dict[str, Tensor]:
        """Return values from 0 to 1 by name; undefined ones, such as the F1 of a label no record has, are left out."""
        if not self.records:
            return {}
        values = {"accuracy": self.correct_records / self.records, "unparsed": self.unparsed / self.expected_verdicts}
        for task in self.tasks:
            if not self.confusion[task.name].update_called:
                continue
            counts = self.confusion[task.name].compute()[:-1].cpu().double().numpy()  # no gold label is "unparsed"
            for name, (cells, scored) in counts_by_reading(counts, task).items():
                scores = torch.from_numpy(classification_scores(cells, scored) / 100).to(self.records)
                f1 = {f"f1/{name}/{label}": scores[F1 + index] for index, label in enumerate(scored.labels)}
                values |= {key: value for key, value in f1.items() if not value.isnan()}
                values[f"accuracy/{name}"] = scores[ACCURACY]
        return values

    def reset(self) -> None:
        """Set all counts to zero."""
        super().reset()
        for metric in self.confusion.values():
            metric.reset()


def _class_index(verdict: str | None, task: Task) -> int:
    return len(task.labels) if verdict is None else task.labels.index(verdict)
