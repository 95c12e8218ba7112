"""Rollouts to graded votes, votes to hard records, hard records to weighted pairs: a pure function of its inputs.

A record is hard when some of its outputs are right and some wrong (arXiv 2501.18492, section 3.3). The paper's text,
its released code (https://github.com/yueliu1999/GuardReasoner) and the plan that this project follows differ in how
they get there; :class:`Pairing` holds what differs and :data:`PRESETS` the three answers.
"""

from guardreasoner.mining.counts import Counts
from guardreasoner.mining.grading import Grades, grade
from guardreasoner.mining.pairing import PRESETS, VALIDATION_SHARE, Graded, Pairing, ParserName, Rule, Unparsable
from guardreasoner.mining.pairs import Mined, mine

__all__ = [
    "PRESETS",
    "VALIDATION_SHARE",
    "Counts",
    "Graded",
    "Grades",
    "Mined",
    "Pairing",
    "ParserName",
    "Rule",
    "Unparsable",
    "grade",
    "mine",
]
