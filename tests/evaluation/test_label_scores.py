"""Labels of a task get probabilities from the log-probabilities of the texts that a guard could have written."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner import Qwen3GuardGen
from guardreasoner.evaluation.label_scores import Alternative, alternatives, probabilities, score_request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import parse
from guardreasoner.tasks import GUARD_TASKS, Task
from tests.support.scoring import naive_scores
from tests.support.tiny import TinySource, load

REASONED = "It is a kettle.\nSo it is fine.\n\nAnswers:\nRequest: unharmful\nCompletion: compliance\nResponse: harmful"
LEVELS = (
    Task("level", "Level", "how harmful?", ("harm", "harmful", "harmful intent"), "harmful intent"),
    Task("topic", "Topic", "about what?", ("home", "home and garden")),
)


def test_every_task_has_one_text_a_label_after_its_own_earlier_answers() -> None:
    head = "It is a kettle.\nSo it is fine.\n\nAnswers:\nRequest: "
    assert alternatives(REASONED, GUARD_TASKS) == [
        Alternative("request", "harmful", f"{head}harmful\nCompletion:", False),
        Alternative("request", "unharmful", f"{head}unharmful\nCompletion:", False),
        Alternative("completion", "refusal", f"{head}unharmful\nCompletion: refusal\nResponse:", False),
        Alternative("completion", "compliance", f"{head}unharmful\nCompletion: compliance\nResponse:", False),
        Alternative("response", "harmful", f"{head}unharmful\nCompletion: compliance\nResponse: harmful", True),
        Alternative("response", "unharmful", f"{head}unharmful\nCompletion: compliance\nResponse: unharmful", True),
    ]


def test_a_block_in_another_form_is_written_as_in_training() -> None:
    written = "So.\n# Answers\n\nresponse: HARMFUL, request: unharmful, completion: compliance"
    expected = REASONED.replace("It is a kettle.\nSo it is fine.", "So.")
    assert expected in [a.text for a in alternatives(written, GUARD_TASKS)]


def test_without_reasoning_the_block_begins_the_text() -> None:
    found = alternatives("Answers:\nLevel: harm\nTopic: home", LEVELS)
    assert [a.text for a in found] == [
        *(f"Answers:\nLevel: {label}\nTopic:" for label in LEVELS[0].labels),
        *(f"Answers:\nLevel: harm\nTopic: {label}" for label in LEVELS[1].labels),
    ]


@pytest.mark.parametrize(
    ("completion", "scored"),
    [
        ("Answers:\nRequest: harmful\nCompletion: None\nResponse: None", {"request"}),
        ("Answers:\nRequest: harmful\nRequest: unharmful\nResponse: harmful", {"response"}),
        ("Answers:\nRequest: harmful\nCompletion: perhaps\nResponse: harmful", {"request", "response"}),
        ("I do not know.", set()),
        ("<think>\nAnswers:\nRequest: harmful", set()),
        ("", set()),
    ],
)
def test_a_task_without_a_verdict_has_no_alternatives(completion: str, scored: set[str]) -> None:
    found = alternatives(completion, GUARD_TASKS)
    assert {a.task for a in found} == scored
    for alternative in found:
        # a text says what its label is
        whole = alternative.text if alternative.ends else alternative.text.rpartition("\n")[0]
        assert parse(whole, GUARD_TASKS)[alternative.task] == alternative.label


def scored(values: list[float]) -> tuple[list[Alternative], list[float]]:
    return [Alternative("t", str(number), "", False) for number in range(len(values))], values


@given(st.lists(st.floats(-2000, 0), min_size=1, max_size=8), st.floats(-1e4, 1e4))
def test_probabilities_sum_to_one_and_ignore_what_all_labels_share(values: list[float], constant: float) -> None:
    found = probabilities(*scored(values))["t"]
    assert sum(found.values()) == pytest.approx(1)
    assert all(0 <= p <= 1 for p in found.values())
    shifted = probabilities(*scored([value + constant for value in values]))["t"]
    assert shifted == pytest.approx(found, abs=1e-9)


def test_probabilities_are_those_of_each_task_alone() -> None:
    found = probabilities(
        [Alternative(task, label, "", False) for task in "ab" for label in "xy"], [math.log(3), 0.0, -900.0, -900.0]
    )
    assert found == {"a": pytest.approx({"x": 0.75, "y": 0.25}), "b": pytest.approx({"x": 0.5, "y": 0.5})}
    assert probabilities(*scored([-math.inf, -1.0])) == {"t": {"0": 0.0, "1": 1.0}}
    assert probabilities(*scored([-math.inf, -math.inf])) == {}
    assert probabilities(*scored([math.nan, -1.0])) == probabilities(*scored([-1.0, math.nan])) == {}
    assert probabilities([], []) == {}


def test_a_request_holds_the_ids_of_prompt_and_text(tiny_base: Path) -> None:
    prompt_tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    end = prompt_tokenizer.tokenizer.eos_token
    record = TinySource().records("train")[0]
    prompt, text = prompt_tokenizer.prompt(record), prompt_tokenizer.text(record)
    for completion, tasks in ((REASONED, GUARD_TASKS), ("Answers:\nLevel: harm\nTopic: home", LEVELS)):
        found = alternatives(completion, tasks)
        request = score_request(record.id, prompt, text, found, prompt_tokenizer)
        assert len(request.prompt) > len(prompt) + 1  # what all texts begin with
        for alternative, ids, rest in zip(found, request.continuations, request.continuation_texts, strict=True):
            whole = prompt_tokenizer.completion(alternative.text)
            assert [*request.prompt, *ids] == [*prompt, *(whole if alternative.ends else whole[:-1])]
            assert request.text + rest == text + alternative.text + (end if alternative.ends else "")
            assert ids
        for task in tasks:  # no label's ids begin with those of another label
            same = [ids for a, ids in zip(found, request.continuations, strict=True) if a.task == task.name]
            assert not any(a != b and b[: len(a)] == a for a in same for b in same)


def test_probabilities_are_those_of_whole_texts(tiny_base: Path) -> None:
    backbone = load(tiny_base)
    prompt_tokenizer = backbone.prompt_tokenizer
    record = TinySource().records("train")[0]
    prompt, text = prompt_tokenizer.prompt(record), prompt_tokenizer.text(record)
    found = alternatives(REASONED, GUARD_TASKS)
    request = score_request(record.id, prompt, text, found, prompt_tokenizer)
    (scores,) = LocalGenerator(backbone).score([request])
    assert scores.logps == pytest.approx(naive_scores(backbone, request), abs=1e-5)
    by_task = probabilities(found, scores.logps)
    assert list(by_task) == ["request", "completion", "response"]
    assert all(set(by_task[task.name]) == set(task.labels) for task in GUARD_TASKS)


@pytest.mark.parametrize(("merged", "harmful"), [("unharmful", 0.06), ("harmful", 0.10)])
def test_texts_of_one_label_are_added_up(merged: Any, harmful: float) -> None:
    found = Qwen3GuardGen(controversial=merged).alternatives("Safety: Safe\nCategories: None")
    shares = {"Safe": 0.90, "Controversial": 0.04, "Unsafe": 0.06}
    logps = [math.log(shares[one.text.rpartition("Safety: ")[2].split()[0]]) for one in found]
    expected = {"unharmful": 1 - harmful, "harmful": harmful}
    assert probabilities(found, logps) == {"request": pytest.approx(expected)}
