"""Section on the comparison of sampling with transformers."""

from typing import Any

from sections.formatting import hardware, ratio_row, tried


def title(result: dict[str, Any]) -> str:
    """Return the title of the section."""
    settings = result["settings"]
    parts = [f"vocabulary {settings['vocabulary']:,}", settings["dtype"], settings["device"].upper()]
    if settings.get("base"):
        parts.insert(0, settings["base"])
    return f"Mining, {', '.join(parts)}" + (", quick" if settings["quick"] else "")


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the overview table."""
    return [ratio_row(title(result), ratio, "transformers' best") for ratio in result["ratios"]]


def section(result: dict[str, Any]) -> str:
    """Return the section."""
    settings, prompts = result["settings"], result["prompts"]
    lines = [
        f"## {title(result)}",
        "",
        f"Hidden size {settings['hidden']}, {settings['layers']} layers; {settings['k']} outputs for each of "
        f"{settings['prompts']} real prompts (median {prompts['prompt_tokens']:.0f} tokens), with the lengths of "
        f"real outputs (median {prompts['output_tokens']:.0f} tokens, longest {prompts['longest_output']}), at "
        f"temperature 1.0 without top-p; {settings['repeats']} runs each. The greedy texts of "
        f"{result['equal_texts']} prompts are equal.",
        "",
        "| | tokens/s | range | records/s | memory | process |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {row['tokens_per_second']:,.0f} | {row['slowest']:,.0f}–{row['fastest']:,.0f} "
        f"| {row['records_per_second']:.2f} | {row['memory_mb']:,.0f} MB | {row['peak_mb']:,.0f} MB |"
        for row in result["rows"]
    ]
    for side, name in (("transformers", "search"), ("our side", "own_search")):
        if result[name]:
            lines += ["", f"Settings tried for {side}, in tokens/s: {tried(result[name], 'tokens_per_second')}."]
    return "\n".join([*lines, "", hardware(result), ""])
