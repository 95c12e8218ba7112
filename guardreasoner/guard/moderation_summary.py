"""Summarize the rows that a moderation wrote: counts by task, rankings, and drift against a reference."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Calibration
from guardreasoner.evaluation.calibration.histogram import (
    ScoreHistogram,
    kolmogorov_smirnov,
    stability_index,
    stability_index_by_chance,
)
from guardreasoner.evaluation.scoring.readings import flagging_labels
from guardreasoner.guard.moderation import row_score
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.tasks import Task


@dataclass(slots=True)
class TaskSummary:
    """Answers to one task, over the conversations that it applies to.

    Args:
        verdicts: number of answers by verdict; None is an answer without one.
        bands: number of answers by band; none without a calibration.
        positive: number of answers with the band ``block`` or, without a calibration, a positive verdict.
        scores: histogram of the scores by speed of the answer.
    """

    verdicts: Counter[str | None] = field(default_factory=Counter)
    bands: Counter[str] = field(default_factory=Counter)
    positive: int = 0
    scores: dict[str, ScoreHistogram] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of conversations that the task applies to."""
        return self.verdicts.total()


@dataclass(slots=True)
class ModerationSummary:
    """Counts and rankings of a moderation.

    Args:
        tasks: summary by task.
        rows: number of conversations.
        flagged: number of flagged ones.
        unparsed: number of those without a clear verdict, all of them flagged.
        refused: number of those that the guard could not judge, such as too long ones, all of them unparsed.
        speeds: number of answers by speed.
        disagreeing: number of conversations that only one of two guards flags; None with one guard.
        by_score: value, id and place of the rows with the highest score, and number of the row.
        by_disagreement: the same for the disagreement of two guards.
    """

    tasks: dict[str, TaskSummary]
    rows: int = 0
    flagged: int = 0
    unparsed: int = 0
    refused: int = 0
    speeds: Counter[str] = field(default_factory=Counter)
    disagreeing: int | None = None
    by_score: list["Ranked"] = field(default_factory=list)
    by_disagreement: list["Ranked"] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "rows": self.rows,
            "flagged": self.flagged,
            "unparsed": self.unparsed,
            "refused": self.refused,
            "disagreeing": self.disagreeing,
            "speeds": dict(self.speeds),
            "tasks": {
                name: {
                    "rows": task.count,
                    "positive": task.positive,
                    "verdicts": {str(verdict): count for verdict, count in task.verdicts.items()},
                    "bands": dict(task.bands),
                }
                for name, task in self.tasks.items()
            },
            "by_score": [ranked.as_json() for ranked in self.by_score],
            "by_disagreement": [ranked.as_json() for ranked in self.by_disagreement],
        }


@dataclass(frozen=True, slots=True, order=True)
class Ranked:
    """A row in a ranking.

    Args:
        value: what it is ranked by.
        earlier: negative number of the row, so that of equal values the earlier row comes first.
        id: id of the conversation.
        row: place of the conversation in the logs.
    """

    value: float
    earlier: int
    id: str
    row: str

    def as_json(self) -> dict[str, Any]:
        """Return value, id and place."""
        return {"value": self.value, "id": self.id, "row": self.row}


