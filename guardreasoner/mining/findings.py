"""Statistics of a mining run: outcomes, votes, weights, model agreement, and the gain from more outputs per record."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from guardreasoner.mining.counts import NO_LABEL, RIGHT, UNPARSED, WRONG, MiningCounts
from guardreasoner.mining.metrics import cohens_kappa, expected_hard, vote_histogram, weight_histogram
from guardreasoner.mining.pairs import MiningResult


@dataclass(frozen=True, slots=True)
class TaskOutcomes:
    """Outcomes of the groups of one source on one task; for groups, see :class:`~guardreasoner.mining.MiningCounts`.

    Args:
        source: source of the records.
        task: name of the task.
        groups: groups with a gold label for the task; equals ``all_right + mixed + all_wrong + no_vote``.
        all_right: groups without a wrong vote.
        mixed: groups with right and wrong votes.
        all_wrong: groups without a right vote.
        no_vote: groups in which no output votes.
        unparsed: outputs without a verdict on the task.
    """

    source: str
    task: str
    groups: int
    all_right: int
    mixed: int
    all_wrong: int
    no_vote: int
    unparsed: int


@dataclass(frozen=True, slots=True)
class VoteHistogram:
    """Number of groups by right votes, among groups of one size; a vote is right if every gold label is matched.

    Args:
        votes: number of votes in each group; ``of`` in JSON.
        groups: number of groups with 0, 1, … ``votes`` right votes.
    """

    votes: Annotated[int, Field(alias="of")]
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelAgreement:
    """How often the majority votes of two models are both right or both wrong.

    Args:
        first: name of the first model; ``one`` in JSON.
        second: name of the second model; ``other`` in JSON.
        records: number of records that both models answered.
        share: share of these records on which the majorities agree.
        kappa: Cohen's kappa; None if the agreement expected by chance is 1.
    """

    first: Annotated[str, Field(alias="one")]
    second: Annotated[str, Field(alias="other")]
    records: int
    share: float
    kappa: float | None


@dataclass(frozen=True, slots=True)
class SamplingCost:
    """Cost of sampling the rollouts on one kind of device.

    Args:
        device: "GPU" or "CPU"; ``kind`` in JSON.
        seconds: wall time multiplied by the number of devices, in device-seconds.
        tokens: number of generated tokens.
        outputs: number of generated outputs.
        folders: number of rollout folders that record a cost for this kind of device.
        total_folders: number of rollout folders; ``of`` in JSON.
    """

    device: Annotated[str, Field(alias="kind")]
    seconds: float
    tokens: int
    outputs: int
    folders: int
    total_folders: Annotated[int, Field(alias="of")]

    def tokens_per_second(self) -> float | None:
        """Return tokens per device-second; None if no time was recorded."""
        return self.tokens / self.seconds if self.seconds else None

    def seconds_per_pair(self, pairs: int) -> float | None:
        """Return device-seconds per pair; None if there is no pair or a folder records no cost."""
        return self.seconds / pairs if pairs and self.folders == self.total_folders else None


@dataclass(frozen=True)
class Findings:
    """All statistics of a mining run, as shown in the terminal, on the page and in TensorBoard.

    Args:
        models: names of the models, in alphabetical order.
        records: number of records with mined outputs.
        counts: counts by source.
        outcomes: outcomes by source and task.
        votes: histograms of right votes, by number of votes.
        weights: (weight, pairs) from 1 − γ to 1 + γ.
        agreement: agreement of each two models.
        growth: (k, expected number of hard records if only k outputs per model had been drawn), up to the largest k.
        cost: sampling cost by kind of device; empty if no folder records it.
    """

    models: tuple[str, ...]
    records: int
    counts: Mapping[str, MiningCounts]
    outcomes: tuple[TaskOutcomes, ...]
    votes: tuple[VoteHistogram, ...]
    weights: tuple[tuple[float, int], ...]
    agreement: tuple[ModelAgreement, ...]
    growth: tuple[tuple[int, float], ...]
    cost: tuple[SamplingCost, ...] = ()

    def total(self) -> MiningCounts:
        """Return the counts over all sources."""
        return sum(self.counts.values(), MiningCounts())

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON-serializable values."""
        return _adapter().dump_python(self, by_alias=True)

    @classmethod
    def from_json(cls, value: object) -> "Findings":
        """Return the findings that :meth:`as_json` wrote.

        Raises:
            ValueError: a field is missing or has the wrong type; the message names the first such field.
        """
        try:
            return _adapter().validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise ValueError(f"not the findings of mining: {field + ': ' if field else ''}{first['msg']}") from None


@runtime_checkable
class HasFindings(Protocol):
    """A data module that mines its pairs.

    Args:
        findings: statistics of the mining; None before ``setup()``.
    """

    findings: Findings | None


@cache
def _adapter() -> TypeAdapter[Findings]:
    return TypeAdapter(Findings)


def findings(result: MiningResult, cost: Iterable[SamplingCost] = ()) -> Findings:
    """Compute the statistics of a mining run.

    Args:
        result: the result of mining.
        cost: cost of sampling the rollouts, where it is known.
    """
    table = _GradeTable(result)
    histograms = vote_histogram(table.right_votes, table.total_votes)
    weights = np.fromiter((pair.weight for pair in result.pairs), np.float64, count=len(result.pairs))
    return Findings(
        models=tuple(sorted(table.models)),
        records=table.records,
        counts=result.counts,
        outcomes=tuple(sorted(_outcomes(result, table), key=lambda row: row.source)),
        votes=tuple(VoteHistogram(votes, groups) for votes, groups in histograms.items()),
        weights=weight_histogram(weights, result.pairing.gamma),
        agreement=tuple(_agreement(table)),
        growth=_growth(result, table),
        cost=tuple(cost),
    )


