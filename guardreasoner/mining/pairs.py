"""Hard records and their weighted pairs, out of records and rollouts."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from guardreasoner.errors import InputError
from guardreasoner.mining.counts import Counts
from guardreasoner.mining.grading import Grades, ballots, grade, outcome
from guardreasoner.mining.pairing import Pairing, Rule
from guardreasoner.records import Pair, Record, Rollout, require_unique_ids
from guardreasoner.tasks import Task


@dataclass(frozen=True, slots=True)
class Mined:
    """The pairs, in the order of the records, and what was found, by source in alphabetical order."""

    pairs: list[Pair]
    counts: dict[str, Counts]

    def total(self) -> Counts:
        """Return the counts over all sources."""
        return sum(self.counts.values(), Counts())


def mine(records: Sequence[Record], rollouts: Iterable[Rollout], tasks: Sequence[Task], pairing: Pairing) -> Mined:
    """Find the hard records among those that have rollouts, and make one pair of each.

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
        InputError: a rollout of an unknown record, the same rollout twice, a record without a label or with an unknown
            one, or no record with two outputs to compare.
    """
    by_record = _by_record(records, rollouts)
    counts: dict[str, Counts] = defaultdict(Counts)
    scopes: dict[tuple[str, str], list[_Hard]] = defaultdict(list)
    most = 0
    for record in records:
        _require_labels(record, tasks)
        for model, group in _groups(by_record.pop(record.id, []), pairing.pool):
            most = max(most, len(group))
            grades = [grade(record, rollout.completion, tasks, pairing.reading) for rollout in group]
            hard = _examine(record, group, grades, tasks, pairing, counts[record.source])
            if hard:
                scopes[model, "" if pairing.pool else record.source].append(hard)
    if most < 2:
        where = "over all models" if pairing.pool else "by any one model"
        raise InputError(
            f"no record has two outputs {where}: with k = 1 nothing can be mixed, so no record can be hard",
            "sample more outputs a record, or give the rollouts of several models"
            + ("" if pairing.pool else " and pool them"),
        )
    pairs = {}
    for scope in sorted(scopes):
        for hard, weight in zip(scopes[scope], _weights(scopes[scope], pairing.gamma), strict=True):
            if hard.record.id in pairs:
                counts[hard.record.source].duplicates += 1
            else:
                pairs[hard.record.id] = hard.pair(weight, pairing)
                counts[hard.record.source].pairs += 1
    in_order = [pairs[record.id] for record in records if record.id in pairs]
    return Mined(in_order, dict(sorted(counts.items())))


@dataclass(frozen=True, slots=True)
class _Hard:
    record: Record
    task: str
    outputs: tuple[Rollout, ...]
    votes: tuple[bool, ...]

    def excess_errors(self) -> int:
        return len(self.votes) - 2 * sum(self.votes)

    def pair(self, weight: float, pairing: Pairing) -> Pair:
        rng = random.Random(f"{pairing.seed} {self.record.id}")
        right = [output for output, vote in zip(self.outputs, self.votes, strict=True) if vote]
        wrong = [output for output, vote in zip(self.outputs, self.votes, strict=True) if not vote]
        chosen, rejected = _pick(right, pairing.chosen, rng), _pick(wrong, pairing.rejected, rng)
        rule = f"{pairing.chosen}/{pairing.rejected}"
        return Pair(self.record, chosen, rejected, self.task, rule, self.excess_errors(), weight, self.votes)


def _by_record(records: Sequence[Record], rollouts: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    require_unique_ids(records, "records")
    by_record: dict[str, list[Rollout]] = {record.id: [] for record in records}
    for rollout in rollouts:
        if rollout.record_id not in by_record:
            found = f"{rollout.model} answered {rollout.record_id!r}, which is not among the {len(by_record)} records"
            raise InputError(f"rollouts that belong to other records: {found}")
        by_record[rollout.record_id].append(rollout)
    return by_record


def _key(rollout: Rollout) -> tuple[str, str, int, int]:
    return rollout.model, rollout.fingerprint, rollout.seed, rollout.index


def _groups(rollouts: list[Rollout], pool: bool) -> Iterable[tuple[str, list[Rollout]]]:
    """Yield (model, outputs in the order of their keys); one group under the name "" when pooled."""
    rollouts.sort(key=_key)
    for one, other in pairwise(rollouts):
        if _key(one) == _key(other):
            what = f"record {one.record_id!r}: {one.model} (seed {one.seed}) gives output {one.index} twice"
            raise InputError(what, "the same rollouts may have been given twice")
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault("" if pool else rollout.model, []).append(rollout)
    return groups.items()


def _require_labels(record: Record, tasks: Sequence[Task]) -> None:
    labelled = False
    for task in tasks:
        label = record.labels.get(task.name)
        if label is not None and label not in task.labels:
            raise InputError(f"record {record.id}: {task.name}: {label!r} is none of {', '.join(task.labels)}")
        labelled = labelled or label is not None
    if not labelled:
        raise InputError(f"record {record.id}: no label for any task ({', '.join(task.name for task in tasks)})")


def _examine(
    record: Record, group: list[Rollout], grades: list[Grades], tasks: Sequence[Task], pairing: Pairing, counts: Counts
) -> _Hard | None:
    """Count the group; return it with its deciding votes if it is hard."""
    unparsed = sum(None in one.values() for one in grades)
    counts.groups += 1
    counts.outputs += len(group)
    counts.unparsed += unparsed
    counts.dropped += unparsed if pairing.unparsable == "drop" else 0
    cast = ballots(grades, tasks, pairing)
    found, task = outcome(cast)
    name = found.replace(" ", "_")
    setattr(counts, name, getattr(counts, name) + 1)
    if found != "mixed":
        return None
    votes = [(output, vote) for output, vote in zip(group, cast[task], strict=True) if vote is not None]
    return _Hard(record, task, tuple(output for output, _ in votes), tuple(vote for _, vote in votes))


def _pick(outputs: list[Rollout], rule: Rule, rng: random.Random) -> Rollout:
    if rule == "random":
        return rng.choice(outputs)
    sign = 1 if rule == "longest" else -1
    return max(outputs, key=lambda output: sign * len(output.completion))


def _weights(hard: Sequence[_Hard], gamma: float) -> list[float]:
    import torch  # here, since reading options, grading and scoring need no torch

    from guardreasoner.objective import adaptive_weight

    return adaptive_weight(torch.tensor([one.excess_errors() for one in hard]), gamma).tolist()
