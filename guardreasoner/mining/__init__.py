"""Mine hard records: grade rollouts, find the records whose outputs are partly wrong, and make weighted pairs of them.

A record is hard when some of its outputs are right and some wrong (arXiv 2501.18492, section 3.3). The paper's text,
its released code (https://github.com/yueliu1999/GuardReasoner) and the plan that this project follows differ in the
details. :class:`Pairing` holds the options, and :data:`PRESETS` the three combinations. Mining loads no torch, and its
result depends only on the arguments; it keeps texts in temporary files instead of in memory.
"""

from guardreasoner.mining.counts import MiningCounts
from guardreasoner.mining.grading import Grades, grade
from guardreasoner.mining.pairing import (
    PRESETS,
    VALIDATION_SHARE,
    ChosenRule,
    GradingMode,
    Pairing,
    ParserName,
    SelectionRule,
    UnparsablePolicy,
)
from guardreasoner.mining.pairs import MiningResult, mine

__all__ = [
    "PRESETS",
    "VALIDATION_SHARE",
    "ChosenRule",
    "Grades",
    "GradingMode",
    "MiningCounts",
    "MiningResult",
    "Pairing",
    "ParserName",
    "SelectionRule",
    "UnparsablePolicy",
    "grade",
    "mine",
]
