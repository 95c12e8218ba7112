"""The printed table of the rows."""

from collections.abc import Sequence
from typing import Any

HEADER = f"{'':<58} {'tokens/s':>9} {'share':>6} {'step':>8} {'first':>8} {'peak':>9} {'plan':>9} {'plan/peak':>9}"


def line(row: dict[str, Any]) -> str:
    """Return the line of a row."""
    name = f"{row['name']:<58}"
    if row["status"] != "done":
        planned = f"; plan: {row['predicted_mb'] / 1e3:.1f} GB" if "predicted_mb" in row else ""
        return f"{name} {row['status']}: {row['reason']}{planned}"
    if row["kind"] == "peak":
        return f"{name} {row['flops'] / 1e12:,.1f} TFLOP/s"
    if row["kind"] == "model":
        return f"{name} {row['parameters']:,} parameters"
    if row["kind"] == "gradients":
        errors = ", ".join(f"{layout} {value:.1e}" for layout, value in row["errors"].items())
        return f"{name} {'equal' if row['within'] else 'NOT EQUAL'}: {errors}"
    if row["kind"] == "decoding":
        return f"{name} {row['tokens_per_second']:9,.0f}"
    peak = row.get("device_mb", row["peak_mb"])
    share = "" if row["share"] is None else f"{100 * row['share']:.1f}%"
    cells = f"{row['tokens_per_second']:9,.0f} {share:>6} {row['step_seconds']:6.2f} s"
    cells += f" {row['first_step_seconds']:6.2f} s {peak / 1e3:6.2f} GB"
    if "predicted_mb" in row:
        cells += f" {row['predicted_mb'] / 1e3:6.2f} GB {row['predicted_mb'] / peak:9.2f}"
    return f"{name} {cells}"


def counts(rows: Sequence[dict[str, Any]]) -> str:
    """Return the last line."""
    by_status = {status: sum(row["status"] == status for row in rows) for status in ("done", "failed", "not run")}
    return ", ".join(f"{count} {status}" for status, count in by_status.items() if count)
