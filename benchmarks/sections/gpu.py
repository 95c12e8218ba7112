"""Section on the measurements on one GPU (benchmarks/gpu.sh)."""

from typing import Any

from sections.formatting import percent


def overview(result: dict[str, Any]) -> list[str]:
    """Return no rows: these measurements have no targets."""
    return []


def section(result: dict[str, Any]) -> str:
    """Return the section."""
    machine = result["machine"]
    lines = [
        "## One GPU",
        "",
        f"{machine.get('gpu', machine['processor'])}" + (", tiny shapes" if result["settings"]["tiny"] else "") + ":",
        "",
        "| | tokens/s | share of the limit | step, first step | peak | plan | |",
        "|---|---|---|---|---|---|---|",
        *map(_row, result["rows"]),
        "",
        f"CUDA {machine.get('cuda', '–')}, Python {machine['python']}; "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        + ".",
    ]
    return "\n".join([*lines, ""])


def _row(row: dict[str, Any]) -> str:
    cells = ["", "", "", "", "", ""]
    if row["status"] != "done":
        cells[5] = f"{row['status']}: {row['reason']}"
        cells[4] = _gigabytes(row, "predicted_mb")
    elif row["kind"] == "peak":
        cells[5] = f"{row['flops'] / 1e12:,.1f} TFLOP/s"
    elif row["kind"] == "model":
        cells[5] = f"{row['parameters']:,} parameters"
    elif row["kind"] == "gradients":
        errors = ", ".join(f"{layout} {value:.1e}" for layout, value in row["errors"].items())
        cells[5] = f"{'within' if row['within'] else '**not within**'} the tolerances: {errors}"
    else:
        cells[0] = f"{row['tokens_per_second']:,.0f}"
    if row["status"] == "done" and row["kind"] == "training":
        cells[1] = percent(row["share"])
        cells[2] = f"{row['step_seconds']:.2f}, {row['first_step_seconds']:.2f} s"
        cells[3] = _gigabytes(row, "device_mb") or _gigabytes(row, "peak_mb")
        cells[4] = _gigabytes(row, "predicted_mb")
    return f"| {row['name']} | {' | '.join(cells)} |"


def _gigabytes(row: dict[str, Any], name: str) -> str:
    return f"{row[name] / 1e3:.2f} GB" if name in row else ""
