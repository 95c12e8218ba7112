"""Find gold labels that every output of every model contradicts with the same verdict: the label may be the fault."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_verdicts
from guardreasoner.mining.pairing import ParserName
from guardreasoner.mining.pairs import sort_rollouts
from guardreasoner.prompts import Verdicts
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import Task

MIN_OUTPUTS = 2
"""Fewest outputs with a verdict: a single one says little about a label."""

_MAX_SHOWN = 2


@dataclass(frozen=True, slots=True)
class DoubtedLabel:
    """A gold label that all verdicts of its record contradict in the same way.

    Args:
        record: the record.
        task: name of the task.
        label: the gold label.
        verdict: the verdict of every output that has one.
        outputs: number of outputs with the verdict.
        unparsed: number of outputs without a verdict.
        models: names of the models that gave the verdict.
        shown: one or two outputs with the verdict, of different models if there are several.
    """

    record: Record
    task: str
    label: str
    verdict: str
    outputs: int
    unparsed: int
    models: tuple[str, ...]
    shown: tuple[Rollout, ...]

    @property
    def agreement(self) -> float:
        """Share of the outputs that have the verdict; the others have none."""
        return self.outputs / (self.outputs + self.unparsed)

    def line(self) -> dict[str, Any]:
        """Return the line of an audit file."""
        return {
            **{"record_id": self.record.id, "task": self.task, "label": self.label, "verdict": self.verdict},
            **{"outputs": self.outputs, "unparsed": self.unparsed, "agreement": round(self.agreement, 4)},
            "models": list(self.models),
            "record": self.record,
            "reasonings": [
                {name: getattr(output, name) for name in ("model", "index", "seed", "completion")}
                for output in self.shown
            ],
        }


def doubted_labels(
    records: Sequence[Record],
    rollouts: Sequence[Rollout],
    tasks: Sequence[Task],
    parser: ParserName = "final-block",
    format: GuardFormat | None = None,
) -> list[DoubtedLabel]:
    """Return the doubted labels: most outputs first, then most models, then highest agreement.

    Outputs without a verdict contradict nothing; they lower the agreement.

    Args:
        records: records with gold labels.
        rollouts: any number of outputs of any number of models for each record.
        tasks: tasks that the outputs answer.
        parser: how GuardReasoner's answer block is read.
        format: format of the outputs; None: GuardReasoner's own.
    """
    positions: dict[str, array[int]] = defaultdict(lambda: array("q"))
    for position, rollout in enumerate(rollouts):
        positions[rollout.record_id].append(position)
    found = list[DoubtedLabel]()
    for record in records:
        sorted_outputs = sort_rollouts(rollouts[position] for position in positions.get(record.id, ()))
        verdicts = [read_verdicts(output.completion, tasks, format, parser) for output in sorted_outputs]
        found += _doubted(record, sorted_outputs, verdicts, tasks)
    return sorted(found, key=lambda one: (-one.outputs, -len(one.models), -one.agreement))


def _doubted(
    record: Record, rollouts: Sequence[Rollout], parsed: Sequence[Verdicts], tasks: Sequence[Task]
) -> Iterator[DoubtedLabel]:
    for task in tasks:
        label = record.labels.get(task.name)
        verdicts = [verdict for one in parsed if (verdict := one[task.name]) is not None]
        if label is None or len(verdicts) < MIN_OUTPUTS or label in verdicts or len(set(verdicts)) > 1:
            continue
        agreeing = [rollout for rollout, one in zip(rollouts, parsed, strict=True) if one[task.name] is not None]
        yield DoubtedLabel(
            record,
            task.name,
            label,
            verdicts[0],
            len(agreeing),
            len(rollouts) - len(agreeing),
            tuple(dict.fromkeys(rollout.model for rollout in agreeing)),
            _shown(agreeing),
        )


def _shown(rollouts: Sequence[Rollout]) -> tuple[Rollout, ...]:
    """Return the first output of the first two models; of a single model, its first two different outputs."""
    by_model, by_text = dict[str, Rollout](), dict[str, Rollout]()
    for rollout in rollouts:
        by_model.setdefault(rollout.model, rollout)
        by_text.setdefault(rollout.completion, rollout)
    chosen = by_model if len(by_model) > 1 else by_text
    return tuple(chosen.values())[:_MAX_SHOWN]
