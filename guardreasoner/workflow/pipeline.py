"""The stage graph: find the stages that a command depends on, and run those that are out of date.

A stage is a command whose config has an ``output``. Dependencies are not declared: a stage depends on the stages whose
output its merged config names as an input path.
"""

import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.config import Command, config_files, flags, resolve
from guardreasoner.workflow.config_file import find_config, load_yaml
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.output_checks import require_replaceable, require_writable
from guardreasoner.workflow.replacing import restore_output
from guardreasoner.workflow.stage_process import LAUNCHER, StageRunner
from guardreasoner.workflow.staleness import (
    StageState,
    command_line,
    full,
    keep_if_not_ours,
    made_by_another,
    path_values,
    status,
)
from guardreasoner.workflow.terminal import show_line

PIPELINE = Path("configs/pipeline.yaml")


class StageFailed(InputError):
    """A stage failed.

    Args:
        message: error message of one line.
        exit_code: exit code of the stage's process, which this process returns too.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Pipeline:
    """Stages by name, in topological order.

    Args:
        stages: the commands by stage name.
        needs: the direct dependencies of each stage.
        launcher: program and arguments that start the command line.
    """

    stages: Mapping[str, Command]
    needs: Mapping[str, Collection[str]]
    launcher: Sequence[str] = LAUNCHER

    @classmethod
    def load(
        cls,
        path: Path,
        overlays: Sequence[str] = (),
        launcher: Sequence[str] = LAUNCHER,
        recipe: Sequence[str] = (),
    ) -> "Pipeline":
        """Read the stages of a pipeline file and find their dependencies.

        Args:
            path: YAML file with ``stages: {name: command line}``.
            overlays: config files to add to every stage that has config files.
            launcher: program and arguments that start the command line.
            recipe: flags ``--recipe.KEY=VALUE`` to add to every stage that has config files.

        Raises:
            InputError: a config cannot be resolved, two stages have the same output, or the dependencies are cyclic.
        """
        lines = load_yaml(path).get("stages")
        if not isinstance(lines, dict) or not all(isinstance(line, str) and line for line in lines.values()):
            raise InputError(f"{path}: expected `stages:` with a command line for each name")
        stages = {
            str(name): resolve(_with_overlays(_words(line, f"{path}: stage {name}"), overlays, recipe))
            for name, line in lines.items()
        }
        makers: dict[Path, str] = {}
        for name, stage in stages.items():
            if stage.output is None:
                raise InputError(f"{path}: stage {name}: its config has no `output`")
            if (other := makers.setdefault(full(stage.output), name)) != name:
                raise InputError(f"{path}: stages {other} and {name} both write {stage.output}")
        needs = {name: tuple(_named(stage, makers)) for name, stage in stages.items()}
        try:
            return cls({name: stages[name] for name in _in_order(needs)}, needs, launcher)
        except CycleError as error:
            cycle = " needs ".join(reversed(error.args[1]))
            raise InputError(f"{path}: cyclic dependencies: {cycle}") from None

    def needed_by(self, command: Command) -> dict[str, str]:
        """Return the stages that a command depends on, each with the first config key that names its output."""
        return _named(command, {full(stage.output): name for name, stage in self.stages.items() if stage.output})

    def upstream(self, names: Collection[str], given: Collection[str] = ()) -> list[str]:
        """Return stages and their dependencies in build order, without ``given`` stages and what only those need."""
        wanted = set(names)
        for name in reversed(list(self.stages)):
            if name in wanted and name not in given:
                wanted.update(self.needs[name])
        return [name for name in self.stages if name in wanted and name not in given]

    def downstream(self, name: str) -> list[str]:
        """Return a stage and all stages that depend on it, in build order."""
        dependent = {name}
        for other in self.stages:
            if dependent.intersection(self.needs[other]):
                dependent.add(other)
        return [other for other in self.stages if other in dependent]

    def stale(self, names: Sequence[str], forced: Collection[str] = ()) -> dict[str, str]:
        """Return which stages would be built, and why.

        Args:
            names: stages in build order.
            forced: stages to build even if up to date.

        Returns:
            The reason for each stage that is not up to date.
        """
        reasons: dict[str, str] = {}
        for name in names:
            reason = "requested" if name in forced else status(self.stages[name])
            rebuilt = [other for other in self.needs[name] if other in reasons]
            if rebuilt and reason not in ("missing", "requested"):
                reason = f"{rebuilt[0]} will be rebuilt"
            if reason:
                reasons[name] = reason
        return reasons

    def build(self, names: Sequence[str], forced: Collection[str] = ()) -> list[str]:
        """Run the stages that are not up to date, each in its own process, and print a line before and after each.

        Each stage is checked after the stages before it have run: one that was rebuilt with the same result makes no
        other stage stale.

        Args:
            names: stages in build order.
            forced: stages to build even if up to date.

        Returns:
            The stages that were run.

        Raises:
            StageFailed: a stage failed; the stages after it were not started.
        """
        built = []
        with StageRunner(self.launcher) as runner:
            for name in names:
                stage = self.stages[name]
                if reason := "requested" if name in forced else status(stage):
                    if kept := keep_if_not_ours(stage):
                        show_line(f"moved {stage.output} to {kept}: it was not made by this stage")
                    show_line(f"building {stage.output} ({reason}): {command_line(stage)}")
                    start = time.monotonic()
                    if code := runner.run(stage.argv):
                        raise StageFailed(f"stage {name} failed with exit code {code}: {command_line(stage)}", code)
                    if reason := status(stage):
                        what = "is out of date again" if "changed" in reason else "did not write its output"
                        raise StageFailed(f"stage {name} {what} ({reason}): {command_line(stage)}", 1)
                    show_line(f"built {stage.output} in {timedelta(seconds=round(time.monotonic() - start))}")
                    built.append(name)
        return built


def prepare(
    argv: Sequence[str],
    check: Callable[[Sequence[str]], None] | None = None,
    pipeline: Path = PIPELINE,
    launcher: Sequence[str] = LAUNCHER,
) -> StageState | None:
    """Build the inputs of a command before anything heavy is imported; the caller holds the lock of its output.

    Stages that the command depends on are run if they are not up to date. With ``auto_build: false`` in its config, a
    missing stage is an error instead, and an outdated one a warning.

    Args:
        argv: verb and flags.
        check: checks the command's config as the verb does, so that a wrong key or value is reported before the build.
        pipeline: the pipeline file; if the working folder has none, the package's.
        launcher: program and arguments that start the command line.

    Returns:
        The state of the command: call ``finish()`` after success, ``give_up()`` after failure. None if the command
        writes no manifest.

    Raises:
        InputError: the config cannot be resolved, or an input is missing.
        StageFailed: a stage failed.
    """
    if not _runs(argv):
        return None
    command = resolve(argv)
    if check is not None:
        check(argv)
    if command.config.get("dry_run"):
        return None  # a dry run neither builds nor writes
    if command.output is not None and _writes(command):
        restore_output(command.output)
    overlays = [file for file in config_files(argv)[1:] if "recipe" in load_yaml(file)]
    recipe = [f"--{name}={value}" for name, value in flags(argv) if name.startswith("recipe.") and value is not None]
    graph = Pipeline.load(pipeline, overlays, launcher, recipe)
    keys = graph.needed_by(command)
    names = graph.upstream(keys, _made_by_others(graph, keys))
    if not command.config.get("auto_build", True):
        _require(graph, keys, names)
    else:
        if graph.stale(names):
            print(f"building what is missing or out of date ({_origin(pipeline)})", flush=True)
        graph.build(names)
    if command.output is None or not _writes(command):
        return None
    state = StageState.of(command)
    state.begin()
    return state


def checked_output(argv: Sequence[str]) -> Path | None:
    """Return what a command writes, after checking that it may and can; None if it writes nothing.

    Args:
        argv: verb and flags.

    Raises:
        InputError: the config cannot be resolved, or the output must not be replaced or cannot be written.
    """
    if not _runs(argv):
        return None
    command = resolve(argv)
    if command.output is None or command.config.get("dry_run") or not _writes(command):
        return None
    require_replaceable(command)
    require_writable(command)
    return command.output


def _runs(argv: Sequence[str]) -> bool:
    """Return whether a command does more than print, and is the first of its processes."""
    given = {name for name, _ in flags(argv)}
    return not ({"help", "print_config"} & given or "-h" in argv or stop_signals.is_later_process())


def _words(line: str, where: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise InputError(f"{where}: not a command line: {error}: {line}") from None


def _writes(command: Command) -> bool:
    trainer: Any = command.config.get("trainer")
    is_trial = isinstance(trainer, dict) and trainer.get("fast_dev_run")
    return command.verb not in ("validate", "doctor") and not is_trial


def _in_order(needs: Mapping[str, Collection[str]]) -> list[str]:
    """Sort stages topologically, and otherwise in the order of the file."""
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=list(needs).index)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def _made_by_others(graph: Pipeline, keys: Collection[str]) -> set[str]:
    """Return the stages whose output another command made, such as the same verb with other flags; print those used."""
    given = {name for name in graph.upstream(keys) if made_by_another(graph.stages[name])}
    for name in given.intersection(keys):
        manifest = Manifest.read(graph.stages[name].output or "")
        command = shlex.join(manifest.command) if manifest else "?"
        show_line(f"using {graph.stages[name].output} as it is: made by python -m guardreasoner {command}")
    return given


def _origin(pipeline: Path) -> str:
    """Return which pipeline file is used, and why if it is not the one of the working folder."""
    file = find_config(pipeline)
    return f"pipeline {pipeline}" if file == pipeline else f"there is no {pipeline} here; pipeline {file}"


def _require(graph: Pipeline, keys: Mapping[str, str], names: Sequence[str]) -> None:
    """Require the stages that are needed directly, by the key that names each; ``names`` are those to look at."""
    reasons = graph.stale(names)
    absent = [name for name in keys if reasons.get(name) == "missing"]
    if absent:
        commands = " && ".join(command_line(graph.stages[name]) for name in graph.upstream(absent) if name in reasons)
        raise InputError(
            f"{graph.stages[absent[0]].output} is missing ({keys[absent[0]]})", f"build it with {commands}"
        )
    for name in keys:
        if name in reasons:
            reason = reasons[name].replace("will be rebuilt", "is out of date")
            print(f"warning: using {graph.stages[name].output} although it is out of date ({reason})", file=sys.stderr)


def _named(command: Command, makers: Mapping[Path, str]) -> dict[str, str]:
    """Return the stages whose output, or a file in it, is a path in a config; each with the first key that names it."""
    own = full(command.output) if command.output else None
    named: dict[str, str] = {}
    for key, text in path_values(command.config):
        path = full(text)
        for folder in (path, *path.parents):
            if folder in makers and folder != own:
                named.setdefault(makers[folder], key)
    return named


def _with_overlays(argv: list[str], overlays: Sequence[str], recipe: Sequence[str]) -> list[str]:
    """Insert overlays and recipe flags after a command's config files, before its own flags, which override them."""
    files = config_files(argv)
    if not files:
        return argv
    last = max(index for index, word in enumerate(argv) if word in ("-c", "--config") or word.startswith("--config="))
    end = last + (1 if "=" in argv[last] else 2)
    added = [word for file in overlays if file not in files for word in ("--config", file)]
    return [*argv[:end], *added, *recipe, *argv[end:]]
