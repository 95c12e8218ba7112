"""``pairs``: hard records and their preference pairs from rollout files."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.mining import (
    PRESETS,
    GradingMode,
    MiningResult,
    Pairing,
    ParserName,
    SelectionRule,
    UnparsablePolicy,
    mine,
)
from guardreasoner.mining.explain import explain
from guardreasoner.mining.findings import Findings, findings
from guardreasoner.records import Record, Rollout, write_jsonl
from guardreasoner.report.explanation_text import explanation_lines
from guardreasoner.report.mining_tables import show_counts, show_details, summary_lines
from guardreasoner.sources.rollouts import read_costs, read_rollout_folders, read_training_rollouts, rollout_tasks
from guardreasoner.tasks import Task
from guardreasoner.workflow.manifest import record_made

if TYPE_CHECKING:
    from guardreasoner.cli.commands._fit_inputs import FitInputs

HELP = "find hard records in rollouts and write their weighted preference pairs"

OVERRIDES = ("--data", "--recipe", "--model", "--trainer", "--output", "--seed_everything", "--allow_contamination")
"""Flags of ``fit``, dotted ones too, that may stand beside ``--config``."""

_CHOICES = {
    "parser": (get_args(ParserName), "how a verdict is read from an output"),
    "unparsable": (get_args(UnparsablePolicy), "what an output without a verdict is"),
    "chosen": (get_args(SelectionRule), "which right output is preferred; all: each of them, in a pair of its own"),
    "rejected": (get_args(SelectionRule), "to which wrong output; all: to each of them"),
    "graded": (get_args(GradingMode), "what makes an output right: all gold labels, or those of the first mixed task"),
}
_OPTIONS = ("pool", *_CHOICES, "cap", "gamma", "seed")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        *("-c", "--config"),
        action="append",
        metavar="YAML",
        help="the config of an HS-DPO fit, then overlays: its records, rollouts and pairing; flags like "
        "--data.pairing.gamma 0.2 too",
    )
    _add_own(parser)


def run(args: argparse.Namespace) -> int:
    """Mine, show the counts, write the pairs; or explain those of one record.

    Args:
        args: what :func:`configure` declares, and ``words``: all arguments, those for ``--config`` among them.

    Returns:
        0, or 1 when no record is hard; then no pair is written.

    Raises:
        InputError: an option, a file, or what it holds is wrong.
    """
    _check_files(args)
    given = _read(args)
    mined = mine(given.records, given.rollouts, given.tasks, given.pairing)
    if args.explain is not None:
        found = explain(args.explain, mined, given.records, given.rollouts, given.tasks)
        notes = [] if given.fit is None else list(given.fit.notes(found.record, found.pairs))
        for line in explanation_lines(found, args.verbose, notes):
            print(line)
        return 0
    show_counts(mined.counts)
    found_all = findings(mined, read_costs(given.paths))
    if not mined.pairs:
        print(f"error: no record is hard, {args.out} is not written", file=sys.stderr)
        print(f"hint: {mined.total().advice()}", file=sys.stderr)
    else:
        _write_pairs(args.out, mined)
        config = {"output": str(args.out), **asdict(given.pairing)}
        record_made(args.out, ["pairs", *args.words], config, given.paths)
        _summarise(args, mined, found_all, len(given.records))
    if args.details:
        show_details(found_all)
    if args.html:
        from guardreasoner.report.mining_page import mining_page

        write(args.html, mining_page(found_all, given.pairing, shlex.join(["pairs", *args.words])))
    return 0 if mined.pairs else 1


@dataclass(frozen=True)
class _Given:
    """What is mined, and how."""

    paths: Sequence[str | Path]
    records: list[Record]
    rollouts: list[Rollout]
    tasks: tuple[Task, ...]
    pairing: Pairing
    fit: "FitInputs | None" = None


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rollouts",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folders with records.jsonl and rollouts.jsonl, or prediction folders or files",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the pairs, as JSONL")
    parser.add_argument("--explain", metavar="RECORD_ID", help="only say, step by step, why this record has its pairs")
    parser.add_argument("--verbose", action="store_true", help="with --explain: whole texts")
    parser.add_argument("--details", action="store_true", help="also show votes, weights and agreement of models")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with plots, complete in one file")
    parser.add_argument("--preset", choices=tuple(PRESETS), help="what the options below start from (plan)")
    parser.add_argument(
        "--pool",
        action=argparse.BooleanOptionalAction,
        help="let all models' outputs vote together, or mine each alone",
    )
    parser.add_argument(
        "--sources_by_model",
        action="append",
        metavar="MODEL=SOURCE,…",
        help="mine this model's outputs for these sources alone (MODEL= for none); may be given again",
    )
    for name, (words, meaning) in _CHOICES.items():
        parser.add_argument(f"--{name}", choices=words, help=meaning)
    parser.add_argument("--cap", type=int, help="most pairs of one record")
    parser.add_argument("--gamma", type=float, help="half-width of the range of the weights, 0 to below 1")
    parser.add_argument("--seed", type=int, help="of the random choices")


def _check_files(args: argparse.Namespace) -> None:
    if not (args.rollouts or args.config):
        raise InputError("pairs: required: --rollouts or --config", "python -m guardreasoner pairs --help lists both")
    if args.explain is None and args.out is None:
        raise InputError("pairs: required: --out", "or --explain RECORD_ID, which writes nothing")
    if args.explain is not None and (args.out or args.html or args.details):
        raise InputError("pairs: --explain says why one record has its pairs, and nothing else", "leave the rest out")
    require_files(out=args.out, html=args.html)


def _read(args: argparse.Namespace) -> _Given:
    ours = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_own(ours)
    words = ours.parse_known_args(args.words)[1]  # those for fit, in their order
    if not args.config:
        if words:
            raise InputError(f"pairs: {words[0]} belongs to a --config, which is not given")
        records, rollouts = read_rollout_folders(args.rollouts)
        return _Given(args.rollouts, records, rollouts, rollout_tasks(args.rollouts), _pairing(args, PRESETS["plan"]))
    from guardreasoner.cli.commands._fit_inputs import inputs_of_fit

    fit = inputs_of_fit(words)
    paths = args.rollouts or fit.rollouts
    tasks = rollout_tasks(paths)
    records, rollouts = read_training_rollouts(paths, fit.source, tasks)
    return _Given(paths, records, rollouts, tasks, _pairing(args, fit.pairing), fit)


def _pairing(args: argparse.Namespace, start: Pairing) -> Pairing:
    """Return the options: those of the preset, if one is named, else those given, under the flags."""
    start = PRESETS[args.preset] if args.preset else start
    flags = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    return replace(start, sources_by_model={**start.sources_by_model, **_mines(args.sources_by_model or ())}, **flags)


def _mines(words: Iterable[str]) -> dict[str, list[str]]:
    sources_by_model: dict[str, list[str]] = {}
    for word in words:
        model, parted, sources = word.partition("=")
        if not (parted and model):
            raise InputError(
                f"pairs: --sources_by_model {word}: expected MODEL=SOURCE,SOURCE, or MODEL= to take the model out"
            )
        sources_by_model.setdefault(model, []).extend(source for source in sources.split(",") if source)
    return sources_by_model


def _write_pairs(path: Path, mined: MiningResult) -> None:
    try:
        write_jsonl(path, mined.pairs)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _summarise(args: argparse.Namespace, mined: MiningResult, found: Findings, records: int) -> None:
    total = mined.total()
    least, most = (pick(pair.weight for pair in mined.pairs) for pick in (min, max))
    weights = f"weights {least:.3g} to {most:.3g}" if least < most else f"all of weight {least:.3g}"
    several = f", {total.pairs} pairs" if total.pairs > total.hard else ""
    hard = f"{total.hard} hard records{several}, {weights}"
    print(f"{total.outputs} outputs of {records} records: {hard}; written: {args.out}")
    for line in summary_lines(found):
        print(line)
    if not (args.details or args.html):
        print("more: --details, --html FILE as a page with plots, --explain RECORD_ID")
