"""Lines and tables on the screen."""

from collections.abc import Sequence
from statistics import median
from typing import Any

FIGURES = ("pairs_per_second", "tokens_per_second", "memory_mb", "peak_mb", "mfu", "reference_seconds")


def figures(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures of one run that are kept."""
    return {name: found[name] for name in FIGURES}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure over some runs, and the range of the speed."""
    speeds = [run["pairs_per_second"] for run in runs]
    return {
        **{name: median(run[name] for run in runs) for name in FIGURES},
        "slowest": min(speeds),
        "fastest": max(speeds),
        "runs": len(runs),
        "losses": runs[0]["losses"],
    }


def losses(name: str, ours: Sequence[float], theirs: Sequence[float], difference: float) -> str:
    """Return two series of losses, one below the other."""
    left, right = (" ".join(f"{value:10.6f}" for value in series) for series in (ours, theirs))
    return f"  {name}\n    ours {left}\n    TRL  {right}   largest difference {difference:.1e}"


def trial(name: str, found: dict[str, Any], wrong: float = 0.0, tolerance: float = 1.0) -> str:
    """Return the line of one run."""
    line = f"  {name:<44} {found['pairs_per_second']:7.3f} a second, {found['memory_mb']:7,.0f} MB"
    return line if wrong <= tolerance else f"{line}, left out: its loss is off by {wrong:.1e}"


def whole(found: dict[str, Any]) -> str:
    """Return the table of a comparison."""
    lines = [
        f"\n  {found['machine']['processor']}, {found['machine']['threads']} threads, matrix products "
        f"{found['matrix_peak_gflops']:,.0f} GFLOP/s",
        f"  {'':<44} {'a second':>9} {'tokens/s':>9} {'memory':>9} {'process':>9} {'MFU':>6} {'reference':>10}",
    ]
    lines += [
        f"  {row['name']:<44} {row['pairs_per_second']:9.3f} {row['tokens_per_second']:9,.0f} "
        f"{row['memory_mb']:6,.0f} MB {row['peak_mb']:6,.0f} MB {100 * row['mfu']:5.1f}% "
        f"{row['reference_seconds']:8.1f} s"
        for row in found["rows"]
    ]
    lines += [
        f"  {ratio['what']} against TRL, {ratio['against']}: {ratio['median']:.2f} × "
        f"({ratio['min']:.2f}–{ratio['max']:.2f}){verdict(ratio)}"
        for ratio in found["ratios"]
    ]
    return "\n".join(lines)


def verdict(ratio: dict[str, Any]) -> str:
    """Return what was wanted of a ratio, and whether it came true."""
    if ratio["target"] is None:
        return ""
    bound = "at least" if ratio["what"] == "speed" else "at most"
    return f", wanted {bound} {ratio['target']}: {'met' if ratio['met'] else 'missed'}"
