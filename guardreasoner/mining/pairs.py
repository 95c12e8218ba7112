"""Hard records and their weighted pairs, out of records and rollouts."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from guardreasoner.errors import InputError
from guardreasoner.mining.counts import NO_LABEL, RIGHT, UNPARSED, WRONG, Counts, RecordGrades
from guardreasoner.mining.grading import Grades, ballots, grade, outcome
from guardreasoner.mining.pairing import Pairing, covers
from guardreasoner.mining.picking import Hard
from guardreasoner.mining.weights import adaptive_weight
from guardreasoner.records import FILE_FINGERPRINT, Pair, Record, Rollout, require_unique_ids
from guardreasoner.tasks import Task

_Graded = tuple[Rollout, Grades]


@dataclass(frozen=True, slots=True)
class Scope:
    """The hard groups over which α is min–max: all of them when pooled, otherwise those of one model in one source.

    Args:
        hard: how many there are.
        least: the smallest excess of wrong over right votes among them.
        most: the largest.
    """

    hard: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Mined:
    """What mining found.

    Args:
        pairs: in the order of the records.
        counts: by source, in alphabetical order.
        tallies: how each model's outputs for each record were graded, record by record.
        scopes: by model and source, both "" when pooled.
        tasks: names of the tasks, in the order of the tallies.
        pairing: the options.
    """

    pairs: list[Pair]
    counts: dict[str, Counts]
    tallies: list[RecordGrades]
    scopes: dict[tuple[str, str], Scope]
    tasks: tuple[str, ...]
    pairing: Pairing

    def total(self) -> Counts:
        """Return the counts over all sources."""
        return sum(self.counts.values(), Counts())


def mine(records: Sequence[Record], rollouts: Iterable[Rollout], tasks: Sequence[Task], pairing: Pairing) -> Mined:
    """Find the hard records among those that have rollouts, and make one or several pairs of each.

    The result depends on neither the order of the rollouts nor, but for the order of the pairs, that of the records.

    Args:
        records: with gold labels; those without any rollout are passed over.
        rollouts: outputs of one or more models.
        tasks: what an output may answer.
        pairing: the options.

    Returns:
        Pairs and counts; no pair is no error. α is min–max over all hard groups when pooled, otherwise over those of
        one model in one source, as in the released code; its weights are fixed before duplicates are left out.

    Raises:
        InputError: a rollout of an unknown record, the same rollout twice, two models of one name, a record without a
            label or with an unknown one, an unknown model or source in ``pairing.sources_by_model``, or no
            record with two outputs to compare.
    """
    by_record, models = _by_record(records, rollouts)
    _require_known(pairing, models, {record.source for record in records})
    ids, counts = frozenset(by_record), defaultdict[str, Counts](Counts)
    tallies, rows = list[RecordGrades](), dict[tuple[int, ...], tuple[int, ...]]()
    hard: dict[tuple[str, str], list[Hard]] = defaultdict(list)
    most = 0
    for record in records:
        _require_labels(record, tasks)
        given = in_order(by_record.pop(record.id))
        own = [rollout for rollout in given if pairing.takes(rollout.model, record.source)]
        if len(own) < len(given):
            counts[record.source].not_mined += len(given) - len(own)
        graded = [(rollout, grade(record, rollout.completion, tasks, pairing.parser)) for rollout in own]
        by_model = groups(graded, pool=False)
        for model, group in by_model.items():
            coded = [_coded(grades, tasks) for _, grades in group]
            tallies.append(
                RecordGrades(record.id, record.source, model, tuple(rows.setdefault(row, row) for row in coded))
            )
        for model, group in (groups(graded, pool=True) if pairing.pool else by_model).items():
            most = max(most, len(group))
            if found := _examine(record, group, tasks, pairing, counts[record.source]):
                hard[scope_of(model, record, pairing)].append(found)
    if most < 2:
        _refuse_single_outputs(pairing)
    pairs: dict[str, list[Pair]] = {}
    for scope in sorted(hard):
        alphas = adaptive_weight([one.excess_errors() for one in hard[scope]], pairing.gamma).tolist()
        for one, weight in zip(hard[scope], alphas, strict=True):
            found_in = counts[one.record.source]
            if one.record.id in pairs:
                found_in.duplicates += 1
                continue
            pairs[one.record.id], beyond = one.pairs(weight, pairing, ids)
            found_in.pairs += len(pairs[one.record.id])
            found_in.beyond_cap += beyond
    in_all = [pair for record in records for pair in pairs.get(record.id, ())]
    scopes = {scope: _scope(hard[scope]) for scope in sorted(hard)}
    names = tuple(task.name for task in tasks)
    return Mined(in_all, dict(sorted(counts.items())), tallies, scopes, names, pairing)


def in_order(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """Return one record's rollouts by model, fingerprint, seed and index.

    Raises:
        InputError: one occurs twice, or two models have one name.
    """
    ordered = sorted(rollouts, key=_key)
    for one, other in pairwise(ordered):
        if _key(one) == _key(other):
            what = f"record {one.record_id!r}: {one.model} (seed {one.seed}) gives output {one.index} twice"
            raise InputError(what, "the same rollouts may have been given twice")
        if one.model == other.model and one.fingerprint != other.fingerprint:
            raise _two_of_one_name(one, other.fingerprint)
    return ordered


def groups(graded: Iterable[_Graded], pool: bool) -> dict[str, list[_Graded]]:
    """Return a record's outputs with their grades by model; under the name "" when pooled."""
    found: dict[str, list[_Graded]] = {}
    for rollout, grades in graded:
        found.setdefault("" if pool else rollout.model, []).append((rollout, grades))
    return found


