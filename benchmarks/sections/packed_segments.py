"""Section on the backward pass of packed rows by their number of segments."""

from typing import Any

from sections.formatting import hardware, overview_row


def title(result: dict[str, Any]) -> str:
    """Return the title of the section."""
    return "Backward pass of packed rows"


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the overview table."""
    few, many = result["rows"][0], result["rows"][-1]
    counts = f"per segment, {many['segments']} / {few['segments']} segments"
    return [
        overview_row(title(result), f"{what} {counts}", f"{_per_segment(many, key) / _per_segment(few, key):.2f} ×")
        for what, key in (("bytes written", "megabytes"), ("processor time", "milliseconds"))
    ]


def section(result: dict[str, Any]) -> str:
    """Return the section."""
    lines = [
        f"## {title(result)}",
        "",
        f"Segments of {result['settings']['length']} tokens. Training splits a row into its segments once, so that "
        "a segment writes as many bytes however many there are. One slice for each would make that grow with the row, "
        "since the backward pass of a slice writes the whole row. Written megabytes, and processor time on one thread:",
        "",
        "| segments | split once | | a slice each | |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = [f"{row[way]['megabytes']:,.1f} MB | {row[way]['milliseconds']:,.1f} ms" for way in ("split", "sliced")]
        lines.append(f"| {row['segments']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", hardware(result), ""])


def _per_segment(row: dict[str, Any], key: str) -> float:
    value: float = row["split"][key] / row["segments"]
    return value
