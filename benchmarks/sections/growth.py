"""Section on the growth of HS-DPO with its number of pairs."""

from typing import Any

from sections.formatting import hardware, overview_row


def title(result: dict[str, Any]) -> str:
    """Return the title of the section."""
    return "HS-DPO from {:,} to {:,} pairs".format(*(result["sizes"][index]["pairs"] for index in (0, -1)))


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the overview table."""
    bound = "–" if result["target"] is None else f"< {result['target']} MB"
    return [
        overview_row(title(result), "time per pair, most pairs / fewest", f"{result['time_a_pair']:.2f} ×"),
        overview_row(
            title(result),
            "peak memory, most pairs − fewest",
            f"{result['memory_mb']:,.0f} MB",
            bound=bound,
            met=result["met"],
        ),
    ]


def section(result: dict[str, Any]) -> str:
    """Return the section."""
    lines = [
        f"## {title(result)}",
        "",
        "One epoch of `configs/hsdpo.yaml` on short synthetic requests and a tiny network, each size in a separate "
        "process: microseconds per pair, and the peak memory of the process, in each phase of the fit.",
        "",
        "| pairs | data | reference | training | all | data | reference | training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in result["sizes"]:
        times = [f"{value:,.0f} µs" for value in size["microseconds"].values()]
        peaks = [f"{value:,.0f} MB" for value in size["peak_mb"].values()]
        seconds = f"{sum(size['seconds'].values()):,.1f} s"
        lines.append(f"| {size['pairs']:,} | {' | '.join([*times, seconds, *peaks])} |")
    lines += ["", f"From the fewest to the most pairs, peak memory grows by {result['memory_mb']:,.0f} MB."]
    return "\n".join([*lines, "", hardware(result), ""])
