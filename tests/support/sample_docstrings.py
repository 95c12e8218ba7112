"""Print docstrings of the package drawn at random, to judge the language: ``sample_docstrings.py [COUNT [SEED]]``."""

import ast
import random
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "guardreasoner"


def docstrings() -> list[tuple[str, str]]:
    """Return (place, text) of the docstring of every public class and function."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
            if is_public and (text := ast.get_docstring(node)):
                found.append((f"{path.relative_to(PACKAGE.parent)}: {node.name}", text))
    return found


if __name__ == "__main__":
    count, seed = (int(word) for word in (*sys.argv[1:], *("20", "13")[len(sys.argv) - 1 :]))
    for place, text in random.Random(seed).sample(docstrings(), count):
        print(f"{place}\n    {text.replace(chr(10), chr(10) + '    ')}\n")
