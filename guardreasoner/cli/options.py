"""Options that several verbs have: how intervals are made, which files are written."""

import argparse
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import RESAMPLES
from guardreasoner.records import replacing_file


def add_resampling(parser: argparse.ArgumentParser) -> None:
    """Declare ``--resamples`` and ``--seed``."""
    what = f"how often records are drawn for the intervals ({RESAMPLES:,}); 0: no intervals"
    parser.add_argument("--resamples", type=_count, default=RESAMPLES, metavar="N", help=what)
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="of these draws (0)")


def add_files(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json`` and ``--latex``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers as JSON")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="also write the tables as LaTeX (booktabs)")


def require_files(**paths: Path | None) -> None:
    """Raise ``InputError`` where an option that takes a file to write, by its name, was given a folder."""
    for option, path in paths.items():
        if path and path.is_dir():
            raise InputError(f"{path}: is a folder; --{option} takes a file")


def write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, and say so; raise ``InputError`` where that fails.

    Half a surrogate pair, which data may hold and UTF-8 cannot, is written as its escape.
    """
    try:
        with replacing_file(path) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"written: {path}")


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {word!r}")
    return int(word)