def scope_of(model: str, record: Record, pairing: Pairing) -> tuple[str, str]:
    """Return the model and source over whose hard groups a group's α is min–max."""
    return model, "" if pairing.pool else record.source


def _by_record(records: Sequence[Record], rollouts: Iterable[Rollout]) -> tuple[dict[str, list[Rollout]], set[str]]:
    """Return the rollouts by record, and the models' names."""
    require_unique_ids(records, "records")
    by_record: dict[str, list[Rollout]] = {record.id: [] for record in records}
    models: dict[str, str] = {}
    for rollout in rollouts:
        if rollout.record_id not in by_record:
            found = f"{rollout.model} answered {rollout.record_id!r}, which is not among the {len(by_record)} records"
            raise InputError(f"rollouts that belong to other records: {found}")
        # What was hashed in place of the weights differs by file, and says nothing of rollouts on other records.
        weights = "" if rollout.fingerprint.startswith(FILE_FINGERPRINT) else rollout.fingerprint
        known = models.setdefault(rollout.model, weights)
        if weights and known and known != weights:
            raise _two_of_one_name(rollout, known)
        models[rollout.model] = known or weights
        by_record[rollout.record_id].append(rollout)
    return by_record, set(models)


def _two_of_one_name(rollout: Rollout, fingerprint: str) -> InputError:
    one, other = sorted((rollout.fingerprint, fingerprint))
    return InputError(
        f"record {rollout.record_id!r}: rollouts of two models under the name {rollout.model!r}: "
        f"fingerprints {one[:16]} and {other[:16]}",
        "a model is called like its folder: mine the two checkpoints apart, or rename one and sample again",
    )


def _require_known(pairing: Pairing, models: Collection[str], sources: Collection[str]) -> None:
    for model, named in pairing.sources_by_model.items():
        if model not in models:
            known = _listed(models) if models else "none"
            raise InputError(f"pairing: sources_by_model: no rollout is of a model {model!r}; there are: {known}")
        for one in named:
            if not any(covers(one, source) for source in sources):
                known = _listed(source or "(none)" for source in sources)
                raise InputError(
                    f"pairing: sources_by_model: {model}: no record is of a source {one!r}; there are: {known}"
                )


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:20]) + (f" and {len(ordered) - 20} more" if len(ordered) > 20 else "")


def _key(rollout: Rollout) -> tuple[str, str, int, int]:
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


def _coded(grades: Grades, tasks: Sequence[Task]) -> tuple[int, ...]:
    codes = {True: RIGHT, False: WRONG, None: UNPARSED}
    return tuple(codes[grades[task.name]] if task.name in grades else NO_LABEL for task in tasks)


def _examine(
    record: Record, group: Sequence[_Graded], tasks: Sequence[Task], pairing: Pairing, counts: Counts
) -> Hard | None:
    """Count the group; return it with its deciding votes if it is hard."""
    unparsed = sum(None in grades.values() for _, grades in group)
    counts.groups += 1
    counts.outputs += len(group)
    counts.unparsed += unparsed
    counts.dropped += unparsed if pairing.unparsable == "drop" else 0
    cast = ballots([grades for _, grades in group], tasks, pairing)
    found, task = outcome(cast)
    name = found.replace(" ", "_")
    setattr(counts, name, getattr(counts, name) + 1)
    if found != "mixed":
        return None
    votes = [(output, vote) for (output, _), vote in zip(group, cast[task], strict=True) if vote is not None]
    return Hard(record, task, tuple(output for output, _ in votes), tuple(vote for _, vote in votes))


def _refuse_single_outputs(pairing: Pairing) -> None:
    where = "over all models" if pairing.pool else "by any one model"
    left_out = " (of those that pairing.sources_by_model leaves)" if pairing.sources_by_model else ""
    raise InputError(
        f"no record has two outputs {where}{left_out}: with k = 1 nothing can be mixed, so no record can be hard",
        "sample more outputs a record, or give the rollouts of several models"
        + ("" if pairing.pool else " and pool them"),
    )


def _scope(hard: Sequence[Hard]) -> Scope:
    excess = [one.excess_errors() for one in hard]
    return Scope(len(hard), min(excess), max(excess))
