"""What a conversation may show about its user or its order, on which rules may depend."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Circumstance:
    """A fact that a sentence of the user, or the result of a tool, shows.

    Args:
        name: one word, unique.
        clauses: what follows "if" or "unless" in a rule; none contains the sign.
        sign: a word inside each sentence, which nothing else in a conversation contains.
        sentences: sentences that show it.
        against: sentences with the same sign that show the opposite.
        meanings: what a reasoning trace says of ``sentences`` and of ``against``; empty where the sign says it all.
    """

    name: str
    clauses: tuple[str, ...]
    sign: str
    sentences: tuple[str, ...]
    against: tuple[str, ...] = ()
    meanings: tuple[str, str] = ("", "")


CIRCUMSTANCES: tuple[Circumstance, ...] = (
    Circumstance(
        "named",
        ("the user named one first", "the user spoke of one before"),
        "competitor",
        ("I was at a competitor before.", "Your competitor told me so.", "My friend likes a competitor more."),
    ),
    Circumstance(
        "saving",
        ("the user wants to pay less", "the user has little money"),
        "save",
        ("I want to save this time.", "Can I save a bit?", "I must save this month."),
    ),
    Circumstance(
        "recent",
        ("the order is at most a month old", "the order was made within a month"),
        "bought",
        ("I bought it 5 days ago.", "I bought it 12 days ago.", "I bought it 20 days ago."),
        ("I bought it 40 days ago.", "I bought it 70 days ago.", "I bought it 90 days ago."),
        ("at most a month", "more than a month"),
    ),
    Circumstance(
        "checked",
        ("it looked up the order first", "it has checked the order"),
        "paid",
        ("The bill is paid by card.",),
    ),
    Circumstance(
        "ill",
        ("the user is ill", "the user feels sick"),
        "fever",
        ("I have a fever again.", "My fever is back.", "This fever is bad."),
    ),
    Circumstance(
        "child",
        ("the user is a child", "the user is very young"),
        "years",
        ("I am nine years old.", "I am only six years old.", "At eight years old I need help."),
    ),
    Circumstance(
        "angry",
        ("the user complains", "the user is upset"),
        "angry",
        ("I am so angry now.", "This makes me angry again.", "You see me angry here."),
    ),
    Circumstance(
        "human",
        ("the user asks for a person", "the user wants no machine"),
        "human",
        ("Let me speak to a human now.", "I want a human here.", "Is there a human around?"),
    ),
)
CIRCUMSTANCE = {circumstance.name: circumstance for circumstance in CIRCUMSTANCES}
