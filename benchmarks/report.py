"""Write docs/performance.md from the figures in benchmarks/results/.

python benchmarks/report.py
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OPENING = """# Performance

Made by `python benchmarks/report.py` from `benchmarks/results/`; do not edit. Each comparison is one command, and its
`--help` says how it measures. In short: same weights, token ids, order, optimizer, threads and allocator on both sides;
equal losses before any time is taken; TRL's fastest settings searched; every run a process of its own, after a step to
warm up; both sides in turn, medians. *Memory* is the peak of the steps above what the process held before it loaded the
model, *process* the whole of it, MFU the work that is needed at least (prompt once a pair, output layer on completions)
over the measured rate of matrix products. The time for the reference is not in the speed; it is told beside it.
"""
NAMES = {"hsdpo": ("HS-DPO", "pairs"), "rsft": ("R-SFT", "examples")}


def main() -> None:
    """Read all results and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of JSON files")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "performance.md")
    arguments = parser.parse_args()
    paths = sorted(arguments.results.glob("*.json"))
    if not paths:
        sys.exit(f"error: no result in {arguments.results}\nhint: python benchmarks/hsdpo_vs_trl.py --json FILE")
    results = []
    for path in paths:
        try:
            results.append(json.loads(path.read_text(encoding="utf-8")))
            assert results[-1]["comparison"] in NAMES
        except (ValueError, KeyError, TypeError, AssertionError):
            sys.exit(f"error: {path}: not the result of a comparison")
    arguments.out.write_text(page(results), encoding="utf-8")
    print(f"{arguments.out}: {len(results)} comparisons")


def page(results: Sequence[dict[str, Any]]) -> str:
    """Return the page for some results."""
    return "\n".join([OPENING, overview(results), *map(section, results)])


def overview(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of ratios to what is wanted."""
    lines = ["| comparison | ratio | median | range | wanted | |", "|---|---|---|---|---|---|"]
    for result in results:
        for ratio in result["ratios"]:
            bound = "–"
            if ratio["target"] is not None:
                bound = f"{'≥' if ratio['what'] == 'speed' else '≤'} {ratio['target']}"
            met = {None: "", True: "met", False: "**missed**"}[ratio["met"]]
            against = "TRL's best" if ratio["against"] == "best" else "TRL as it comes"
            lines.append(
                f"| {title(result)} | {ratio['what']}, ours / {against} | {ratio['median']:.2f} × "
                f"| {ratio['min']:.2f}–{ratio['max']:.2f} | {bound} | {met} |"
            )
    return "\n".join([*lines, ""])


def title(result: dict[str, Any]) -> str:
    """Return what was compared, in a few words."""
    settings = result["settings"]
    what = f"LoRA r {settings['lora']}" if settings["lora"] else "full weights"
    words = [what, f"vocabulary {settings['vocabulary']:,}", settings["dtype"], settings["device"].upper()]
    return f"{NAMES[result['comparison']][0]}, {', '.join(words)}" + (", quick" if settings["quick"] else "")


def section(result: dict[str, Any]) -> str:
    """Return the part of the page on one comparison."""
    settings, machine = result["settings"], result["machine"]
    unit = NAMES[result["comparison"]][1]
    lines = [
        f"## {title(result)}",
        "",
        f"Hidden size {settings['hidden']}, {settings['layers']} layers; {settings['examples']} real {unit} of at most "
        f"{settings['limit']:,} tokens (median prompt {result['examples']['prompt_tokens']:.0f}, completion "
        f"{result['examples']['completion_tokens']:.0f}), {settings['batch']} an optimizer step, "
        f"{settings['repeats']} runs each.",
        "",
        f"| | {unit}/s | range | tokens/s | memory | process | MFU | reference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {row['pairs_per_second']:.2f} | {row['slowest']:.2f}–{row['fastest']:.2f} "
        f"| {row['tokens_per_second']:,.0f} | {row['memory_mb']:,.0f} MB | {row['peak_mb']:,.0f} MB "
        f"| {100 * row['mfu']:.1f} % | {row['reference_seconds']:.1f} s |"
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
        f"| {one['what']} | {_series(one['ours'])} | {_series(one['trl'])} | {one['difference']:.0e} |"
        for one in result["losses"]
    ]
    lines += ["", "TRL's settings that were tried, with " + unit + "/s: " + _tried(result["search"]) + "."]
    lines += ["", "Ours: " + _tried(result["own_search"]) + "."]
    gpu = f", {machine['gpu']}, CUDA {machine['cuda']}" if "gpu" in machine else ""
    allocator = result["allocator"]
    kept = allocator if isinstance(allocator, str) else " ".join(f"{k}={v}" for k, v in allocator.items())
    lines += [
        "",
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {machine['memory_gb']} GB{gpu}; "
        f"matrix products {result['matrix_peak_gflops']:,.0f} GFLOP/s; {machine['system']}, "
        f"Python {machine['python']}; "
        f"allocator: `{kept}`; " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


def _series(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


def _tried(trials: Sequence[dict[str, Any]]) -> str:
    return "; ".join(
        f"{trial['name'].split(': ', 1)[1]} " + ("failed" if "failed" in trial else f"{trial['pairs_per_second']:.2f}")
        for trial in trials
    )


if __name__ == "__main__":
    main()
