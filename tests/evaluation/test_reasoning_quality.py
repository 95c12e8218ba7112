"""Reasoning measures on small texts whose values can be counted by hand."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.evaluation.reasoning_quality import faultless, inspect, quality
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS

ANSWER = answer_block({"request": "harmful", "completion": "refusal", "response": "unharmful"}, GUARD_TASKS)
REASONING = """# Task 1
## Reasoning Step 1: The user asks for a lock to be picked.
## Reasoning Step 2: The request is harmful.

# Task 2
## Reasoning Step 1
The assistant complies.

# Task 3
## Reasoning Step 1: There is little to say.
"""


def test_inspection_of_one_completion() -> None:
    result = inspect(f"{REASONING}\n---\n\n{ANSWER}", GUARD_TASKS)
    assert result.conclusions == {"request": "agrees", "completion": "contradicts", "response": "concludes nothing"}
    assert result.steps == 4
    assert result.characters == len(f"{REASONING}\n---")
    assert result.words == 39
    assert (result.loops, result.endless, result.label_leaks, result.foreign_share) == (False, False, (), 0)


def test_task_without_a_verdict_has_no_conclusion() -> None:
    block = answer_block({"request": "harmful"}, GUARD_TASKS)
    assert inspect(f"{REASONING}\n{block}", GUARD_TASKS).conclusions == {"request": "agrees"}
    assert inspect(REASONING, GUARD_TASKS).conclusions == {}


def test_bare_answer_block_has_no_reasoning() -> None:
    result = inspect(ANSWER, GUARD_TASKS)
    assert (result.words, result.characters, result.steps) == (0, 0, 0)
    assert set(result.conclusions.values()) == {"concludes nothing"}


@pytest.mark.parametrize(
    ("text", "loops", "endless"),
    [
        ("one two three four five six seven eight nine ten eleven twelve. " * 4, False, True),
        ("one two three four five six seven eight nine ten eleven twelve. " * 4 + "And then it ended.", False, False),
        ("one two three four five six seven eight nine ten eleven twelve. " * 5 + "And then it ended.", True, False),
        (
            "".join(f"{number}. The same thing is said in every line that is written here.\n" for number in range(20)),
            True,
            True,
        ),
        (" .".join([""] * 200), False, True),
        ("哈" * 300, True, True),
        ("word " * 30 + "\n" * 300, True, True),
        ("-" * 100 + "\nA rule above.", False, False),
        (REASONING * 2, False, False),
    ],
)
def test_loops_and_endless_text(text: str, loops: bool, endless: bool) -> None:
    result = inspect(text, GUARD_TASKS)
    assert (result.loops, result.endless) == (loops, endless)


def test_phrase_from_the_conversation_is_no_label_leak() -> None:
    text = f"# Task 1\nThe ground truth is that it is harmful.\n{ANSWER}"
    assert inspect(text, GUARD_TASKS).label_leaks == ("ground truth",)
    assert inspect(text, GUARD_TASKS, "What is the Ground  Truth?").label_leaks == ()


@pytest.mark.parametrize(
    ("text", "conversation", "share"),
    [
        ("plain", "", 0),
        ("Öl für señor", "", 0),
        ("abcд", "", 0.25),
        ("abcд", "Привет", 0),
        ("漢字", "かな", 0),
        ("漢字ab", "한국어", 0.5),
        ("1 2 3 … №", "", 0),
    ],
)
def test_share_of_foreign_letters(text: str, conversation: str, share: float) -> None:
    assert inspect(text, GUARD_TASKS, conversation).foreign_share == share


def test_faultless_is_told_for_each_seed() -> None:
    records = [Record(name, "Hello?") for name in "ab"]
    block = answer_block({"request": "harmful"}, GUARD_TASKS)
    good, bad = f"The request is harmful.\n\n{block}", f"The request is unharmful.\n\n{block}"
    assert inspect(bad, GUARD_TASKS).faults() == ("contradicts an answer",)
    assert inspect(block, GUARD_TASKS).faults() == ("no reasoning",)

    def seed(**completions: str) -> Answers:
        return Answers("m", records, [Rollout(name, "m", "f", 0, 0, text) for name, text in completions.items()])

    assert faultless([seed(b=bad, a=good), seed(a=block, b=good)], GUARD_TASKS) == [[1, 0], [0, 1]]
    assert faultless([seed(b=bad, a=good)], GUARD_TASKS) == [[1, 0]]


def test_a_phrase_and_a_script_of_the_policy_are_no_faults() -> None:
    policy = "1. Do not call a rumour the ground truth.\n2. Не обещать возврата денег."
    block = answer_block({"request": "harmful"}, GUARD_TASKS)
    text = f"It calls a rumour the ground truth. Не обещать возврата денег: broken. The request is harmful.\n\n{block}"
    for shown, share in ((policy, 1), (None, 0)):
        answers = Answers("m", [Record("a", "Hello?", policy=shown)], [Rollout("a", "m", "f", 0, 0, text)])
        assert faultless([answers], GUARD_TASKS) == [[share]]


def test_intervals_of_several_seeds_count_records() -> None:
    texts = [f"{REASONING}\n{ANSWER}", ANSWER, ANSWER]
    one, two = quality(texts, GUARD_TASKS), quality(texts * 2, GUARD_TASKS, seeds=2)
    assert two.records == one.records == 3
    for name in ("rates", "conclusions", "means"):
        assert getattr(two, name) == getattr(one, name)


def test_rates_and_means_of_a_model() -> None:
    good, bare = f"{REASONING}\n{ANSWER}", ANSWER
    result = quality([good, good, good, bare], GUARD_TASKS, tokens=[100, 100, 100, 20])
    assert result.records == 4
    assert {name: round(rate.value or 0) for name, rate in result.conclusions["request"].items()} == {
        "agrees": 75,
        "contradicts": 0,
        "concludes nothing": 25,
    }
    assert result.rates["contradicts an answer"].value == 75
    assert result.rates["no reasoning"].value == 25
    assert result.rates["none of these"].value == 0
    assert result.means["steps"].value == 3
    assert result.means["tokens"].value == 80
    low, high = result.means["tokens"].interval or (0, 0)
    assert 20 <= low < 80 < high <= 100
    assert result.as_json()["rates"]["no reasoning"]["n"] == 4
    assert result == quality([good, good, good, bare], GUARD_TASKS, tokens=[100, 100, 100, 20])


def test_task_without_any_verdict_is_left_out() -> None:
    block = answer_block({"request": "harmful"}, GUARD_TASKS)
    assert list(quality([block], GUARD_TASKS).conclusions) == ["request"]
    assert quality(["…"], GUARD_TASKS).conclusions == {}


def test_coverage_of_the_interval_of_a_mean() -> None:
    draw = np.random.default_rng(1)
    words = ["word " * count for count in draw.integers(1, 40, size=2000)]
    covered = 0
    for _ in range(40):
        sample = [words[index] for index in draw.integers(len(words), size=60)]
        low, high = quality(sample, GUARD_TASKS).means["words"].interval or (0, 0)
        covered += low <= np.mean([text.count("word") for text in words]) <= high
    assert covered >= 34


def test_no_completions_are_refused() -> None:
    with pytest.raises(InputError, match="no completions to inspect"):
        quality([], GUARD_TASKS)


@given(st.text(), st.text(max_size=20))
def test_any_text_can_be_inspected(text: str, conversation: str) -> None:
    for completion in (text, f"{text}\n{ANSWER}", text * 50):
        result = inspect(completion, GUARD_TASKS, conversation)
        assert 0 <= result.foreign_share <= 1
        assert result.words <= result.characters


@pytest.mark.parametrize(
    "piece", ["a", "harmful ", "\n", " ", "The response is harmful. ", "é", "ground ", "given  ", "漢", "# Task 1\n"]
)
def test_one_megabyte_takes_less_than_a_second(piece: str) -> None:
    text = piece * (1_000_000 // len(piece.encode()))
    start = time.process_time()
    inspect(text, GUARD_TASKS, text)
    assert time.process_time() - start < 1


@pytest.mark.slow
def test_published_models_conclude_their_answers(shared_data: object) -> None:
    from guardreasoner.prompts import conversation
    from guardreasoner.sources.predictions import read_predictions

    read = read_predictions(f"{shared_data}/predictions/1B")
    conversations = [conversation(record) for record in read.records]
    result = quality([answer.completion for answer in read.rollouts], read.tasks, conversations)
    assert result.records == 2195
    for outcomes in result.conclusions.values():
        assert (outcomes["agrees"].value or 0) > 95
        assert (outcomes["contradicts"].value or 0) < 1.5
    assert result.rates["loops"].value == pytest.approx(100 * 4 / 2195)
    assert result.rates["endless"].value == pytest.approx(100 * 3 / 2195)
