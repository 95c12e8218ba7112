"""A study: arms × seeds × data sets, read from a YAML file and expanded to one pipeline per data set and seed.

The stages of a study are commands of this package, as in ``configs/pipeline.yaml``. ``{seed}`` in a command is replaced
by the seed, and ``{NAME}`` by a text of ``define``. The overlays of the data set and the folders of the seed are added
to every stage::

    title: …
    about: …                                # a paragraph for the page
    seeds: [1, 2, 3]
    data:
      NAME: {about: …, overlays: [file], define: {NAME: text}, seeds: [4], arms: [NAME], compare: NAME, former: [NAME]}
    define: {NAME: text}
    shared: {STAGE: command}                # stages that several arms need
    test: command                           # what every arm is tested with
    arms: {NAME: {title: …, stages: {STAGE: command}, test: flags, answers: greedy or votes}}
    compare: NAME                           # the arm that all others are compared with
    regime: [SHORTER, LONGER]               # R-SFT and longer R-SFT, whose difference says whether R-SFT is saturated
    claims:                                 # what the first lines of the page say
      - {text: …, better: NAME, than: NAME, figure: hard or all, at_least: points, cost: cpu or generated, tried: …}
      - {text: …, better: NAME, figure: unparsed, at_most: percent}
    sampled: [NAME]                         # arms whose accuracy is shown beside the tokens that they generated
    later: {arm: what it needs}             # arms that cannot be run yet
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from guardreasoner.errors import InputError
from guardreasoner.records import replacing_file
from guardreasoner.workflow.config_file import load_yaml
from guardreasoner.workflow.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
Figure = Literal["hard", "hard, greedy", "all", "unparsed"]
AnswerKind = Literal["greedy", "votes"]
CostName = Literal["cpu", "generated"]


@dataclass(frozen=True)
class Arm:
    """One training recipe.

    Args:
        title: What the tables call it.
        test: Flags of its test.
        stages: Commands by stage name, beyond the shared ones.
        answers: What answers a record: the greedy output, or the majority of the sampled outputs that vote.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    title: str
    test: str = ""
    stages: dict[str, str] = field(default_factory=dict)
    answers: AnswerKind = "greedy"


@dataclass(frozen=True)
class Data:
    """A data set.

    Args:
        about: What it is, a paragraph for the page.
        overlays: Config files that are added to every stage.
        define: Texts by name, in place of the study's, such as the number of epochs.
        seeds: Its seeds; empty: those of the study.
        arms: Arms that run on it; empty: all of the study.
        compare: The arm that all others are compared with; empty: that of the study.
        former: Arms whose stored results have other configs than now, because they have not been run again yet.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    about: str = ""
    overlays: list[str] = field(default_factory=list)
    define: dict[str, str | int | float] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    compare: str = ""
    former: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Claim:
    """A claim that the results decide: about the difference between two arms, or about a share of one arm.

    Args:
        text: The claim. Studies whose claims have the same text share a line of the page.
        better: Arm that should be better.
        than: Arm that it is compared with; empty: the claim is about ``better`` alone, and needs ``at_most``.
        figure: Accuracy on hard records or on all, or share of greedy answers that are unparsed.
        at_least: Difference in percentage points. 0: above 0. Above 0: a gain that is required. Below 0: a margin, so
            that the first arm is not worse by as much.
        at_most: Limit of the figure, in percent.
        cost: Cost of the two arms whose ratio is named with the difference; None: none.
        tried: What was tried, for a claim that does not hold.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    text: str
    better: str
    than: str = ""
    figure: Figure = "hard"
    at_least: float = 0.0
    at_most: float | None = None
    cost: CostName | None = None
    tried: str = ""

    @property
    def arms(self) -> list[str]:
        """The arms that it is about."""
        return [arm for arm in (self.better, self.than) if arm]


