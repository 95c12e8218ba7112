"""``run``: run the stages of a pipeline in order, skipping those that are up to date."""

import argparse
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_type_hints

from guardreasoner.errors import InputError
from guardreasoner.workflow.config_file import load_yaml
from guardreasoner.workflow.pipeline import PIPELINE, Pipeline
from guardreasoner.workflow.ranges import ranges_of
from guardreasoner.workflow.recipe import Recipe
from guardreasoner.workflow.stage_process import LAUNCHER
from guardreasoner.workflow.terminal import show_line, stdout_console

HELP = "run the stages of a pipeline in order, skipping those that are up to date (configs/pipeline.yaml)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--config",
        action="append",
        type=Path,
        metavar="FILE",
        help=f"pipeline (default {PIPELINE}), then overlays, which are added to every stage",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print which stages would run, and why, without running them"
    )
    parser.add_argument(
        "--from", dest="start", metavar="STAGE", help="run this stage and all that depend on it, even if up to date"
    )
    recipe = parser.add_argument_group("recipe", "--recipe.KEY VALUE sets a key of the recipe in every stage")
    for field in dataclasses.fields(Recipe):
        recipe.add_argument(f"--recipe.{field.name}", metavar="VALUE", help=argparse.SUPPRESS)


def run(args: argparse.Namespace, launcher: Sequence[str] = LAUNCHER) -> int:
    """Run the stages that are not up to date, or print which they are.

    Args:
        args: the arguments that :func:`configure` declares.
        launcher: program and arguments that start the command line.

    Raises:
        InputError: a config is wrong, or the stage does not exist.
        StageFailed: a stage failed.
    """
    path, *overlays = args.config or [PIPELINE]
    for overlay in overlays:
        load_yaml(overlay)  # report a missing or broken overlay once, not as part of the first stage
    recipe = [
        f"--{key}={value}" for key, value in vars(args).items() if key.startswith("recipe.") and value is not None
    ]
    _require_recipe(recipe)
    pipeline = Pipeline.load(path, [str(overlay) for overlay in overlays], launcher, recipe)
    names, forced = list(pipeline.stages), list[str]()
    if args.start:
        if args.start not in pipeline.stages:
            near = difflib.get_close_matches(args.start, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"the stages are {', '.join(names)}"
            raise InputError(f"{path}: no stage {args.start!r}", hint)
        forced = pipeline.downstream(args.start)
        names = pipeline.upstream(forced)
    stale = pipeline.stale(names, forced)
    if args.dry_run:
        _show(pipeline, names, stale)
        return 0
    if not stale:
        show_line(f"nothing to do: {len(names)} stages up to date")
        return 0
    for name in names:
        if name not in stale:
            show_line(f"up to date: {pipeline.stages[name].output}")
    built = pipeline.build(names, forced)
    print(f"done: {len(built)} of {len(names)} stages run")
    return 0


def _require_recipe(recipe: Sequence[str]) -> None:
    """Check the values of ``--recipe.KEY VALUE``, which otherwise only the first stage that runs would.

    Raises:
        InputError: a value has another type than its key.
    """
    from jsonargparse import ArgumentParser

    from guardreasoner.cli.parse_errors import config_error

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, "recipe")
    given = [flag for flag in recipe if "${" not in flag]  # such a value is that of another key
    try:
        values = vars(parser.parse_args(given).recipe)
    except argparse.ArgumentError as error:
        raise config_error(str(error), parser, ["run", *given]) from None
    for key, hint in get_type_hints(Recipe, include_extras=True).items():
        for allowed in ranges_of(hint):
            if not allowed.allows(values[key]):
                raise InputError(f"recipe.{key}: expected {allowed.expected}, got {values[key]}")


def _show(pipeline: Pipeline, names: Sequence[str], stale: Mapping[str, str]) -> None:
    from rich.table import Table

    table = Table("stage", "makes", "", "why", box=None, pad_edge=False)
    for name in names:
        state = "would run" if name in stale else "up to date"
        table.add_row(name, str(pipeline.stages[name].output), state, stale.get(name, ""))
    # A pipe has no width; whole paths are better than paths wrapped at 80 columns.
    stdout_console(200).print(table)
