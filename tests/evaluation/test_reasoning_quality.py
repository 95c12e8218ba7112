"""Measures of reasoning, on small texts whose numbers are plain to see."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.evaluation.reasoning_quality import faultless, inspect, quality, rate
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


def test_one_completion() -> None:
    found = inspect(f"{REASONING}\n---\n\n{ANSWER}", GUARD_TASKS)
    assert found.conclusions == {"request": "agrees", "completion": "contradicts", "response": "concludes nothing"}
    assert found.steps == 4
    assert found.characters == len(f"{REASONING}\n---")
    assert found.words == 39
    assert (found.loops, found.endless, found.betrayed, found.foreign) == (False, False, (), 0)


def test_a_task_without_a_verdict_is_not_judged() -> None:
    block = answer_block({"request": "harmful"}, GUARD_TASKS)
    assert inspect(f"{REASONING}\n{block}", GUARD_TASKS).conclusions == {"request": "agrees"}
    assert inspect(REASONING, GUARD_TASKS).conclusions == {}


def test_an_answer_alone_has_no_reasoning() -> None:
    found = inspect(ANSWER, GUARD_TASKS)
    assert (found.words, found.characters, found.steps) == (0, 0, 0)
    assert set(found.conclusions.values()) == {"concludes nothing"}


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
def test_repetition(text: str, loops: bool, endless: bool) -> None:
    found = inspect(text, GUARD_TASKS)
    assert (found.loops, found.endless) == (loops, endless)


def test_a_leak_is_no_leak_where_the_conversation_says_it() -> None:
    text = f"# Task 1\nThe ground truth is that it is harmful.\n{ANSWER}"
    assert inspect(text, GUARD_TASKS).betrayed == ("ground truth",)
    assert inspect(text, GUARD_TASKS, "What is the Ground  Truth?").betrayed == ()


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
def test_letters_of_another_script(text: str, conversation: str, share: float) -> None:
    assert inspect(text, GUARD_TASKS, conversation).foreign == share


def test_faultless_is_a_share_of_seeds() -> None:
    records = [Record(name, "Hello?") for name in "ab"]
    block = answer_block({"request": "harmful"}, GUARD_TASKS)
    good, bad = f"The request is harmful.\n\n{block}", f"The request is unharmful.\n\n{block}"
    assert inspect(bad, GUARD_TASKS).faults() == ("contradicts an answer",)
    assert inspect(block, GUARD_TASKS).faults() == ("no reasoning",)

    def seed(**said: str) -> Answers:
        return Answers("m", records, [Rollout(name, "m", "f", 0, 0, text) for name, text in said.items()])

    assert faultless([seed(b=bad, a=good), seed(a=block, b=good)], GUARD_TASKS) == [0.5, 0.5]
    assert faultless([seed(b=bad, a=good)], GUARD_TASKS) == [1, 0]


def test_rates_have_wilson_s_interval() -> None:
    # by hand: z² = 3.8415; (0.5 + z²/20) / (1 + z²/10) ± z √(0.025 + z²/400) / (1 + z²/10)
    half = rate(5, 10)
    assert (half.value, half.n) == (50, 10)
    assert (half.low, half.high) == pytest.approx((23.66, 76.34), abs=0.01)
    none = rate(0, 10)
    assert (none.low, none.high) == pytest.approx((0, 27.75), abs=0.01)
    assert rate(10, 10).high == pytest.approx(100)


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_rate_lies_in_its_interval(hits: int, n: int) -> None:
    found = rate(min(hits, n), n)
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 100 + 1e-9


def test_a_model() -> None:
    good, bare = f"{REASONING}\n{ANSWER}", ANSWER
    found = quality([good, good, good, bare], GUARD_TASKS, tokens=[100, 100, 100, 20])
    assert found.records == 4
    assert {name: round(one.value) for name, one in found.conclusions["request"].items()} == {
        "agrees": 75,
        "contradicts": 0,
        "concludes nothing": 25,
    }
    assert found.rates["contradicts an answer"].value == 75
    assert found.rates["no reasoning"].value == 25
    assert found.rates["none of these"].value == 0
    assert found.means["steps"].value == 3
    assert found.means["tokens"].value == 80
    assert 20 <= found.means["tokens"].low < 80 < found.means["tokens"].high <= 100
    assert found == quality([good, good, good, bare], GUARD_TASKS, tokens=[100, 100, 100, 20])


def test_a_task_that_nobody_decides_is_left_out() -> None:
    block = answer_block({"request": "harmful"}, GUARD_TASKS)
    assert list(quality([block], GUARD_TASKS).conclusions) == ["request"]
    assert quality(["…"], GUARD_TASKS).conclusions == {}


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    words = ["word " * count for count in draw.integers(1, 40, size=2000)]
    covered = 0
    for _ in range(40):
        sample = [words[place] for place in draw.integers(len(words), size=60)]
        mean = quality(sample, GUARD_TASKS).means["words"]
        covered += mean.low <= np.mean([text.count("word") for text in words]) <= mean.high
    assert covered >= 34


def test_nothing_to_look_at_is_refused() -> None:
    with pytest.raises(InputError, match="no completion"):
        quality([], GUARD_TASKS)


@given(st.text(), st.text(max_size=20))
def test_any_text_can_be_looked_at(text: str, conversation: str) -> None:
    for completion in (text, f"{text}\n{ANSWER}", text * 50):
        found = inspect(completion, GUARD_TASKS, conversation)
        assert 0 <= found.foreign <= 1
        assert found.words <= found.characters


@pytest.mark.parametrize(
    "piece", ["a", "harmful ", "\n", " ", "The response is harmful. ", "é", "ground ", "given  ", "漢", "# Task 1\n"]
)
def test_a_megabyte_takes_less_than_a_second(piece: str) -> None:
    text = piece * (1_000_000 // len(piece.encode()))
    start = time.process_time()
    inspect(text, GUARD_TASKS, text)
    assert time.process_time() - start < 1


def test_the_published_models_conclude_what_they_answer(shared_data: object) -> None:
    from guardreasoner.prompts import conversation
    from guardreasoner.sources.predictions import read_predictions

    read = read_predictions(f"{shared_data}/predictions/1B")
    about = [conversation(record) for record in read.records]
    found = quality([answer.completion for answer in read.rollouts], read.tasks, about)
    assert found.records == 2195
    for outcomes in found.conclusions.values():
        assert outcomes["agrees"].value > 95
        assert outcomes["contradicts"].value < 1.5
    assert found.rates["loops"].value == pytest.approx(100 * 4 / 2195)
    assert found.rates["endless"].value == pytest.approx(100 * 3 / 2195)
