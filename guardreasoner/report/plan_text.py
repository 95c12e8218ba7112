"""The plan of a fit as text: model, data, time, disk, memory by part, and whether it fits."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from guardreasoner.workflow.terminal import stdout_console

_WIDTH = 120


def show_plan(plan: Mapping[str, Any]) -> None:
    """Print a plan and the memory by part.

    Args:
        plan: the numbers that ``plan --json`` writes.
    """
    console = stdout_console(_WIDTH)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(plan):
        table.add_row(name, escape(text))
    console.print(table, highlight=False)
    parts = Table(box=None, pad_edge=False, header_style="bold")
    parts.add_column(f"memory of a {plan['device'].upper()} ({plan['phase']})")
    parts.add_column("GB", justify="right")
    for name, size in sorted(plan["memory"].items(), key=lambda item: -item[1]):
        parts.add_row(name, f"{size / 1e9:.2f}")
    parts.add_row("peak", f"{plan['peak_bytes'] / 1e9:.2f}", style="bold")
    console.print()
    console.print(parts, highlight=False)
    console.print()


def _lines(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, parameters = plan["data"], plan["parameters"]
    more = f", {plan['devices']} processes" if plan["devices"] > 1 else ""
    if plan["mixed"]:
        more += f", matrix products in {plan['mixed']}"
    if plan["sharded"]:
        more += f", sharded weights that compute in {plan['sharded']}"
    lines = [
        ("model", f"{plan['model']}; {plan['tuning']}, {plan['dtype']}{more}"),
        ("parameters", f"{parameters['total']:,}, of which {parameters['trained']:,} are trained"),
        ("data", f"{data['examples']:,} {data['source']}; longest {data['longest']:,} tokens"),
    ]
    if data["left_out"]:
        what = "left out" if plan["skips_too_long"] or data["characters_per_token"] else "fit will refuse to start"
        lines.append(("", f"{data['left_out']:,} are longer than {plan['max_length']:,} tokens: {what}"))
    if data["characters_per_token"]:
        lines.append(
            ("", f"tokens are estimated: {data['characters_per_token']:g} characters each; no tokenizer is here")
        )
    pair = "a pair shares its prompt and " if plan["has_pairs"] else ""
    computed = f"{data['computed_tokens']:,} computed, since {pair}a step shares its instruction"
    lines.append(("tokens", f"{data['tokens']:,} in {data['steps']:,} steps ({computed})"))
    if plan["seconds"] is None:
        lines.append(("time", "unknown without --tokens_per_second, --tflops or --measure"))
    else:
        lines.append(("time", f"{_duration(plan['seconds'])} ({plan['rate']})"))
    if plan["price"] is not None:
        lines.append(("price", f"{plan['price']:,.2f}"))
    disk = plan["disk"]
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in disk.items())
    lines.append(("disk", f"{sum(disk.values()) / 1e9:.2f} GB: {parts}"))
    if not plan["optimizer_runs_here"]:
        lines.append(("optimizer", "does not run here, so its state is counted as that of Adam in float32"))
    phases = plan["phases"]
    if len(phases) > 1:
        lines.append(("peaks", ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in phases.items())))
    if plan["mining"]:
        mined = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in plan["mining"].items())
        lines.append(("mining", f"at most {plan['mining_bytes'] / 1e9:.2f} GB, a run of its own ({mined})"))
    else:
        lines.append(("mining", plan["mining_note"]))
    if plan["peak_measured_here"]:
        lines.append(("measured", f"peak of this process in those steps: {plan['peak_measured_here'] / 1e9:.2f} GB"))
    return lines


def plan_verdict(plan: Mapping[str, Any]) -> str:
    """Return whether the fit fits, what would make it fit, and, if mining does not fit, how much it needs."""
    lines = [_fit_verdict(plan)]
    if plan["mining"] and plan["limit_bytes"] is not None and plan["mining_bytes"] > plan["limit_bytes"]:
        lines.append(f"mining does not fit: {plan['mining_bytes'] / 1e9:.1f} GB; lower recipe.generation_batch_size")
    return "\n".join(lines)


def _fit_verdict(plan: Mapping[str, Any]) -> str:
    peak = plan["peak_bytes"] / 1e9
    if plan["fits"] is None:
        return f"peak memory of a device: {peak:.1f} GB"
    limit = f"fits in {_gigabytes(plan['limit_bytes'])}"
    if plan["fits"]:
        return f"{limit}: yes, {peak:.1f}"
    lines = [f"{limit}: no, {peak:.1f}"]
    changes = plan["changes"]
    if not changes:
        lines.append("no change that this verb knows would save memory")
    elif not plan["changes_are_enough"]:
        lines.append(f"not even with all changes that this verb knows ({changes[-1]['peak_bytes'] / 1e9:.1f} GB)")
    else:
        lines.append(
            "nearest change that would:" if len(changes) == 1 else "no single change would; together these do:"
        )
    lines += [f"  {change['flags']}  → {change['peak_bytes'] / 1e9:.1f} GB ({change['effect']})" for change in changes]
    return "\n".join(lines)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.4g} GB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
