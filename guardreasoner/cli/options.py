"""Options that several verbs share: resampling for intervals, and output files."""

import argparse
import os
import re
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import RESAMPLES
from guardreasoner.records.atomic_file import replacing_file
from guardreasoner.workflow.terminal import show_line


def add_resampling(parser: argparse.ArgumentParser) -> None:
    """Declare ``--resamples`` and ``--seed``."""
    what = f"bootstrap resamples for the intervals (default {RESAMPLES:,}); 0: no intervals"
    parser.add_argument("--resamples", type=parse_count, default=RESAMPLES, metavar="N", help=what)
    parser.add_argument("--seed", type=parse_count, default=0, metavar="N", help="seed of the resampling (default 0)")


def add_files(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json`` and ``--latex``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers as JSON")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="also write the tables as LaTeX (booktabs)")


def require_files(verb: str, **paths: Path | None) -> None:
    """Check the files that output options of a verb, given by their names, would replace.

    Raises:
        InputError: one is a folder, a device or a pipe, or holds something else than an earlier run of the option
            wrote, or two options name the same file.
    """
    named: dict[str, str] = {}
    for option, path in paths.items():
        if path and (other := named.setdefault(os.path.realpath(path), option)) != option:
            raise InputError(f"--{option} {path}: the same file as --{other}", "name another file")
        if path and path.is_dir():
            raise InputError(f"--{option} {path}: expected a file, found a folder")
        if path and (path.absolute().parts[1:2] in (("dev",), ("proc",)) or (path.exists() and not path.is_file())):
            raise InputError(f"--{option} {path}: expected a file, found a device or a pipe")
        start = _STARTS_OF_OUT.get(verb) if option == "out" else _STARTS.get(option)
        if path and path.is_file() and start is not None and not _may_replace(path, start):
            raise InputError(
                f"--{option} {path}: the file was not written by this option and would be replaced",
                "name another file, or remove this one",
            )


def write(path: Path, text: str) -> None:
    """Write a text file atomically and print its path.

    An unpaired surrogate, which data may contain and UTF-8 cannot encode, is written as its escape.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with replacing_file(path) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    show_line(f"written: {path}")


_PAGE = r"<!doctype html>[^{]*<meta name=\"color-scheme\""
_STARTS_OF_OUT = {
    "report": _PAGE,
    "pairs": r"""\{("id": "[^\n]*", )?"record": \{""",
    "calibrate": r"""\{\n "calibration": """,
    "card": r"---\n(?:(?!---)[^\n]*\n)*?- guardreasoner\n",
    "moderate": r"""\{"id": "[^\n]*", "row": \"""",
}
_STARTS = {
    "html": _PAGE,
    "to_review": r"""\{"kind": "guardreasoner labelling queue\"""",
    "records": r"""\{"id": "[^\n]*", "labels": \{""",
    "json": r"""\{\n "(?!format")""",
    "latex": r"% \\usepackage\{booktabs\}",
    "audit": r"""\{"record_id": "[^\n]*", "task": """,
    "flips": r"""\{"first": """,
}
"""How a file that an option writes starts, as a regular expression; other files of users and tools start otherwise."""


def _may_replace(path: Path, start: str) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 16)
    return not text.strip() or bool(re.match(start, text))


def parse_count(text: str) -> int:
    """Parse a whole number from 0 of a command line.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)
