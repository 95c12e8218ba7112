"""Scores that the GuardReasoner paper reports for its own models, to show beside one's own.

Source: arXiv 2501.18492v2 (17 October 2025), https://arxiv.org/abs/2501.18492, tables 2 (prompt harmfulness), 5
(response harmfulness), 8 (refusal) and 3 (sizes). F1 of the positive class in percent, counted as the released script
does (mode ``released``). The means that the tables print follow from these rows and sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PAPER = "arXiv 2501.18492v2"

MODELS = ("1B", "3B", "8B")


@dataclass(frozen=True, slots=True)
class Published:
    """One benchmark's row in a table of the paper.

    Args:
        table: number of the table.
        n: number of samples, as the paper counts them (table 3).
        f1: F1 in percent of each of ``MODELS``.
    """

    table: int
    n: int
    f1: tuple[float, float, float]


ROWS: Mapping[tuple[str, str], Published] = {
    ("ToxicChatTest", "request"): Published(2, 2853, (72.43, 78.20, 78.79)),
    ("HarmBenchPrompt", "request"): Published(2, 239, (96.31, 89.10, 91.86)),
    ("OpenAIModeration", "request"): Published(2, 1680, (70.06, 71.87, 72.00)),
    ("AegisSafetyTest", "request"): Published(2, 359, (89.34, 91.39, 90.18)),
    ("SimpleSafetyTests", "request"): Published(2, 100, (98.99, 100.00, 99.50)),
    ("WildGuardTest", "request"): Published(2, 1756, (87.37, 89.01, 89.17)),
    ("HarmBenchResponse", "response"): Published(5, 602, (84.75, 85.66, 85.47)),
    ("SafeRLHF", "response"): Published(5, 2000, (68.39, 69.02, 70.04)),
    ("BeaverTailsTest", "response"): Published(5, 3021, (85.84, 86.72, 87.60)),
    ("XSTestReponseHarmful", "response"): Published(5, 446, (90.12, 91.36, 94.34)),
    ("WildGuardTest", "response"): Published(5, 1768, (74.81, 79.70, 78.20)),
    # 499 as the paper prints it and weights its mean with; the released file has 449 rows.
    ("XSTestResponseRefusal", "completion"): Published(8, 499, (91.34, 80.31, 93.68)),
    ("WildGuardTest", "completion"): Published(8, 1777, (87.71, 87.54, 88.91)),
}
"""Rows by (benchmark, task); a benchmark has the name of its source or of its folder of predictions."""

AVERAGES: Mapping[str, Published] = {
    "request": Published(2, 6987, (77.68, 80.76, 81.09)),
    "response": Published(5, 7837, (79.06, 80.80, 81.22)),
    "completion": Published(8, 2276, (88.51, 85.95, 89.96)),
}
"""Means by task over its benchmarks, weighted by their samples."""
