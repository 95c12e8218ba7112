"""Draw policies for a conversation so that their rules say nothing about the label before the conversation is read."""

import hashlib
from collections.abc import Iterable, Sequence
from random import Random

from guardreasoner.records import Split
from guardreasoner.sources.embedded.policies.dialogues import Dialogue
from guardreasoner.sources.embedded.policies.rules import KNOWN_RULES, NEW_RULES, Form, Rule

Policy = tuple[Rule, ...]

_FORMS: dict[Form, int] = {"forbid": 3, "require": 3, "only_if": 2, "if_require": 1, "if_forbid": 1}
"""Relative frequency of the forms, among broken rules as among kept ones: so no form hints at the label."""
_SIZES = (2, 3, 4)
"""Numbers of rules of a policy, equally frequent."""
_TWO_BROKEN = 0.3
"""Probability that a violated policy of more than two rules has two broken ones."""
_RELEVANT = 0.7
"""Probability that a kept rule with a circumstance is about one that the conversation has, where there is one."""


def policy_split(policy: Iterable[Rule]) -> Split:
    """Return the split that owns a set of rules, for every seed: test a fifth, validation a tenth."""
    digest = hashlib.sha256(repr(sorted(policy)).encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 10
    return "test" if place < 2 else "validation" if place == 2 else "train"


def draw_policy_pair(dialogue: Dialogue, split: Split, rng: Random) -> tuple[Policy, Policy]:
    """Return two policies of known rules that a split owns: the conversation violates the first, not the second.

    Where the split has it, the second is the first with the broken rule turned into its opposite.
    """
    violated = _owned(dialogue, split, rng, broken=True)
    opposite = _with_opposite(violated, dialogue)
    if opposite is not None and policy_split(opposite) == split:
        return violated, opposite
    return violated, _owned(dialogue, split, rng, broken=False)


def draw_new_policy(dialogue: Dialogue, rng: Random, broken: bool) -> Policy:
    """Return a policy with one rule that training never shows; no other of its rules is broken.

    Args:
        dialogue: the conversation that is judged.
        rng: random generator.
        broken: whether the conversation breaks the new rule.
    """
    return _draw(dialogue, rng, [broken] + [False] * (rng.choice(_SIZES) - 1), new=True)


def _owned(dialogue: Dialogue, split: Split, rng: Random, broken: bool) -> Policy:
    while True:
        size = rng.choice(_SIZES)
        count = 0 if not broken else 2 if size > 2 and rng.random() < _TWO_BROKEN else 1
        policy = _draw(dialogue, rng, [True] * count + [False] * (size - count))
        if policy_split(policy) == split:
            return policy


def _draw(dialogue: Dialogue, rng: Random, broken: Sequence[bool], new: bool = False) -> Policy:
    """Return rules about different behaviours, one for each value of ``broken``, in random order."""
    rules: list[Rule] = []
    for index, status in enumerate(broken):
        permitted = NEW_RULES if new and index == 0 else KNOWN_RULES
        rules.append(_draw_rule(dialogue, status, permitted, {rule.behaviour for rule in rules}, rng))
    rng.shuffle(rules)
    return tuple(rules)


def _draw_rule(dialogue: Dialogue, broken: bool, rules: Sequence[Rule], used: set[str], rng: Random) -> Rule:
    while True:
        form = rng.choices(list(_FORMS), list(_FORMS.values()))[0]
        found = [
            rule
            for rule in rules
            if rule.form == form and rule.behaviour not in used and rule.is_broken(dialogue.facts) == broken
        ]
        relevant = [rule for rule in found if rule.circumstance in dialogue.facts]
        if not broken and relevant and rng.random() < _RELEVANT:
            return rng.choice(relevant)
        if found:
            return rng.choice(found)


def _with_opposite(policy: Policy, dialogue: Dialogue) -> Policy | None:
    """Return the policy with its broken rule turned into the opposite; None if it is not one rule, or still broken."""
    broken = [rule for rule in policy if rule.is_broken(dialogue.facts)]
    opposite = broken[0].opposite()
    if len(broken) > 1 or opposite not in KNOWN_RULES or opposite.is_broken(dialogue.facts):
        return None
    return tuple(opposite if rule is broken[0] else rule for rule in policy)
