"""``lineage``: trace a model, rollouts or predictions back to the source files, and report what has changed since."""

import argparse
import json
import os
import sys
from typing import Any

from guardreasoner.report.lineage_tree import show_trees
from guardreasoner.workflow.lineage import Node, lineage, problems
from guardreasoner.workflow.terminal import show_line, stdout_console

HELP = "show what a model, rollouts, predictions or pairs were made from, and what has changed since"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "path",
        nargs="+",
        metavar="PATH",
        help="folder of a model, rollouts or predictions, a pairs file, or a file inside one of them",
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the trees.

    Args:
        args: the arguments that :func:`configure` declares.

    Returns:
        0, or 1 if something has changed or is missing.

    Raises:
        InputError: a path does not exist or has no manifest, or a file cannot be read.
    """
    trees = lineage(args.path)
    changed = problems(trees)
    count = len({node.path for tree in trees for node in tree.walk()})
    unseen = sorted({node.path for tree in trees for node in tree.walk() if node.state == "not looked at"})
    if args.json:
        content = {
            "trees": [_as_json(tree) for tree in trees],
            "count": count,
            "changed_or_missing": changed,
            "not_looked_at": unseen,
        }
        print(json.dumps(content, indent=1, ensure_ascii=False, default=str))
    else:
        # A pipe has no width; whole paths are better than paths wrapped at 80 columns.
        show_trees(stdout_console(400), trees)
        named = ", ".join(f"{path} ({state})" for path, state in changed.items())
        unchanged = f"{count - len(unseen)} of {count} unchanged"
        show_line(f"{len(changed)} of {count} changed or missing: {named}" if changed else unchanged)
        if unseen:
            show_line(f"not looked at: {', '.join(unseen)}")
    if any(state == "missing" and not os.path.isabs(path) for path, state in changed.items()):
        print(
            f"hint: relative paths are resolved in {os.getcwd()}; run this where the commands were run",
            file=sys.stderr,
        )
    return 1 if changed else 0


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
    if node.calibrations:
        row["calibrations"] = {
            task: [{key: stored.get(key) for key in ("score", "command", "created", "run", "data")} for stored in rows]
            for task, rows in node.calibrations.items()
        }
    if node.kind == "code":
        row["init_args"] = dict(node.arguments)
    return {**row, "inputs": [_as_json(inner) for inner in node.inputs]}
