"""Ready preference pairs in the forms that other tools write."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.gpt_oss_safeguard import GptOssSafeguard
from guardreasoner.formats.llama_guard import LlamaGuard3
from guardreasoner.formats.nemotron_safety import NemotronContentSafetyReasoning
from guardreasoner.prompts import PromptFormat, instruction, render
from guardreasoner.records import Pair, Record, Rollout, write_jsonl
from guardreasoner.sources.pair_files import PairColumns, read_pairs
from guardreasoner.tasks import GUARD_TASKS

GOOD: dict[str, Any] = {"prompt": "How?", "chosen": "Request: harmful", "rejected": "Request: unharmful"}
LAYOUT = render(Record("", "How?", "So."), GUARD_TASKS)
USER = [{"role": "user", "content": "How?"}]
SAID = {"role": "assistant", "content": "Request: harmful"}
DENIED = {"from": "gpt", "value": "Request: unharmful"}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that messages contain short paths."""
    monkeypatch.chdir(tmp_path)


def read(*rows: Any, **columns: Any) -> Sequence[Pair]:
    """Write rows to ``a.jsonl`` and read them."""
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_pairs(["a.jsonl"], PairColumns(**columns), GUARD_TASKS)


@pytest.mark.parametrize(
    ("row", "response"),
    [
        (GOOD, None),
        ({**GOOD, "response": "So."}, "So."),
        ({**GOOD, "prompt": LAYOUT}, "So."),
        ({**GOOD, "prompt": LAYOUT.rstrip()}, "So."),
        ({**GOOD, "prompt": USER}, None),
        ({**GOOD, "prompt": [{"role": "system", "content": "Be good."}, *USER]}, None),
        ({**GOOD, "prompt": [{"role": "user", "content": LAYOUT}]}, "So."),
        ({**GOOD, "prompt": USER, "chosen": [SAID], "rejected": [DENIED]}, None),
        ({"conversations": [], "chosen": [*USER, SAID], "rejected": [*USER, DENIED]}, None),
        ({"prompt": USER, "chosen": SAID, "rejected": DENIED}, None),
        ({**GOOD, "chosen": "Request: harmful</s>", "rejected": "Request: unharmful<|eot_id|>\n"}, None),
        (
            {
                "instruction": instruction(GUARD_TASKS),
                "input": LAYOUT.removeprefix(instruction(GUARD_TASKS) + "\n"),
                **{key: GOOD[key] for key in ("chosen", "rejected")},
            },
            "So.",
        ),
    ],
)
def test_forms_of_a_pair(row: dict[str, Any], response: str | None) -> None:
    (pair,) = read(row)
    assert (pair.record.prompt, pair.record.response) == ("How?", response)
    assert (pair.chosen.completion, pair.rejected.completion) == ("Request: harmful", "Request: unharmful")
    assert pair.record.labels == {"request": "harmful"}
    assert (pair.id, pair.weight, pair.votes) == ("a.jsonl:1", 1.0, (True, False))


OTHER = LAYOUT.replace(instruction(GUARD_TASKS), "Judge this.\n")
SINGLE = {"role": "user", "content": OTHER}


def test_a_user_may_imitate_the_released_layout() -> None:
    imitation = "Look:\nHuman user:\nHow?\n\nAI assistant:\nSo.\n\n"
    texts = ["How?", imitation, LAYOUT, imitation.removeprefix("Look:\n")]
    pairs = read(*({**GOOD, "prompt": text} for text in texts))
    assert [pair.record.prompt for pair in pairs] == [texts[0], texts[1], "How?", texts[3]]
    assert [pair.record.response for pair in pairs] == [None, None, "So.", None]


@pytest.mark.parametrize("prompts", [[OTHER] * 2, [OTHER, LAYOUT], [[SINGLE], OTHER.rstrip()]])
def test_the_layout_below_another_instruction_is_split_if_all_rows_have_it(prompts: list[Any]) -> None:
    pairs = read(*({**GOOD, "prompt": prompt} for prompt in prompts))
    assert [(pair.record.prompt, pair.record.response) for pair in pairs] == [("How?", "So.")] * len(prompts)
    assert read(*({**GOOD, "prompt": prompt} for prompt in prompts), GOOD)[0].record.prompt == OTHER


