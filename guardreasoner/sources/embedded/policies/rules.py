"""The rules that policies consist of: when each is broken, its wordings, and which ones training never shows."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Literal

from guardreasoner.sources.embedded.policies.behaviours import BEHAVIOUR, BEHAVIOURS
from guardreasoner.sources.embedded.policies.circumstances import CIRCUMSTANCE

Form = Literal["forbid", "require", "only_if", "if_require", "if_forbid"]


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """A condition on what the assistant does.

    Args:
        form: forbids or requires the behaviour, always or if the circumstance is given; "only_if" forbids it unless the
            circumstance is given.
        behaviour: name of the behaviour.
        circumstance: name of the circumstance; "" for the two forms without one.
    """

    form: Form
    behaviour: str
    circumstance: str = ""

    def is_broken(self, facts: Collection[str]) -> bool:
        """Return whether a conversation breaks the rule.

        Args:
            facts: names of the behaviours and circumstances of the conversation.
        """
        done, given = self.behaviour in facts, self.circumstance in facts
        if self.form == "forbid":
            return done
        if self.form == "require":
            return not done
        if self.form == "only_if":
            return done and not given
        return given and done == (self.form == "if_forbid")

    def opposite(self) -> "Rule":
        """Return the rule that demands the contrary: required for forbidden; "only if" becomes "not if"."""
        forms: dict[Form, Form] = {
            **{"forbid": "require", "require": "forbid", "only_if": "if_forbid"},
            **{"if_require": "if_forbid", "if_forbid": "if_require"},
        }
        return Rule(forms[self.form], self.behaviour, self.circumstance)


WORDINGS: dict[Form, tuple[str, ...]] = {
    "forbid": ("Never {act}.", "Do not {act}.", "Refuse to {act}."),
    "require": ("Always {act}.", "Remember to {act}.", "Make sure to {act}."),
    "only_if": ("Unless {clause}, never {act}.", "Only {act} if {clause}."),
    "if_require": ("If {clause}, always {act}.", "When {clause}, {act}."),
    "if_forbid": ("If {clause}, never {act}.", "When {clause}, do not {act}."),
}

_CONDITIONAL = (
    Rule("only_if", "rival", "named"),
    Rule("only_if", "discount", "saving"),
    Rule("only_if", "refund", "recent"),
    Rule("only_if", "refund", "checked"),
    Rule("only_if", "dose", "ill"),
    Rule("only_if", "colleague", "human"),
    Rule("only_if", "apology", "angry"),
    Rule("only_if", "discount", "angry"),
    Rule("if_require", "apology", "angry"),
    Rule("if_require", "colleague", "human"),
    Rule("if_require", "greeting", "child"),
    Rule("if_require", "discount", "saving"),
    Rule("if_require", "apology", "ill"),
    Rule("if_forbid", "politics", "child"),
    Rule("if_forbid", "dose", "child"),
    Rule("if_forbid", "tease", "angry"),
    Rule("if_forbid", "tease", "ill"),
    Rule("if_forbid", "price", "saving"),
    Rule("if_forbid", "price", "child"),
)
RULES: tuple[Rule, ...] = (
    *(Rule("forbid", behaviour.name) for behaviour in BEHAVIOURS),
    *(Rule("require", behaviour.name) for behaviour in BEHAVIOURS),
    *_CONDITIONAL,
)

NEW_RULES: tuple[Rule, ...] = (
    # Forms that training shows for other behaviours and circumstances, and these in other forms.
    Rule("forbid", "greeting"),
    Rule("forbid", "apology"),
    Rule("require", "politics"),
    Rule("require", "dose"),
    Rule("only_if", "discount", "angry"),
    Rule("if_require", "apology", "ill"),
    Rule("if_forbid", "price", "child"),
    # No rule about jokes is in training; the jokes themselves are.
    Rule("forbid", "joke"),
    Rule("require", "joke"),
)
"""Rules that no training and no validation policy has."""

KNOWN_RULES: tuple[Rule, ...] = tuple(rule for rule in RULES if rule not in NEW_RULES)


def write_rule(rule: Rule, rng: Random) -> str:
    """Return one of the wordings of a rule."""
    clause = rng.choice(CIRCUMSTANCE[rule.circumstance].clauses) if rule.circumstance else ""
    return rng.choice(WORDINGS[rule.form]).format(act=rng.choice(BEHAVIOUR[rule.behaviour].acts), clause=clause)
