"""``moderate``: judge the conversations of logs; rank them, measure drift, and choose which ones to label."""

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner.cli.guard_engine import add_base_path, add_engine, add_quantization, engine_factory
from guardreasoner.cli.options import parse_count, require_files, write
from guardreasoner.errors import InputError
from guardreasoner.records.atomic_file import leftovers, owned, temporary
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.output_lock import locked_output
from guardreasoner.workflow.redaction import without_secrets
from guardreasoner.workflow.terminal import show_line

if TYPE_CHECKING:
    from guardreasoner.guard import Guard
    from guardreasoner.guard.moderation import Judge
    from guardreasoner.guard.moderation_summary import Drift, ModerationSummary
    from guardreasoner.sources.logs import Logs
    from guardreasoner.sources.row_parser import Columns

HELP = "judge the conversations of logs with a trained guard; rank them, measure drift, choose which ones to label"

EXIT_DRIFT = 3
"""Exit code if the scores have shifted by more than ``--drift_threshold``, or if that cannot be measured."""

log = logging.getLogger("guardreasoner")

_COLUMNS = ("prompt", "response", "messages", "id", "source", "policy")
_SPEEDS = ("direct", "reasoned", "auto")
_STDIN = "stdin"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("logs", nargs="+", metavar="LOGS", help="files or patterns of them; - reads JSONL from stdin")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file to write, a row for each")
    parser.add_argument("--model", default="checkpoints/hsdpo", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--speed", choices=_SPEEDS, help="default: the speed that the model was trained for")
    parser.add_argument("--policy", metavar="TEXT", help="policy of rows that have none: text, or a .txt or .md file")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=(),
        metavar="NAME=COLUMN",
        help=f"columns of the files: {', '.join(_COLUMNS)}; prompt=text reads the prompts from the column text",
    )
    parser.add_argument("--quarantine", metavar="FOLDER", help="move faulty rows there and judge the others")
    parser.add_argument("--texts", action="store_true", help="also write the conversations and the reasoning")
    parser.add_argument("--second", metavar="FOLDER", help="a second model, whose answers are compared")
    parser.add_argument("--second_base_path", metavar="FOLDER", help="base model of the second model, as --base_path")
    add_quantization(parser, of="second")
    parser.add_argument(
        "--second_speed",
        choices=_SPEEDS,
        help="speed of the second answers; without --second, the same model answers at this speed too",
    )
    parser.add_argument(
        "--top", type=parse_count, default=0, metavar="N", help="print the N rows with the highest scores"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the summary as JSON")
    parser.add_argument(
        "--to_review", "--to-review", type=Path, metavar="FILE", help="write a queue for review --label"
    )
    parser.add_argument("--review_size", type=parse_count, default=100, metavar="N", help="rows in it (default 100)")
    parser.add_argument(
        "--random_share",
        type=_share,
        default=0.2,
        metavar="SHARE",
        help="share of the queue that is drawn at random (default 0.2)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of that draw (default 0)")
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="measure drift against an earlier output, not the calibration"
    )
    parser.add_argument(
        "--drift_threshold",
        type=_positive,
        metavar="PSI",
        help=f"exit with {EXIT_DRIFT} if the population stability index of a task is above it, such as 0.25",
    )
    add_engine(parser)
    add_base_path(parser)
    add_quantization(parser)
    parser.add_argument("--actors", type=parse_count, default=1, metavar="N", help="actors of --engine ray (default 1)")
    parser.add_argument(
        "--chunk",
        type=parse_count,
        default=2048,
        metavar="N",
        help="conversations that are judged and committed together (default 2048)",
    )


def run(args: argparse.Namespace) -> int:
    """Judge the conversations, print the summary, and write the files.

    Args:
        args: the arguments that :func:`configure` declares.

    Returns:
        0, or ``EXIT_DRIFT``.

    Raises:
        InputError: an argument or file is invalid, or an unfinished run of the same output has other settings.
    """
    _require_options(args)
    require_files("moderate", out=args.out, json=args.json, to_review=args.to_review)
    columns = _columns(args.columns)
    with stop_signals.handled(), ExitStack() as stack:
        stack.enter_context(locked_output(args.out))
        stdin = stack.enter_context(_stdin_file(args.out)) if "-" in args.logs else None
        return _run_locked(args, columns, stdin)


