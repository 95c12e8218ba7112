"""Quality of probabilities as tables, notes and JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

from guardreasoner.evaluation.scoring.probabilities import (
    BINS,
    POOLED,
    PROBABILITY_RESAMPLES,
    RATES,
    ProbabilityScore,
    needed_negatives,
)
from guardreasoner.report.score_tables import estimate_as_json
from guardreasoner.report.table import UNDEFINED, Cell, Table, estimate_cell


def probability_table(title: str, probabilities: Sequence[ProbabilityScore]) -> Table:
    """Return the quality of one model's probabilities, one row per benchmark, task and kind of score."""
    headings = (
        *("benchmark", "task", "score", "n", "AUROC", "AUPRC", "ECE", "Brier"),
        *(f"recall at\n{100 * rate:g} % FPR" for rate in RATES),
    )
    rows = [
        [
            *(Cell(text) for text in (row.benchmark, row.task, row.kind)),
            Cell(f"{row.n:,}", f"{row.unscored:,}" if row.unscored else ""),
            *(estimate_cell(value) for value in (row.auroc, row.auprc, row.calibration_error, row.brier)),
            *(estimate_cell(row.recall_at[rate]) for rate in RATES),
        ]
        for row in probabilities
    ]
    return Table(title, headings, rows, text_columns=3)


def probability_notes(probabilities: Iterable[ProbabilityScore], resamples: int) -> list[str]:
    """Return notes that explain the numbers in the tables of :func:`probability_table`; none without rows."""
    probabilities = list(probabilities)
    if not probabilities:
        return []
    notes = [
        "Scores are probabilities of the positive label, direct, after the reasoning, or as a share of votes; "
        "in percent. Below n: records without a score, which count as the worst case: 1 where the label is negative, 0 "
        "where it is positive.",
        f"ECE: expected calibration error, {BINS} equal-width bins. Recall at x % FPR: of the best threshold with at "
        "most that false-positive rate, not interpolated; equal scores stay together.",
    ]
    if resamples > PROBABILITY_RESAMPLES:
        notes.append(f"Intervals of these numbers: {PROBABILITY_RESAMPLES:,} resamples.")
    if any(row.benchmark == POOLED for row in probabilities):
        notes.append(f"{POOLED}: the records of all benchmarks together, as one threshold meets them.")
    if any(row.auroc.value is None for row in probabilities):
        notes.append(f"{UNDEFINED}: undefined, as all records of the task are positive or all are negative.")
    for rate in RATES:
        short = [
            f"{row.benchmark}/{row.task} has {row.n - row.positives:,}"
            for row in probabilities
            if row.positives and 0 < row.n - row.positives < needed_negatives(rate)
        ]
        if short := list(dict.fromkeys(short)):
            named = ", ".join(short[:3]) + (f", {len(short) - 3} more" if len(short) > 3 else "")
            notes.append(
                f"{UNDEFINED}: recall at {100 * rate:g} % FPR needs {needed_negatives(rate)} negative records; {named}."
            )
    return notes


def probabilities_as_json(probabilities: Iterable[ProbabilityScore]) -> dict[str, Any]:
    """Return all numbers by benchmark, task and kind of score."""
    content: dict[str, Any] = {}
    for row in probabilities:
        numbers = {
            "n": row.n,
            "positives": row.positives,
            "unscored": row.unscored,
            **estimate_as_json("auroc", row.auroc),
            **estimate_as_json("auprc", row.auprc),
            **estimate_as_json("calibration_error", row.calibration_error),
            **estimate_as_json("brier", row.brier),
        }
        for rate, recall in row.recall_at.items():
            numbers |= estimate_as_json(f"recall_at_fpr_{rate:g}", recall)
        content.setdefault(row.benchmark, {}).setdefault(row.task, {})[row.kind] = numbers
    return content
