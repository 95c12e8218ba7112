"""The floors of the design: a file imports from floors below, and from rows above it on its own floor."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "guardreasoner"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground up. On an ordered floor a file may import those that stand before it; on the Lightning floor the three
# packages do not know each other; whoever is on top may import everything.
VOCABULARY = ("errors", "tasks", "records", "recipe", "objective", "redaction", "manifest")
TRANSFORMS = (
    *("prompts", "encoder", "tokens", "packing", "example_store", "sampling", "plotting", "mining", "scoring"),
    *("attacks", "robustness", "comparison", "ratings", "validation", "contamination", "splits", "synthesis"),
    *("conclusions", "reasoning_quality", "diagnosis", "journal", "progress"),
)
OUTSIDE_WORLD = ("model_folder", "adapter", "attention", "backbone", "reference", "generators", "sources")
LIGHTNING = ("data", "modules", "callbacks")
APPLICATION = (
    *("config", "freshness", "lineage", "pipeline", "misspelt", "cli", "__main__", "commands", "options"),
    *("report", "review"),
)
FLOORS = (VOCABULARY, TRANSFORMS, OUTSIDE_WORLD, LIGHTNING, APPLICATION)

# Takes seconds to import, so reading and scoring files must do without.
HEAVY = {"torch", "transformers", "lightning", "peft", "bitsandbytes", "torchmetrics"}
LIGHT = (
    "errors",
    "tasks",
    "records",
    "recipe",
    "redaction",
    "manifest",
    "prompts",
    "plotting",
    "mining",
    "scoring",
    "attacks",
    "robustness",
    "comparison",
    "contamination",
    "splits",
    "synthesis",
    "conclusions",
    "reasoning_quality",
    "ratings",
    "sources",
    "review",
)


def unit(module: str) -> str:
    """Return the row of a module: its file or package below ``guardreasoner``; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports."""
    return imports_of(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parts[:-1])


def imports_of(code: str, package: Sequence[str]) -> set[str]:
    """Return the modules that code of a package imports, in functions too; for ``from guardreasoner import x``, x."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "guardreasoner" else {module}
    return found


def imports_when_loaded(path: Path) -> set[str]:
    """Return the modules that a file imports as soon as it is imported itself: not in functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    return imports_of(ast.unparse(tree), path.relative_to(ROOT).parts[:-1])


def allowed(row: str) -> set[str]:
    """Return the rows that a row may import."""
    level = next(place for place, floor in enumerate(FLOORS) if row in floor)
    floor, below = FLOORS[level], {one for lower in FLOORS[:level] for one in lower}
    if floor is LIGHTNING:
        return below | {row}
    return below | {row} | set(floor if floor is APPLICATION else floor[: floor.index(row)])


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_go_down(path: Path) -> None:
    row = unit(".".join(path.relative_to(ROOT).with_suffix("").parts))
    ours = {unit(module) for module in imports(path) if module.split(".")[0] == "guardreasoner"} - {"__version__"}
    if row == "__init__":
        assert not ours
        return
    assert any(row in floor for floor in FLOORS), f"{row} stands on no floor: give it one here and in the design"
    assert ours <= allowed(row), f"{named(path)} must not import {', '.join(sorted(ours - allowed(row)))}"


LIGHT_FILES = [path for path in FILES if path.relative_to(PACKAGE).parts[0].removesuffix(".py") in LIGHT]


@pytest.mark.parametrize("path", LIGHT_FILES, ids=named)
def test_reading_and_scoring_stay_light(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports_when_loaded(path)} & HEAVY


def test_every_row_exists() -> None:
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert {row for floor in FLOORS for row in floor} == there


def test_a_wrong_import_is_seen() -> None:
    code = """
from guardreasoner import cli
def f():
    import torch.nn
    from guardreasoner.data.loading import log
    from . import writers
    from ..modules.guard import GuardModule
"""
    found = {"guardreasoner.cli", "torch.nn", "guardreasoner.data.loading"}
    found |= {"guardreasoner.callbacks", "guardreasoner.modules.guard"}
    assert imports_of(code, ("guardreasoner", "callbacks")) == found
    assert {unit(module) for module in found} - allowed("callbacks") == {"cli", "nn", "data", "modules"}
    assert "reference" not in allowed("backbone")
    assert "backbone" in allowed("reference")
    assert "tokens" not in allowed("prompts")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_files_are_short_and_have_names_that_say_something(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300
    assert not {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts} & {
        "utils",
        "common",
        "helpers",
        "base",
    }


@pytest.mark.parametrize(
    "module",
    [
        *("guardreasoner.scoring", "guardreasoner.comparison", "guardreasoner.robustness", "guardreasoner.__main__"),
        *(
            f"guardreasoner.commands.{verb}"
            for verb in ("score", "compare", "report", "robustness", "lineage", "pairs", "review")
        ),
    ],
)
def test_files_are_scored_without_torch(module: str) -> None:
    heavy = sorted(HEAVY)
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
