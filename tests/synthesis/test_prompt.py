"""A teacher's prompt, and the traces that must not be learned from."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.prompts import target
from guardreasoner.records import Record
from guardreasoner.sources.embedded import Embedded
from guardreasoner.synthesis.prompt import betrayals, check_steps, faults, numbered, prompt_from
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
def test_a_betrayal_is_found(text: str) -> None:
    assert len(betrayals(text)) == 1
    assert betrayals(text, text) == []  # it may be a quotation


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
def test_ordinary_words_are_no_betrayal(text: str) -> None:
    assert betrayals(text) == []


def test_a_phrase_is_told_once_and_in_small_letters() -> None:
    assert betrayals("Ground Truth, ground\ntruth. The annotator.") == ["ground truth", "annotator"]


def test_a_good_trace_has_no_fault() -> None:
    assert faults(GOOD, RECORD, GUARD_TASKS) == []


@pytest.mark.parametrize("word", ["harmful", "unharmful", "None", "none"])
def test_a_task_without_a_label_is_left_to_the_teacher(word: str) -> None:
    assert faults(GOOD.replace("Response: unharmful", f"Response: {word}"), RECORD, GUARD_TASKS) == []


@pytest.mark.parametrize(
    ("trace", "finish_reason", "found"),
    [
        (GOOD, "length", ["cut off"]),
        ("", None, ["no verdict on request", "no verdict on completion", "no reasoning"]),
        (GOOD.replace("Request: unharmful", "Request: harmful"), "stop", ["other verdict on request"]),
        (GOOD.replace("Completion: compliance", "Completion: both"), "stop", ["no verdict on completion"]),
        (GOOD.replace("Response: unharmful", "Response: bad"), "stop", ["no permitted word for response: bad"]),
        (GOOD + "\nI hope this helps!", "stop", ["no verdict on request", "no verdict on completion"]),
        (ANSWERS, "stop", ["no reasoning"]),
        ("# Task 1\n\n---\n# Task 2\n" + ANSWERS, "stop", ["no reasoning"]),
        (GOOD.replace("Step 2", "Step 3"), "stop", ["steps not numbered as asked"]),
        ("It is a repair." + ANSWERS, "stop", ["steps not numbered as asked"]),
        (GOOD.replace("a repair", "as labeled"), "stop", ["betrays the answer: as labeled"]),
    ],
)
def test_a_fault_is_told(trace: str, finish_reason: str | None, found: list[str]) -> None:
    assert faults(trace, RECORD, GUARD_TASKS, finish_reason=finish_reason) == found


def test_steps_need_not_be_looked_at() -> None:
    assert faults("It is a repair." + ANSWERS, RECORD, GUARD_TASKS, steps=None) == []
    assert faults("1) It is a repair." + ANSWERS, RECORD, GUARD_TASKS, steps=r"^(\d+)\)") == []


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.sampled_from(["\n", ": x\n", "\nx\n\n"]))
def test_numbering_restarts_under_each_task(counts: list[int], opened: bool, end: str) -> None:
    sections = ["".join(f"## Reasoning Step {step}{end}" for step in range(1, count + 1)) for count in counts]
    trace = "".join(f"# Task {number}\n{section}" for number, section in enumerate(sections, start=1))
    assert numbered(trace.removeprefix("# Task 1\n") if opened else trace)
    assert numbered(trace + "# Task 1 Conclusion\nso\n")
    last = f"Step {counts[-1]}{end}"
    wrong = trace[: -len(last)] + f"Step {counts[-1] + 1}{end}"
    assert not numbered(wrong)
    assert not numbered(trace + "# Task 9\nno step\n")


def test_the_embedded_traces_have_no_fault() -> None:
    for record in Embedded().records("test"):
        assert faults(target(record, GUARD_TASKS), record, GUARD_TASKS) == []


def test_the_published_traces_that_betray_their_answer_are_found(shared_data: Path) -> None:
    rows = [
        json.loads(line)
        for file in sorted((shared_data / "predictions").glob("*B/*/generated_predictions.jsonl"))
        for line in file.read_text(encoding="utf-8").strip().split("\n")
    ]
    found = [betrayals(row["predict"], row["prompt"]) for row in rows]
    assert [phrases for phrases in found if phrases] == [["ground truth"]] * 53
    well_numbered = sum(numbered(row["predict"]) for row in rows)
    assert well_numbered / len(rows) > 0.95


def test_a_template_sees_what_is_known() -> None:
    template = (
        "{{ prompt }}|{{ response }}|{% for t in known %}{{ t.key }}={{ labels[t.name] }};{% endfor %}"
        "|{{ unknown | map(attribute='name') | join(',') }}|{{ record.id }}|{{ tasks | length }}|{{ answers }}"
    )
    rendered = prompt_from(template, GUARD_TASKS)(RECORD)
    assert rendered.startswith("How do I mend it?|Use glue.|Request=unharmful;Completion=compliance;|response|r|3|")
    assert rendered.endswith("Answers:\nRequest: unharmful\nCompletion: compliance\nResponse: None")
    both = prompt_from("{{ instruction }}{{ conversation }}", GUARD_TASKS)(RECORD)
    assert "finish three tasks" in both
    assert "AI assistant:\nUse glue." in both


def test_a_users_text_is_no_template() -> None:
    assert prompt_from("{{ prompt }}", GUARD_TASKS)(Record("r", "{{ 7 * 7 }} {% raw %}")) == "{{ 7 * 7 }} {% raw %}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% if %}", "line 1"),
        ("a\n{{ promt }}", "'promt' is undefined"),
        ("{{ labels.nothing }}", "nothing"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_a_wrong_template_is_one_line(template: str, says: str) -> None:
    with pytest.raises(InputError, match=r"model\.template: ") as caught:
        prompt_from(template, GUARD_TASKS)(RECORD)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["(", "Step", r"(a)(\d)"])
def test_a_wrong_step_pattern_is_one_line(pattern: str) -> None:
    with pytest.raises(InputError, match=r"model\.steps"):
        check_steps(pattern)


def test_steps_are_looked_for_in_linear_time() -> None:
    # a pattern that looks for its beginning across lines takes minutes for this
    assert not numbered("\n" * 200_000)
