"""Which right and which wrong outputs of a hard record become pairs."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.mining.pairing import Pairing, Rule
from guardreasoner.records import Pair, Record, Rollout


@dataclass(frozen=True, slots=True)
class Hard:
    """A hard group of outputs.

    Args:
        record: the conversation.
        task: the question on which the outputs differ: a task's name, or "all".
        outputs: those that vote, in their order.
        votes: right or wrong, an output each; both occur.
    """

    record: Record
    task: str
    outputs: tuple[Rollout, ...]
    votes: tuple[bool, ...]

    def excess_errors(self) -> int:
        """Return wrong minus right votes."""
        return len(self.votes) - 2 * sum(self.votes)

    def pairs(self, weight: float, pairing: Pairing, taken: Collection[str] = ()) -> tuple[list[Pair], int]:
        """Return the pairs, in the order of the outputs, and how many more there are beyond ``Pairing.cap``.

        Args:
            weight: the record's, which each of its pairs carries.
            pairing: the options.
            taken: ids that no pair may have, if it is not the record's only one.

        Raises:
            InputError: a pair's id is that of another record.
        """
        votes = list(zip(self.outputs, self.votes, strict=True))
        right, wrong = ([output for output, vote in votes if vote is wanted] for wanted in (True, False))
        combinations, beyond = pick(right, wrong, pairing, self.record.id)
        rule = f"{pairing.chosen}/{pairing.rejected}"
        rest = (self.task, rule, self.excess_errors(), weight, self.votes)
        names = _names(self.record.id, len(combinations), taken)
        pairs = [
            Pair(name, self.record, chosen, rejected, *rest)
            for name, (chosen, rejected) in zip(names, combinations, strict=True)
        ]
        return pairs, beyond


def pick(
    right: Sequence[Rollout], wrong: Sequence[Rollout], pairing: Pairing, record_id: str
) -> tuple[list[tuple[Rollout, Rollout]], int]:
    """Choose what is preferred to what.

    Args:
        right: at least one output, in their order.
        wrong: at least one.
        pairing: the rules, the cap, and the seed of what is drawn.
        record_id: draws depend on it and on the seed alone.

    Returns:
        (chosen, rejected) in the order of the outputs, and how many such combinations were left out.
    """
    rng = random.Random(f"{pairing.seed} {record_id}")
    chosen, rejected = _picked(right, pairing.chosen, rng), _picked(wrong, pairing.rejected, rng)
    count = len(chosen) * len(rejected)
    places = range(count) if count <= pairing.cap else sorted(rng.sample(range(count), pairing.cap))
    kept = [(chosen[place // len(rejected)], rejected[place % len(rejected)]) for place in places]
    return kept, count - len(kept)


def _picked(outputs: Sequence[Rollout], rule: Rule, rng: random.Random) -> Sequence[Rollout]:
    if rule == "all":
        return outputs
    if rule == "random":
        return [rng.choice(outputs)]
    sign = 1 if rule == "longest" else -1
    return [max(outputs, key=lambda output: sign * len(output.completion))]


def _names(record_id: str, count: int, taken: Collection[str]) -> list[str]:
    """Return the ids of a record's pairs: its own where there is one, else numbered."""
    if count == 1:
        return [record_id]
    names = [f"{record_id}#{number}" for number in range(1, count + 1)]
    for name in names:
        if name in taken:
            raise InputError(f"record {record_id!r}: one of its {count} pairs would be called {name!r}, as a record is")
    return names
