"""Section on a training comparison with TRL."""

from collections.abc import Sequence
from typing import Any

from sections.formatting import hardware, overview_row, percent, ratio_row, tried

NAMES = {"hsdpo": ("HS-DPO", "pairs"), "rsft": ("R-SFT", "examples")}


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the overview table."""
    names = {"best": "TRL's best", "default": "TRL's defaults"}
    rows = []
    for ratio in result["ratios"]:
        if ratio["what"] != "share":
            shares = _shares(result, ratio["against"]) if ratio["what"] == "speed" else ""
            rows.append(ratio_row(title(result), ratio, names[ratio["against"]], shares))
        elif ratio["target"] is not None:
            rows.append(_share_row(title(result), ratio))
    return rows


def title(result: dict[str, Any]) -> str:
    """Return the title of the section."""
    settings = result["settings"]
    weights = f"LoRA r {settings['lora']}" if settings["lora"] else "full weights"
    parts = [weights, f"vocabulary {settings['vocabulary']:,}", settings["dtype"], settings["device"].upper()]
    if settings.get("instruction_tokens"):
        parts.insert(0, f"{settings['instruction_tokens']:,} tokens of policy")
    if settings.get("base"):
        parts.insert(0, settings["base"])
    if settings.get("clock") == "cpu":
        parts.append("processor time")
    return f"{NAMES[result['comparison']][0]}, {', '.join(parts)}" + (", quick" if settings["quick"] else "")


def section(result: dict[str, Any]) -> str:
    """Return the section."""
    settings = result["settings"]
    unit = NAMES[result["comparison"]][1]
    lines = [
        f"## {title(result)}",
        "",
        f"Hidden size {settings['hidden']}, {settings['layers']} layers; {settings['examples']} real {unit} of at most "
        f"{settings['limit']:,} tokens (median prompt {result['examples']['prompt_tokens']:.0f}, completion "
        f"{result['examples']['completion_tokens']:.0f}), {settings['batch']} per optimizer step, "
        f"{settings['repeats']} runs each." + _instruction(settings),
        "",
        f"| | {unit}/s | range | tokens/s | memory | process | share of the limit | reference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {row['pairs_per_second']:.2f} | {row['slowest']:.2f}–{row['fastest']:.2f} "
        f"| {row['tokens_per_second']:,.0f} | {row['memory_mb']:,.0f} MB | {row['peak_mb']:,.0f} MB "
        f"| {percent(row.get('share'))} | {row['reference_seconds']:.1f} s |"
        for row in result["rows"]
    ]
    lines += [
        "",
        "Losses of the first optimizer steps:",
        "",
        "| | ours | TRL | largest difference |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['what']} | {_series(row['ours'])} | {_series(row['trl'])} | {row['difference']:.0e} |"
        for row in result["losses"]
    ]
    theirs, ours = (tried(result[name], "pairs_per_second") for name in ("search", "own_search"))
    lines += [
        "",
        f"Settings tried for TRL, in {unit}/s: {theirs}.",
        "",
        f"Settings tried for our side, in {unit}/s: {ours}.",
    ]
    return "\n".join([*lines, "", hardware(result), ""])


def _instruction(settings: dict[str, Any]) -> str:
    count = settings.get("instruction_tokens")
    return f" Every prompt starts with the same {count:,} tokens of the embedded policies." if count else ""


def _shares(result: dict[str, Any], against: str) -> str:
    """Return the shares of the limit of both sides; results from before their present definition have none."""
    shares = {row.get("role"): row.get("share") for row in result["rows"]}
    return f"{percent(shares.get('ours'))} / {percent(shares.get(against))}"


def _share_row(title: str, ratio: dict[str, Any]) -> str:
    span, bound = f"{percent(ratio['min'])}–{percent(ratio['max'])}", f"≥ {100 * ratio['target']:.0f} %"
    return overview_row(title, "share of the limit, ours", percent(ratio["median"]), span, bound, ratio["met"])


def _series(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6f}" for value in values)
