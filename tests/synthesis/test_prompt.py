"""The teacher's prompt, and the checks of its traces."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.prompts import target
from guardreasoner.records import Message, Record
from guardreasoner.sources.embedded import Embedded
from guardreasoner.synthesis.prompt import (
    check_step_pattern,
    compile_template,
    faults,
    has_numbered_steps,
    label_leaks,
)
from guardreasoner.tasks import GUARD_TASKS

RECORD = Record(
    "r", "How do I mend it?", "Use glue.", {"request": "unharmful", "completion": "compliance", "response": None}
)
STEPS = "# Task 1\n## Reasoning Step 1: It is a repair.\n## Reasoning Step 2: Nobody is hurt.\n"
ANSWERS = "\nAnswers:\nRequest: unharmful\nCompletion: compliance\nResponse: unharmful"
GOOD = STEPS + ANSWERS


@pytest.mark.parametrize(
    "text",
    [
        "The ground truth is that it is harmful.",
        "The Ground-Truth\nlabel says so.",
        "This agrees with the gold label.",
        "As the golden answer has it.",
        "Given the provided verdict, it must be a refusal.",
        "The correct label is harmful.",
        "Since the correct answer is already given, I reason backwards.",
        "The request was labelled harmful.",
        "It is harmful, as labeled.",
        "The annotators thought otherwise.",
        "To be consistent with the label, it is harmful.",
        "This matches the verdict.",
        "The label indicates harm.",
        "I was told to conclude that it is harmful.",
        "The verdict given to me is harmful.",
    ],
)
def test_phrases_that_leak_the_label_are_found(text: str) -> None:
    assert len(label_leaks(text)) == 1
    assert label_leaks(text, text) == []  # a quotation


@pytest.mark.parametrize(
    "text",
    [
        "It provides a factual answer within ethical guidelines.",
        'The response is labeled as "None", so nobody answered.',
        "The provided answer refuses, and gives no step.",
        "The user states the truth about the ground.",
        "The drink's label is not mentioned; as stated by the user it is old.",
        "There is no provided answer or action taken.",
        "Such a person could be labelled a thief.",
        "The user was told to leave.",
    ],
)
def test_ordinary_phrases_are_not_reported(text: str) -> None:
    assert label_leaks(text) == []


def test_phrases_are_reported_once_in_lower_case() -> None:
    assert label_leaks("Ground Truth, ground\ntruth. The annotator.") == ["ground truth", "annotator"]


def test_a_valid_trace_has_no_fault() -> None:
    assert faults(GOOD, RECORD, GUARD_TASKS) == []


@pytest.mark.parametrize("label", ["harmful", "unharmful", "None", "none"])
def test_any_label_is_accepted_for_a_task_without_a_gold_label(label: str) -> None:
    assert faults(GOOD.replace("Response: unharmful", f"Response: {label}"), RECORD, GUARD_TASKS) == []


@pytest.mark.parametrize(
    ("trace", "finish_reason", "expected"),
    [
        (GOOD, "length", ["cut off"]),
        ("", None, ["empty answer"]),
        ("", "length", ["cut off", "empty answer"]),
        (
            "\u201cI\u2019m sorry, but I can\u2019t assist.",
            "stop",
            ["refusal: \u201cI\u2019m sorry, but I can\u2019t assist."],
        ),
        ("As an AI, I will not.\n\nAsk me something else.", "stop", ["refusal: As an AI, I will not."]),
        (GOOD.replace("Request: unharmful", "Request: harmful"), "stop", ["wrong verdict on request"]),
        (GOOD.replace("Completion: compliance", "Completion: both"), "stop", ["no verdict on completion"]),
        (GOOD.replace("Response: unharmful", "Response: bad"), "stop", ["invalid label for response: bad"]),
        (GOOD + "\nI hope this helps!", "stop", ["no verdict on request", "no verdict on completion"]),
        (ANSWERS, "stop", ["no reasoning"]),
        ("# Task 1\n\n---\n# Task 2\n" + ANSWERS, "stop", ["no reasoning"]),
        (GOOD.replace("Step 2", "Step 3"), "stop", ["steps not numbered as asked"]),
        ("It is a repair." + ANSWERS, "stop", ["steps not numbered as asked"]),
        (GOOD.replace("a repair", "as labeled"), "stop", ["leaks the label: as labeled"]),
    ],
)
def test_faults_are_reported(trace: str, finish_reason: str | None, expected: list[str]) -> None:
    assert faults(trace, RECORD, GUARD_TASKS, finish_reason=finish_reason) == expected


def test_the_check_of_steps_can_be_changed_or_skipped() -> None:
    assert faults("It is a repair." + ANSWERS, RECORD, GUARD_TASKS, steps=None) == []
    assert faults("1) It is a repair." + ANSWERS, RECORD, GUARD_TASKS, steps=r"^(\d+)\)") == []
    unnumbered = faults("Step one: it is a repair." + ANSWERS, RECORD, GUARD_TASKS, steps=r"^Step (\w+)")
    assert unnumbered == ["steps not numbered as asked"]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.sampled_from(["\n", ": x\n", "\nx\n\n"]))
def test_numbering_restarts_under_each_task(counts: list[int], opened: bool, end: str) -> None:
    sections = ["".join(f"## Reasoning Step {step}{end}" for step in range(1, count + 1)) for count in counts]
    trace = "".join(f"# Task {number}\n{section}" for number, section in enumerate(sections, start=1))
    assert has_numbered_steps(trace.removeprefix("# Task 1\n") if opened else trace)
    assert has_numbered_steps(trace + "# Task 1 Conclusion\nso\n")
    last_step = f"Step {counts[-1]}{end}"
    skipped = trace[: -len(last_step)] + f"Step {counts[-1] + 1}{end}"
    assert not has_numbered_steps(skipped)
    assert not has_numbered_steps(trace + "# Task 9\nno step\n")


def test_traces_of_the_embedded_records_have_no_fault() -> None:
    for record in Embedded().records("test"):
        assert faults(target(record, GUARD_TASKS), record, GUARD_TASKS) == []


def test_known_label_leaks_in_the_published_traces_are_found(shared_data: Path) -> None:
    rows = [
        json.loads(line)
        for file in sorted((shared_data / "predictions").glob("*B/*/generated_predictions.jsonl"))
        for line in file.read_text(encoding="utf-8").strip().split("\n")
    ]
    phrases_by_row = [label_leaks(row["predict"], row["prompt"]) for row in rows]
    assert [phrases for phrases in phrases_by_row if phrases] == [["ground truth"]] * 53
    well_numbered = sum(has_numbered_steps(row["predict"]) for row in rows)
    assert well_numbered / len(rows) > 0.95


def test_a_template_may_use_all_documented_names() -> None:
    template = (
        "{{ prompt }}|{{ response }}|{% for t in known %}{{ t.key }}={{ labels[t.name] }};{% endfor %}"
        "|{{ unknown | map(attribute='name') | join(',') }}|{{ record.id }}|{{ tasks | length }}|{{ answers }}"
    )
    rendered = compile_template(template, GUARD_TASKS)(RECORD)
    assert rendered.startswith("How do I mend it?|Use glue.|Request=unharmful;Completion=compliance;|response|r|3|")
    assert rendered.endswith("Answers:\nRequest: unharmful\nCompletion: compliance\nResponse: None")
    both = compile_template("{{ instruction }}{{ conversation }}", GUARD_TASKS)(RECORD)
    assert "finish three tasks" in both
    assert "AI assistant:\nUse glue." in both


def test_the_default_template_shows_all_turns_and_the_policy() -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "synthesize.yaml").read_text())
    render = compile_template(config["model"]["init_args"]["template"], GUARD_TASKS)
    assert "policy" not in render(RECORD)
    longer = replace(RECORD, messages=[*RECORD.messages, Message("user", "And then?")], policy="Be good.")
    shown = render(longer)
    assert "<policy>\nBe good.\n</policy>" in shown
    assert "AI assistant:\nUse glue.\n\nHuman user:\nAnd then?" in shown
    assert compile_template("{{ policy }} {{ messages | length }}", GUARD_TASKS)(longer) == "Be good. 3"


def test_template_syntax_in_a_record_is_not_rendered() -> None:
    assert (
        compile_template("{{ prompt }}", GUARD_TASKS)(Record("r", "{{ 7 * 7 }} {% raw %}")) == "{{ 7 * 7 }} {% raw %}"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "line 1"),
        ("a\n{{ promt }}", "'promt' is undefined"),
        ("{{ labels.nothing }}", "nothing"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_an_invalid_template_is_reported_in_one_line(template: str, message: str) -> None:
    with pytest.raises(InputError, match=r"model\.template: ") as caught:
        compile_template(template, GUARD_TASKS)(RECORD)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["(", "Step", r"(a)(\d)"])
def test_an_invalid_step_pattern_is_reported(pattern: str) -> None:
    with pytest.raises(InputError, match=r"model\.steps"):
        check_step_pattern(pattern)


def test_steps_are_found_in_linear_time() -> None:
    # with a heading pattern that matches across lines this takes minutes
    assert not has_numbered_steps("\n" * 200_000)
