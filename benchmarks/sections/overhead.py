"""What everything around HS-DPO's step costs."""

from typing import Any

from sections.words import RESULTS, hardware


def title(result: dict[str, Any]) -> str:
    """Return what was measured, in a few words."""
    return "Around the step of HS-DPO" + (", quick" if result["settings"]["quick"] else "")


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the table of ratios."""
    bound = "–" if result["target"] is None else f"< {100 * result['target']:.0f} %"
    return [
        f"| {title(result)} | share of a fit's step | {100 * result['median']:.1f} % "
        f"| {100 * result['min']:.1f}–{100 * result['max']:.1f} % | {bound} | {RESULTS[result['met']]} |"
    ]


def section(result: dict[str, Any]) -> str:
    """Return the part of the page on the cost around the step."""
    settings = result["settings"]
    lines = [
        f"## {title(result)}",
        "",
        f"Fits of `configs/hsdpo.yaml` on {settings['real_pairs']} real pairs (hidden size {settings['hidden']}, "
        f"{settings['layers']} layers, vocabulary {settings['vocabulary']:,}), with loading of data, metrics, logger "
        "and callbacks, in turn with a bare loop over the same ready batches; both have the same losses.",
        "",
        f"| | seconds of {result['steps']} steps, run by run |",
        "|---|---|",
    ]
    for name, key in (("fit", "fit"), ("bare loop", "bare")):
        lines.append(f"| {name} | {' '.join(f'{seconds:.2f}' for seconds in result[key])} |")
    return "\n".join([*lines, "", hardware(result), ""])
