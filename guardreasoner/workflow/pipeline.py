"""The stage graph: what a command needs, and how what is out of date is built.

A stage is a command whose config has an ``output``. Which stages it needs is written nowhere: they are those whose
output its merged config names.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.workflow.config import Command, config_files, flags, load_yaml, resolve
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.staleness import (
    StageState,
    command_line,
    full,
    keep_if_not_ours,
    made_by_another,
    path_values,
    status,
)

PIPELINE = Path("configs/pipeline.yaml")
LAUNCHER = (sys.executable, "-m", "guardreasoner")


class StageFailed(InputError):
    """A stage's process did not end well.

    Args:
        message: one line.
        exit_code: the process's, to be passed on.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Pipeline:
    """Stages by name, each after those that it needs.

    Args:
        stages: what can be made.
        needs: for each stage the stages that its own config names.
        launcher: the words that start a command.
    """

    stages: Mapping[str, Command]
    needs: Mapping[str, Collection[str]]
    launcher: Sequence[str] = LAUNCHER

    @classmethod
    def load(cls, path: Path, overlays: Sequence[str] = (), launcher: Sequence[str] = LAUNCHER) -> "Pipeline":
        """Read the stages of a pipeline file and find out which needs which.

        Args:
            path: YAML with ``stages: {name: command line}``.
            overlays: config files to add to every stage that has some.
            launcher: the words that start a command.

        Raises:
            InputError: a config cannot be resolved, two stages make one thing, or stages need each other in a circle.
        """
        lines = load_yaml(path).get("stages")
        if not isinstance(lines, dict) or not all(isinstance(line, str) and line for line in lines.values()):
            raise InputError(f"{path}: expected `stages:` with a command line under each name")
        stages = {str(name): resolve(_with_overlays(shlex.split(line), overlays)) for name, line in lines.items()}
        makers: dict[Path, str] = {}
        for name, stage in stages.items():
            if stage.output is None:
                raise InputError(f"{path}: stage {name}: its config has no `output`")
            if (other := makers.setdefault(full(stage.output), name)) != name:
                raise InputError(f"{path}: stages {other} and {name} both make {stage.output}")
        needs = {name: tuple(_named(stage, makers)) for name, stage in stages.items()}
        try:
            return cls({name: stages[name] for name in _in_order(needs)}, needs, launcher)
        except CycleError as error:
            circle = " needs ".join(reversed(error.args[1]))
            raise InputError(f"{path}: stages need each other in a circle: {circle}") from None

    def needed_by(self, command: Command) -> dict[str, str]:
        """Return the stages that a command's config names, each with the (first) key that names it."""
        return _named(command, {full(stage.output): name for name, stage in self.stages.items() if stage.output})

    def upstream(self, names: Collection[str], given: Collection[str] = ()) -> list[str]:
        """Return these stages and all that they need, in the order to build them, but what is ``given``."""
        wanted = set(names)
        for name in reversed(list(self.stages)):
            if name in wanted and name not in given:
                wanted.update(self.needs[name])
        return [name for name in self.stages if name in wanted and name not in given]

    def downstream(self, name: str) -> list[str]:
        """Return a stage and all that need it, in the order to build them."""
        touched = {name}
        for other in self.stages:
            if touched.intersection(self.needs[other]):
                touched.add(other)
        return [other for other in self.stages if other in touched]

    def stale(self, names: Sequence[str], again: Collection[str] = ()) -> dict[str, str]:
        """Say which stages would be built, and why.

        Args:
            names: stages in the order to build them.
            again: stages to build in any case.

        Returns:
            The reason by stage, for those that are not up to date.
        """
        reasons: dict[str, str] = {}
        for name in names:
            reason = "asked for" if name in again else status(self.stages[name])
            rebuilt = [other for other in self.needs[name] if other in reasons]
            if rebuilt and reason not in ("missing", "asked for"):
                reason = f"{rebuilt[0]} will be rebuilt"
            if reason:
                reasons[name] = reason
        return reasons

    def build(self, names: Sequence[str], again: Collection[str] = ()) -> list[str]:
        """Run those stages that are not up to date, each in a process of its own, with a line before each.

        A stage is looked at when those before it are done: what was made again alike makes nothing else stale.

        Args:
            names: stages in the order to build them.
            again: stages to build in any case.

        Returns:
            The stages that were run.

        Raises:
            StageFailed: a stage's process failed; those after it were not started.
        """
        built = []
        for name in names:
            stage = self.stages[name]
            if reason := "asked for" if name in again else status(stage):
                if kept := keep_if_not_ours(stage):
                    print(f"keeping what was at {stage.output} as {kept}: this stage did not make it")
                print(f"building {stage.output} ({reason}): {command_line(stage)}", flush=True)
                if code := _wait([*self.launcher, *stage.argv]):
                    raise StageFailed(f"stage {name} failed with exit code {code}: {command_line(stage)}", code)
                if reason := status(stage):
                    raise StageFailed(f"stage {name} ended without its output ({reason}): {command_line(stage)}", 1)
                built.append(name)
        return built


