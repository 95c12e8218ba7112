"""Options for turning rollouts into preference pairs, and the presets of the plan, the paper and the released code."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from guardreasoner.errors import InputError
from guardreasoner.workflow.ranges import Count, Seed, ShareBelowOne

VALIDATION_SHARE = 0.05
"""Default share of the hard prompts that a fit holds out to watch margins."""

ParserName = Literal["final-block", "released"]
UnparsablePolicy = Literal["wrong", "drop"]
SelectionRule = Literal["random", "longest", "shortest", "all"]
ChosenRule = Literal[SelectionRule, "gold"]
GradingMode = Literal["all", "first-mixed"]


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class Pairing:
    """Options for turning rollouts into preference pairs.

    Args:
        pool: whether the outputs of all models vote together. Otherwise each model is mined separately, and a record
            takes its pairs from the first model, by name, for which it is hard.
        sources_by_model: for each model name, the sources that its outputs are mined for: a full source, or the part
            before a "/" ("embedded" for "embedded/home"). A model that is not listed is mined for every source; an
            empty list excludes a model.
        parser: how a verdict is read from an output.
        unparsable: whether an output without a verdict is a wrong vote ("wrong") or no vote ("drop").
        chosen: which of the right outputs is preferred. Lengths are in characters; the first of equal lengths is taken.
            "gold": none of them, but the training target of R-SFT, that is the record's own reasoning and labels; the
            rejected outputs are those of "random".
        rejected: which of the wrong outputs is rejected. With "all", here or for ``chosen``, a record has several
            pairs: one for each combination of the selected right and wrong outputs.
        cap: largest number of pairs per record; a random subset is kept.
        graded: "all": an output is right if it matches every gold label. "first-mixed": tasks are graded one by one
            (request, response, completion, then others), and the first task with right and wrong outputs decides.
        gamma: half-width of the range of the weights, 0 ≤ γ < 1.
        seed: seed of the random choices, which depend only on it and on the record's id.

    Raises:
        InputError: a value is outside its range.
    """

    pool: bool = True
    sources_by_model: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parser: ParserName = "final-block"
    unparsable: UnparsablePolicy = "wrong"
    chosen: ChosenRule = "random"
    rejected: SelectionRule = "random"
    cap: Count = 8
    graded: GradingMode = "all"
    gamma: ShareBelowOne = 0.5
    seed: Seed = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"pairing: {name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not (math.isfinite(self.gamma) and 0 <= self.gamma < 1):
            raise InputError(
                f"pairing: gamma must be in [0, 1), got {self.gamma}", "at 1 the easiest pair would have weight 0"
            )
        if isinstance(self.cap, bool) or not isinstance(self.cap, int) or self.cap < 1:
            raise InputError(f"pairing: cap must be a whole number, at least 1, got {self.cap!r}")
        if not isinstance(self.sources_by_model, Mapping):
            raise InputError(
                f"pairing: sources_by_model must be a mapping from model name to a list of sources, "
                f"got {self.sources_by_model!r}"
            )
        for model, sources in self.sources_by_model.items():
            if isinstance(sources, str) or not all(isinstance(source, str) for source in sources or ()):
                raise InputError(f"pairing: sources_by_model: {model}: expected a list of sources, got {sources!r}")
        # Sorted, so that equal options have equal fingerprints.
        sources_by_model = {
            model: sorted(set(sources or ())) for model, sources in sorted(self.sources_by_model.items())
        }
        object.__setattr__(self, "sources_by_model", sources_by_model)

    def includes(self, model: str, source: str) -> bool:
        """Return whether a model's outputs are mined for records of this source."""
        patterns = self.sources_by_model.get(model)
        return patterns is None or any(source_matches(pattern, source) for pattern in patterns)


def source_matches(pattern: str, source: str) -> bool:
    """Return whether a pattern of ``sources_by_model`` equals a record's source or its part before a "/"."""
    return source == pattern or source.startswith(f"{pattern}/")


_CHOICES: dict[str, tuple[str, ...]] = {
    "parser": get_args(ParserName),
    "unparsable": get_args(UnparsablePolicy),
    "chosen": get_args(ChosenRule),
    "rejected": get_args(SelectionRule),
    "graded": get_args(GradingMode),
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
"""Options of the two-stage plan, the paper's text, and the released miner."""
