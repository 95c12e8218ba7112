"""Select which right and which wrong outputs of a hard record form pairs."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.mining.pairing import ChosenRule, Pairing
from guardreasoner.records import Pair, Record, Rollout

GOLD = "gold"
"""Stands for model and fingerprint of a chosen text that no model wrote: a record's own reasoning and labels."""


@dataclass(frozen=True, slots=True)
class HardGroup:
    """A group of outputs for one record with right and wrong votes.

    Args:
        record: the conversation.
        task: the question on which the outputs differ: a task's name, or "all".
        outputs: the outputs that vote, ordered by model, fingerprint, seed and index.
        votes: right (True) or wrong (False) for each output; both occur.
    """

    record: Record
    task: str
    outputs: tuple[Rollout, ...]
    votes: tuple[bool, ...]

    def excess_errors(self) -> int:
        """Return the number of wrong votes minus the number of right votes."""
        return len(self.votes) - 2 * sum(self.votes)

    def make_pairs(
        self, weight: float, pairing: Pairing, reserved_ids: Collection[str] = (), gold: str | None = None
    ) -> tuple[list[Pair], int]:
        """Make the pairs of this group.

        Args:
            weight: weight of the record, which each of its pairs carries.
            pairing: the options.
            reserved_ids: record ids, which no numbered pair may have.
            gold: text that replaces the chosen outputs; None keeps them.

        Returns:
            The pairs, in the order of the outputs, and how many more combinations exceed ``Pairing.cap``.

        Raises:
            InputError: a numbered pair would have the id of another record.
        """
        votes = list(zip(self.outputs, self.votes, strict=True))
        right, wrong = ([output for output, vote in votes if vote is wanted] for wanted in (True, False))
        combinations, beyond_cap = select_outputs(right, wrong, pairing, self.record.id)
        if gold is not None:
            own = Rollout(self.record.id, GOLD, GOLD, 0, 0, gold, self.outputs[0].speed)
            combinations = [(own, rejected) for _, rejected in combinations]
        rule = f"{pairing.chosen}/{pairing.rejected}"
        shared = (self.task, rule, self.excess_errors(), weight, self.votes)
        ids = _pair_ids(self.record.id, len(combinations), reserved_ids)
        pairs = [
            Pair(pair_id, self.record, chosen, rejected, *shared)
            for pair_id, (chosen, rejected) in zip(ids, combinations, strict=True)
        ]
        return pairs, beyond_cap


def select_outputs(
    right: Sequence[Rollout], wrong: Sequence[Rollout], pairing: Pairing, record_id: str
) -> tuple[list[tuple[Rollout, Rollout]], int]:
    """Select chosen and rejected outputs.

    Args:
        right: right outputs in a fixed order; at least one.
        wrong: wrong outputs in a fixed order; at least one.
        pairing: the rules, the cap, and the seed of the random choices.
        record_id: id of the record; the random choices depend only on it and on the seed.

    Returns:
        (chosen, rejected) tuples in the order of the outputs, and the number of combinations beyond the cap.
    """
    rng = random.Random(f"{pairing.seed} {record_id}")
    chosen, rejected = _apply_rule(right, pairing.chosen, rng), _apply_rule(wrong, pairing.rejected, rng)
    count = len(chosen) * len(rejected)
    indices = range(count) if count <= pairing.cap else sorted(rng.sample(range(count), pairing.cap))
    selected = [(chosen[index // len(rejected)], rejected[index % len(rejected)]) for index in indices]
    return selected, count - len(selected)


def _apply_rule(outputs: Sequence[Rollout], rule: ChosenRule, rng: random.Random) -> Sequence[Rollout]:
    if rule == "all":
        return outputs
    if rule in ("random", "gold"):  # "gold" draws too, so that the rejected outputs are those of "random"
        return [rng.choice(outputs)]
    sign = 1 if rule == "longest" else -1
    return [max(outputs, key=lambda output: sign * len(output.completion))]


def _pair_ids(record_id: str, count: int, reserved_ids: Collection[str]) -> list[str]:
    """Return the ids of a record's pairs: the record's id for a single pair, otherwise numbered ids."""
    if count == 1:
        return [record_id]
    ids = [f"{record_id}#{number}" for number in range(1, count + 1)]
    for pair_id in ids:
        if pair_id in reserved_ids:
            raise InputError(f"record {record_id!r}: the id {pair_id!r} of one of its pairs is also the id of a record")
    return ids