def test_the_opening_of_the_model_is_an_instruction() -> None:
    read({**GOOD, "prompt": OTHER}, GOOD)
    pairs = read_pairs(["a.jsonl"], PairColumns(), GUARD_TASKS, PromptFormat(opening="Judge this.\n"))
    assert [pair.record.response for pair in pairs] == ["So.", None]


def test_weights_and_ids() -> None:
    rows = [{**GOOD, "score": score, "id": str(score)} for score in (0.5, 2, "3")]
    assert [(pair.id, pair.weight) for pair in read(*rows, weight="score")] == [("0.5", 0.5), ("2", 2.0), ("3", 3.0)]
    assert [pair.id for pair in read(*rows, id=None)] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]
    assert [pair.weight for pair in read({**GOOD, "weight": 4}, GOOD)] == [4.0, 1.0]


def test_our_own_pairs() -> None:
    record = Record("r", "How?", None, {"request": "harmful"})
    outputs = [Rollout("r", "m", "f", index, 0, text, truncated=text == "b") for index, text in enumerate("ab")]
    pair = Pair("r#1", record, *outputs, "all", "random/random", 0, 1.5, (True, False))
    write_jsonl("own.jsonl", [pair])
    assert read_pairs(["own.jsonl"], PairColumns(), GUARD_TASKS) == [pair]


BARE = ("Answers:\nRequest: harmful", "Answers:\nRequest: unharmful")
THOUGHT = ("So.\n\nRequest: harmful", "No.\n\nRequest: unharmful")
LINES = tuple(f"Prompt harm: {label}\nResponse harm: None" for label in ("harmful", "unharmful"))


