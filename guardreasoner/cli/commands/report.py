"""``report``: one HTML file that says whether a run is better than another, how sure that is, and what it does."""

import argparse
import shlex
from datetime import UTC, datetime
from pathlib import Path

from guardreasoner.cli.commands._compared import Compared, add_runs, read_compared
from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.report.rating_tables import rating_notes, rating_tables
from guardreasoner.review.rating_summary import Summary, summarise
from guardreasoner.review.ratings import read_ratings, text_hashes_of
from guardreasoner.sources.named_predictions import prediction_warnings

HELP = "write one HTML page on runs: is the last one better, how sure is that; curves, flips, lineage"

_EXAMPLES = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("logs/report.html"), metavar="FILE", help="the page (logs/report.html)"
    )
    parser.add_argument(
        "--logs",
        nargs="+",
        type=Path,
        metavar="DIR",
        default=[],
        help="event files of TensorBoard, in these folders or below, instead of those of the fits in the lineage",
    )
    parser.add_argument(
        "--rollouts",
        nargs="+",
        type=Path,
        metavar="PATH",
        default=[],
        help="rollouts for the mining results, instead of those that the lineage leads to",
    )
    parser.add_argument(
        "--ratings",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=[],
        help="ratings by hand (review); those of the very texts of these runs count",
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=_EXAMPLES,
        metavar="N",
        help=f"most records that are shown of each direction of flips ({_EXAMPLES})",
    )


def run(args: argparse.Namespace) -> int:
    """Compare the runs, gather what they came from, write the page.

    Args:
        args: what :func:`configure` declares, and ``words``: all arguments.

    Raises:
        InputError: a file, or what it holds, is wrong; other records; the page cannot be written.
    """
    require_files(out=args.out)
    if args.examples < 0:
        raise InputError(f"report: --examples must be at least 0, got {args.examples}")
    compared = read_compared(args, "report")
    rated = _rated(compared, args) if args.ratings else None
    from guardreasoner.report.comparison_page import PageInputs, comparison_page

    inputs = PageInputs(
        {one.name: one.paths for one in compared.named},
        prediction_warnings(compared.named),
        shlex.join(["report", *args.words]),
        datetime.now(UTC).isoformat(timespec="seconds"),
        args.resamples,
        args.seed,
        args.examples,
        args.logs,
        args.rollouts,
        rating_tables(rated) if rated else (),
        rating_notes(rated) if rated else (),
    )
    write(args.out, comparison_page(compared.comparison, compared.criteria, inputs))
    return 0


def _rated(compared: Compared, args: argparse.Namespace) -> Summary:
    """Return what people said of these runs; a run of several seeds has no answer that is its own."""
    files = {name: compared.comparison.files_of(name) for name in compared.seeds}
    texts = text_hashes_of({name: of[0] for name, of in files.items() if len(of) == 1})
    return summarise(read_ratings(args.ratings), texts, args.resamples, args.seed)
