"""A verdict comes from the answer block that ends a completion and from nothing else, whatever the completion holds."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.prompts import parse
from guardreasoner.tasks import GUARD_TASKS, Task
from tests.support.injections import CASES, MAKERS, NAMES, NOTHING, VERDICTS, Case, Labels, bare, block


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_verdict_is_that_of_the_final_block(make: Callable[[Labels], Iterator[Case]]) -> None:
    for own in VERDICTS:
        for case in make(own):
            assert parse(case.text, GUARD_TASKS) == case.verdicts, (case.family, case.text)


def test_there_are_enough_injections_of_enough_kinds() -> None:
    texts = {(case.family, case.text) for case in CASES}
    assert len(texts) >= 2000
    kinds = Counter(family for family, _ in texts)
    assert len(kinds) >= 12
    # and many of them hold a verdict that must not be read
    assert sum(case.verdicts == NOTHING for case in CASES) > 1000


def test_what_stands_before_a_block_with_header_changes_nothing() -> None:
    rng = Random(0)
    for _ in range(2000):
        own = rng.choice(VERDICTS)
        before = "".join(f"{rng.choice(CASES).text}{rng.choice(('', chr(10), ' ', chr(10) * 2))}" for _ in range(3))
        closed = before.replace("<think>", "<thought>")
        assert parse(f"{closed}\nSo:\n{block(own)}", GUARD_TASKS) == own
        # right above it, another block may take a verdict away, and can never put another one in its place
        above = parse(f"{closed}\n{block(own)}", GUARD_TASKS)
        assert all(verdict in (None, own[task]) for task, verdict in above.items())


PIECES = [
    *(
        "Request",
        "Completion",
        "Response",
        "Answers",
        "answer",
        "harmful",
        "unharmful",
        "refusal",
        "None",
        "compliance",
    ),
    *(":", ": ", ",", ", ", "\n", "\n\n", "\r", " ", "\t", "#", "# ", "**", "- ", "> ", "```", "|"),
    *(
        "<think>",
        "</think>",
        "\u200b",
        "\u2028",
        "\x85",
        "\x00",
        "\ufeff",
        "ı",
        "İ",
        "ſ",
        "K",
        "ß",
        "ﬁ",
        "\ud800",
        "\u212a",
    ),
]
completions = st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)


@settings(max_examples=1000)
@given(completions)
def test_no_text_breaks_the_parser(text: str) -> None:
    verdicts = parse(text, GUARD_TASKS)
    assert list(verdicts) == NAMES
    for task in GUARD_TASKS:
        assert verdicts[task.name] in (None, *task.labels)
        # a verdict is spelt out, key and label, in the last lines
        if verdicts[task.name]:
            assert str(verdicts[task.name]) in text.casefold()
    assert parse(f"{text}\n \n", GUARD_TASKS) == verdicts
    assert not any(parse(f"{text}\nso it is.", GUARD_TASKS).values())


@settings(max_examples=500)
@given(completions, st.sampled_from(VERDICTS), st.sampled_from(VERDICTS))
def test_blocks_in_conflict_are_unparsed(text: str, one: Labels, two: Labels) -> None:
    closed = text.replace("<", "")
    found = parse(f"{closed}\nAnswers:\n{bare(one)}\n{bare(two)}", GUARD_TASKS)
    assert found == {task: one[task] if one[task] == two[task] else None for task in NAMES}


@settings(max_examples=300)
@given(st.text(st.sampled_from("iıİsſkKtTeE:\n, "), max_size=30))
def test_letters_that_only_a_regular_expression_takes_for_equal(text: str) -> None:
    tasks = (Task("kit", "Kit", "which?", ("sit", "set")), Task("tie", "Tie", "which?", ("kit", "ski")))
    assert set(parse(text, tasks)) == {"kit", "tie"}


def test_a_dotless_i_is_no_i() -> None:
    assert parse("Answers:\nCompletıon: refusal\nResponse: harmful", GUARD_TASKS) == {**NOTHING, "response": "harmful"}
    assert parse("Answers:\nCompletİon: refusal", GUARD_TASKS) == NOTHING


REPEATED = [
    *("Request: harmful\n", "Request: harmful, ", "Request:", "Request ", "Answers: ", "answers", "#", "# ", "#\n"),
    *(
        "\n",
        ",",
        ",\n",
        ":",
        " ",
        "\t\n",
        "\u2028",
        "<think>",
        "<think>\n",
        "</think>",
        "</think>\n<think>\n",
        "a",
        "ß",
    ),
]


def steps(text: str) -> int:
    """Return how many lines of Python are run to read a text."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse(text, GUARD_TASKS)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("piece", REPEATED)
def test_twice_the_text_takes_at_most_twice_the_steps(piece: str) -> None:
    # Steps, not seconds, which say more about the machine. What a step does to a text inside Python's own code (split,
    # strip, fold) is linear; that no step is slow is tested on a megabyte in test_prompts.py.
    for start, end in product(("", "<think>\n", "Request: "), ("", "x", "\nRequest: harmful")):
        small, large = (steps(start + piece * count + end) for count in (500, 1000))
        assert large <= 2 * small
