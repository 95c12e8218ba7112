"""The comparison of sampling with transformers."""

from typing import Any

from sections.words import hardware, ratio_row, tried


def title(result: dict[str, Any]) -> str:
    """Return what was compared, in a few words."""
    settings = result["settings"]
    words = [f"vocabulary {settings['vocabulary']:,}", settings["dtype"], settings["device"].upper()]
    return f"Mining, {', '.join(words)}" + (", quick" if settings["quick"] else "")


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the table of ratios."""
    return [ratio_row(title(result), ratio, "transformers' best") for ratio in result["ratios"]]


def section(result: dict[str, Any]) -> str:
    """Return the part of the page on sampling."""
    settings, prompts = result["settings"], result["prompts"]
    lines = [
        f"## {title(result)}",
        "",
        f"Hidden size {settings['hidden']}, {settings['layers']} layers; {settings['k']} outputs of each of "
        f"{settings['prompts']} real prompts (median {prompts['prompt_tokens']:.0f} tokens), as long as real ones "
        f"(median {prompts['output_tokens']:.0f} tokens, longest {prompts['longest_output']}), at temperature 1.0 "
        f"from the whole distribution; {settings['repeats']} runs each. First, the greedy texts of "
        f"{result['equal_texts']} prompts were equal.",
        "",
        "| | tokens/s | range | records/s | memory | process |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {row['tokens_per_second']:,.0f} | {row['slowest']:,.0f}–{row['fastest']:,.0f} "
        f"| {row['records_per_second']:.2f} | {row['memory_mb']:,.0f} MB | {row['peak_mb']:,.0f} MB |"
        for row in result["rows"]
    ]
    for side, name in (("transformers", "search"), ("Ours", "own_search")):
        if result[name]:
            lines += ["", f"{side}, with tokens/s: {tried(result[name], 'tokens_per_second')}."]
    return "\n".join([*lines, "", hardware(result), ""])
