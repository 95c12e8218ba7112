"""Clients that read the text alone get the verdicts that the thresholds decide."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from guardreasoner.formats import GuardFormat
from guardreasoner.formats.llama_guard import LlamaGuard3
from guardreasoner.formats.qwen3_guard import Qwen3GuardGen
from guardreasoner.guard import Guard
from guardreasoner.guard.adapters import nemo_parse_prompt
from guardreasoner.guard.decided_text import decided_text
from guardreasoner.guard.results import GuardAnswer, GuardResult, interpret
from guardreasoner.guard.service.app import make_service_app
from guardreasoner.guard.service.judging import GuardService, ServiceLimits
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record
from guardreasoner.workflow.guard_file import write_calibration
from tests.support.guards import calibration, known_records

OWN = PromptFormat()
TEXT = "It is odd.\n\nAnswers:\nRequest: unharmful\nCompletion: None\nResponse: None"


def result(format: GuardFormat, completion: str, score: float, threshold: float) -> GuardResult:
    """Return a result whose first task has a score and a threshold."""
    task = format.tasks[0]
    others = [label for label in task.labels if label != task.positive]
    scores = {task.positive: score, **{label: (1 - score) / len(others) for label in others}}
    verdicts = format.parse(completion)
    answer = GuardAnswer(Record("r", "p"), completion, "reasoned", verdicts, "", 3, {task.name: scores})
    return interpret(answer, format.tasks, [calibration(task.name, "reasoned", threshold, 0.05)])


def test_a_text_that_agrees_is_not_touched() -> None:
    assert decided_text(result(OWN, TEXT + "\n", 0.1, 0.5), OWN) == TEXT + "\n"


@pytest.mark.parametrize(
    ("verdict", "score", "threshold", "decided"),
    [("unharmful", 0.3, 0.2, "harmful"), ("harmful", 0.6, 0.9, "unharmful"), ("harmful", 0.95, 0.9, "harmful")],
)
def test_the_band_decides(verdict: str, score: float, threshold: float, decided: str) -> None:
    found = result(OWN, TEXT.replace("unharmful", verdict), score, threshold)
    text = decided_text(found, OWN)
    assert text == TEXT.replace("unharmful", decided)
    assert nemo_parse_prompt(text)[0] is not found.flagged


def test_the_words_of_another_format() -> None:
    format = LlamaGuard3()
    assert decided_text(result(format, "\n\nsafe", 0.3, 0.2), format) in ("\n\nunsafe", None)
    assert (
        decided_text(result(format, "\n\nunsafe\nS2", 0.6, 0.9), format) is None
    )  # a hazard cannot stand below "safe"


def test_a_label_among_three_is_the_most_probable_on_the_side_of_the_band() -> None:
    format = Qwen3GuardGen()
    found = result(format, "Safety: Safe\nCategories: None", 0.4, 0.3)
    assert found.flagged
    assert decided_text(found, format) == "Safety: Unsafe\nCategories: None"
    own = PromptFormat((replace(format.tasks[0], name="level", key="Level"),))
    found = result(own, "So.\n\nAnswers:\nLevel: unharmful", 0.4, 0.3)
    assert decided_text(found, own) == "So.\n\nAnswers:\nLevel: harmful"


@pytest.mark.slow
def test_the_chat_route_blocks_what_the_guard_blocks(both_speeds: Path, tmp_path: Path) -> None:
    folder = tmp_path / "guard"
    shutil.copytree(both_speeds, folder)
    row = calibration("request", "reasoned", 1e-9, 0.0).as_json()  # blocks everything
    write_calibration(folder / "guard.json", "request", row)
    guard = Guard.load(folder)
    harmless = next(one for one in known_records() if one.labels["request"] == "unharmful" and one.response is None)
    assert guard.check(harmless.prompt).tasks["request"].verdict == "unharmful"
    assert guard.check(harmless.prompt).flagged
    messages = [{"role": "user", "content": harmless.prompt}]
    service = GuardService(guard, "g", ServiceLimits())
    with TestClient(make_service_app(service), base_url="http://127.0.0.1") as client:
        body: dict[str, Any] = client.post("/v1/chat/completions", json={"messages": messages}).json()
        streamed = client.post("/v1/chat/completions", json={"messages": messages, "stream": True}).text
    content = body["choices"][0]["message"]["content"]
    assert "Request: harmful" in content
    assert nemo_parse_prompt(content) == [False, "request"]
    assert (body["guard"]["tasks"]["request"]["verdict"], body["guard"]["flagged"]) == ("unharmful", True)
    first = json.loads(streamed.partition("\n")[0].removeprefix("data: "))
    assert first["choices"][0]["delta"]["content"] == content
