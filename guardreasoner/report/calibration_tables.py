"""A calibration in sentences, and its outcome on other records as a table, notes and JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from guardreasoner.evaluation.calibration import BANDS, Calibration
from guardreasoner.evaluation.calibration.scored import CalibratedScore, band_shares
from guardreasoner.evaluation.intervals import Share
from guardreasoner.evaluation.scoring.metrics import Array
from guardreasoner.report.score_tables import estimate_as_json
from guardreasoner.report.table import UNDEFINED, Cell, Table, estimate_cell


def calibration_lines(calibration: Calibration, scores: Array) -> list[str]:
    """Return what was chosen and what to expect from it.

    Args:
        calibration: the calibration.
        scores: (N,) scores of the records that it was chosen on; NaN for an unscored record.
    """
    details, n = calibration.details, calibration.negatives
    bands = band_shares([calibration.band(float(score)) for score in scores])
    shares = ", ".join(f"{band} {share.percent:.1f} %" for band, share in bands.items())
    review = (
        f"review: score from {calibration.review:.10g} on"
        if calibration.review < calibration.block
        else "review: none, since the thresholds of block and pass cross"
    )
    return [
        f"{calibration.name}, score {calibration.score}: {calibration.records:,} validation records, "
        f"{n:,} negative and {details['positives']:,} positive, {details['unscored']:,} without a score",
        f"block: score above {np.nextafter(calibration.block, 0):.10g}, a probability above "
        f"{calibration.probability(calibration.block):.3f} ({calibration.curve.as_json()['kind']})",
        f"  false-positive rate on new records: wanted {_percent(calibration.false_positive_rate)}, "
        f"expected {_percent(calibration.expected)}",
        f"  95 % interval, measured on {n:,} new negative records: {_interval(calibration.interval)}; "
        f"in the long run: {_interval(details['long_run_interval'])}",
        f"  recall {_percent(details['recall'])}, 95 % interval {_interval(details['recall_interval'])}",
        review,
        f"pass: lower scores; share of the positive records there: wanted at most {_percent(details['miss_rate'])}, "
        f"expected {_percent(details['expected_miss_rate'])}"
        + ("" if bands["pass"].count else "; none of these records, as too many positive ones have the lowest score"),
        f"these records: {shares}",
        "guaranteed, if new records are drawn like these: averaged over repeated calibrations, the false-positive rate "
        "is at most the wanted one",
    ]


def calibrated_table(title: str, rows: Sequence[CalibratedScore]) -> Table:
    """Return the outcome of a model's calibrations, one row per benchmark and task."""
    headings = (
        *("benchmark", "task", "score", "n", "F1", "recall", "FPR", "expected\nFPR"),
        *(f"{band}\n%" for band in BANDS),
    )
    cells = [
        [
            *(Cell(text) for text in (row.benchmark, row.task, row.kind, f"{row.n:,}")),
            *(estimate_cell(value) for value in (row.f1, row.recall, row.false_positive_rate)),
            Cell("{:.1f}–{:.1f}".format(*row.expected) if row.expected else ""),
            *(Cell(_share(row.bands[band]), f"+ {_share(row.positive_bands[band])}") for band in BANDS),
        ]
        for row in rows
    ]
    return Table(title, headings, cells, text_columns=3)


def calibrated_notes(rows: Sequence[CalibratedScore]) -> list[str]:
    """Return notes that explain the numbers in the tables of :func:`calibrated_table`; none without rows."""
    if not rows:
        return []
    notes = [
        "At the calibrated threshold of block; an unparsed record counts as wrong. Expected FPR: 95 % interval that "
        "the calibration states for as many negative records.",
        "Bands: share of all records; + of the positive ones.",
    ]
    notes += [
        f"{row.task}, {row.kind} scores: the false-positive rate {row.false_positive_rate.value:.2f} is outside of the "
        "expected interval. By chance this happens once in 20 times; more often, the records differ from the "
        "validation records."
        for row in rows
        if not row.is_expected
    ]
    return notes


def calibrated_as_json(rows: Sequence[CalibratedScore]) -> dict[str, Any]:
    """Return all numbers by benchmark, task and kind of score."""
    content: dict[str, Any] = {}
    for row in rows:
        content.setdefault(row.benchmark, {}).setdefault(row.task, {})[row.kind] = {
            "threshold": row.threshold,
            "n": row.n,
            "positives": row.positives,
            **estimate_as_json("f1", row.f1),
            **estimate_as_json("recall", row.recall),
            **estimate_as_json("false_positive_rate", row.false_positive_rate),
            "expected_false_positive_rate_interval": list(row.expected) if row.expected else None,
            "bands": {band: share.percent for band, share in row.bands.items()},
            "bands_of_positives": {band: share.percent for band, share in row.positive_bands.items()},
        }
    return content


def _share(share: Share) -> str:
    return UNDEFINED if share.percent is None else f"{share.percent:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _interval(ends: Sequence[float]) -> str:
    low, high = ends
    return f"{100 * low:.3g}–{100 * high:.3g} %"
