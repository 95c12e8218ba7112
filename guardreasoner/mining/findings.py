"""What mining found, in numbers: outcomes, votes, weights, how models agree, what fewer outputs would have found."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import numpy as np

from guardreasoner.mining.counts import NO_LABEL, RIGHT, UNPARSED, WRONG, Counts
from guardreasoner.mining.measures import cohens_kappa, expected_hard, vote_histogram, weight_histogram
from guardreasoner.mining.pairs import Mined


@dataclass(frozen=True, slots=True)
class TaskOutcomes:
    """How the groups of one source came out on one task; a group is as in :class:`~guardreasoner.mining.Counts`.

    Args:
        source: the records'.
        task: its name.
        groups: those with a gold label for the task; the next four add up to it.
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
class Votes:
    """How many groups with ``of`` votes have 0, 1, … ``of`` right ones, right being every gold label met."""

    of: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelAgreement:
    """How often two models come to the same majority, right or not, on the records that both answered.

    Args:
        one, other: the models' names.
        records: those that both answered.
        share: part of them on which the majorities are the same.
        kappa: Cohen's; None where chance alone explains all agreement.
    """

    one: str
    other: str
    records: int
    share: float
    kappa: float | None


@dataclass(frozen=True, slots=True)
class SamplingCost:
    """What sampling the rollouts took on one kind of device.

    Args:
        kind: "GPU" or "CPU".
        seconds: wall time times devices, in device-seconds.
        tokens: that were generated.
        outputs: that were generated.
        folders: how many folders of rollouts say what they cost on this kind.
        of: how many there are.
    """

    kind: str
    seconds: float
    tokens: int
    outputs: int
    folders: int
    of: int

    def rate(self) -> float | None:
        """Return tokens per device-second; None where no time was taken."""
        return self.tokens / self.seconds if self.seconds else None

    def each(self, pairs: int) -> float | None:
        """Return device-seconds per pair; None where there is no pair, or a folder does not say what it cost."""
        return self.seconds / pairs if pairs and self.folders == self.of else None


@dataclass(frozen=True)
class Findings:
    """All of it; what a page, a screen and TensorBoard show.

    Args:
        models: names, in alphabetical order.
        records: records with outputs that were mined.
        counts: by source.
        outcomes: by source and task.
        votes: by number of votes.
        weights: (weight, pairs), from 1 − γ to 1 + γ.
        agreement: of each two models.
        growth: (outputs a model, hard records to expect if no more had been drawn), up to all that were.
        cost: by kind of device; empty where no folder says.
    """

    models: tuple[str, ...]
    records: int
    counts: Mapping[str, Counts]
    outcomes: tuple[TaskOutcomes, ...]
    votes: tuple[Votes, ...]
    weights: tuple[tuple[float, int], ...]
    agreement: tuple[ModelAgreement, ...]
    growth: tuple[tuple[int, float], ...]
    cost: tuple[SamplingCost, ...] = ()

    def total(self) -> Counts:
        """Return the counts over all sources."""
        return sum(self.counts.values(), Counts())

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Findings":
        """Return what :meth:`as_json` was made from; raises ``ValueError`` for anything else."""
        try:
            made: dict[str, Any] = {f.name: value[f.name] for f in fields(cls)}
            made["models"] = tuple(made["models"])
            made["counts"] = {source: Counts(**counts) for source, counts in made["counts"].items()}
            made["votes"] = tuple(Votes(one["of"], tuple(one["groups"])) for one in made["votes"])
            for name, kind in (("outcomes", TaskOutcomes), ("agreement", ModelAgreement), ("cost", SamplingCost)):
                made[name] = tuple(kind(**row) for row in made[name])
            for name in ("weights", "growth"):
                made[name] = tuple((first, second) for first, second in made[name])
            return cls(**made)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no findings of mining: {error}") from None


@runtime_checkable
class HasFindings(Protocol):
    """A data module that mines its pairs.

    Args:
        findings: the statistics of that; None before ``setup``.
    """

    findings: Findings | None


def findings(mined: Mined, cost: Iterable[SamplingCost] = ()) -> Findings:
    """Return what mining found, in numbers.

    Args:
        mined: pairs, counts and tallies.
        cost: of sampling, where it is known.
    """
    table = _Table(mined)
    return Findings(
        models=tuple(sorted({tally.model for tally in mined.tallies})),
        records=len(table.sources),
        counts=mined.counts,
        outcomes=tuple(sorted(_outcomes(mined, table), key=lambda one: one.source)),
        votes=tuple(Votes(of, groups) for of, groups in vote_histogram(table.right, table.cast).items()),
        weights=weight_histogram([pair.weight for pair in mined.pairs], mined.pairing.gamma),
        agreement=tuple(_agreement(mined, table)),
        growth=_growth(mined, table),
        cost=tuple(cost),
    )


