"""What several parts of the page say in the same way."""

from collections.abc import Sequence
from typing import Any

RESULTS = {True: "met", False: "**missed**", None: ""}


def ratio_row(title: str, ratio: dict[str, Any], against: str) -> str:
    """Return the row of a ratio.

    Args:
        title: what was compared.
        ratio: what, median, range and what is wanted.
        against: what the page calls the rival.
    """
    bound = "–"
    if ratio["target"] is not None:
        bound = f"{'≥' if ratio['what'] == 'speed' else '≤'} {ratio['target']}"
    return (
        f"| {title} | {ratio['what']}, ours / {against} | {ratio['median']:.2f} × "
        f"| {ratio['min']:.2f}–{ratio['max']:.2f} | {bound} | {RESULTS[ratio['met']]} |"
    )


def tried(trials: Sequence[dict[str, Any]], figure: str) -> str:
    """Return the settings of a search, each with its speed.

    Args:
        trials: what was measured.
        figure: name of the speed.
    """
    return "; ".join(
        f"{trial['name'].split(': ', 1)[1]} " + ("failed" if "failed" in trial else _speed(trial[figure]))
        for trial in trials
    )


def hardware(result: dict[str, Any]) -> str:
    """Return what a result was measured on: machine, allocator, versions."""
    machine, allocator = result["machine"], result["allocator"]
    gpu = f", {machine['gpu']}, CUDA {machine['cuda']}" if "gpu" in machine else ""
    kept = allocator if isinstance(allocator, str) else " ".join(f"{k}={v}" for k, v in allocator.items())
    products = ""
    if "matrix_peak_gflops" in result:
        products = f"matrix products {result['matrix_peak_gflops']:,.0f} GFLOP/s; "
    return (
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {machine['memory_gb']} GB{gpu}; "
        f"{products}{machine['system']}, Python {machine['python']}; allocator: `{kept}`; "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        + "."
    )


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
