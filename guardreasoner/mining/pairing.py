"""How rollouts become pairs: the options, and the three published answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from guardreasoner.errors import InputError

VALIDATION_SHARE = 0.05
"""Default share of the hard prompts that a fit holds out to watch margins."""

ParserName = Literal["final-block", "released"]
Unparsable = Literal["wrong", "drop"]
Rule = Literal["random", "longest", "shortest", "all"]
Graded = Literal["all", "first-mixed"]


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class Pairing:
    """How rollouts become pairs.

    Args:
        pool: outputs of all models vote together; otherwise each model is mined alone, and a record's pairs are those
            of the first model, by name, for which it is hard.
        sources_by_model: by model name, the sources whose records its outputs are mined for: the full source, or the
            part before a "/" ("embedded" for "embedded/home"). A model that is not named mines every source;
            an empty list takes a model out.
        parser: how a verdict is read from an output.
        unparsable: an output without a verdict is a wrong vote, or no vote.
        chosen: which of the right outputs is preferred; lengths are in characters, the first of equals is taken.
        rejected: which of the wrong outputs it is preferred to. With "all", here or for ``chosen``, a record has
            several pairs: each such output with the one of the other side, or with all of them.
        cap: most pairs of one record; which ones are kept is drawn.
        graded: "all": an output is right when it meets every gold label. "first-mixed": tasks are graded one by one
            (request, response, completion, then others), and the first with right and wrong outputs decides.
        gamma: half-width of the range of the weights, 0 ≤ γ < 1.
        seed: of the random choices, which depend on it and on the record's id alone.

    Raises:
        InputError: a value outside its range.
    """

    pool: bool = True
    sources_by_model: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parser: ParserName = "final-block"
    unparsable: Unparsable = "wrong"
    chosen: Rule = "random"
    rejected: Rule = "random"
    cap: int = 8
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
        if isinstance(self.cap, bool) or not isinstance(self.cap, int) or self.cap < 1:
            raise InputError(f"pairing: cap must be a whole number, at least 1, got {self.cap!r}")
        if not isinstance(self.sources_by_model, Mapping):
            raise InputError(
                f"pairing: sources_by_model must be sources by a model's name, got {self.sources_by_model!r}"
            )
        for model, sources in self.sources_by_model.items():
            if isinstance(sources, str) or not all(isinstance(source, str) for source in sources or ()):
                raise InputError(f"pairing: sources_by_model: {model}: expected a list of sources, got {sources!r}")
        # In one order, so that equal options have equal fingerprints.
        sources_by_model = {
            model: sorted(set(sources or ())) for model, sources in sorted(self.sources_by_model.items())
        }
        object.__setattr__(self, "sources_by_model", sources_by_model)

    def takes(self, model: str, source: str) -> bool:
        """Return whether a model's outputs for the records of a source are mined."""
        return model not in self.sources_by_model or any(covers(one, source) for one in self.sources_by_model[model])


def covers(named: str, source: str) -> bool:
    """Return whether what an option names is a record's source, or stands before a "/" in it."""
    return source == named or source.startswith(f"{named}/")


_WORDS: dict[str, tuple[str, ...]] = {
    "parser": get_args(ParserName),
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
        parser="released",
        unparsable="drop",
        chosen="longest",
        rejected="longest",
        graded="first-mixed",
        gamma=0.2,
    ),
}
"""The two-stage plan, the paper's text, and the released miner."""