class _GradeTable:
    """The grades as arrays: by output, by unit (one model's outputs for a record), and by group that votes together."""

    def __init__(self, result: MiningResult) -> None:
        pairing = result.pairing
        last_id: str | None = None
        self.records = 0
        self.models: dict[str, int] = {}
        """Index of each model by its name."""
        self.sources: dict[str, int] = {}
        """Index of each source by its name."""
        grades, sizes, records, models, sources = array("b"), array("q"), array("q"), array("q"), array("q")
        for unit in result.record_grades:
            self.records += unit.record_id != last_id  # the units of a record are neighbours
            last_id = unit.record_id
            records.append(self.records - 1)
            models.append(self.models.setdefault(unit.model, len(self.models)))
            sources.append(self.sources.setdefault(unit.source, len(self.sources)))
            sizes.append(len(unit.grades))
            for row in unit.grades:
                grades.extend(row)
        self.record, self.model, source = (np.array(column, dtype=np.int64) for column in (records, models, sources))
        """(units,) number of each unit's record, and of its model."""
        self.unit = np.repeat(np.arange(len(sizes)), np.array(sizes, dtype=np.int64))
        """(outputs,)"""
        self.grades = np.array(grades, dtype=np.int8).reshape(len(self.unit), len(result.tasks))
        """(outputs, tasks)"""
        self.group = self.record[self.unit] if pairing.pool else self.unit
        """(outputs,)"""
        self.groups = self.records if pairing.pool else len(sizes)
        self.source_of_group = source[np.flatnonzero(np.diff(self.record, prepend=-1))] if pairing.pool else source
        """(groups,)"""
        self.drop_unparsed = pairing.unparsable == "drop"
        labelled = self.grades != NO_LABEL
        unparsed = (self.grades == UNPARSED).any(axis=1)
        matched = ((self.grades == RIGHT) | ~labelled).all(axis=1)
        not_right = np.where(unparsed & self.drop_unparsed, UNPARSED, WRONG)
        self.all_labels = np.where(matched, RIGHT, not_right).astype(np.int8)
        """(outputs,): the vote on all gold labels at once."""
        self.right_votes = self.count_by_group(self.all_labels == RIGHT)
        self.total_votes = self.count_by_group(self.all_labels != UNPARSED)

    def count_by_group(self, mask: np.ndarray) -> np.ndarray:
        """Count the outputs in each group, (groups,), for which ``mask``, (outputs,) bool, is true."""
        return np.bincount(self.group[mask], minlength=self.groups)

    def votes(self, task: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return three (outputs,) bool arrays for one task: right votes, wrong votes, outputs without a verdict."""
        column = self.grades[:, task]
        unparsed = column == UNPARSED
        return column == RIGHT, (column == WRONG) | (unparsed & (not self.drop_unparsed)), unparsed


def _outcomes(result: MiningResult, table: _GradeTable) -> Iterable[TaskOutcomes]:
    for task, task_name in enumerate(result.tasks):
        right, wrong, unparsed = map(table.count_by_group, table.votes(task))
        labelled = table.count_by_group(table.grades[:, task] != NO_LABEL) > 0
        outcomes = (right > 0) & (wrong == 0), (right > 0) & (wrong > 0), (right == 0) & (wrong > 0)
        for name, index in table.sources.items():
            selected = (table.source_of_group == index) & labelled
            groups = int(selected.sum())
            if groups:
                all_right, mixed, all_wrong = (int((outcome & selected).sum()) for outcome in outcomes)
                yield TaskOutcomes(
                    source=name,
                    task=task_name,
                    groups=groups,
                    all_right=all_right,
                    mixed=mixed,
                    all_wrong=all_wrong,
                    no_vote=groups - all_right - mixed - all_wrong,
                    unparsed=int(unparsed[selected].sum()),
                )


def _agreement(table: _GradeTable) -> Iterable[ModelAgreement]:
    units = len(table.record)
    right = np.bincount(table.unit[table.all_labels == RIGHT], minlength=units)
    total = np.bincount(table.unit[table.all_labels != UNPARSED], minlength=units)
    voted = total > 0
    majorities = np.full((len(table.models), table.records), UNPARSED, dtype=np.int8)
    majorities[table.model[voted], table.record[voted]] = 2 * right[voted] > total[voted]
    for first, second in combinations(sorted(table.models), 2):
        ratings = majorities[[table.models[first], table.models[second]]]
        shared = (ratings != UNPARSED).all(axis=0)
        if shared.any():
            yield ModelAgreement(first, second, int(shared.sum()), *cohens_kappa(*ratings[:, shared]))


def _growth(result: MiningResult, table: _GradeTable) -> tuple[tuple[int, float], ...]:
    if not table.records:
        return ()
    if result.pairing.graded == "all":
        votes = table.all_labels[:, None]
    else:
        columns = [np.select(table.votes(task)[:2], (RIGHT, WRONG), NO_LABEL) for task in range(len(result.tasks))]
        # A question on which all outputs vote the same makes no record hard; the cost is 3 to the number of questions.
        split = [column for column in columns if (column == RIGHT).any() and (column == WRONG).any()]
        votes = np.stack(split, axis=1) if split else np.zeros((len(table.unit), 0), dtype=np.int8)
    pool = result.pairing.pool
    several_models = pool and len(table.record) > table.records  # then one output of each model may be mixed
    ks = range(1 if several_models else 2, int(np.bincount(table.unit).max()) + 1)
    return tuple(zip(ks, expected_hard(votes, table.unit, table.record, ks, pool), strict=True))
