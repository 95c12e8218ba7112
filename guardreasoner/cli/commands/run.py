"""``run``: all stages of a pipeline, in order, those that are up to date skipped."""

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.workflow.config import load_yaml
from guardreasoner.workflow.pipeline import LAUNCHER, PIPELINE, Pipeline

HELP = "run all stages of a pipeline in order, skipping what is up to date (configs/pipeline.yaml)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--config",
        action="append",
        type=Path,
        metavar="FILE",
        help=f"the pipeline (default {PIPELINE}); those after it are overlays, added to every stage",
    )
    parser.add_argument("--dry_run", action="store_true", help="show what would run, and why; run nothing")
    parser.add_argument(
        "--from", dest="start", metavar="STAGE", help="run this stage and those that need it, up to date or not"
    )


def run(args: argparse.Namespace, launcher: Sequence[str] = LAUNCHER) -> int:
    """Build what is not up to date, or show what would be built.

    Args:
        args: what :func:`configure` declares.
        launcher: the words that start a stage's command.

    Raises:
        InputError: a config is wrong, or there is no such stage.
        StageFailed: a stage failed.
    """
    path, *overlays = args.config or [PIPELINE]
    for overlay in overlays:
        load_yaml(overlay)  # one that is missing or broken is better named once than as part of the first stage
    pipeline = Pipeline.load(path, [str(overlay) for overlay in overlays], launcher)
    names, again = list(pipeline.stages), list[str]()
    if args.start:
        if args.start not in pipeline.stages:
            near = difflib.get_close_matches(args.start, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"the stages are {', '.join(names)}"
            raise InputError(f"{path}: no stage {args.start!r}", hint)
        again = pipeline.downstream(args.start)
        names = pipeline.upstream(again)
    stale = pipeline.stale(names, again)
    if args.dry_run:
        _show(pipeline, names, stale)
        return 0
    if not stale:
        print(f"nothing to do: {len(names)} stages up to date")
        return 0
    for name in names:
        if name not in stale:
            print(f"up to date: {pipeline.stages[name].output}")
    built = pipeline.build(names, again)
    print(f"done: {len(built)} of {len(names)} stages run")
    return 0


def _show(pipeline: Pipeline, names: Sequence[str], stale: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "makes", "", "why", box=None, pad_edge=False)
    for name in names:
        state = "would run" if name in stale else "up to date"
        table.add_row(name, str(pipeline.stages[name].output), state, stale.get(name, ""))
    # Text that is piped has no width of its own; paths are then better whole than wrapped at 80 columns.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200).print(table)
