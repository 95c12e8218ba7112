"""Runs a benchmark and writes its result as JSON; an error exits with one line."""

import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import replacing_file
from peers.process import MeasurementFailed


def run_and_write(arguments: Namespace, measure: Callable[[Path], dict[str, Any]]) -> None:
    """Measure in a temporary folder and write the result as JSON, if requested.

    Args:
        arguments: The flags, including ``json``.
        measure: Takes the folder and returns the result.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(Path(folder))
        if arguments.json:
            write_result(arguments.json, result)
            print(f"written: {arguments.json}")
    except InputError as error:
        sys.exit(error.lines())
    except MeasurementFailed as error:
        sys.exit(f"error: {error}")


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON; a long benchmark does so after each repeat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n")


def settings(arguments: Namespace) -> dict[str, Any]:
    """Return the flags that affect a result, for its JSON."""
    found = {name: value for name, value in vars(arguments).items() if name not in ("json", "predictions")}
    return {name: "/".join(value.parts[-2:]) if isinstance(value, Path) else value for name, value in found.items()}