@pytest.mark.parametrize(
    ("format", "outputs", "speed"),
    [
        (None, BARE, "direct"),
        (None, THOUGHT, "reasoned"),
        (None, (THOUGHT[0], BARE[1]), "reasoned"),
        (PromptFormat(), BARE, "direct"),
        (PromptFormat(), (BARE[0], THOUGHT[1]), "reasoned"),
        (LlamaGuard3(), ("unsafe\nS1", "safe"), "direct"),
        (LlamaGuard3(), ("<think>So.</think>unsafe", "safe"), "direct"),  # the format has no other answers
        (GptOssSafeguard(), ("assistantfinal1", "assistantfinal0"), "reasoned"),
        (GptOssSafeguard(), ("analysisSo.assistantfinal1", "analysisNo.assistantfinal0"), "reasoned"),
        (NemotronContentSafetyReasoning(), LINES, "direct"),
        (NemotronContentSafetyReasoning(), (f"<think>So.</think>{LINES[0]}", LINES[1]), "reasoned"),
    ],
)
def test_the_prompt_asks_for_reasoning_if_an_output_has_any(
    format: GuardFormat | None, outputs: tuple[str, str], speed: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path("a.jsonl").write_text(json.dumps(dict(zip(("prompt", "chosen", "rejected"), ("How?", *outputs), strict=True))))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        (pair,) = read_pairs(["a.jsonl"], PairColumns(), format.tasks if format else GUARD_TASKS, format)
    assert (pair.chosen.speed, pair.rejected.speed) == (speed, speed)
    assert len([line for line in caplog.messages if "without reasoning" in line]) == (speed == "direct")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({**GOOD, "prompt": None}, "prompt: found null, expected text or a list of messages"),
        ({**GOOD, "prompt": " "}, "prompt: found an empty text, expected text or a list of messages"),
        ({**GOOD, "prompt": 3}, "prompt: found a number (3), expected text or a list of messages"),
        ({**GOOD, "prompt": [{}]}, "prompt: message 1: found the role 'None', expected system, user, assistant or"),
        ({**GOOD, "chosen": None}, "chosen: found null, expected text or a list of messages"),
        ({**GOOD, "chosen": ""}, "chosen: found an empty text, expected text"),
        ({**GOOD, "chosen": "</s>"}, "chosen: found an empty text, expected text"),
        ({**GOOD, "chosen": []}, "chosen: expected a list of messages"),
        ({**GOOD, "chosen": USER}, "chosen: the last message is of the user, expected the assistant"),
        (
            {**GOOD, "chosen": {"role": "assistant", "content": "a", "tool_calls": [{"name": "b"}]}},
            "chosen: found a tool call in the output, expected text",
        ),
        ({**GOOD, "rejected": GOOD["chosen"]}, "rejected: is the same text as chosen"),
        ({**GOOD, "rejected": "\ud800"}, "rejected: found a lone surrogate (U+D800) at character 1"),
        ({**GOOD, "weight": 0}, "weight: found a number (0), expected a number above 0"),
        ({**GOOD, "weight": -1.5}, "weight: found a number (-1.5), expected a number above 0"),
        ({**GOOD, "weight": "high"}, "weight: found 'high', expected a number above 0"),
        ({**GOOD, "weight": True}, "weight: found true or false (true), expected a number above 0"),
        ({**GOOD, "id": 1.5}, "id: found a number (1.5), expected a text"),
        ({**GOOD, "id": "x"}, "id: found 'x', which is already the id of a.jsonl:1, expected a unique id"),
        ({**GOOD, "response": 1}, "response: found a number (1), expected text"),
        ({**GOOD, "prompt": [*USER, SAID], "response": "So."}, "response: found a second response, expected text"),
        ({"chosen": "a", "rejected": "b"}, "prompt: this column is missing; there are 'chosen', 'rejected'"),
        ({"prompt": "a", "rejected": "b"}, "chosen: this column is missing; there are 'prompt', 'rejected'"),
        (
            {"chosen": [*USER, SAID], "rejected": [DENIED]},
            "prompt: the messages before the outputs differ, expected one",
        ),
        ({"record": {}}, "record: missing field 'id'"),
        ({"record": {"id": "a", "prompt": 1}}, "record: prompt: expected str, found int"),
        (
            {"record": {"id": "a", "prompt": "b"}},
            "missing field 'id'; missing field 'chosen'; missing field 'rejected'",
        ),
        ([], "found a list, expected a JSON object"),
    ],
)
def test_a_faulty_row_is_named(row: Any, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        read({**GOOD, "id": "x"}, row)
    (detail,) = caught.value.details
    assert detail.startswith(f"a.jsonl:2: {fault}")
    assert str(caught.value) == "data.pairs: 1 of 2 rows is faulty, nothing was started"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"chosen": "better"},
            "data.pair_columns.chosen: a.jsonl has no column 'better'; there are 'prompt', 'chosen'",
        ),
        ({"weight": "w"}, "data.pair_columns.weight: a.jsonl has no column 'w'"),
        ({"id": "key"}, "data.pair_columns.id: a.jsonl has no column 'key'"),
        ({"response": "said"}, "data.pair_columns.response: a.jsonl has no column 'said'"),
    ],
)
def test_a_wrong_mapping_is_one_fault(columns: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(*[GOOD] * 20, **columns)
    assert str(caught.value).startswith(message)
    assert caught.value.details == ()


def test_a_file_is_given_once() -> None:
    read(GOOD)
    with pytest.raises(InputError, match=r"data\.pairs: a\.jsonl is given twice"):
        read_pairs(["a.jsonl", "./a.jsonl"], PairColumns(), GUARD_TASKS)


def test_longer_conversations_and_policies(caplog: pytest.LogCaptureFixture) -> None:
    system = {"role": "system", "content": "Be good."}
    longer = {**GOOD, "prompt": [system, *USER, SAID, *USER], "rules": " Be brief. "}
    with caplog.at_level(logging.INFO, "guardreasoner"):
        first, second, _ = read(GOOD, longer, {**GOOD, "prompt": LAYOUT, "rules": None}, policy="rules")
    assert (first.record.is_one_turn, first.record.policy) == (True, None)
    assert [message.role for message in second.record.messages] == ["system", "user", "assistant", "user"]
    assert second.record.policy == "Be brief."
    assert "data.pairs: the released layout was split into prompt and response of 1 rows" in caplog.messages
    with pytest.raises(InputError) as caught:
        read({**GOOD, "rules": " "}, policy="rules")
    assert caught.value.details == ("a.jsonl:1: rules: found an empty text, expected text",)
