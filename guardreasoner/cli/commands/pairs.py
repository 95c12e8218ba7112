"""``pairs``: mine hard records from rollout files and write their preference pairs; audit their labels."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_verdicts
from guardreasoner.mining import (
    PRESETS,
    ChosenRule,
    GradingMode,
    MiningResult,
    Pairing,
    ParserName,
    SelectionRule,
    UnparsablePolicy,
    mine,
)
from guardreasoner.mining.audit import doubted_labels
from guardreasoner.mining.explain import explain
from guardreasoner.mining.findings import Findings, findings
from guardreasoner.records import Record, Rollout, write_jsonl
from guardreasoner.report.explanation_text import explanation_lines
from guardreasoner.report.mining_tables import show_counts, show_details, summary_lines
from guardreasoner.sources.rollouts import (
    read_costs,
    read_rollout_folders,
    read_training_rollouts,
    rollout_format,
    rollout_tasks,
)
from guardreasoner.tasks import Task
from guardreasoner.workflow.manifest import record_made
from guardreasoner.workflow.terminal import show_line, terminal_text

if TYPE_CHECKING:
    from guardreasoner.cli.commands._fit_inputs import FitInputs

HELP = "mine hard records from rollouts and write their weighted preference pairs; list doubtful labels"

OVERRIDES = ("--data", "--recipe", "--model", "--trainer", "--output", "--seed_everything", "--allow_contamination")
"""Flags of ``fit``, also dotted ones, that may follow ``--config``."""

_CHOICES = {
    "parser": (get_args(ParserName), "how to parse the verdicts of an output"),
    "unparsable": (get_args(UnparsablePolicy), "how to treat an output without a verdict"),
    "chosen": (
        get_args(ChosenRule),
        "which correct output to prefer; all: one pair for each; gold: the record's own reasoning and labels",
    ),
    "rejected": (get_args(SelectionRule), "which wrong output to reject; all: one pair for each"),
    "graded": (
        get_args(GradingMode),
        "which gold labels decide whether an output is correct: all, or those of the first task with mixed outputs",
    ),
}
_OPTIONS = ("pool", *_CHOICES, "cap", "gamma", "seed")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        *("-c", "--config"),
        action="append",
        metavar="YAML",
        help="config of an HS-DPO fit, then overlays: use its records, rollouts and pairing; takes flags of fit, "
        "such as --data.pairing.gamma 0.2",
    )
    _add_own(parser)


def run(args: argparse.Namespace) -> int:
    """Mine, print the counts and write the pairs; list doubtful labels; or explain the pairs of one record.

    Args:
        args: the arguments that :func:`configure` declares, and ``argv``: all flags, including those for ``--config``.

    Returns:
        0, or 1 if pairs were requested and no record is hard; no pair is written then.

    Raises:
        InputError: an option is wrong, or a file is missing or invalid.
    """
    _check_files(args)
    inputs = _read(args)
    mined = mine(inputs.records, inputs.rollouts, inputs.tasks, inputs.pairing, inputs.format)
    if args.audit is not None:
        _write_audit(args, inputs)
    if args.audit is not None and args.out is None:
        return 0
    if args.explain is not None:
        explanation = explain(args.explain, mined, inputs.records, inputs.rollouts, inputs.tasks, inputs.format)
        notes = [] if inputs.fit is None else list(inputs.fit.notes(explanation.record, explanation.pairs))
        for line in explanation_lines(explanation, args.verbose, notes):
            show_line(line)
        return 0
    show_counts(mined.counts)
    statistics = findings(mined, read_costs(inputs.paths))
    if not mined.pairs:
        print(f"error: no record is hard; {terminal_text(str(args.out))} was not written", file=sys.stderr)
        print(f"hint: {mined.total().advice()}", file=sys.stderr)
    else:
        _write_pairs(args.out, mined)
        config = {"output": str(args.out), **asdict(inputs.pairing)}
        record_made(args.out, ["pairs", *args.argv], config, inputs.read)
        _print_summary(args, mined, statistics, len(inputs.records))
    if args.details:
        show_details(statistics)
    if args.html:
        from guardreasoner.report.mining_page import mining_page

        write(args.html, mining_page(statistics, inputs.pairing, shlex.join(["pairs", *args.argv])))
    return 0 if mined.pairs else 1


@dataclass(frozen=True)
class _MiningInputs:
    """Records and rollouts to mine, with the options.

    ``paths`` are those of the rollouts, ``read`` those of everything that was read.
    """

    paths: Sequence[str | Path]
    read: Sequence[str | Path]
    records: Sequence[Record]
    rollouts: Sequence[Rollout]
    tasks: tuple[Task, ...]
    pairing: Pairing
    format: GuardFormat | None
    fit: "FitInputs | None" = None


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rollouts",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folders with records.jsonl and rollouts.jsonl, or predictions (folders or files)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write the pairs to, as JSONL")
    parser.add_argument(
        "--explain", metavar="RECORD_ID", help="only explain, step by step, how the pairs of this record were chosen"
    )
    parser.add_argument("--verbose", action="store_true", help="with --explain: print complete texts")
    parser.add_argument(
        "--audit",
        type=Path,
        metavar="FILE",
        help="write the gold labels that every output contradicts with the same verdict, as JSONL; review --audit FILE "
        "shows them",
    )
    parser.add_argument("--details", action="store_true", help="also print votes, weights and agreement of the models")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a self-contained page with plots")
    parser.add_argument("--preset", choices=tuple(PRESETS), help="defaults of the options below (default plan)")
    parser.add_argument(
        "--pool",
        action=argparse.BooleanOptionalAction,
        help="pool the outputs of all models, or mine each model alone",
    )
    parser.add_argument(
        "--sources_by_model",
        action="append",
        metavar="MODEL=SOURCE,…",
        help="mine this model's outputs for these sources only (MODEL= for none); repeatable",
    )
    for name, (choices, meaning) in _CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, help=meaning)
    parser.add_argument("--cap", type=int, help="maximum number of pairs per record")
    parser.add_argument("--gamma", type=float, help="half-width of the range of the weights, 0 ≤ gamma < 1")
    parser.add_argument("--seed", type=int, help="seed of the random choices")


def _check_files(args: argparse.Namespace) -> None:
    if not (args.rollouts or args.config):
        raise InputError("pairs: required: --rollouts or --config", "python -m guardreasoner pairs --help lists both")
    if args.explain is not None and (args.out or args.html or args.details or args.audit):
        raise InputError("pairs: --explain cannot be combined with --out, --html, --details or --audit")
    if args.explain is None and args.out is None and (args.audit is None or args.html or args.details):
        raise InputError("pairs: required: --out", "or --explain RECORD_ID, which writes nothing, or --audit FILE")
    require_files("pairs", out=args.out, html=args.html, audit=args.audit)


def _read(args: argparse.Namespace) -> _MiningInputs:
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_own(own)
    fit_flags = own.parse_known_args(args.argv)[1]
    if not args.config:
        if fit_flags:
            raise InputError(f"pairs: {fit_flags[0]} needs --config")
        records, rollouts = read_rollout_folders(args.rollouts)
        tasks, format = rollout_tasks(args.rollouts), rollout_format(args.rollouts)
        pairing = _pairing(args, PRESETS["plan"])
        return _MiningInputs(args.rollouts, args.rollouts, records, rollouts, tasks, pairing, format)
    from guardreasoner.cli.commands._fit_inputs import inputs_of_fit, source_files

    fit = inputs_of_fit(fit_flags)
    paths = args.rollouts or fit.rollouts
    tasks = rollout_tasks(paths)
    format = rollout_format(paths)
    records, rollouts = read_training_rollouts(paths, fit.source, tasks, format)
    read = [*paths, *source_files(fit_flags)]
    return _MiningInputs(paths, read, records, rollouts, tasks, _pairing(args, fit.pairing), format, fit)


def _pairing(args: argparse.Namespace, start: Pairing) -> Pairing:
    """Return the mining options: the flags, on top of the preset if one is named, else on top of ``start``."""
    start = PRESETS[args.preset] if args.preset else start
    flags = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    return replace(
        start, sources_by_model={**start.sources_by_model, **_sources_by_model(args.sources_by_model or ())}, **flags
    )


def _sources_by_model(assignments: Iterable[str]) -> dict[str, list[str]]:
    sources_by_model: dict[str, list[str]] = {}
    for assignment in assignments:
        model, equals, sources = assignment.partition("=")
        if not (equals and model):
            raise InputError(f"pairs: --sources_by_model {assignment}: expected MODEL=SOURCE,SOURCE or MODEL=")
        sources_by_model.setdefault(model, []).extend(source for source in sources.split(",") if source)
    return sources_by_model


def _write_audit(args: argparse.Namespace, inputs: _MiningInputs) -> None:
    doubted = doubted_labels(inputs.records, inputs.rollouts, inputs.tasks, inputs.pairing.parser, inputs.format)
    try:
        write_jsonl(args.audit, (one.line() for one in doubted))
    except OSError as error:
        raise InputError(f"{args.audit}: cannot be written: {error.strerror}") from None
    record_made(args.audit, ["pairs", *args.argv], {"parser": inputs.pairing.parser}, inputs.read)
    labels = sum(len(record.gold()) for record in inputs.records)
    records = len({one.record.id for one in doubted})
    counts = f"{len(doubted):,} of {labels:,} gold labels, on {records:,} of {len(inputs.records):,} records"
    show_line(f"labels that every output contradicts with the same verdict: {counts}; written: {args.audit}")
    judged = (read_verdicts(r.completion, inputs.tasks, inputs.format, inputs.pairing.parser) for r in inputs.rollouts)
    if unparsed := sum(not any(verdicts.values()) for verdicts in judged):
        show_line(f"{unparsed:,} of {len(inputs.rollouts):,} outputs have no verdict, so they contradict no label")
    if doubted:
        show_line(f"to judge them: review --audit {args.audit}")


def _write_pairs(path: Path, mined: MiningResult) -> None:
    try:
        write_jsonl(path, mined.pairs)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _print_summary(args: argparse.Namespace, mined: MiningResult, statistics: Findings, records: int) -> None:
    total = mined.total()
    least, most = (pick(pair.weight for pair in mined.pairs) for pick in (min, max))
    weights = f"weights {least:.3g} to {most:.3g}" if least < most else f"all with weight {least:.3g}"
    several = f", {total.pairs} pairs" if total.pairs > total.hard else ""
    hard = f"{total.hard} hard records{several}, {weights}"
    show_line(f"{total.outputs} outputs of {records} records: {hard}; written: {args.out}")
    for line in summary_lines(statistics):
        show_line(line)
    if not (args.details or args.html):
        print("for more: --details, --html FILE, --explain RECORD_ID")
