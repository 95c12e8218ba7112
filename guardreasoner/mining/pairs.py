"""Find hard records and make their weighted pairs from records and rollouts."""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.mining.counts import NO_LABEL, RIGHT, UNPARSED, WRONG, MiningCounts, RecordGrades
from guardreasoner.mining.grading import Grades, classify_votes, grade, votes_by_question
from guardreasoner.mining.pairing import Pairing, source_matches
from guardreasoner.mining.selection import HardGroup
from guardreasoner.mining.weights import adaptive_weight
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import FILE_FINGERPRINT, Pair, Record, Rollout, Speed, require_unique_ids
from guardreasoner.tasks import Task
from guardreasoner.workflow.disk_list import DiskList

_GradedRollout = tuple[Rollout, Grades]


@dataclass(frozen=True, slots=True)
class ScalingScope:
    """The hard groups over which α is min–max scaled: all when models are pooled, else those of one model and source.

    Args:
        hard: number of hard groups.
        min_excess: smallest number of wrong minus right votes among them.
        max_excess: largest number of wrong minus right votes among them.
    """

    hard: int
    min_excess: int
    max_excess: int

    def weight(self, excess_errors: int, gamma: float) -> float:
        """Return α of a group with this number of wrong minus right votes."""
        _, weight, _ = adaptive_weight([self.min_excess, excess_errors, self.max_excess], gamma).tolist()
        return float(weight)


@dataclass(frozen=True, slots=True)
class MiningResult:
    """The result of mining.

    Args:
        pairs: pairs in the order of the records.
        counts: counts by source, in alphabetical order.
        record_grades: grades of each model's outputs for each record, in the order of the records.
        scaling_scopes: scaling scope by (model, source); both are "" when models are pooled.
        tasks: names of the tasks, in the order of the columns of ``record_grades``.
        pairing: the options.
    """

    pairs: Sequence[Pair]
    counts: dict[str, MiningCounts]
    record_grades: Sequence[RecordGrades]
    scaling_scopes: dict[tuple[str, str], ScalingScope]
    tasks: tuple[str, ...]
    pairing: Pairing

    def total(self) -> MiningCounts:
        """Return the counts over all sources."""
        return sum(self.counts.values(), MiningCounts())


def mine(
    records: Sequence[Record],
    rollouts: Sequence[Rollout],
    tasks: Sequence[Task],
    pairing: Pairing,
    format: GuardFormat | None = None,
) -> MiningResult:
    """Find the hard records among those with rollouts, and make one or several pairs for each.

    The result does not depend on the order of the rollouts. The order of the records decides only the order of the
    pairs. The pairs are on the disk (:class:`guardreasoner.workflow.disk_list.DiskList`); if the records and rollouts
    are too, only the texts of one record are in memory.

    Args:
        records: records with gold labels; those without rollouts are skipped.
        rollouts: outputs of one or more models.
        tasks: tasks that an output may answer.
        pairing: the options.
        format: format of the outputs; None: GuardReasoner's own.

    Returns:
        Pairs and counts; there may be no pair. α is min–max scaled over all hard groups when models are pooled,
        otherwise over those of one model in one source, as in the released code, before duplicates are dropped.

    Raises:
        InputError: a rollout belongs to an unknown record or occurs twice, two models share a name, a record has no
            label or an unknown one, ``pairing.sources_by_model`` names an unknown model or source, no record has two
            outputs to compare, or ``pairing.chosen`` is "gold" and a hard record has no reasoning.
    """
    outputs = _OutputsByRecord(records, rollouts)
    _require_known_sources(pairing, outputs.models, outputs.sources)
    counts = defaultdict[str, MiningCounts](MiningCounts)
    record_grades, hard_groups = DiskList[RecordGrades](), DiskList[tuple[tuple[str, str], HardGroup]]()
    scopes: dict[tuple[str, str], ScalingScope] = {}
    largest_group = 0
    for number, record in enumerate(records):
        _require_labels(record, tasks)
        all_outputs = sort_rollouts(outputs.of(number))
        mined = [rollout for rollout in all_outputs if pairing.includes(rollout.model, record.source)]
        if len(mined) < len(all_outputs):
            counts[record.source].not_mined += len(all_outputs) - len(mined)
        graded = [(rollout, grade(record, rollout.completion, tasks, pairing.parser, format)) for rollout in mined]
        by_model = group_outputs(graded, pool=False)
        for model, group in by_model.items():
            rows = tuple(_grade_codes(grades, tasks) for _, grades in group)
            record_grades.append(RecordGrades(record.id, record.source, model, rows))
        has_pairs = False
        for model, group in (group_outputs(graded, pool=True) if pairing.pool else by_model).items():
            largest_group = max(largest_group, len(group))
            hard_group = _count_group(record, group, tasks, pairing, counts[record.source])
            if hard_group is None:
                continue
            scope, excess = scaling_scope_key(model, record, pairing), hard_group.excess_errors()
            known = scopes.get(scope, ScalingScope(0, excess, excess))
            scopes[scope] = ScalingScope(known.hard + 1, min(known.min_excess, excess), max(known.max_excess, excess))
            if has_pairs:  # of the first model by name that is hard
                counts[record.source].duplicates += 1
                continue
            hard_groups.append((scope, hard_group))
            has_pairs = True
    if largest_group < 2:
        _refuse_single_outputs(pairing)
    pairs = DiskList[Pair]()
    for scope, hard_group in hard_groups:
        weight = scopes[scope].weight(hard_group.excess_errors(), pairing.gamma)
        gold = _gold_target(hard_group, tasks, format) if pairing.chosen == "gold" else None
        made, beyond_cap = hard_group.make_pairs(weight, pairing, outputs.numbers, gold)
        pairs.extend(made)
        source_counts = counts[hard_group.record.source]
        source_counts.pairs += len(made)
        source_counts.beyond_cap += beyond_cap
    task_names = tuple(task.name for task in tasks)
    return MiningResult(
        pairs, dict(sorted(counts.items())), record_grades, dict(sorted(scopes.items())), task_names, pairing
    )


