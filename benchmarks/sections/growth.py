"""How HS-DPO grows with its pairs."""

from typing import Any

from sections.words import hardware


def title(result: dict[str, Any]) -> str:
    """Return what was measured, in a few words."""
    return "HS-DPO from {:,} to {:,} pairs".format(*(result["sizes"][place]["pairs"] for place in (0, -1)))


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the table of ratios."""
    return [f"| {title(result)} | time a pair, most pairs / fewest | {result['time_a_pair']:.2f} × | – | – | |"]


def section(result: dict[str, Any]) -> str:
    """Return the part of the page on growth."""
    lines = [
        f"## {title(result)}",
        "",
        "One epoch of `configs/hsdpo.yaml` on short made requests and a tiny network, each size in a process of its "
        "own: microseconds a pair, and the peak memory of the process in that part of the fit.",
        "",
        "| pairs | data | reference | training | all | data | reference | training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in result["sizes"]:
        times = [f"{value:,.0f} µs" for value in size["microseconds"].values()]
        peaks = [f"{value:,.0f} MB" for value in size["peak_mb"].values()]
        seconds = f"{sum(size['seconds'].values()):,.1f} s"
        lines.append(f"| {size['pairs']:,} | {' | '.join([*times, seconds, *peaks])} |")
    lines += ["", f"From the fewest to the most pairs the peak grows by {result['memory_mb']:,.0f} MB."]
    return "\n".join([*lines, "", hardware(result), ""])