class _Table:
    """The tallies as arrays: outputs with their grades, units (a model's answers to a record), groups that vote."""

    def __init__(self, mined: Mined) -> None:
        tallies, pairing = mined.tallies, mined.pairing
        rows = [row for tally in tallies for row in tally.grades]
        self.grades = np.array(rows, dtype=np.int8).reshape(len(rows), len(mined.tasks))
        """(outputs, tasks)"""
        self.unit = np.repeat(np.arange(len(tallies)), [len(tally.grades) for tally in tallies])
        """(outputs,)"""
        places: dict[str, int] = {}
        self.record = np.array([places.setdefault(tally.record_id, len(places)) for tally in tallies], dtype=np.int64)
        """(units,)"""
        self.sources = list({tally.record_id: tally.source for tally in tallies}.values())
        """By record."""
        self.group = self.record[self.unit] if pairing.pool else self.unit
        """(outputs,)"""
        self.groups = len(self.sources) if pairing.pool else len(tallies)
        self.source_of_group = self.sources if pairing.pool else [tally.source for tally in tallies]
        self.dropping = pairing.unparsable == "drop"
        labelled = self.grades != NO_LABEL
        unparsed = (self.grades == UNPARSED).any(axis=1)
        met = ((self.grades == RIGHT) | ~labelled).all(axis=1)
        self.all_labels = np.where(met, RIGHT, np.where(unparsed & self.dropping, UNPARSED, WRONG)).astype(np.int8)
        """(outputs,): the vote on all gold labels at once."""
        self.right = self.sum(self.all_labels == RIGHT)
        self.cast = self.sum(self.all_labels != UNPARSED)

    def sum(self, which: np.ndarray) -> np.ndarray:
        """Return (groups,): in each, the outputs that are marked in (outputs,) bool."""
        return np.bincount(self.group[which], minlength=self.groups)

    def votes(self, task: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (outputs,) bool for one task: right votes, wrong votes, outputs without a verdict."""
        column = self.grades[:, task]
        unparsed = column == UNPARSED
        return column == RIGHT, (column == WRONG) | (unparsed & (not self.dropping)), unparsed


def _outcomes(mined: Mined, table: _Table) -> Iterable[TaskOutcomes]:
    names = {name: at for at, name in enumerate(sorted(set(table.source_of_group)))}
    source = np.array([names[name] for name in table.source_of_group], dtype=np.int64)
    for task, called in enumerate(mined.tasks):
        right, wrong, unparsed = map(table.sum, table.votes(task))
        labelled = table.sum(table.grades[:, task] != NO_LABEL) > 0
        kinds = (right > 0) & (wrong == 0), (right > 0) & (wrong > 0), (right == 0) & (wrong > 0)
        for name, at in names.items():
            has = (source == at) & labelled
            groups = int(has.sum())
            if groups:
                all_right, mixed, all_wrong = (int((kind & has).sum()) for kind in kinds)
                none = groups - all_right - mixed - all_wrong
                yield TaskOutcomes(name, called, groups, all_right, mixed, all_wrong, none, int(unparsed[has].sum()))


def _agreement(mined: Mined, table: _Table) -> Iterable[ModelAgreement]:
    units = len(mined.tallies)
    right = np.bincount(table.unit[table.all_labels == RIGHT], minlength=units)
    cast = np.bincount(table.unit[table.all_labels != UNPARSED], minlength=units)
    majorities: dict[str, dict[int, bool]] = defaultdict(dict)
    for tally, record, ours, all_votes in zip(mined.tallies, table.record.tolist(), right, cast, strict=True):
        if all_votes:
            majorities[tally.model][record] = bool(2 * ours > all_votes)
    for one, other in combinations(sorted(majorities), 2):
        both = majorities[one].keys() & majorities[other].keys()
        if both:
            sides = (np.array([majorities[model][record] for record in both]) for model in (one, other))
            yield ModelAgreement(one, other, len(both), *cohens_kappa(*sides))


def _growth(mined: Mined, table: _Table) -> tuple[tuple[int, float], ...]:
    if not mined.tallies:
        return ()
    if mined.pairing.graded == "all":
        votes = table.all_labels[:, None]
    else:
        columns = [np.select(table.votes(task)[:2], (RIGHT, WRONG), NO_LABEL) for task in range(len(mined.tasks))]
        # A question on which all outputs vote alike makes no record hard; left out, it costs nothing.
        split = [column for column in columns if (column == RIGHT).any() and (column == WRONG).any()]
        votes = np.stack(split, axis=1) if split else np.zeros((len(table.unit), 0), dtype=np.int8)
    pool = mined.pairing.pool
    several = pool and len(table.record) > len(table.sources)  # then one output of each model may be mixed too
    ks = range(1 if several else 2, int(np.bincount(table.unit).max()) + 1)
    return tuple(zip(ks, expected_hard(votes, table.unit, table.record, ks, pool), strict=True))