def sort_rollouts(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """Sort one record's rollouts by model, fingerprint, seed and index.

    Raises:
        InputError: a rollout occurs twice, or two models share a name.
    """
    ordered = sorted(rollouts, key=_sort_key)
    for first, second in pairwise(ordered):
        if _sort_key(first) == _sort_key(second):
            raise InputError(
                f"record {first.record_id!r}: {first.model} (seed {first.seed}) gives output {first.index} twice",
                "check whether the same rollouts were given twice",
            )
        if first.model == second.model and first.fingerprint != second.fingerprint:
            raise _shared_name_error(first, second.fingerprint)
    return ordered


def group_outputs(graded: Iterable[_GradedRollout], pool: bool) -> dict[str, list[_GradedRollout]]:
    """Group a record's graded outputs by model; when pooled, return one group with the key ""."""
    groups: dict[str, list[_GradedRollout]] = {}
    for rollout, grades in graded:
        groups.setdefault("" if pool else rollout.model, []).append((rollout, grades))
    return groups


def scaling_scope_key(model: str, record: Record, pairing: Pairing) -> tuple[str, str]:
    """Return the (model, source) over whose hard groups a group's α is scaled."""
    return model, "" if pairing.pool else record.source


class _OutputsByRecord:
    """The rollouts of each record, of which only the positions are in memory.

    Raises:
        InputError: two records have the same id, a rollout belongs to an unknown record, two models share a name, or
            the rollouts are of two speeds.
    """

    def __init__(self, records: Sequence[Record], rollouts: Sequence[Rollout]) -> None:
        self.numbers: dict[str, int] = {}
        """Index of each record by its id."""
        self.sources: set[str] = set()
        for number, record in enumerate(records):
            self.numbers[record.id] = number
            self.sources.add(record.source)
        if len(self.numbers) < len(records):
            require_unique_ids(records, "records")
        self._rollouts = rollouts
        fingerprints: dict[str, str] = {}
        speeds: dict[Speed, Rollout] = {}
        owners = array("q")
        for rollout in rollouts:
            if rollout.record_id not in self.numbers:
                where = f"which is not among the {len(self.numbers)} records"
                detail = f"{rollout.model} answered {rollout.record_id!r}, {where}"
                raise InputError(f"rollouts that belong to other records: {detail}")
            # A file's fingerprint is a hash of the file, not of the weights: it may differ between files of one model.
            fingerprint = "" if rollout.fingerprint.startswith(FILE_FINGERPRINT) else rollout.fingerprint
            known = fingerprints.setdefault(rollout.model, fingerprint)
            if fingerprint and known and known != fingerprint:
                raise _shared_name_error(rollout, known)
            fingerprints[rollout.model] = known or fingerprint
            owners.append(self.numbers[rollout.record_id])
            speeds.setdefault(rollout.speed, rollout)
        if len(speeds) > 1:
            reasoned, direct = speeds["reasoned"], speeds["direct"]
            raise InputError(
                f"rollouts of two speeds: {reasoned.model} reasoned about {reasoned.record_id!r}, and {direct.model} "
                f"answered {direct.record_id!r} at once",
                "their prompts differ, so mine them separately",
            )
        self.models = set(fingerprints)
        owner = np.array(owners, dtype=np.int64)
        self._order = np.argsort(owner, kind="stable")
        """(rollouts,) positions, those of one record together."""
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(records)))])
        """(records + 1,) where those of each record start in ``_order``."""

    def of(self, number: int) -> list[Rollout]:
        """Read the rollouts of the record with this index."""
        positions = self._order[self._starts[number] : self._starts[number + 1]]
        return [self._rollouts[position] for position in positions.tolist()]


