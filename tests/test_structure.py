"""The house: which package may import which, and which files must load without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.structure import (
    PACKAGE,
    ROOT,
    file_edges,
    files,
    imports,
    imports_of,
    module_name,
    mutual_imports,
    unit,
    unit_edges,
    units,
)

# Each may import those before it and itself; the command line, at the end, may import all.
ORDER = (
    *(
        "errors",
        "moved",
        "tasks",
        "records",
        "prompts",
        "formats",
        "workflow",
        "mining",
        "model",
        "sources",
        "generators",
    ),
    *("synthesis", "training", "diagnosis", "evaluation", "guard", "review", "report", "callbacks", "cli"),
    "__main__",
)
FILES = [path for path in files() if path.is_relative_to(PACKAGE)]

HEAVY = {"torch", "transformers", "lightning", "peft", "bitsandbytes", "torchmetrics"}
"""Packages that take seconds to import."""
MAY_LOAD_HEAVY = (
    *("model", "generators", "training", "callbacks", "synthesis.teacher", "cli.lightning_cli"),
    *("cli.config_checks", "cli.machine_checks", "cli.out_of_memory"),
    *("diagnosis.memory_trace", "diagnosis.sharded_memory", "diagnosis.step_memory", "diagnosis.run_plan"),
    *("evaluation.baselines", "evaluation.benchmark_data", "evaluation.guard_module", "evaluation.verdict_metrics"),
)
VAGUE = {"utils", "common", "helpers", "base"}


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_a_package_imports_only_those_before_it() -> None:
    place = {name: number for number, name in enumerate(ORDER)}
    assert units() == {*ORDER, "__init__", "benchmarks"}
    upwards = [
        f"{one} imports {other}"
        for one, other in sorted(file_edges())
        if unit(one) in place and unit(other) in place and place[unit(one)] < place[unit(other)]
    ]
    assert upwards == []


def test_no_two_files_import_each_other() -> None:
    assert mutual_imports() == set()


def test_the_house_is_small() -> None:
    assert len(units()) <= 23
    assert len(unit_edges()) <= 160


def loaded_imports(path: Path) -> set[str]:
    """Return what a file imports as soon as it is imported itself, not inside functions or for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        ):
            node.body = [ast.Pass()]
    return set(imports_of(ast.unparse(tree), path.relative_to(ROOT).parts[:-1]))


def is_light(path: Path) -> bool:
    name = module_name(path).removeprefix("guardreasoner.")
    return not any(name == heavy or name.startswith(f"{heavy}.") for heavy in MAY_LOAD_HEAVY)


@pytest.mark.parametrize("path", [path for path in FILES if is_light(path)], ids=named)
def test_reading_mining_and_scoring_load_no_torch(path: Path) -> None:
    assert not {module.split(".")[0] for module in loaded_imports(path)} & HEAVY


@pytest.mark.parametrize(
    "module",
    [
        *(
            "guardreasoner",
            "guardreasoner.cli.main",
            "guardreasoner.guard",
            "guardreasoner.mining",
            "guardreasoner.evaluation.scoring",
        ),
        *("guardreasoner.evaluation.comparison", "guardreasoner.evaluation.robustness"),
        *(
            f"guardreasoner.cli.commands.{verb}"
            for verb in (
                "calibrate",
                "judge",
                "score",
                "compare",
                "report",
                "robustness",
                "lineage",
                "pairs",
                "review",
                "export",
                "card",
                "serve",
            )
        ),
    ],
)
def test_files_are_scored_without_torch(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {sorted(HEAVY)} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_names_of_files_say_something() -> None:
    assert not [path for path in FILES if VAGUE & {part.removesuffix(".py") for part in path.parts[-3:]}]


def test_a_wrong_import_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "guardreasoner"
    for folder in ("mining", "cli"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "mining" / "pairs.py").write_text("def f():\n    from guardreasoner.cli import main\n")
    (package / "cli" / "main.py").write_text("from ..mining import pairs\nimport torch.nn\n")
    edges = {
        ("guardreasoner.mining.pairs", "guardreasoner.cli.main"),
        ("guardreasoner.cli.main", "guardreasoner.mining.pairs"),
    }
    assert file_edges(tmp_path) == edges
    assert mutual_imports(tmp_path) == {("guardreasoner.cli.main", "guardreasoner.mining.pairs")}
    assert unit_edges(tmp_path) == {("mining", "cli"), ("cli", "mining")}


def test_no_test_module_imports_another() -> None:
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules}
    assert [path.name for path in modules if imports(path) & names] == []


def test_a_public_name_is_defined_once() -> None:
    defined: dict[str, list[str]] = {}
    for path in FILES:
        is_verb = path.parent.name == "commands"  # all verbs have the interface HELP, configure, run
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not (is_verb and node.name in ("configure", "run")):
                defined.setdefault(node.name, []).append(named(path))
    twice = {name: places for name, places in defined.items() if len(places) > 1 and not name.startswith("_")}
    assert twice == {}
