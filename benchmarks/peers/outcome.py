"""What becomes of a benchmark: its JSON, or one line that says what is wrong."""

import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from peers.process import Failed


def outcome(arguments: Namespace, measure: Callable[[Path], dict[str, Any]]) -> None:
    """Measure in a folder of its own and write the JSON that ``arguments`` ask for.

    Args:
        arguments: the flags, among them ``json``.
        measure: takes the folder and returns the result.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder))
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")
            print(f"written: {arguments.json}")
    except InputError as error:
        sys.exit(error.lines())
    except Failed as error:
        sys.exit(f"error: {error}")


def settings(arguments: Namespace) -> dict[str, Any]:
    """Return the flags that decide a result, for its JSON."""
    return {name: value for name, value in vars(arguments).items() if name not in ("json", "predictions")}
