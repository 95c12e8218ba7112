"""``report``: write one HTML page on whether a run is better than another, with evidence and lineage."""

import argparse
import shlex
from datetime import UTC, datetime
from pathlib import Path

from guardreasoner.cli.commands._compared import Compared, add_runs, read_compared
from guardreasoner.cli.commands._slices import add_slices, with_languages
from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison import run_labels
from guardreasoner.evaluation.scoring.probabilities import ProbabilityScore, probability_scores
from guardreasoner.evaluation.scoring.slices import SliceScore, score_slices
from guardreasoner.report.rating_tables import rating_notes, rating_tables
from guardreasoner.review.rating_summary import Summary, summarize
from guardreasoner.review.ratings import read_ratings, text_hashes_of
from guardreasoner.sources.named_predictions import prediction_warnings

HELP = "write one HTML page that compares runs: scores with intervals, training curves, flips, lineage"

_EXAMPLES = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser)
    add_slices(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("logs/report.html"),
        metavar="FILE",
        help="file to write (default logs/report.html)",
    )
    parser.add_argument(
        "--logs",
        nargs="+",
        type=Path,
        metavar="DIR",
        default=[],
        help="folders with TensorBoard event files; default: those of the fits in the lineage",
    )
    parser.add_argument(
        "--rollouts",
        nargs="+",
        type=Path,
        metavar="PATH",
        default=[],
        help="rollouts for the mining yield; default: those in the lineage",
    )
    parser.add_argument(
        "--ratings",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=[],
        help="ratings written by review; only ratings of the texts of these runs count",
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=_EXAMPLES,
        metavar="N",
        help=f"maximum number of records to show per direction of flips (default {_EXAMPLES})",
    )


def run(args: argparse.Namespace) -> int:
    """Compare the runs, collect their lineage and write the page.

    Args:
        args: the arguments that :func:`configure` declares, and ``argv``: all flags.

    Raises:
        InputError: a file is missing or invalid, the runs have different records, or the page cannot be written.
    """
    require_files("report", out=args.out)
    if args.examples < 0:
        raise InputError(f"report: --examples must be at least 0, got {args.examples}")
    compared = read_compared(args, "report")
    ratings = _rating_summary(compared, args) if args.ratings else None
    from guardreasoner.report.comparison_page import PageInputs, comparison_page

    inputs = PageInputs(
        {run.name: run.paths for run in compared.named},
        (*compared.notes, *prediction_warnings(compared.named)),
        shlex.join(["report", *args.argv]),
        datetime.now(UTC).isoformat(timespec="seconds"),
        args.resamples,
        args.seed,
        args.examples,
        args.logs,
        args.rollouts,
        rating_tables(ratings) if ratings else (),
        rating_notes(ratings) if ratings else (),
        _probabilities(compared, args),
        _slices(compared, args) if args.by else {},
    )
    write(args.out, comparison_page(compared.comparison, compared.criteria, inputs))
    return 0


def _probabilities(compared: Compared, args: argparse.Namespace) -> dict[str, tuple[ProbabilityScore, ...]]:
    """Return the quality of the probabilities of each run, or of each file of a run with several seeds."""
    probabilities = {}
    for run in compared.named:
        files = compared.comparison.files_of(run.name)
        for path, read, answers in zip(run.paths, run.seeds, files, strict=True):
            name = run.name if len(files) == 1 else f"{run.name}, {path}"
            if rows := probability_scores(answers.records, read.scores, read.tasks, args.resamples, args.seed):
                probabilities[name] = rows
    return probabilities


def _slices(compared: Compared, args: argparse.Namespace) -> dict[str, list[SliceScore]]:
    comparison = compared.comparison
    runs = {name: run_labels(labels) for name, labels in comparison.labels.items()}
    records = with_languages(comparison.aligned.files[0].records, args)
    return score_slices(runs, records, args.by, comparison.tasks, comparison.mode, args.resamples, args.seed)


def _rating_summary(compared: Compared, args: argparse.Namespace) -> Summary:
    """Summarize the ratings of these runs; a run of several seeds has no single text per record and is left out."""
    files = {name: compared.comparison.files_of(name) for name in compared.seeds}
    texts = text_hashes_of({name: seeds[0] for name, seeds in files.items() if len(seeds) == 1})
    return summarize(read_ratings(args.ratings), texts, args.resamples, args.seed)
