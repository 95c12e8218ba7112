"""How rollouts become pairs: the options, and the three published answers."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from guardreasoner.errors import InputError

ReadingName = Literal["final-block", "released"]
Unparsable = Literal["wrong", "drop"]
Rule = Literal["random", "longest", "shortest"]
Graded = Literal["all", "first-mixed"]


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class Pairing:
    """How rollouts become pairs.

    Args:
        pool: outputs of all models vote together; otherwise each model is mined alone, and one pair a record is kept.
        reading: how a verdict is read from an output.
        unparsable: an output without a verdict is a wrong vote, or no vote.
        chosen: which of the right outputs is preferred; lengths are in characters, the first of equals is taken.
        rejected: which of the wrong outputs it is preferred to.
        graded: "all": an output is right when it meets every gold label. "first-mixed": tasks are graded one by one
            (request, response, completion, then others), and the first with right and wrong outputs decides.
        gamma: half-width of the range of the weights, 0 ≤ γ < 1.
        seed: of the random choices, which depend on it and on the record's id alone.

    Raises:
        InputError: a value outside its range.
    """

    pool: bool = True
    reading: ReadingName = "final-block"
    unparsable: Unparsable = "wrong"
    chosen: Rule = "random"
    rejected: Rule = "random"
    graded: Graded = "all"
    gamma: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise InputError(f"pairing: {name} must be one of {', '.join(words)}, got {getattr(self, name)!r}")
        if not (math.isfinite(self.gamma) and 0 <= self.gamma < 1):
            raise InputError(
                f"pairing: gamma must be in [0, 1), got {self.gamma}", "at 1 an easy pair would weigh nothing"
            )


_WORDS: dict[str, tuple[str, ...]] = {
    "reading": get_args(ReadingName),
    "unparsable": get_args(Unparsable),
    "chosen": get_args(Rule),
    "rejected": get_args(Rule),
    "graded": get_args(Graded),
}

PRESETS: dict[str, Pairing] = {
    "plan": Pairing(),
    "paper": Pairing(pool=False, gamma=0.2),
    "released": Pairing(
        pool=False,
        reading="released",
        unparsable="drop",
        chosen="longest",
        rejected="longest",
        graded="first-mixed",
        gamma=0.2,
    ),
}
"""The two-stage plan, the paper's text, and the released miner."""
