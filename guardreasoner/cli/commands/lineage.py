"""``lineage``: from a model, or what one wrote, down to the source files, and which of them are still as they were."""

import argparse
import json
import os
import sys
from typing import Any

from guardreasoner.report.lineage_tree import show_trees
from guardreasoner.workflow.lineage import Node, lineage, problems

HELP = "show what a model, rollouts, predictions or pairs came from, and what has changed since"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "path",
        nargs="+",
        metavar="PATH",
        help="a folder of a model, rollouts or predictions, a file of pairs, or a file inside one of them",
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the trees.

    Args:
        args: what :func:`configure` declares.

    Returns:
        0, or 1 where something has changed or is missing.

    Raises:
        InputError: nothing lies at a path, nothing says what made it, or a file cannot be read.
    """
    trees = lineage(args.path)
    found = problems(trees)
    count = len({node.path for tree in trees for node in tree.walk()})
    unseen = sorted({node.path for tree in trees for node in tree.walk() if node.state == "not looked at"})
    if args.json:
        content = {
            "trees": [_as_json(tree) for tree in trees],
            "count": count,
            "changed_or_missing": found,
            "not_looked_at": unseen,
        }
        print(json.dumps(content, indent=1, ensure_ascii=False, default=str))
    else:
        from rich.console import Console

        # Text that is piped has no width of its own; paths are then better whole than wrapped at 80 columns.
        show_trees(Console(file=sys.stdout, width=None if sys.stdout.isatty() else 400), trees)
        named = ", ".join(f"{path} ({state})" for path, state in found.items())
        good = f"{count - len(unseen)} of {count} there and unchanged"
        print(f"{len(found)} of {count} changed or missing: {named}" if found else good)
        if unseen:
            print(f"not looked at: {', '.join(unseen)}")
    if any(state == "missing" and not os.path.isabs(path) for path, state in found.items()):
        print(
            f"hint: relative paths are looked for below {os.getcwd()}; start this where the commands were started",
            file=sys.stderr,
        )
    return 1 if found else 0


def _as_json(node: Node) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": node.path,
        "kind": node.kind,
        "state": node.state,
        "recorded": node.recorded,
        "found": node.found,
    }
    if node.shown_above:
        return {**row, "shown_above": True}
    if (made := node.manifest) is not None:
        row |= {
            "command": made.command,
            "created": made.created,
            "commit": made.commit,
            "dirty": made.dirty,
            "versions": made.versions,
            "seeds": node.seeds(),
            "allow_contamination": made.allow_contamination,
        }
    if node.kind == "code":
        row["init_args"] = dict(node.arguments)
    return {**row, "inputs": [_as_json(inner) for inner in node.inputs]}
