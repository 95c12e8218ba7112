"""Per-class F1 of verdicts while a test runs, counted by torchmetrics, with "unparsed" as an outcome of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from guardreasoner.evaluation.scoring.tallies import ACCURACY, F1, classification_scores
from guardreasoner.prompts import Verdicts
from guardreasoner.tasks import Task


class VerdictF1(Metric):
    """F1 of each label of each task, accuracy and unparsed rate.

    What ``score`` finds in mode ``strict``, over all records as of one benchmark. Unparsed is class L beside a task's L
    labels. Records without a gold label for a task do not count for it.

    Args:
        tasks: what is decided.
    """

    full_state_update = False

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.confusion: Any = torch.nn.ModuleDict(
            {task.name: MulticlassConfusionMatrix(len(task.labels) + 1) for task in self.tasks}
        )
        self.unparsed: Tensor
        self.answered: Tensor
        self.all_right: Tensor
        self.records: Tensor
        for name in ("unparsed", "answered", "all_right", "records"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, verdicts: Sequence[Verdicts], labels: Sequence[Mapping[str, str | None]]) -> None:
        """Count a list of verdicts against the gold labels of the same records."""
        for task in self.tasks:
            pairs = [
                (found.get(task.name), gold)
                for found, known in zip(verdicts, labels, strict=True)
                if (gold := known.get(task.name)) is not None
            ]
            if not pairs:
                continue
            predicted = torch.tensor([_class(found, task) for found, _ in pairs], device=self.device)
            wanted = torch.tensor([task.labels.index(gold) for _, gold in pairs], device=self.device)
            self.confusion[task.name].update(predicted, wanted)
            self.unparsed += (predicted == len(task.labels)).sum()
            self.answered += len(pairs)
        for found, known in zip(verdicts, labels, strict=True):
            self.all_right += all(found.get(task) == label for task, label in known.items() if label is not None)
            self.records += 1

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name, shares of 1; what is undefined is left out, as the F1 of a label no record has."""
        values = {"accuracy": self.all_right / self.records, "unparsed": self.unparsed / self.answered}
        for task in self.tasks:
            if not self.confusion[task.name].update_called:
                continue
            counts = self.confusion[task.name].compute()[:-1].cpu().double().numpy()  # no gold label is "unparsed"
            found = torch.from_numpy(classification_scores(counts, task) / 100).to(self.records)
            f1 = {f"f1/{task.name}/{label}": found[F1 + place] for place, label in enumerate(task.labels)}
            values |= {name: value for name, value in f1.items() if not value.isnan()}
            values[f"accuracy/{task.name}"] = found[ACCURACY]
        return values

    def reset(self) -> None:
        """Start counting again."""
        super().reset()
        for metric in self.confusion.values():
            metric.reset()


def _class(verdict: str | None, task: Task) -> int:
    return len(task.labels) if verdict is None else task.labels.index(verdict)
