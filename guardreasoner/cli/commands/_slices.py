"""Options that split scores by language, source, turns or a further column."""

import argparse
from collections.abc import Sequence

from guardreasoner.records import Record
from guardreasoner.sources.language import require_detector, with_language


def add_slices(parser: argparse.ArgumentParser) -> None:
    """Declare ``--by`` and ``--detect_language``."""
    parser.add_argument(
        "--by",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="also show scores by slice: language, source, turns, or a further column of the records",
    )
    parser.add_argument(
        "--detect_language",
        action="store_true",
        help="with --by language: detect the language of records that have none (needs py3langid)",
    )


def with_languages(records: Sequence[Record], args: argparse.Namespace) -> Sequence[Record]:
    """Return the records, with detected languages if that is requested.

    Raises:
        InputError: the package that detects languages is missing.
    """
    if not args.detect_language:
        return records
    require_detector()
    return [with_language(record) for record in records]
