"""The time of each step on a conversation grows with the number of its turns, not with its square."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.diagnosis import DiagnosisBuilder
from guardreasoner.model.batch import Example
from guardreasoner.model.packing import packed
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.sources.contamination import ContaminationIndex
from guardreasoner.sources.row_parser import Columns, RowParser
from guardreasoner.tasks import Task
from guardreasoner.training.training_data import TrainingItem
from tests.support.conversations import POLICIES, conversation, write_conversations, write_policies

TASK = Task("call", "Call", "say whether the call was asked for.", ("not asked", "asked"), judges="tool_call")
COUNT = 4


def parse(turns: int) -> list[Record]:
    """Parse rows with conversations of some length."""
    rng, parser = random.Random(turns), RowParser(Columns(), (TASK,), policy=POLICIES[0])
    records = [parser.parse(conversation(rng, turns), f"c{n}", "agents") for n in range(COUNT)]
    assert all(isinstance(record, Record) for record in records)
    return records  # type: ignore[return-value]


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PromptTokenizer:
    from transformers import AutoTokenizer

    return PromptTokenizer(AutoTokenizer.from_pretrained(tiny_base), PromptFormat((TASK,)))


@pytest.mark.filterwarnings("ignore")
def test_the_time_is_linear_in_the_number_of_turns(tokenizer: PromptTokenizer) -> None:
    benchmark = parse(20)

    def contamination(records: list[Record], *_: object) -> None:
        index = ContaminationIndex(parse(len(records[0].messages) // 4 + 1))
        for record in records:
            index.match(record)

    def diagnosis(records: list[Record], examples: list[Example]) -> None:
        builder = DiagnosisBuilder(tokenizer, "here", 10**6, False, ContaminationIndex(benchmark))
        for record, example in zip(records, examples, strict=True):
            builder.add(TrainingItem(record, ("Call: asked",), example), "train")
        assert builder.build().train == COUNT

    steps: dict[str, Callable[[list[Record], list[Example]], object]] = {
        "parsing": lambda records, _: parse(len(records[0].messages) // 4),
        "rendering": lambda records, _: [tokenizer.text(record) for record in records],
        "tokenization": lambda records, _: tokenizer.prompts(records),
        "identity": lambda records, _: [(r.content_key(), r.context(), r.as_json()) for r in records],
        "contamination": contamination,
        "diagnosis": diagnosis,
        "packing": lambda _, examples: packed(examples, 0),
    }
    seconds: dict[str, dict[int, float]] = {name: {} for name in steps}
    for turns in (20, 40, 80, 160):
        records = parse(turns)
        ids = tokenizer.prompts(records)
        answer = tuple(tokenizer.completion("Call: asked"))
        examples = [Example(r.id, tuple(prompt), (answer,)) for r, prompt in zip(records, ids, strict=True)]
        for name, step in steps.items():
            times = []
            for _ in range(2):
                start = time.process_time()
                step(records, examples)
                times.append(time.process_time() - start)
            seconds[name][turns] = min(times)
    growth = {name: of[160] / max(of[20], 1e-3) for name, of in seconds.items()}
    assert {name: ratio for name, ratio in growth.items() if ratio > 24} == {}  # linear: 8; quadratic: 64


OVERLAY = """
recipe:
  checkpoints: checkpoints/long
  logs: logs/long
  max_length: 4096
  tasks:
    - name: call
      key: Call
      question: say whether the call was asked for.
      labels: [not asked, asked]
      judges: tool_call
      uses_policy: true
data:
  init_args:
    source:
      class_path: guardreasoner.Files
      init_args:
        train: agents.jsonl
        test_share: 0.1
        tasks: ${recipe.tasks}
        policies: policies.json
        columns: {policy_id: rules}
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_conversations_of_forty_turns(workplace: Path) -> None:
    Path("long.yaml").write_text(OVERLAY)
    write_conversations(Path("agents.jsonl"), 1000, turns=40)
    write_policies(Path("policies.json"))
    overlay = ("--config", "long.yaml")
    assert main(["base-model", "--config", "configs/base.yaml", *overlay]) == 0
    start = time.process_time()
    assert main(["doctor", "--config", "configs/rsft.yaml", *overlay, "--json", "doctor.json"]) == 0
    assert time.process_time() - start < 200  # about 50 s
    assert len(list(read_jsonl("agents.jsonl"))) == 1000
