"""Formatting that the sections share."""

from collections.abc import Sequence
from typing import Any

RESULTS = {True: "met", False: "**missed**", None: ""}
HEADER = "| | ratio | median | range | target | | share of the limit, ours / theirs |\n|---|---|---|---|---|---|---|"
"""Head of the overview table."""


def overview_row(
    title: str, what: str, median: str, span: str = "–", bound: str = "–", met: bool | None = None, shares: str = ""
) -> str:
    """Return a row of the overview table.

    Args:
        title: Title of the section.
        what: What is compared with what.
        median: Median of the runs.
        span: Their range.
        bound: Target.
        met: Whether it is met; None without a target.
        shares: Share of the limit that each side reaches.
    """
    return f"| {title} | {what} | {median} | {span} | {bound} | {RESULTS[met]} | {shares} |"


def ratio_row(title: str, ratio: dict[str, Any], against: str, shares: str = "") -> str:
    """Return the overview row of a ratio.

    Args:
        title: Title of the section.
        ratio: The ratio with its range and target.
        against: Name of the other side.
        shares: Share of the limit that each side reaches.
    """
    bound = "–"
    if ratio["target"] is not None:
        bound = f"{'≥' if ratio['what'] == 'speed' else '≤'} {ratio['target']}"
    span = f"{ratio['min']:.2f}–{ratio['max']:.2f}"
    what = f"{ratio['what']}, ours / {against}"
    return overview_row(title, what, f"{ratio['median']:.2f} ×", span, bound, ratio["met"], shares)


def percent(share: float | None) -> str:
    """Return a share in percent; – if it was not measured."""
    return "–" if share is None else f"{100 * share:.1f} %"


def tried(trials: Sequence[dict[str, Any]], measurement: str) -> str:
    """Return the settings of a search, each with its speed.

    Args:
        trials: Measurements of each trial.
        measurement: Name of the speed.
    """
    return "; ".join(
        f"{trial['name'].split(': ', 1)[1]} " + ("failed" if "failed" in trial else _speed(trial[measurement]))
        for trial in trials
    )


def hardware(result: dict[str, Any]) -> str:
    """Return machine, allocator and versions of a result."""
    machine, allocator = result["machine"], result["allocator"]
    gpu = f", {machine['gpu']}, CUDA {machine['cuda']}" if "gpu" in machine else ""
    allocator_text = allocator if isinstance(allocator, str) else " ".join(f"{k}={v}" for k, v in allocator.items())
    peak = ""
    if "matrix_peak_gflops" in result:
        peak = f"matrix products {result['matrix_peak_gflops']:,.0f} GFLOP/s; "
    return (
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {machine['memory_gb']} GB{gpu}; "
        f"{peak}{machine['system']}, Python {machine['python']}; allocator: `{allocator_text}`; "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        + "."
    )


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