@dataclass(frozen=True)
class Study:
    """A study; see the module.

    Raises:
        InputError: raised by :meth:`load` if the file is not a study.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    title: str
    about: str
    seeds: list[int]
    data: dict[str, Data]
    shared: dict[str, str]
    test: str
    arms: dict[str, Arm]
    compare: str
    regime: tuple[str, str]
    claims: list[Claim] = field(default_factory=list)
    sampled: list[str] = field(default_factory=list)
    define: dict[str, str | int | float] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    name: str = ""

    @classmethod
    def load(cls, path: Path) -> "Study":
        """Read a study, named after its file."""
        content = {**load_yaml(path), "name": path.stem}
        try:
            study = TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            key = ".".join(map(str, fault["loc"]))
            unknown = fault["type"] in ("unexpected_keyword_argument", "extra_forbidden")
            part = {"arms": Arm, "data": Data, "claims": Claim}.get(key.partition(".")[0], cls)
            known = ", ".join(f.name for f in fields(part) if not (part is cls and f.name == "name"))
            hint = f"the keys are {known}" if unknown else None
            raise InputError(f"{path}: {key}: {'unknown key' if unknown else fault['msg']}", hint) from None
        named = {"compare": [study.compare], "regime": study.regime, "sampled": study.sampled}
        named |= {f"claims.{number}": claim.arms for number, claim in enumerate(study.claims)}
        for key, names in named.items():
            require_known(f"{path}: {key}", "arm", names, study.arms)
        for name, data in study.data.items():
            require_known(f"{path}: data.{name}.arms", "arm", data.arms, study.arms)
            require_known(f"{path}: data.{name}.former", "arm", data.former, study.arms_of(name))
            require_known(f"{path}: data.{name}.arms", "arm", [study.compared(name)], study.arms_of(name))
        for number, claim in enumerate(study.claims):
            if bool(claim.than) == (claim.at_most is not None):
                raise InputError(f"{path}: claims.{number}: needs either than or at_most")
            if not any(set(claim.arms) <= set(study.arms_of(name)) for name in study.data):
                raise InputError(f"{path}: claims.{number}: no data set has {' and '.join(claim.arms)}")
        return study

    def arms_of(self, data: str) -> list[str]:
        """Return the arms that run on a data set, in the order of the study."""
        return [arm for arm in self.arms if arm in (self.data[data].arms or self.arms)]

    def seeds_of(self, data: str) -> list[int]:
        """Return the seeds of a data set."""
        return self.data[data].seeds or self.seeds

    def compared(self, data: str) -> str:
        """Return the arm that the others of a data set are compared with."""
        return self.data[data].compare or self.compare

    def place(self, data: str, seed: int) -> Path:
        """Return the folder of what a data set and seed log."""
        return Path("logs", "evidence", self.name, data, str(seed))

    def pipeline(self, data: str, seed: int) -> Pipeline:
        """Write the pipeline of a data set and seed to its folder and return it.

        Args:
            data: Name of the data set.
            seed: The seed.

        Raises:
            InputError: A stage is not a command with a config, or two write one output.
        """
        place = self.place(data, seed)
        lines = dict(self.shared)
        for name in self.arms_of(data):
            arm = self.arms[name]
            if twice := lines.keys() & arm.stages.keys():
                raise InputError(f"study {self.name}: arms.{name}.stages: there already is a stage {min(twice)!r}")
            lines |= arm.stages
            lines[stage_of_test(name)] = f"{self.test} {arm.test} --output ${{recipe.logs}}/predictions/{name}"
        texts = {**self.define, **self.data[data].define, "seed": seed}
        text = "".join(f"  {name}: >-\n    {self._expanded(name, line, texts)}\n" for name, line in lines.items())
        path = place / "pipeline.yaml"
        place.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as partial:
            partial.write_text("stages:\n" + text, encoding="utf-8")
        models = Path("checkpoints", *place.parts[1:])
        folders = [f"--recipe.checkpoints={models}", f"--recipe.logs={place}"]
        return Pipeline.load(path, self.data[data].overlays, recipe=folders)

    def _expanded(self, name: str, line: str, texts: Mapping[str, object]) -> str:
        """Return a command on one line, with the defined texts, of which some contain others."""
        for _ in texts:
            for key, text in texts.items():
                line = line.replace(f"{{{key}}}", str(text))
        if unknown := re.search(r"(?<!\$)\{([\w-]+)\}", line):
            hint = f"there are {', '.join(texts)}"
            raise InputError(f"study {self.name}: stage {name}: {unknown[0]} is not defined", hint)
        return " ".join(line.split())


def stage_of_test(arm: str) -> str:
    """Return the name of the stage that tests an arm."""
    return f"test-{arm}"


def shown(path: Path) -> Path:
    """Return a path as messages and the page show it: from the root of the repository on, if it is in it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def require_known(where: str, what: str, names: Sequence[Any], known: Collection[Any] | Mapping[Any, Any]) -> None:
    """Raise ``InputError`` if a name is not among the known ones."""
    for name in names:
        if name not in known:
            raise InputError(f"{where}: no {what} {name!r}", f"there are {', '.join(map(str, known))}")
