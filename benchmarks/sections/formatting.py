"""Formatting that the sections share."""

from collections.abc import Sequence
from typing import Any

RESULTS = {True: "met", False: "**missed**", None: ""}


def ratio_row(title: str, ratio: dict[str, Any], against: str) -> str:
    """Return the overview row of a ratio.

    Args:
        title: Title of the comparison.
        ratio: The ratio with its range and target.
        against: Name of the other side.
    """
    bound = "–"
    if ratio["target"] is not None:
        bound = f"{'≥' if ratio['what'] == 'speed' else '≤'} {ratio['target']}"
    return (
        f"| {title} | {ratio['what']}, ours / {against} | {ratio['median']:.2f} × "
        f"| {ratio['min']:.2f}–{ratio['max']:.2f} | {bound} | {RESULTS[ratio['met']]} |"
    )


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