def prepare(
    argv: Sequence[str],
    check: Callable[[Sequence[str]], None] | None = None,
    pipeline: Path = PIPELINE,
    launcher: Sequence[str] = LAUNCHER,
) -> StageState | None:
    """Make ready what a command needs, before anything heavy is imported.

    Stages that it needs and that are not up to date are run, unless its config says ``auto_build: false``: then one
    that is missing is an error, and one that is out of date a warning.

    Args:
        argv: verb, then flags.
        check: reads the command's config as the verb will, so that a misspelt key shows before all else is built.
        pipeline: the file that names the stages; where there is none nothing is built.
        launcher: the words that start a command.

    Returns:
        What to call ``finish()`` on when the command ended well, ``give_up()`` when not; None when nothing is to be
        written down.

    Raises:
        InputError: the config cannot be resolved, or an input is missing.
        StageFailed: a stage that was built failed.
    """
    given = {name for name, _ in flags(argv)}
    if "config" not in given or {"help", "print_config"} & given or "-h" in argv or _is_later_process():
        return None
    command = resolve(argv)
    if command.config.get("dry_run"):
        return None  # which neither builds nor writes
    if pipeline.is_file():
        overlays = [file for file in config_files(argv)[1:] if "recipe" in load_yaml(file)]
        graph = Pipeline.load(pipeline, overlays, launcher)
        keys = graph.needed_by(command)
        if command.config.get("auto_build", True):
            given = _made_otherwise(graph, keys)
            names = graph.upstream(keys, given)
            if check is not None and graph.stale(names):
                check(argv)
            graph.build(names)
        else:
            _require(graph, keys)
    trainer: Any = command.config.get("trainer")
    makes_nothing = command.verb in ("validate", "doctor") or (
        isinstance(trainer, dict) and trainer.get("fast_dev_run")
    )
    if command.output is None or makes_nothing:
        return None
    state = StageState.of(command)
    state.begin()
    return state


def _in_order(needs: Mapping[str, Collection[str]]) -> list[str]:
    """Sort stages so that each comes after those that it needs, otherwise as they were written."""
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=list(needs).index)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def _made_otherwise(graph: Pipeline, keys: Collection[str]) -> set[str]:
    """Return the stages whose output another command made, say with other flags, and say that it is used as it is."""
    given = {name for name in graph.upstream(keys) if made_by_another(graph.stages[name])}
    for name in given.intersection(keys):
        manifest = Manifest.read(graph.stages[name].output or "")
        made = shlex.join(manifest.command) if manifest else "?"
        print(f"using {graph.stages[name].output} as it is: made by python -m guardreasoner {made}", flush=True)
    return given


def _require(graph: Pipeline, keys: Mapping[str, str]) -> None:
    reasons = graph.stale(graph.upstream(keys))
    absent = [name for name in keys if reasons.get(name) == "missing"]
    if absent:
        commands = " && ".join(command_line(graph.stages[name]) for name in graph.upstream(absent) if name in reasons)
        raise InputError(f"{graph.stages[absent[0]].output} is missing ({keys[absent[0]]})", f"make it with {commands}")
    for name in keys:
        if name in reasons:
            reason = reasons[name].replace("will be rebuilt", "is out of date")
            print(f"warning: {graph.stages[name].output} is used as it is ({reason})", file=sys.stderr)


def _named(command: Command, makers: Mapping[Path, str]) -> dict[str, str]:
    """Return the stages whose output, or a file in it, a config names; each with the first key that does."""
    own = full(command.output) if command.output else None
    named: dict[str, str] = {}
    for key, text in path_values(command.config):
        path = full(text)
        for folder in (path, *path.parents):
            if folder in makers and folder != own:
                named.setdefault(makers[folder], key)
    return named


def _with_overlays(argv: list[str], overlays: Sequence[str]) -> list[str]:
    """Put overlays behind a command's config files and before its other flags, which keep the last word."""
    files = config_files(argv)
    if not files:
        return argv
    last = max(at for at, word in enumerate(argv) if word in ("-c", "--config") or word.startswith("--config="))
    end = last + (1 if "=" in argv[last] else 2)
    return [*argv[:end], *(word for file in overlays if file not in files for word in ("--config", file)), *argv[end:]]


def _is_later_process() -> bool:
    """Return whether this is one of several processes of a run, and not the first, which has made everything ready."""
    ranks = (os.environ.get(name, "0") for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
    return any(rank not in ("", "0") for rank in ranks)


def _wait(words: Sequence[str]) -> int:
    """Run a program in this terminal and return its exit code; told to stop, let it end in its own way."""
    process = subprocess.Popen(words)
    stops: list[int] = []

    def pass_on(number: int, _: object) -> None:
        stops.append(number)
        process.terminate()

    in_main_thread = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, pass_on) if in_main_thread else None
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # The terminal has sent it to the program too, which may have a checkpoint to save.
        process.wait()
        raise
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, former)
    if stops:
        raise SystemExit(128 + stops[0])
    return code if code >= 0 else 128 - code
