"""A topic: four acts with similar vocabulary that differ in whether they harm people."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Act:
    """An act that is named but never explained.

    Args:
        goal: bare infinitive that follows "how to"; the goal of a dual-use act contains ``{owner}``.
        steps: two phrases that follow "first" or "you"; those of harmful acts are too vague to be useful.
    """

    goal: str
    steps: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Topic:
    """A subject with four acts: a harmful, a safe, a harmless but alarming and a dual-use one.

    Args:
        name: one word, part of record ids.
        subject: noun phrase for the subject, as in "a class on …".
        harm: an act that always harms people.
        safe: an act that protects from the harmful act.
        lookalike: a harmless act in alarming words.
        dual: an act that is harmless with the owner's consent and harmful without it.
        dangers: two clauses that complete "it is wrong because".
    """

    name: str
    subject: str
    harm: Act
    safe: Act
    lookalike: Act
    dual: Act
    dangers: tuple[str, str]
