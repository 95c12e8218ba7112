"""Printed lines of comparisons, and the table of a training comparison."""

from collections.abc import Sequence
from statistics import median
from typing import Any

MEASUREMENTS = ("pairs_per_second", "tokens_per_second", "memory_mb", "peak_mb", "share", "reference_seconds")


def kept_measurements(measured: dict[str, Any]) -> dict[str, float]:
    """Return the measurements of one run that are written to the result."""
    return {name: measured[name] for name in MEASUREMENTS}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each measurement over the runs, and the range of the speed."""
    speeds = [run["pairs_per_second"] for run in runs]
    return {
        **{name: median(run[name] for run in runs) for name in MEASUREMENTS},
        "slowest": min(speeds),
        "fastest": max(speeds),
        "runs": len(runs),
        "losses": runs[0]["losses"],
    }


def losses(name: str, ours: Sequence[float], theirs: Sequence[float], difference: float) -> str:
    """Return two series of losses as lines, one below the other."""
    left, right = (" ".join(f"{value:10.6f}" for value in series) for series in (ours, theirs))
    return f"  {name}\n    ours {left}\n    TRL  {right}   largest difference {difference:.1e}"


def trial(name: str, measured: dict[str, Any], deviation: float = 0.0, tolerance: float = 1.0) -> str:
    """Return the line of one run."""
    line = f"  {name:<44} {measured['pairs_per_second']:7.3f} per second, {measured['memory_mb']:7,.0f} MB"
    return line if deviation <= tolerance else f"{line}, left out: its loss differs by {deviation:.1e}"


def comparison(result: dict[str, Any]) -> str:
    """Return the table of a comparison."""
    lines = [
        f"\n  {result['machine']['processor']}, {result['machine']['threads']} threads, matrix products "
        f"{result['matrix_peak_gflops']:,.0f} GFLOP/s",
        f"  {'':<44} {'per s':>9} {'tokens/s':>9} {'memory':>9} {'process':>9} {'share':>6} {'reference':>10}",
    ]
    lines += [
        f"  {row['name']:<44} {row['pairs_per_second']:9.3f} {row['tokens_per_second']:9,.0f} "
        f"{row['memory_mb']:6,.0f} MB {row['peak_mb']:6,.0f} MB {100 * row['share']:5.1f}% "
        f"{row['reference_seconds']:8.1f} s"
        for row in result["rows"]
    ]
    lines += map(ratio_line, result["ratios"])
    return "\n".join(lines)


def ratio_line(ratio: dict[str, Any]) -> str:
    """Return the line of a ratio to TRL, or of our share of the limit."""
    if ratio["what"] == "share":
        share, low, high = (f"{100 * ratio[name]:.1f} %" for name in ("median", "min", "max"))
        return f"  share of the limit: {share} ({low}–{high}){target_text(ratio)}"
    return ratio_text(ratio, f"TRL, {ratio['against']}")


def ratio_text(ratio: dict[str, Any], other: str) -> str:
    """Return the line of a ratio of speed or memory to another side."""
    values = f"{ratio['median']:.2f} × ({ratio['min']:.2f}–{ratio['max']:.2f})"
    return f"  {ratio['what']} against {other}: {values}{target_text(ratio)}"


def target_text(ratio: dict[str, Any]) -> str:
    """Return the target of a ratio and whether it is met; empty if there is none."""
    if ratio["target"] is None:
        return ""
    bound = "at most" if ratio["what"] == "memory" else "at least"
    target = f"{100 * ratio['target']:.0f} %" if ratio["what"] == "share" else ratio["target"]
    return f", target {bound} {target}: {'met' if ratio['met'] else 'missed'}"
