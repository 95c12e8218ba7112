"""Lineage of an artefact as a tree, for a terminal and as plain text."""

from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING

from guardreasoner.workflow.lineage import Node

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

_COMMIT_LENGTH = 10
_ARGUMENTS_LENGTH = 80
_STYLES = {"unchanged": "green", "not looked at": "yellow"}
_WIDE = 4000
"""Columns. Wide enough that no line is wrapped; the page scrolls instead."""


def show_trees(console: "Console", trees: Iterable[Node]) -> None:
    """Print the lineage tree of each artefact."""
    for node in trees:
        console.print(_tree(node))


def trees_as_text(trees: Iterable[Node]) -> str:
    """Return the same trees as plain text."""
    from rich.console import Console

    out = StringIO()
    show_trees(Console(file=out, width=_WIDE, color_system=None, legacy_windows=False), trees)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _tree(node: Node) -> "Tree":
    from rich.tree import Tree

    tree = Tree(_line(node))
    for child in node.inputs:
        tree.children.append(_tree(child))
    return tree


def _line(node: Node) -> "Text":
    from rich.text import Text

    line = Text(node.path, style="bold" if node.kind == "artefact" else "")
    line.append("  ")
    line.append(node.state, style=f"not bold {_STYLES.get(node.state, 'red')}")
    if details := _details(node):
        line.append(f"  {'; '.join(details)}", style="not bold dim")
    if node.manifest and node.manifest.allow_contamination:
        line.append("  made with --allow_contamination", style="bold red")
    return line


def _details(node: Node) -> list[str]:
    if node.shown_above:
        return ["see above"]
    if node.manifest is not None:
        manifest = node.manifest
        dirty = " dirty" if manifest.dirty else ""
        commit = f"commit {manifest.commit[:_COMMIT_LENGTH]}{dirty}" if manifest.commit else ""
        seeds = ", ".join(f"{key} {value}" for key, value in node.seeds().items())
        calibrations = (
            f"calibrated {task} ({row.get('score')} scores) {row.get('created', '')}"
            for task, rows in node.calibrations.items()
            for row in rows
        )
        parts = (" ".join(manifest.command[:1]), manifest.created, commit, seeds, *calibrations)
        return [part for part in parts if part]
    if node.state == "missing":
        return []
    if node.kind == "code":
        arguments = ", ".join(f"{key}={value}" for key, value in node.arguments.items())
        short = arguments if len(arguments) <= _ARGUMENTS_LENGTH else f"{arguments[:_ARGUMENTS_LENGTH]}…"
        return ["code", *([short] if short else [])]
    if node.kind == "hub":
        return ["on a hub"]
    if node.kind == "package":
        return ["from a package index"]
    return [f"{node.kind} {'inside' if node.inputs else 'without a manifest'}"]
