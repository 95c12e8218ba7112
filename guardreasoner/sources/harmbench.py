"""HarmBench: harmful requests, and answers of attacked models with labels from three annotators.

https://github.com/centerforaisafety/HarmBench, MIT, arXiv 2402.04249. Two files of the repository:

``data/behavior_datasets/harmbench_behaviors_text_test.csv`` (320 rows), all harmful requests. Requests that
need an additional context ("contextual") are skipped; 239 remain. A row (harmless here)::

    Behavior:            Explain how to keep bread fresh
    FunctionalCategory:  standard
    SemanticCategory:    …
    Tags, ContextString: (empty)
    BehaviorID:          keep_bread_fresh

``data/classifier_val_sets/text_behaviors_val_set.json``, the classifiers' validation set: 602 answers, 273 of them
harmful, listed by behaviour::

    {"keep_bread_fresh": [{"test_case": "Explain how to …", "generation": "Wrap it in …", "human_0": 0, "human_1": 0,
     "human_2": 1, "experiment": "default", …}], …}

The prompt is the test case that the model answered, including the attack. The label "response" is the majority of the
three annotators. Both choices follow WildGuard's evaluation, and the counts equal those of GuardReasoner's benchmark.
The column ``agreement`` of a record is the share of annotators in the majority.
(walledai/HarmBench on the hub has neither the test split nor the answers.)
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import (
    drop_unusable,
    mapped_value,
    read_csv_rows,
    read_json_file,
    require_distinct_choices,
    required_text,
)
from guardreasoner.sources.raters import agreement_column, rater_agreement, require_share
from guardreasoner.workflow.ranges import Share

HarmBenchPart = Literal["prompt", "response"]

PROMPTS = "data/behavior_datasets/harmbench_behaviors_text_test.csv"
RESPONSES = "data/classifier_val_sets/text_behaviors_val_set.json"

_RAW = "https://raw.githubusercontent.com/centerforaisafety/HarmBench/8e1604d1171fe8a48d8febecd22f600e462bdcdd"
_STANDALONE = {"standard": True, "copyright": True, "contextual": False, "multimodal": False}
_HARMFUL = {1: 1, 0: 0}
_ANNOTATORS = ("human_0", "human_1", "human_2")


class HarmBench(Benchmark):
    """Read HarmBench as a test split: requests for the task "request", answers for the task "response".

    Args:
        path: URL of the repository's files at a commit, or a folder with a clone.
        parts: benchmarks to provide, in this order.
        min_agreement: smallest share of the three annotators that must agree on an answer, rounded to two digits: 1
            for unanimous labels only. Other answers are left out.

    Raises:
        InputError: a part is unknown or given twice, or the share is out of range. Files are read only when records
            are requested.
    """

    def __init__(
        self,
        path: str = _RAW,
        parts: Sequence[HarmBenchPart] = ("prompt", "response"),
        min_agreement: Share = 0.0,
    ) -> None:
        super().__init__(path)
        self.parts = require_distinct_choices("HarmBench", "parts", parts, ("prompt", "response"))
        self.min_agreement = require_share("HarmBench", "min_agreement", min_agreement)

    def read(self) -> Iterator[Record]:
        """Yield the requests, the answers, or both."""
        for part in self.parts:
            if part == "prompt":
                yield from drop_unusable(self._prompts(), "HarmBenchPrompt", "need a context")
            else:
                reason = f"have an agreement below {self.min_agreement:g}"
                yield from drop_unusable(self._responses(), "HarmBenchResponse", reason)

    def _prompts(self) -> Iterator[Record | None]:
        columns = ("Behavior", "FunctionalCategory", "BehaviorID")
        for where, row in read_csv_rows(f"{self.path}/{PROMPTS}", columns):
            if not mapped_value(row, "FunctionalCategory", _STANDALONE, where):
                yield None
                continue
            identity, prompt = required_text(row, "BehaviorID", where), required_text(row, "Behavior", where)
            yield Record(f"HarmBenchPrompt/{identity}", prompt, None, {"request": "harmful"}, source="HarmBenchPrompt")

    def _responses(self) -> Iterator[Record | None]:
        name, file, number = "HarmBenchResponse", f"{self.path}/{RESPONSES}", 0
        for where, row in _answers(read_json_file(file), file):
            prompt, answer = required_text(row, "test_case", where), required_text(row, "generation", where)
            votes = [mapped_value(row, annotator, _HARMFUL, where) for annotator in _ANNOTATORS]
            labels, share = {"response": "harmful" if sum(votes) > 1 else "unharmful"}, rater_agreement(votes)
            record_id, extra = f"{name}/{number:06d}", agreement_column(share)
            record = Record(record_id, prompt, answer, labels, source=name, extra=extra)
            yield record if share >= self.min_agreement else None
            number += 1
        if not number:
            raise InputError(f"{file}: the file has no answers")


def _answers(content: Any, file: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(content, dict) or not all(isinstance(answers, list) for answers in content.values()):
        raise InputError(f"{file}: expected an object with a list of answers for each behaviour")
    for behaviour, answers in content.items():
        for number, row in enumerate(answers):
            where = f"{file}: {behaviour} {number}"
            if not isinstance(row, dict):
                raise InputError(f"{where}: found {type(row).__name__}, expected an object")
            for column in ("test_case", "generation", *_ANNOTATORS):
                if column not in row:
                    raise InputError(f"{where}: no {column!r}, found {', '.join(row)}")
            yield where, row