def _shared_name_error(rollout: Rollout, fingerprint: str) -> InputError:
    first, second = sorted((rollout.fingerprint, fingerprint))
    return InputError(
        f"record {rollout.record_id!r}: rollouts of two models under the name {rollout.model!r}: "
        f"fingerprints {first[:16]} and {second[:16]}",
        "a model is named after its folder: mine the two checkpoints separately, or rename one and sample again",
    )


def _require_known_sources(pairing: Pairing, models: Collection[str], sources: Collection[str]) -> None:
    for model, patterns in pairing.sources_by_model.items():
        if model not in models:
            known = _join_names(models) if models else "none"
            raise InputError(f"pairing: sources_by_model: no rollouts of model {model!r}; there are: {known}")
        for pattern in patterns:
            if not any(source_matches(pattern, source) for source in sources):
                known = _join_names(source or "(none)" for source in sources)
                raise InputError(
                    f"pairing: sources_by_model: {model}: no records of source {pattern!r}; there are: {known}"
                )


def _join_names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:20]) + (f" and {len(ordered) - 20} more" if len(ordered) > 20 else "")


def _sort_key(rollout: Rollout) -> tuple[str, str, int, int]:
    return rollout.model, rollout.fingerprint, rollout.seed, rollout.index


def _require_labels(record: Record, tasks: Sequence[Task]) -> None:
    labelled = False
    for task in tasks:
        label = record.labels.get(task.name)
        if label is not None and label not in task.labels:
            raise InputError(f"record {record.id}: {task.name}: {label!r} is none of {', '.join(task.labels)}")
        labelled = labelled or label is not None
    if not labelled:
        raise InputError(f"record {record.id}: no label for any task ({', '.join(task.name for task in tasks)})")


def _grade_codes(grades: Grades, tasks: Sequence[Task]) -> tuple[int, ...]:
    codes = {True: RIGHT, False: WRONG, None: UNPARSED}
    return tuple(codes[grades[task.name]] if task.name in grades else NO_LABEL for task in tasks)


def _count_group(
    record: Record, group: Sequence[_GradedRollout], tasks: Sequence[Task], pairing: Pairing, counts: MiningCounts
) -> HardGroup | None:
    """Count a group of outputs; return it with its deciding votes if it is hard."""
    unparsed = sum(None in grades.values() for _, grades in group)
    counts.groups += 1
    counts.outputs += len(group)
    counts.unparsed += unparsed
    votes = votes_by_question([grades for _, grades in group], tasks, pairing)
    outcome, task = classify_votes(votes)
    questions = [votes[task]] if task else list(votes.values())
    counts.dropped += sum(set(votes_of_output) == {None} for votes_of_output in zip(*questions, strict=True))
    field = outcome.replace(" ", "_")
    setattr(counts, field, getattr(counts, field) + 1)
    if outcome != "mixed":
        return None
    deciding = [(rollout, vote) for (rollout, _), vote in zip(group, votes[task], strict=True) if vote is not None]
    return HardGroup(record, task, tuple(rollout for rollout, _ in deciding), tuple(vote for _, vote in deciding))


def _gold_target(group: HardGroup, tasks: Sequence[Task], format: GuardFormat | None) -> str:
    """Return the training target of a group's record, for the speed of its outputs."""
    try:
        return (format or PromptFormat(tuple(tasks))).target(group.record, group.outputs[0].speed)
    except InputError as error:
        raise InputError(f"pairing: chosen gold: {error}", error.hint) from None


def _refuse_single_outputs(pairing: Pairing) -> None:
    scope = "over all models" if pairing.pool else "by any one model"
    excluded = " (of those that pairing.sources_by_model leaves)" if pairing.sources_by_model else ""
    raise InputError(
        f"no record has two outputs {scope}{excluded}: with k = 1 nothing can be mixed, so no record can be hard",
        "sample more outputs per record, or give the rollouts of several models"
        + ("" if pairing.pool else " and pool them"),
    )
