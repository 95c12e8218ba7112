"""Runs what a study lacks: builds the stages of each arm, tests it, and stores the result."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers import machine

from evidence.costs import measured, stage_cost
from evidence.curves import logged_figures
from evidence.figures import read_figures
from evidence.results import Result, path_of, read_result, write_result
from evidence.study import ROOT, Study, stage_of_test
from guardreasoner.cli.log_output import hide_library_warnings
from guardreasoner.errors import InputError
from guardreasoner.workflow.config import Command
from guardreasoner.workflow.file_lock import FileLock
from guardreasoner.workflow.manifest import Manifest, fingerprint
from guardreasoner.workflow.pipeline import Pipeline, StageFailed
from guardreasoner.workflow.staleness import effective_config, status


def run(study: Study, data: Sequence[str], seeds: Sequence[int], arms: Sequence[str], folder: Path) -> bool:
    """Make the results that are missing or out of date; return whether all are there.

    Several processes may run at once: each takes a data set and seed that no other works on.

    Args:
        study: The study.
        data: Names of its data sets.
        seeds: Seeds; those that are not seeds of a data set are left out there.
        arms: Names of its arms.
        folder: Folder of the results.

    Raises:
        InputError: The config of a stage is wrong, or an overlay of a data set is not there; nothing was started.
    """
    for name in data:
        for overlay in study.data[name].overlays:
            if not Path(overlay).is_file():
                where = f"study {study.name}: data.{name}.overlays"
                raise InputError(f"{where}: no file {overlay} in {Path.cwd()}", f"the root of the repository is {ROOT}")
    # The stages import what their configs name from here.
    paths = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    chosen = [(name, seed) for seed in seeds for name in data if seed in study.seeds_of(name)]
    units = [Unit(study, study.pipeline(name, seed), folder, name, seed) for name, seed in chosen]
    _check_configs(units, arms)
    complete = True
    for unit in units:
        lock = FileLock(unit.place / ".campaign.lock", f"{unit.data}, seed {unit.seed}")
        try:
            lock.acquire()
        except InputError:
            print(f"{lock.what}: another process works on it", flush=True)
            complete = False
            continue
        try:
            complete &= unit.make(arms)
        finally:
            lock.release()
    return complete


@dataclass(frozen=True)
class Unit:
    """The arms of one data set and seed, which share stages.

    Args:
        study: The study.
        pipeline: All stages.
        folder: Folder of the results.
        data: Name of the data set.
        seed: The seed.
    """

    study: Study
    pipeline: Pipeline
    folder: Path
    data: str
    seed: int

    @property
    def place(self) -> Path:
        """Folder of the pipeline file and of the costs."""
        return self.study.place(self.data, self.seed)

    def missing(self, arms: Sequence[str]) -> list[str]:
        """Return the data set's arms without a result, or whose result has other configs or shared models than now."""
        own = self.study.arms_of(self.data)
        return [arm for arm in arms if arm in own and not self._is_current(arm)]

    def make(self, arms: Sequence[str]) -> bool:
        """Make the missing results; return whether all could be made."""
        if not (missing := self.missing(arms)):
            print(f"{self.data}, seed {self.seed}: all results are there; --results FOLDER makes your own", flush=True)
            return True
        needed = self.pipeline.upstream([stage_of_test(arm) for arm in missing])
        complete = self._build([name for name in needed if name in self.study.shared])
        if complete and (reason := self._not_comparable(arms)):
            print(f"{self.data}, seed {self.seed}: {reason}", flush=True)
            return False
        for arm in self.missing(arms) if complete else ():
            built = self._build(self.pipeline.upstream([stage_of_test(arm)]))
            try:
                if built:
                    result = self._result(arm)
                    print(f"{_right(result)}; written: {write_result(self.folder, result)}", flush=True)
            except InputError as error:  # such as no hard record: the other arms and seeds go on
                print(f"{self.data}, seed {self.seed}, {arm}: {error}", flush=True)
                built = False
            complete &= built
        return complete

    def config_hash(self, arm: str) -> str:
        """Return the hash of the merged configs of all stages that an arm needs."""
        stages = [self.pipeline.stages[name] for name in self.pipeline.upstream([stage_of_test(arm)])]
        return fingerprint([[stage.verb, effective_config(stage.verb, stage.config)] for stage in stages])[:16]

    def _is_current(self, arm: str) -> bool:
        stored = self._stored(arm)
        return stored is not None and stored.config == self.config_hash(arm) and not self._other_stages(stored)

    def _stored(self, arm: str) -> Result | None:
        return read_result(path_of(self.folder, self.data, arm, self.seed))

    def _other_stages(self, result: Result) -> list[str]:
        """Return the shared stages of a result whose model or outputs are not those that are here.

        The arms of a seed are comparable only if they share them. Another kind of processor trains other models.
        """
        shared = [name for name in result.lineage if name in self.study.shared]
        now = {name: _lineage(self.pipeline.stages[name]) for name in shared}
        return [name for name, found in now.items() if found and found["content"] != result.lineage[name]["content"]]

    def _not_comparable(self, arms: Sequence[str]) -> str:
        """Return why results of some arms could not be compared with the stored ones of the others; "" if they can."""
        kept = [arm for arm in self.study.arms_of(self.data) if arm not in arms]
        other = {arm: stages for arm in kept if (one := self._stored(arm)) and (stages := self._other_stages(one))}
        if not other:
            return ""
        first = next(iter(other.values()))[0]
        told = f"{first} is not the one that the stored results have: another kind of processor trains other models"
        return f"{told}; run these arms too, or use --results FOLDER: {', '.join(other)}"

    def _build(self, names: Sequence[str]) -> bool:
        """Build the stages that are out of date, and measure them; return whether all could be built."""
        for name in names:
            if status(self.pipeline.stages[name]) is None:
                continue
            try:
                with measured(self._cost_file(name)):
                    self.pipeline.build([name])
            except StageFailed as error:
                print(f"{self.data}, seed {self.seed}: {error}", flush=True)
                return False
        return True

    def _result(self, arm: str) -> Result:
        target = stage_of_test(arm)
        names = self.pipeline.upstream([target])
        stages = {name: self.pipeline.stages[name] for name in names}
        models = [name for name in self.pipeline.needs[target] if not _only_tests(stages[name])]
        found = read_figures(_output(stages[target]), self.study.arms[arm].answers)
        for name in models:
            found["figures"] |= logged_figures(stages[name])
        described = machine.describe("cpu", 1)
        return Result(
            data=self.data,
            arm=arm,
            seed=self.seed,
            config=self.config_hash(arm),
            costs={name: stage_cost(stage, self._cost_file(name)) for name, stage in stages.items()},
            trained=self.pipeline.upstream(models),
            lineage={name: _lineage(stage) for name, stage in stages.items()},
            machine=f"{described['processor']}, {described['cores']} cores",
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            **found,
        )

    def _cost_file(self, stage: str) -> Path:
        return self.place / "costs" / f"{stage}.json"


