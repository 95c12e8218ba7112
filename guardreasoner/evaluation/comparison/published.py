"""What the GuardReasoner paper prints of its own models: facts to stand beside one's own figures.

Source: arXiv 2501.18492v2 (17 October 2025), https://arxiv.org/abs/2501.18492, tables 2 (prompt harmfulness), 5
(response harmfulness), 8 (refusal) and 3 (sizes). F1 of the positive class in percent, as the released script counts
(mode ``released``). The means that the tables print follow from these rows and sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PAPER = "arXiv 2501.18492v2"

MODELS = ("1B", "3B", "8B")


@dataclass(frozen=True, slots=True)
class Published:
    """One benchmark's row.

    Args:
        table: of the paper.
        n: samples, as the paper counts them (table 3).
        f1: in percent, of the models in ``MODELS``.
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
    # The paper's 499 is in its weighted mean, too; the released file holds 449.
    ("XSTestResponseRefusal", "completion"): Published(8, 499, (91.34, 80.31, 93.68)),
    ("WildGuardTest", "completion"): Published(8, 1777, (87.71, 87.54, 88.91)),
}
"""By benchmark, under the name that its source or its folder of predictions has, and task."""

AVERAGES: Mapping[str, Published] = {
    "request": Published(2, 6987, (77.68, 80.76, 81.09)),
    "response": Published(5, 7837, (79.06, 80.80, 81.22)),
    "completion": Published(8, 2276, (88.51, 85.95, 89.96)),
}
"""By task, the mean over its benchmarks, weighted by their samples."""
