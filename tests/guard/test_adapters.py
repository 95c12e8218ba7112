"""Verdicts in the forms of any-guardrail and NeMo Guardrails."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from guardreasoner.guard.adapters import (
    any_guardrail_output,
    nemo_json,
    nemo_parse_prompt,
    nemo_parse_response,
    nemo_text,
)
from guardreasoner.guard.results import GuardAnswer, GuardResult, interpret
from guardreasoner.guard.service.litellm import blocked_reason
from guardreasoner.guard.service.moderations import moderation
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record
from guardreasoner.tasks import GUARD_TASKS, Task

H, U, C = "harmful", "unharmful", "compliance"


class Category(BaseModel):
    """Fields of any-guardrail's ``CategoryResult``."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    description: str | None = None
    triggered: bool | None = None
    score: float | None = None
    severity: int | None = None


class Usage(BaseModel):
    """Fields of any-guardrail's ``GuardrailUsage``."""

    model_config = ConfigDict(strict=True, extra="forbid")
    model_id: str | None = None
    latency_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Output(BaseModel):
    """Fields of any-guardrail's ``GuardrailOutput``, version 0.7."""

    model_config = ConfigDict(strict=True, extra="forbid")
    valid: bool
    explanation: str | None = None
    score: float | None = None
    categories: list[Category] = []
    spans: list[Any] | None = None
    modified_text: str | None = None
    action: str | None = None
    usage: Usage | None = None
    extra: dict[str, Any] | None = None
    raw: Any | None = None


def result(request: str | None, response: str | None, has_response: bool = True, score: float = 0.9) -> GuardResult:
    """Return what a guard with these verdicts answers."""
    verdicts = {"request": request, "completion": C if has_response else None, "response": response}
    record = Record("1", "a prompt", "a response" if has_response else None)
    scores = {task: {H: score, U: 1 - score} for task in ("request", "response") if verdicts[task]}
    return interpret(GuardAnswer(record, "", "reasoned", verdicts, "Because.", 5, scores), GUARD_TASKS, [])


@pytest.mark.parametrize("answer", [result(H, U), result(U, U), result(None, U), result(H, None, False)])
def test_any_guardrail_reads_a_result(answer: GuardResult) -> None:
    fields = any_guardrail_output(answer, GUARD_TASKS, "guard")
    output = Output(**json.loads(json.dumps(fields)))
    assert output.valid != answer.flagged
    assert output.explanation == "Because."
    assert {one.name for one in output.categories} <= {"request", "completion", "response"}
    assert output.extra is not None
    assert output.extra["unparsed"] == answer.unparsed


def test_any_guardrail_of_an_unparsed_answer_is_not_valid() -> None:
    output = any_guardrail_output(result(None, U), GUARD_TASKS)
    assert not output["valid"]
    assert {one["name"]: one["triggered"] for one in output["categories"]}["request"] is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (result(U, U), {"User Safety": "safe", "Response Safety": "safe"}),
        (result(H, U), {"User Safety": "unsafe", "Response Safety": "safe", "Safety Categories": "request"}),
        (result(None, U), {"User Safety": "unsafe", "Response Safety": "safe", "Safety Categories": "request"}),
        (result(U, None, False), {"User Safety": "safe"}),
    ],
)
def test_nemo_reads_json(answer: GuardResult, expected: dict[str, str]) -> None:
    assert json.loads(nemo_json(answer, GUARD_TASKS)) == expected


def test_nemo_reads_text() -> None:
    assert nemo_text(result(U, U), GUARD_TASKS) == "safe"
    assert nemo_text(result(H, H), GUARD_TASKS) == "unsafe\nrequest, response"
    assert nemo_text(result(None, U), GUARD_TASKS).startswith("unsafe")


def test_nemo_parses_the_text_of_the_guard() -> None:
    text = f"Because.\n\n{answer_block({'request': H, 'completion': C, 'response': U}, GUARD_TASKS)}"
    assert nemo_parse_prompt(text) == [False, "request"]
    assert nemo_parse_response(text) == [True]
    harmless = f"Because.\n\n{answer_block({'request': U}, GUARD_TASKS)}"  # of a request without a response
    assert nemo_parse_prompt(harmless) == [True]
    assert nemo_parse_response(harmless) == [False, "response"]
    assert nemo_parse_prompt("It is safe.") == [False, "request"]
    assert nemo_parse_response("It is safe.") == [False, "response"]


OTHERS = Task("hazard", "Hazard", "name it.", ("no hazard", "hate", "fraud"), flags="others")
"""A task whose positive label is harmless, as that of the hazards of MLCommons."""


@pytest.mark.parametrize(("label", "safe"), [("no hazard", True), ("fraud", False), (None, False)])
def test_every_form_flags_the_labels_that_the_task_flags(label: str | None, safe: bool) -> None:
    answer = GuardAnswer(Record("1", "a prompt"), "", "direct", {"hazard": label}, "", 5)
    found = interpret(answer, (OTHERS,), [])
    assert any_guardrail_output(found, (OTHERS,))["valid"] == safe
    assert any_guardrail_output(found, (OTHERS,))["categories"][0]["triggered"] == (None if label is None else not safe)
    assert json.loads(nemo_json(found, (OTHERS,)))["User Safety"] == ("safe" if safe else "unsafe")
    assert (nemo_text(found, (OTHERS,)) == "safe") == safe
    assert nemo_parse_prompt(f"Answers:\nHazard: {label}", (OTHERS,))[0] == safe
    moderated = moderation(found, (OTHERS,))
    assert moderated["flagged"] == any(moderated["categories"].values()) == (not safe)
    assert "hazard/no hazard" not in moderated["categories"]
    assert (blocked_reason(found, [OTHERS]) is None) == safe
    if label == "fraud":
        assert blocked_reason(found, [OTHERS]) == "hazard: fraud"
