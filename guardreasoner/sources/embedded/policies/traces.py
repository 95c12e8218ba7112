"""The reasoning trace that goes through the rules of a policy and leads to the verdict.

Each line repeats a rule, searches the conversation for the signs of its facts, and judges it. A sign that is found is
followed by the words that follow it in the conversation: what a small language model can copy, it can look up.
"""

from collections.abc import Sequence

from guardreasoner.sources.embedded.policies.behaviours import BEHAVIOUR, Behaviour
from guardreasoner.sources.embedded.policies.circumstances import CIRCUMSTANCE, Circumstance
from guardreasoner.sources.embedded.policies.dialogues import Dialogue
from guardreasoner.sources.embedded.policies.rules import Rule


def write_trace(rules: Sequence[Rule], texts: Sequence[str], dialogue: Dialogue) -> str:
    """Return one line for each rule, then the first broken one.

    Args:
        rules: the rules of the policy in order.
        texts: their wordings.
        dialogue: the conversation.
    """
    lines = [
        f"{number}. {text} {_judge(rule, dialogue)}"
        for number, (rule, text) in enumerate(zip(rules, texts, strict=True), start=1)
    ]
    broken = first_broken(rules, dialogue)
    return "\n".join([*lines, "No rule is broken." if broken is None else f"Rule {broken} is the first broken."])


def first_broken(rules: Sequence[Rule], dialogue: Dialogue) -> int | None:
    """Return the number, from 1, of the first rule that a conversation breaks; None if it keeps all."""
    return next((number for number, rule in enumerate(rules, start=1) if rule.is_broken(dialogue.facts)), None)


def _judge(rule: Rule, dialogue: Dialogue) -> str:
    steps = [_find(BEHAVIOUR[rule.behaviour], dialogue)]
    if rule.circumstance:
        steps.insert(0, _find(CIRCUMSTANCE[rule.circumstance], dialogue))
    return f"{' '.join(steps)} {'Broken' if rule.is_broken(dialogue.facts) else 'Kept'}."


def _find(searched: Behaviour | Circumstance, dialogue: Dialogue) -> str:
    """Return the result of a search: a sentence of the conversation from the sign on, or that there is none."""
    quote = dialogue.quotes.get(searched.name)
    if quote is None:
        return f"Search: {searched.sign} not found."
    found = f"Search: {quote[quote.index(searched.sign) :].rstrip('.?')}"
    if isinstance(searched, Circumstance) and any(searched.meanings):
        found += f", {searched.meanings[searched.name not in dialogue.facts]}"
    return f"{found}."
