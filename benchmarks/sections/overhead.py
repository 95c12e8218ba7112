"""Section on the overhead of a fit around its optimizer steps."""

from typing import Any

from sections.formatting import hardware, overview_row


def title(result: dict[str, Any]) -> str:
    """Return the title of the section."""
    return "Overhead of an HS-DPO fit" + (", quick" if result["settings"]["quick"] else "")


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the overview table."""
    bound = "–" if result["target"] is None else f"< {100 * result['target']:.0f} %"
    span = f"{100 * result['min']:.1f}–{100 * result['max']:.1f} %"
    value = f"{100 * result['median']:.1f} %"
    return [overview_row(title(result), "share of the step time", value, span, bound, result["met"])]


def section(result: dict[str, Any]) -> str:
    """Return the section."""
    settings = result["settings"]
    lines = [
        f"## {title(result)}",
        "",
        f"Fits of `configs/hsdpo.yaml` on {settings['real_pairs']} real pairs (hidden size {settings['hidden']}, "
        f"{settings['layers']} layers, vocabulary {settings['vocabulary']:,}), with data loading, metrics, logger "
        "and callbacks, alternating with a bare loop over the same prepared batches; both have equal losses.",
        "",
        f"| | seconds of {result['steps']} steps in each run |",
        "|---|---|",
    ]
    for name, key in (("fit", "fit"), ("bare loop", "bare")):
        lines.append(f"| {name} | {' '.join(f'{seconds:.2f}' for seconds in result[key])} |")
    return "\n".join([*lines, "", hardware(result), ""])
