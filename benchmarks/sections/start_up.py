"""Section on the time that commands take to start."""

from statistics import median
from typing import Any

from sections.formatting import hardware, overview_row


def title(result: dict[str, Any]) -> str:
    """Return the title of the section."""
    return "Start-up"


def overview(result: dict[str, Any]) -> list[str]:
    """Return the rows of the overview table."""
    ratio = result["ratio"]
    value, span = f"{ratio['median']:.2f} ×", f"{ratio['min']:.2f}–{ratio['max']:.2f}"
    bound = f"≤ {result['target']}"
    return [overview_row(title(result), "imports of `fit` / `import torch`", value, span, bound, result["met"])]


def section(result: dict[str, Any]) -> str:
    """Return the section."""
    stages = result["settings"]["stages"]
    lines = [
        f"## {title(result)}",
        "",
        "Seconds of processor time of new processes on one thread, in alternation. *Imports of fit* is LightningCLI "
        "with everything that `fit` needs until its parser runs; *fit --print_config* also parses and checks "
        f"`configs/hsdpo.yaml`. The chain is `run` with {stages} small `base-model` stages. Not counted in the "
        "imports: torch's optimizers and transformers' network classes import `torch._dynamo` when a fit makes them.",
        "",
        "| | median | of each run |",
        "|---|---|---|",
    ]
    for name, values in result["seconds"].items():
        what = name if name in ("import torch", "imports of fit", "fit --print_config") else f"chain, {name}"
        lines.append(f"| {what} | {median(values):.2f} s | {' '.join(f'{value:.2f}' for value in values)} |")
    lines += ["", f"Forks save {result['saved_per_stage']:.2f} s of processor time per stage."]
    return "\n".join([*lines, "", hardware(result), ""])
