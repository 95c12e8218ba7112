"""``review``: serve a local page for rating reasoning, judging labels or giving them, and summarize the ratings."""

import argparse
import getpass
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.records import Record, write_jsonl
from guardreasoner.report.rating_tables import rating_notes, rating_tables, summary_as_json
from guardreasoner.review.audit import read_audit
from guardreasoner.review.items import ReviewSet, make_review_set
from guardreasoner.review.labelling import labelled_records, read_queue
from guardreasoner.review.rating_summary import summarize
from guardreasoner.review.ratings import Ratings, read_ratings
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.server import ADDRESS, bind, serve
from guardreasoner.review.session import Session
from guardreasoner.sources.named_predictions import match_by_content, prediction_warnings, read_named_predictions
from guardreasoner.workflow.terminal import show_line, stdout_console

HELP = "rate the reasoning of runs by hand, blind, on a local page; --summary summarizes ratings"

_RATINGS = Path("logs/ratings")
_ONLY_FOR_RATING = ("audit", "label", "sample", "ratings", "rater", "port")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", nargs="*", metavar="[NAME=]PATH", help="predictions, as for score; one to five runs")
    parser.add_argument(
        "--audit",
        type=Path,
        metavar="FILE",
        help="instead of runs: a file of pairs --audit; decide for each label whether it is right or the models are",
    )
    parser.add_argument(
        "--label",
        type=Path,
        metavar="FILE",
        help="instead of runs: a queue of moderate --to_review; choose the labels of each conversation",
    )
    parser.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="with --label: write the labelled conversations as training records; with --summary: without the page",
    )
    parser.add_argument("--intersect", action="store_true", help="rate only the records that all runs have")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="rate a random sample of N records; of an audit, the first N"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the order of records and answers, and of the intervals (default 0)",
    )
    parser.add_argument("--rater", metavar="NAME", help="name of the rater (default: the login name)")
    parser.add_argument(
        "--ratings", type=Path, metavar="FILE", help=f"file to append the ratings to (default {_RATINGS}/RATER.jsonl)"
    )
    parser.add_argument("--port", type=int, metavar="N", help=f"port on {ADDRESS} (default: any free port)")
    parser.add_argument(
        "--summary",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="summarize ratings instead of serving the page; with runs, only ratings of the texts of these runs count",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --summary: also write all numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, or print a summary.

    Args:
        args: the arguments that :func:`configure` declares.

    Raises:
        InputError: a file is missing or invalid, the runs have different records, or the port or the ratings file is in
            use.
    """
    require_files("review", json=args.json, ratings=args.ratings, records=args.records)
    if args.seed < 0:
        raise InputError(f"review: --seed: expected a whole number from 0, got {args.seed}")
    if args.sample is not None and args.sample < 1:
        raise InputError(f"review: --sample: expected a whole number from 1, got {args.sample}")
    if args.records and not args.label:
        raise InputError("review: --records needs --label FILE, the queue that was labelled")
    if args.label and (args.runs or args.audit or args.intersect or args.json):
        raise InputError("review: --label cannot be combined with runs, --audit, --intersect or --json")
    if args.summary and args.records:
        return _write_records(args.records, read_queue(args.label, args.sample), read_ratings(args.summary))
    if args.summary:
        if option := next((name for name in _ONLY_FOR_RATING if getattr(args, name) is not None), None):
            raise InputError(f"review: --{option} cannot be combined with --summary")
        return _print_summary(args)
    if args.json:
        raise InputError("review: --json needs --summary")
    if args.audit and (args.runs or args.intersect):
        raise InputError("review: --audit cannot be combined with runs or --intersect")
    if not (args.runs or args.audit or args.label):
        raise InputError(
            "review: required: a run",
            "review [NAME=]PATH …, review --audit FILE, review --label FILE, or review --summary FILE …",
        )
    return _rate(args)


def _rate(args: argparse.Namespace) -> int:
    rater, path = _rater_and_file(args.rater, args.ratings)
    if args.port is not None and not 0 <= args.port < 1 << 16:
        raise InputError(f"review: --port: expected a number from 0 to 65535, got {args.port}")
    named = match_by_content(read_named_predictions(args.runs, "review")) if args.runs else []
    if args.audit:
        review_set = read_audit(args.audit, args.sample)
    elif args.label:
        review_set = read_queue(args.label, args.sample)
    else:
        review_set = make_review_set(named, rater, args.intersect, args.sample, args.seed)
    with bind(args.port or 0) as bound:
        file = RatingsFile(path)
        try:
            session = Session(review_set, file, rater)
            _print_lines(
                [*_overview(review_set, session), *(f"note: {remark}" for remark in prediction_warnings(named))]
            )
            _print_lines([f"http://{ADDRESS}:{bound.getsockname()[1]}/   (stop with Ctrl-C)"])
            serve(session, bound)
        finally:
            file.close()
    ratings, skips = session.written - session.written_skips, session.written_skips
    _print_lines([f"written to {path}: {_count(ratings, 'rating')}, {_count(skips, 'skip')}; {_undone(session)}"])
    if args.records:
        return _write_records(args.records, review_set, read_ratings([path]))
    return 0


def _write_records(path: Path, review_set: ReviewSet, ratings: Ratings) -> int:
    labelled = labelled_records(review_set, ratings)
    if not labelled.records:
        raise InputError(f"--records {path}: no conversation of the queue has a label, so nothing was written")
    write_jsonl(path, (_training_row(record) for record in labelled.records))
    lines = [f"written: {path}: {_count(len(labelled.records), 'record')} for training"]
    if labelled.unlabelled:
        lines.append(f"without a label: {_count(labelled.unlabelled, 'conversation')}")
    if labelled.conflicts:
        lines.append(f"left out because raters differ: {_count(labelled.conflicts, 'label')}")
    _print_lines(lines)
    return 0


def _training_row(record: Record) -> dict[str, Any]:
    """Return a record as a row with labels first, by which the file is recognized when it is written again."""
    row = record.as_json()
    rest = {name: value for name, value in row.items() if name not in ("id", "labels", "reasoning")}
    return {"id": row["id"], "labels": row["labels"], **rest}


def _print_summary(args: argparse.Namespace) -> int:
    texts = None
    if args.runs:
        review_set = make_review_set(
            match_by_content(read_named_predictions(args.runs, "review")), "", args.intersect, keep_same=True
        )
        texts = {item.record.id: {run: item.text_hashes()[run] for run in review_set.runs} for item in review_set.items}
    summary = summarize(read_ratings(args.summary), texts, seed=args.seed)

    console = stdout_console(120)
    for table in rating_tables(summary):
        table.show(console)
    for note in rating_notes(summary):
        console.print(note, style="dim", highlight=False, markup=False)
    if args.json:
        content = {"files": [str(path) for path in args.summary], **summary_as_json(summary)}
        write(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


def _rater_and_file(rater: str | None, path: Path | None) -> tuple[str, Path]:
    if rater is None:
        try:
            rater = getpass.getuser()
        except (OSError, KeyError):  # Python 3.12 and before raise KeyError
            raise InputError("review: no login name found", "give one with --rater NAME") from None
    if not rater.strip() or not rater.isprintable():
        raise InputError(f"review: --rater: expected a printable name, got {rater!r}")
    if path is not None:
        return rater, path
    if not re.fullmatch(r"\w[\w. @-]*", rater):
        raise InputError(f"review: --rater: {rater!r} cannot be a file name", "name a file with --ratings FILE")
    return rater, _RATINGS / f"{rater}.jsonl"


def _overview(review_set: ReviewSet, session: Session) -> list[str]:
    """Return lines that count the records to rate, and what of the runs and of the ratings file is left out."""
    rated, skipped = session.counts()
    lines = [f"{_what(review_set)}; {session.rater} has rated {rated:,} and skipped {skipped:,}"]
    if review_set.not_sampled:
        lines.append(f"not in the sample (--sample): {_count(len(review_set.not_sampled), 'record')}")
    if review_set.same:
        lines.append(f"passed over, since all runs gave the same answer: {_count(len(review_set.same), 'record')}")
    if any(review_set.left_out.values()):
        counts = ", ".join(f"{name} {count:,}" for name, count in review_set.left_out.items() if count)
        lines.append(f"left out because some run lacks them: {counts}")
    lines.append(f"ratings: {session.file.path}")
    file = {
        "truncated by an interrupted write, removed": session.file.truncated,
        "by other raters": session.by_other_raters,
        "on records outside the sample": session.not_sampled,
        "on changed texts or other runs, not counted here": session.other_texts,
    }
    return lines + [f"in the file: {_count(count, 'line')} {what}" for what, count in file.items() if count]


def _what(review_set: ReviewSet) -> str:
    items = len(review_set.items)
    if review_set.items[0].tasks:
        return f"{_count(items, 'conversation')} to label"
    if not review_set.runs:
        return f"{_count(items, 'label')} that all models contradict"
    return f"{_count(items, 'record')} of {_count(len(review_set.runs), 'run')}"


def _undone(session: Session) -> str:
    rated, skipped = session.counts()
    return (
        f"{session.undone:,} undone; in total {rated:,} of {len(session.review_set.items):,} rated, {skipped:,} skipped"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _print_lines(lines: Sequence[str]) -> None:
    show_line("\n".join(lines))