def _check_configs(units: Sequence[Unit], arms: Sequence[str]) -> None:
    """Check the config of every stage that will be needed, once for all seeds, before anything is built."""
    hide_library_warnings()
    checked: set[str] = set()
    for unit in units:
        for name in unit.pipeline.upstream([stage_of_test(arm) for arm in unit.missing(arms)]):
            stage = unit.pipeline.stages[name]
            if stage.verb != "base-model" and f"{unit.data} {name}" not in checked:
                from guardreasoner.cli.lightning_cli import check_config  # loads torch, which takes seconds

                try:
                    check_config(list(stage.argv))
                except InputError as error:
                    raise InputError(f"stage {name}: {error}", error.hint) from None
                checked.add(f"{unit.data} {name}")


def _right(result: Result) -> str:
    """Return in words how many records an arm is right on."""
    shares = [f"{result.figures[name] or 0:.1f} % of {name} records" for name in ("hard", "all")]
    return f"{result.data}, seed {result.seed}, {result.arm}: right on {' and '.join(shares)}"


def _lineage(stage: Command) -> dict[str, str | None]:
    """Return fingerprint, content hash and commit of a stage's output; {} if it is not there."""
    manifest = Manifest.read(_output(stage))
    if manifest is None:
        return {}
    commit = manifest.commit and manifest.commit[:10] + ("+" if manifest.dirty else "")
    return {"fingerprint": manifest.fingerprint[:16], "content": manifest.content[:16], "commit": commit}


def _only_tests(stage: Command) -> bool:
    """Return whether a stage only serves the test: it samples held-out records."""
    data: Any = stage.config.get("data")
    return isinstance(data, dict) and str(data.get("class_path", "")).endswith("BenchmarkDataModule")


def _output(stage: Command) -> Path:
    assert stage.output is not None  # a pipeline has no other stages
    return stage.output
