"""Read the public guard benchmarks as released by GuardReasoner (https://github.com/yueliu1999/GuardReasoner).

``benchmarks/0_1_AegisSafetyTest.json`` is a JSON list of, for example, ``{"instruction": "You are a classifier …",
"input": "Human user:\\n…\\n\\nAI assistant:\\nNone\\n\\n", "output": "harmful"}``. The outputs of published models,
in the same order, are in ``predictions/<model>/<Benchmark>/generated_predictions.jsonl``.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from guardreasoner.errors import InputError, unique_keys
from guardreasoner.records import Record, Split
from guardreasoner.sources.arguments import require_count
from guardreasoner.sources.contamination import ContaminationIndex
from guardreasoner.sources.predictions import gold_labels, split_prompt
from guardreasoner.sources.splits import require_shares, sample_of, split_of
from guardreasoner.sources.validation import validation_message
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.ranges import Count, ShareBelowOne

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
"""File name of each benchmark, by the name of its predictions folder, including the released misspelling."""

PUBLISHED = tuple(name for name in BENCHMARKS if name not in ("OpenAIModeration", "SafeRLHF"))
"""Benchmarks with published outputs of the 1B and 3B models."""


@dataclass(frozen=True, slots=True)
class _Sample:
    instruction: str
    input: str
    output: str


_SAMPLES = TypeAdapter(_Sample)


class Released:
    """Read the released benchmarks, some as training data and others as test data.

    A record has the id of the prediction in the same row, so the published outputs are rollouts of these records.

    Args:
        folder: folder that contains ``benchmarks/``.
        test: names of the benchmarks in the test split.
        train: names of the benchmarks in the training and validation splits; None for the six with published outputs
            that are not in ``test``.
        validation_share: share of the distinct prompts for the validation split, 0 to below 1. Records are assigned by
            a hash of the normalized prompt, so that no prompt is in both splits.
        test_sample: number of records of each test benchmark, those with the smallest SHA-256 of their id; None for
            all. Training records are checked against all records of the test benchmarks.
        train_sample: number of records of the training split, chosen in the same way; None for all.

    Raises:
        InputError: a benchmark is unknown or named twice, or a number is out of range. Files are read only when records
            are requested.
    """

    def __init__(
        self,
        folder: str | Path,
        test: Sequence[str] = ("AegisSafetyTest",),
        train: Sequence[str] | None = None,
        validation_share: ShareBelowOne = 0.1,
        test_sample: Count | None = None,
        train_sample: Count | None = None,
    ) -> None:
        for key, sample in (("test_sample", test_sample), ("train_sample", train_sample)):
            if sample is not None:
                require_count("released data", key, sample)
        require_shares("released data", validation_share)
        self.folder = Path(folder)
        self.test = tuple(test)
        self.train = tuple(name for name in PUBLISHED if name not in self.test) if train is None else tuple(train)
        self.validation_share = validation_share
        self.test_sample = test_sample
        self.train_sample = train_sample
        names = self.test + self.train
        for name in names:
            if not isinstance(name, str) or name not in BENCHMARKS:
                raise InputError(f"released data: {name!r} is none of {', '.join(BENCHMARKS)}")
            if names.count(name) > 1:
                raise InputError(
                    f"released data: {name} is named twice, expected each benchmark once, in test or in train"
                )

    def records(self, split: Split) -> list[Record]:
        """Return the records of a split, benchmark by benchmark, in the order of the files.

        Raises:
            InputError: a file is missing or differs from the released format.
        """
        return self._splits[split]

    @cached_property
    def excluded_ids(self) -> list[str]:
        """Ids of train records that are in no split because their prompt also occurs in a test benchmark."""
        return [record.id for record in self._train_records if self._contamination_index.match(record)]

    @property
    def cut_share(self) -> float:
        """Share of the prompts that the validation split has."""
        return self.validation_share

    def identity(self) -> object:
        """Return the arguments and the content hashes of the files."""
        files = [content_hash(self._path(name)) for name in (*self.train, *self.test)]
        arguments: list[object] = [self.train, self.test, self.validation_share]
        samples = {"test": self.test_sample, "train": self.train_sample}
        return ["Released", *arguments, *([samples] if any(samples.values()) else []), files]

    @cached_property
    def _splits(self) -> dict[Split, list[Record]]:
        by_benchmark = ([record for record in self._test_records if record.source == name] for name in self.test)
        test = [record for records in by_benchmark for record in sample_of(records, self.test_sample)]
        splits: dict[Split, list[Record]] = {"train": [], "validation": [], "test": test}
        excluded_ids = set(self.excluded_ids)
        for record in self._train_records:
            if record.id not in excluded_ids:
                splits[split_of(record.context(), self.validation_share)].append(record)
        log.info(
            "released data: %d of %d records skipped because their prompt is also in %s",
            *(len(self.excluded_ids), len(self._train_records), ", ".join(self.test)),
        )
        splits["train"] = sample_of(splits["train"], self.train_sample)
        return splits

    @cached_property
    def _test_records(self) -> list[Record]:
        return [record for name in self.test for record in self._read(name)]

    @cached_property
    def _train_records(self) -> list[Record]:
        return [record for name in self.train for record in self._read(name)]

    @cached_property
    def _contamination_index(self) -> ContaminationIndex:
        return ContaminationIndex(self._test_records)

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
            "the folder of the released data must contain benchmarks/; check its path in the config",
        )
    try:
        rows = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8: {error.reason}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: expected a JSON list of samples")
    return rows
