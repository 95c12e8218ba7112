"""The public guard benchmarks in the form that GuardReasoner released them
(https://github.com/yueliu1999/GuardReasoner).

``benchmarks/0_1_AegisSafetyTest.json`` is a JSON list of, for example, ``{"instruction": "You are a classifier …",
"input": "Human user:\\n…\\n\\nAI assistant:\\nNone\\n\\n", "output": "harmful"}``. What published models answered, in
the same order, is in ``predictions/<model>/<Benchmark>/generated_predictions.jsonl``.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.contamination import ContaminationIndex
from guardreasoner.sources.predictions import gold_labels, split_prompt
from guardreasoner.sources.splits import require_shares, split_of
from guardreasoner.sources.validation import validation_message
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.manifest import content_hash

log = logging.getLogger("guardreasoner")

BENCHMARKS: dict[str, str] = {
    "SimpleSafetyTests": "0_0_SimpleSafetyTests",
    "AegisSafetyTest": "0_1_AegisSafetyTest",
    "OpenAIModeration": "0_2_OpenAIModeration",
    "HarmBenchPrompt": "0_3_harmbench_prompt",
    "HarmBenchResponse": "0_5_harmbench_response",
    "XSTestReponseHarmful": "0_6_xstest_response_harmful",
    "XSTestResponseRefusal": "0_7_xstest_response_refusal",
    "SafeRLHF": "0_9_safe_rlhf",
}
"""File of each benchmark, under the name that the folders of predictions have, misspelling included."""

PUBLISHED = tuple(name for name in BENCHMARKS if name not in ("OpenAIModeration", "SafeRLHF"))
"""The benchmarks that the published 1B and 3B models' answers are at hand for."""


@dataclass(frozen=True, slots=True)
class _Sample:
    instruction: str
    input: str
    output: str


_SAMPLES = TypeAdapter(_Sample)


class Released:
    """The released benchmarks as a source: some to train and mine on, others to test on.

    A record's id is that of the prediction in the same place, so the published answers are rollouts of these records.

    Args:
        folder: holds ``benchmarks/``.
        test: names of the benchmarks that are the test split.
        train: names of those that the other two splits are made of; None for the six with published answers, less
            ``test``.
        validation_share: share of the distinct prompts that validate, 0 to below 1. A hash of the normalised prompt
            decides, so the same prompt never is in two splits, whatever benchmark it comes from.

    Raises:
        InputError: an unknown or doubly used benchmark, or a share out of range. Files are read when records are asked
            for.
    """

    def __init__(
        self,
        folder: str | Path,
        test: Sequence[str] = ("AegisSafetyTest",),
        train: Sequence[str] | None = None,
        validation_share: float = 0.1,
    ) -> None:
        self.folder = Path(folder)
        self.test = tuple(test)
        self.train = tuple(name for name in PUBLISHED if name not in self.test) if train is None else tuple(train)
        self.validation_share = validation_share
        names = self.test + self.train
        for name in names:
            if name not in BENCHMARKS:
                raise InputError(f"released data: {name!r} is none of {', '.join(BENCHMARKS)}")
            if names.count(name) > 1:
                raise InputError(f"released data: {name} is named twice; a benchmark is in test or in train, once")
        require_shares("released data", validation_share)

    def records(self, split: Split) -> list[Record]:
        """Return a split's records, benchmark by benchmark, in the order of the files.

        Raises:
            InputError: a file is missing or not as released.
        """
        return self._splits[split]

    @cached_property
    def excluded_ids(self) -> list[str]:
        """Ids of the train benchmarks' records that are in no split: a test benchmark holds the prompt, or nearly."""
        return [record.id for record in self._others if self._held.match(record)]

    def identity(self) -> object:
        """Return the arguments and the content of the files."""
        files = [content_hash(self._path(name)) for name in (*self.train, *self.test)]
        return ["Released", self.train, self.test, self.validation_share, files]

    @cached_property
    def _splits(self) -> dict[Split, list[Record]]:
        splits: dict[Split, list[Record]] = {"train": [], "validation": [], "test": self._tested}
        excluded_ids = set(self.excluded_ids)
        for record in self._others:
            if record.id not in excluded_ids:
                splits[split_of(record.prompt, self.validation_share)].append(record)
        log.info(
            "released data: %d of %d records left out, their prompt is also in %s",
            *(len(self.excluded_ids), len(self._others), ", ".join(self.test)),
        )
        return splits

    @cached_property
    def _tested(self) -> list[Record]:
        return [record for name in self.test for record in self._read(name)]

    @cached_property
    def _others(self) -> list[Record]:
        return [record for name in self.train for record in self._read(name)]

    @cached_property
    def _held(self) -> ContaminationIndex:
        return ContaminationIndex(self._tested)

    def _read(self, name: str) -> list[Record]:
        path = self._path(name)
        return [self._record(row, name, number, f"{path}: sample {number}") for number, row in enumerate(_rows(path))]

    def _path(self, name: str) -> Path:
        return self.folder / "benchmarks" / f"{BENCHMARKS[name]}.json"

    def _record(self, row: Any, name: str, number: int, where: str) -> Record:
        try:
            sample = _SAMPLES.validate_python(row)
        except ValidationError as error:
            raise InputError(f"{where}: {validation_message(error)}") from None
        prompt, response = split_prompt(f"{sample.instruction}\n{sample.input}", GUARD_TASKS, where)
        labels = gold_labels(sample.output, response, GUARD_TASKS, where)
        return Record(f"{name}/{number:05d}", prompt, response, labels, source=name)


def _rows(path: Path) -> list[Any]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file",
            "the folder of the released data must hold benchmarks/; see its setting in the config",
        )
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8: {error.reason}") from None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: expected a JSON list of samples")
    return rows
