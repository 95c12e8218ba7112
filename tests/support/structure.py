"""Count the units of the package and the imports between them: ``python tests/support/structure.py``."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "guardreasoner"


def files(root: Path = ROOT) -> list[Path]:
    """Return the files of the package and of the benchmarks."""
    return sorted([*(root / "guardreasoner").rglob("*.py"), *(root / "benchmarks").rglob("*.py")])


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return a file's dotted name; a package is named without ``__init__``."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def unit(module: str) -> str:
    """Return the unit of a module: the package or file below ``guardreasoner``, or ``benchmarks``; "" for others."""
    top, _, rest = module.partition(".")
    return (
        rest.partition(".")[0] or "__init__" if top == "guardreasoner" else "benchmarks" if top == "benchmarks" else ""
    )


def imports(path: Path, root: Path = ROOT) -> set[str]:
    """Return the modules and names that a file imports, also inside functions and for type checkers only."""
    return set(imports_of(path.read_text(encoding="utf-8"), path.relative_to(root).parts[:-1]))


def imports_of(code: str, package: Sequence[str]) -> Iterator[str]:
    """Yield the modules that code in a package imports; for ``from m import n`` both ``m`` and ``m.n``."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*parents, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def file_edges(root: Path = ROOT) -> set[tuple[str, str]]:
    """Return (importing module, imported module) for all files; a package stands for its ``__init__`` file."""
    names = {module_name(path, root): path for path in files(root)}
    edges = set()
    for name, path in names.items():
        found = imports(path, root) & names.keys()
        # ``from m import n`` where n is a module imports n; that m is loaded on the way does not count.
        precise = {one for one in found if not any(other.startswith(f"{one}.") for other in found)}
        edges |= {(name, other) for other in precise if other != name}
    return edges


def unit_edges(root: Path = ROOT) -> set[tuple[str, str]]:
    """Return (importing unit, imported unit) for all units that differ."""
    pairs, own_units = set(), units(root)
    for path in files(root):
        own = unit(module_name(path, root))
        others = {unit(name) for name in imports(path, root) if name != "guardreasoner"}
        # names of the package itself, such as __version__, belong to __init__
        known = {one if one in own_units else "__init__" for one in others if one}
        pairs |= {(own, other) for other in known if other != own}
    return pairs


def units(root: Path = ROOT) -> set[str]:
    """Return all units."""
    return {unit(module_name(path, root)) for path in files(root)}


def mutual_imports(root: Path = ROOT) -> set[tuple[str, str]]:
    """Return the pairs of files that import each other."""
    edges = file_edges(root)
    return {(one, other) for one, other in edges if one < other and (other, one) in edges}


if __name__ == "__main__":
    print(f"units: {len(units())}")
    print(f"import edges between units: {len(unit_edges())}")
    print(f"pairs of files that import each other: {len(mutual_imports())}")