def _run_locked(args: argparse.Namespace, columns: "Columns", stdin: Path | None) -> int:
    from guardreasoner.cli.log_output import show_log
    from guardreasoner.guard.labelling_queue import write_queue
    from guardreasoner.guard.moderation_log import ModerationLog
    from guardreasoner.guard.moderation_summary import summarize_rows
    from guardreasoner.report.moderation_lines import moderation_lines
    from guardreasoner.sources.logs import Logs
    from guardreasoner.sources.policy_files import read_policy

    show_log()
    judge, second = _judges(args)
    tasks = judge.guard.tasks
    _require_reference(args, judge)
    policy = None if args.policy is None else read_policy(args.policy, "--policy")
    paths: list[str | Path] = [stdin if stdin and path == "-" else path for path in args.logs]
    logs = Logs(paths, columns, tasks, policy, {stdin: _STDIN} if stdin else {})
    counts = logs.check(args.quarantine)
    if counts.unread_columns:
        log.info("columns that are not read: %s", ", ".join(counts.unread_columns))
    if counts.faulty:
        log.warning("%s rows are in quarantine: %s", f"{counts.faulty:,}", args.quarantine)

    rows = ModerationLog(args.out, _identity(args, logs, judge, second, policy))
    try:
        _judge(rows, logs, counts.usable, judge, second, args)
        summary = summarize_rows(rows.path, tasks, args.top)
        for line in moderation_lines(summary):
            show_line(line)
        drifts, unmeasured = _drifts(args, judge, summary)
        if args.to_review:
            size, share = args.review_size, args.random_share
            reasons = write_queue(args.to_review, rows.path, logs.rows(), tasks, size, share, args.seed)
            described = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
            show_line(f"written: {args.to_review}: {reasons.total():,} conversations to label: {described}")
        if args.json:
            content = {**summary.as_json(), "quarantined": counts.faulty, "drift": [one.as_json() for one in drifts]}
            write(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        rows.publish()
    finally:
        rows.close()
    show_line(f"written: {args.out}")
    if args.drift_threshold is None:
        return 0
    drifted = [one for one in drifts if one.stability_index > args.drift_threshold]
    for one in drifted:
        show_line(f"drift of {one.task}: PSI {one.stability_index:.3f} is above {args.drift_threshold:g}")
    return EXIT_DRIFT if drifted or unmeasured or not drifts else 0


def _judge(rows: Any, logs: "Logs", total: int, judge: "Judge", second: "Judge | None", args: Any) -> None:
    """Judge the conversations that are not committed yet."""
    from itertools import islice

    from rich.console import Console

    from guardreasoner.generators.progress import RecordProgress
    from guardreasoner.guard.moderation import judged_rows

    done = rows.rows
    if done:
        log.info("resuming: %s of %s conversations are judged", f"{done:,}", f"{total:,}")
    progress = RecordProgress("moderate", total, Console(stderr=True))
    try:
        for chunk in judged_rows(islice(logs.rows(), done, None), judge, second, args.chunk, args.texts):
            rows.append(chunk)
            progress.show(rows.rows, rows.rows - done)
            stop_signals.note(f"{rows.rows:,} of {total:,} conversations are judged; the same command continues")
    finally:
        progress.close()
    if rows.rows != total:
        raise InputError(f"{args.out}: judged {rows.rows:,} of {total:,} conversations", "the logs changed meanwhile")


def _judges(args: argparse.Namespace) -> tuple["Judge", "Judge | None"]:
    from guardreasoner.guard import Guard
    from guardreasoner.guard.moderation import Judge

    engine = engine_factory(args.engine, {"actors": args.actors} if args.engine == "ray" else None)
    load = partial(Guard.load, engine=engine)
    guard = load(args.model, speed=args.speed, base_path=args.base_path, quantization=args.quantization)
    if not (args.second or args.second_speed):
        return Judge(guard), None
    if args.second is None:
        if args.second_speed == guard.speed:
            raise InputError(f"moderate: --second_speed: {guard.speed}, which is the speed of the first answers too")
        _require_speed(guard, args.second_speed)
        return Judge(guard), Judge(guard, args.second_speed)
    other = load(
        args.second,
        speed=args.second_speed,
        base_path=args.second_base_path,
        quantization=args.second_quantization,
    )
    if other.tasks != guard.tasks:
        raise InputError(f"{args.second}: has other tasks than {args.model}, so their answers cannot be compared")
    return Judge(guard), Judge(other)


def _require_speed(guard: "Guard", speed: str) -> None:
    if speed not in guard.speeds:
        raise InputError(f"moderate: --second_speed {speed}: the model has {' and '.join(guard.speeds)} answers alone")


def _identity(
    args: argparse.Namespace, logs: "Logs", judge: "Judge", second: "Judge | None", policy: str | None
) -> dict[str, Any]:
    """Return everything that determines the rows."""
    return {
        "logs": logs.identity(),
        "model": _model_identity(judge),
        "second model": second and _model_identity(second),
        "policy": policy,
        "columns": repr(logs.columns),
        "texts": args.texts,
        "chunk": args.chunk,
        "quarantine": args.quarantine is not None,
    }


def _model_identity(judge: "Judge") -> dict[str, Any]:
    from guardreasoner.workflow.manifest import content_hash

    guard = judge.guard
    path = Path(guard.backbone.path)
    return {
        "path": str(path),
        "content": content_hash(path) if path.is_dir() else None,
        "calibration": [{"task": one.task, **one.as_json()} for one in guard.calibrations],
        "quantization": guard.backbone.quantization,
        "speed": judge.speed or guard.speed,
        "engine": type(guard.engine).__name__,
        "engine settings": without_secrets(guard.engine.settings),
    }


def _require_reference(args: argparse.Namespace, judge: "Judge") -> None:
    """Raise ``InputError`` if drift is asked for and nothing is there to compare with."""
    speed = judge.guard.speed
    if args.reference is not None and not args.reference.is_file():
        raise InputError(f"--reference {args.reference}: no such file")
    if args.drift_threshold is None or args.reference is not None:
        return
    if not any("histogram" in one.details and one.score == speed for one in judge.guard.calibrations):
        raise InputError(
            f"--drift_threshold: {args.model} has no calibration of {speed} answers with a score histogram",
            "calibrate the model again, or name an earlier output with --reference FILE",
        )


def _drifts(args: argparse.Namespace, judge: "Judge", summary: "ModerationSummary") -> tuple[list["Drift"], list[str]]:
    """Print the drift of each task; return it, with the names of the tasks whose drift could not be measured.

    A task of a calibration that was asked of no conversation is printed, but not returned.
    """
    from guardreasoner.guard.moderation_summary import (
        drift_from_calibration,
        drift_from_run,
        summarize_rows,
        unmeasured_drift,
    )
    from guardreasoner.report.moderation_lines import drift_line

    if args.reference is not None:
        before = summarize_rows(args.reference, judge.guard.tasks)
        drifts = drift_from_run(before, summary)
        if not drifts:
            raise InputError(f"--reference {args.reference}: has no answers of the same tasks and speeds")
        measured = {one.task for one in drifts}
        gone = [name for name, task in before.tasks.items() if task.scores and name not in measured]
        reasons = dict.fromkeys(gone, f"{args.reference} has scores of it, these answers have none of its speed")
        unmeasured = gone
    else:
        found = [drift_from_calibration(one, summary, str(args.model)) for one in judge.guard.calibrations]
        drifts = [one for one in found if one is not None]
        reasons = unmeasured_drift(judge.guard.calibrations, summary)
        unmeasured = [name for name in reasons if summary.tasks[name].count]
    for name, reason in reasons.items():
        show_line(f"drift of {name} not measured: {reason}")
    for drift in drifts:
        show_line(drift_line(drift))
    return drifts, unmeasured


@contextmanager
def _stdin_file(out: Path) -> Iterator[Path]:
    """Copy stdin to a file beside the output, since the logs are read twice; it is removed at the end."""
    for leftover in leftovers(out, f"{_STDIN}.jsonl"):
        leftover.unlink(missing_ok=True)
    path = temporary(out, f"{_STDIN}.jsonl")
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        with owned(path):
            yield path
    finally:
        path.unlink(missing_ok=True)


def _require_options(args: argparse.Namespace) -> None:
    from guardreasoner.sources.logs import matching_files

    if args.logs.count("-") > 1:
        raise InputError("moderate: -: given twice, expected stdin once")
    if args.chunk < 1 or args.review_size < 1 or args.actors < 1:
        raise InputError("moderate: --chunk, --review_size and --actors: expected a whole number from 1")
    for name in ("second_base_path", "second_quantization"):
        if getattr(args, name) and not args.second:
            raise InputError(f"moderate: --{name}: there is no second model", "name it with --second FOLDER")
    inputs = {file.resolve() for pattern in args.logs for file in matching_files(pattern)}
    for option in ("out", "to_review", "json"):
        path = getattr(args, option)
        if path is not None and path.resolve() in inputs:
            raise InputError(f"moderate: --{option} {path}: is one of the logs")
    if args.quarantine is not None:
        folder, others = Path(args.quarantine).resolve(), (args.out, args.to_review, args.json, args.reference)
        used = [*sorted(inputs), *(path.resolve() for path in others if path is not None)]
        if inside := next((path for path in used if path.is_relative_to(folder)), None):
            raise InputError(
                f"moderate: --quarantine {args.quarantine}: {inside} is inside that folder, which is overwritten",
                "move the corrected file out of it, or name another folder",
            )


def _columns(assignments: Sequence[str]) -> "Columns":
    from guardreasoner.sources.row_parser import Columns

    named: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, column = assignment.partition("=")
        if name not in _COLUMNS or not equals or not column:
            raise InputError(f"moderate: --columns: expected {'=COLUMN, '.join(_COLUMNS)}=COLUMN, got {assignment!r}")
        if name in named:
            raise InputError(f"moderate: --columns: {name} is given twice")
        named[name] = column
    return replace(Columns(), **named)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value