@dataclass(frozen=True, slots=True)
class Drift:
    """Difference between the answers of a moderation and those of a reference, for one task and speed.

    Args:
        task: name of the task.
        speed: speed of the answers.
        stability_index: population stability index of the scores.
        by_chance: index below which 95 % of the samples of this size stay if nothing has shifted.
        kolmogorov_smirnov: distance of the score distributions and p-value; None if one has no scores.
        positive: share of positive answers in the reference and now.
        unparsed: share of answers without a score in the reference and now.
        records: number of answers in the reference.
    """

    task: str
    speed: str
    stability_index: float
    by_chance: float
    kolmogorov_smirnov: tuple[float, float] | None
    positive: tuple[float, float]
    unparsed: tuple[float, float]
    records: int

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        distance, p = self.kolmogorov_smirnov or (None, None)
        return {
            "task": self.task,
            "speed": self.speed,
            "psi": self.stability_index,
            "psi_by_chance": self.by_chance,
            "ks": distance,
            "ks_p": p,
            "positive": list(self.positive),
            "unparsed": list(self.unparsed),
            "reference_records": self.records,
        }


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows that a moderation wrote.

    Raises:
        InputError: the file is missing, or has a row of another form.
    """
    for line, row in read_jsonl(path):
        if not {"id", "row", "content", "flagged", "unparsed", "tasks", "speed"} <= row.keys():
            raise InputError(f"{path}:{line}: not a row that moderate wrote")
        yield row


def summarize_rows(path: Path, tasks: Sequence[Task], top: int = 0) -> ModerationSummary:
    """Summarize the rows of a moderation, reading one at a time.

    Args:
        path: output of the moderation.
        tasks: tasks of the guard.
        top: length of the rankings.
    """
    summary = ModerationSummary({task.name: TaskSummary() for task in tasks})
    by_score: list[Ranked] = []
    by_disagreement: list[Ranked] = []
    for number, row in enumerate(read_rows(path)):
        summary.rows += 1
        summary.flagged += row["flagged"]
        summary.unparsed += row["unparsed"]
        summary.refused += "error" in row
        if row["speed"] is not None:
            summary.speeds[row["speed"]] += 1
        if "second" in row:
            differs = row["flagged"] != row["second"]["flagged"]
            summary.disagreeing = (summary.disagreeing or 0) + differs
        for task in tasks:
            _count(summary.tasks[task.name], row["tasks"].get(task.name), task, row["speed"])
        for ranking, value in ((by_score, row_score(row, tasks)), (by_disagreement, row.get("disagreement"))):
            if top and value is not None:
                ranked = Ranked(value, -number, row["id"], row["row"])
                if len(ranking) < top:
                    heapq.heappush(ranking, ranked)
                else:
                    heapq.heappushpop(ranking, ranked)
    summary.by_score, summary.by_disagreement = sorted(by_score)[::-1], sorted(by_disagreement)[::-1]
    return summary


def drift_from_run(before: ModerationSummary, after: ModerationSummary) -> list[Drift]:
    """Return the drift of each task and speed that an earlier run and this one have."""
    return [
        _drift(
            name,
            speed,
            before.tasks[name].scores[speed],
            histogram,
            (before.tasks[name].positive / before.tasks[name].count, task.positive / task.count),
        )
        for name, task in after.tasks.items()
        if name in before.tasks
        for speed, histogram in task.scores.items()
        if speed in before.tasks[name].scores
    ]


def drift_from_calibration(calibration: Calibration, after: ModerationSummary, where: str) -> Drift | None:
    """Return the drift of a task from the records that its calibration was chosen on.

    Returns:
        None if the calibration was stored without a histogram, or the answers are not all of its speed.

    Raises:
        InputError: the stored histogram is invalid; ``where`` is the start of the message.
    """
    task = after.tasks.get(calibration.task)
    stored = calibration.details.get("histogram")
    if task is None or stored is None or task.scores.keys() != {calibration.score}:
        return None
    details = calibration.details
    blocked = details.get("blocked")
    if blocked is None:  # of an earlier version; negative records without a score count too
        blocked = calibration.false_positives + details["recall"] * details["positives"]
    return _drift(
        calibration.task,
        calibration.score,
        ScoreHistogram.from_json(stored, where),
        task.scores[calibration.score],
        (blocked / calibration.records, task.positive / task.count),
    )


def unmeasured_drift(calibrations: Iterable[Calibration], after: ModerationSummary) -> dict[str, str]:
    """Return, by task, why no calibration of a task gives its drift; see :func:`drift_from_calibration`.

    Tasks without a calibration are left out.
    """
    kinds: dict[str, dict[str, bool]] = {}
    for one in calibrations:
        kinds.setdefault(one.task, {})[one.score] = "histogram" in one.details
    reasons = {}
    for name, has_histogram in kinds.items():
        if name not in after.tasks:
            continue
        speeds = list(after.tasks[name].scores)
        if not after.tasks[name].count:
            reasons[name] = "it was asked of no conversation"
        elif len(speeds) != 1:
            reasons[name] = f"the answers are {' and '.join(speeds)}" if speeds else "the answers have no scores"
        elif speeds[0] not in has_histogram:
            reasons[name] = f"the calibration is of {' and '.join(has_histogram)} scores, the answers are {speeds[0]}"
        elif not has_histogram[speeds[0]]:
            reasons[name] = f"the calibration of {speeds[0]} scores has no histogram; calibrate again"
    return reasons


def _drift(
    task: str, speed: str, before: ScoreHistogram, after: ScoreHistogram, positive: tuple[float, float]
) -> Drift:
    unparsed = [one.unscored / (one.scored + one.unscored) for one in (before, after)]
    return Drift(
        task,
        speed,
        stability_index(before, after),
        stability_index_by_chance(before, after),
        kolmogorov_smirnov(before, after),
        positive,
        (unparsed[0], unparsed[1]),
        before.scored + before.unscored,
    )


def _count(summary: TaskSummary, answer: Mapping[str, Any] | None, task: Task, speed: str | None) -> None:
    if answer is None or (answer["verdict"] is None and answer["band"] is None):  # the task does not apply
        return
    summary.verdicts[answer["verdict"]] += 1
    if answer["band"] is not None:
        summary.bands[answer["band"]] += 1
    is_calibrated = answer["threshold"] is not None
    positive = answer["band"] == "block" if is_calibrated else answer["verdict"] in flagging_labels(task)
    summary.positive += positive
    if speed is not None:
        summary.scores.setdefault(speed, ScoreHistogram()).add(answer["score"])
