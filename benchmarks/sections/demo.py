"""Section on the time of the demo by stage."""

from statistics import median
from typing import Any

from sections.formatting import hardware, overview_row


def title(result: dict[str, Any]) -> str:
    """Return the title of the section."""
    return "`make demo`"


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the overview table."""
    against = result["settings"]["against"]
    return [
        overview_row(
            title(result),
            f"time of the {what} / that at {against}",
            f"{ratio['median']:.2f} ×",
            f"{ratio['min']:.2f}–{ratio['max']:.2f}",
            f"≤ {ratio['target']}",
            ratio["met"],
        )
        for what, ratio in result["ratios"].items()
    ]


def section(result: dict[str, Any]) -> str:
    """Return the section."""
    runs, against = result["runs"], result["settings"]["against"]
    names = list(dict.fromkeys(name for side in ("now", "before") for stages in runs[side] for name in stages))
    lines = [
        f"## {title(result)}",
        "",
        f"Seconds of each stage from a fresh clone with its environment installed, now and at {against}; medians of "
        f"{len(runs['now'])} runs each, in alternation. A command that makes no stage has a row with its verb. The "
        "second fit is `fit --config configs/hsdpo.yaml` after the demo: its inputs are there, and it trains again.",
        "",
        "| stage | now | before |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {_median(runs['now'], name)} | {_median(runs['before'], name)} |" for name in names]
    return "\n".join([*lines, "", hardware(result), ""])


def _median(runs: list[dict[str, float]], name: str) -> str:
    values = [stages[name] for stages in runs if name in stages]
    return f"{median(values):.1f} s" if values else "–"
