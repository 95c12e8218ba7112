"""Options that several verbs share: resampling for intervals, and output files."""

import argparse
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import RESAMPLES
from guardreasoner.records import replacing_file
from guardreasoner.workflow.terminal import show_line


def add_resampling(parser: argparse.ArgumentParser) -> None:
    """Declare ``--resamples`` and ``--seed``."""
    what = f"bootstrap resamples for the intervals (default {RESAMPLES:,}); 0: no intervals"
    parser.add_argument("--resamples", type=_count, default=RESAMPLES, metavar="N", help=what)
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="seed of the resampling (default 0)")


def add_files(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json`` and ``--latex``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers as JSON")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="also write the tables as LaTeX (booktabs)")


def require_files(**paths: Path | None) -> None:
    """Raise ``InputError`` if an output option, given by its name, is an existing folder."""
    for option, path in paths.items():
        if path and path.is_dir():
            raise InputError(f"--{option} {path}: expected a file, found a folder")


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


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)
