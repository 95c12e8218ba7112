"""The stored results: one JSON file per study, data set, arm and seed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from guardreasoner.errors import InputError
from guardreasoner.records import replacing_file

NOT_HARD = "."
"""Mark of a record that is not hard."""
UNPARSED = "?"
"""Mark of an answer without a verdict."""


@dataclass(frozen=True)
class Result:
    """What one arm scored with one seed on one data set.

    Args:
        data: Name of the data set.
        arm: Name of the arm.
        seed: The seed.
        config: Hash of the merged configs of all stages that the arm needs.
        records: Hash of the ids of the tested records.
        right: For each record, in the order of the sorted ids: "1" right on all tasks, "0" wrong, "?" unparsed.
        hard: For each record, the number of right outputs of ``outputs`` sampled ones; "." if it is not hard.
        outputs: Sampled outputs of a hard record, 1 to 9.
        figures: Scores in percent and lengths in tokens, by name; None if undefined.
        costs: By stage: seconds of wall time and of CPU, tokens generated and trained on, and the number of starts.
        trained: Stages that the tested model came from; the others only test it.
        lineage: By stage: fingerprint of config and inputs, content hash and commit of its output.
        machine: Processor and cores.
        date: Day in UTC.
        groups: For each record, the number of its conversation, which several policies may judge; empty: all differ.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    data: str
    arm: str
    seed: int
    config: str
    records: str
    right: str
    hard: str
    outputs: int
    figures: dict[str, float | None]
    costs: dict[str, dict[str, float]]
    trained: list[str]
    lineage: dict[str, dict[str, str | None]]
    machine: str
    date: str
    groups: list[int] = field(default_factory=list)

    def cost(self, name: str) -> float:
        """Return a cost, summed over the stages that the model came from."""
        return sum(self.costs.get(stage, {}).get(name, 0.0) for stage in self.trained)

    @property
    def hard_records(self) -> int:
        """Number of test records that are hard for the R-SFT model of the seed."""
        return len(self.hard) - self.hard.count(".")


def path_of(folder: Path, data: str, arm: str, seed: int) -> Path:
    """Return the file of a result in the folder of a study."""
    return folder / data / f"{arm}-{seed}.json"


def write_result(folder: Path, result: Result) -> Path:
    """Write a result atomically and return its file."""
    path = path_of(folder, result.data, result.arm, result.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as partial:
        partial.write_text(json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_result(path: Path) -> Result | None:
    """Return a result; None if there is none.

    Raises:
        InputError: the file is not a result.
    """
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(Result).validate_python(content)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InputError(f"{path}: not a result: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    except ValueError:
        raise InputError(f"{path}: not a result: not valid JSON") from None


def read_results(folder: Path) -> Iterator[Result]:
    """Yield all results of a study, in the order of data set, arm and seed."""
    found = [result for path in folder.glob("*/*.json") if (result := read_result(path)) is not None]
    yield from sorted(found, key=lambda result: (result.data, result.arm, result.seed))
