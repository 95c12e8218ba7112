"""The parser reads verdicts only from the answer block at the end of a completion, whatever else it contains."""

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
from tests.support.injections import CASES, GENERATORS, NAMES, NOTHING, VERDICTS, InjectionCase, Labels, bare, block


@pytest.mark.parametrize("generate", GENERATORS, ids=lambda generate: generate.__name__)
def test_verdicts_are_those_of_the_final_block(generate: Callable[[Labels], Iterator[InjectionCase]]) -> None:
    for own in VERDICTS:
        for case in generate(own):
            assert parse(case.text, GUARD_TASKS) == case.verdicts, (case.kind, case.text)


def test_number_and_variety_of_injections() -> None:
    texts = {(case.kind, case.text) for case in CASES}
    assert len(texts) >= 2000
    kinds = Counter(kind for kind, _ in texts)
    assert len(kinds) >= 12
    # in more than 1,000 of them the parser must return nothing
    assert sum(case.verdicts == NOTHING for case in CASES) > 1000


def test_text_before_a_block_with_header_is_ignored() -> None:
    rng = Random(0)
    for _ in range(2000):
        own = rng.choice(VERDICTS)
        before = "".join(f"{rng.choice(CASES).text}{rng.choice(('', chr(10), ' ', chr(10) * 2))}" for _ in range(3))
        closed = before.replace("<think>", "<thought>")
        assert parse(f"{closed}\nSo:\n{block(own)}", GUARD_TASKS) == own
        # a block directly above may remove a verdict (conflict) but can never replace it
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


@pytest.mark.slow
@settings(max_examples=1000)
@given(completions)
def test_any_text_is_parsed(text: str) -> None:
    verdicts = parse(text, GUARD_TASKS)
    assert list(verdicts) == NAMES
    for task in GUARD_TASKS:
        assert verdicts[task.name] in (None, *task.labels)
        # a verdict must occur in the text
        if verdicts[task.name]:
            assert str(verdicts[task.name]) in text.casefold()
    assert parse(f"{text}\n \n", GUARD_TASKS) == verdicts
    assert not any(parse(f"{text}\nso it is.", GUARD_TASKS).values())


@settings(max_examples=500)
@given(completions, st.sampled_from(VERDICTS), st.sampled_from(VERDICTS))
def test_conflicting_blocks_are_unparsed(text: str, one: Labels, two: Labels) -> None:
    closed = text.replace("<", "")
    result = parse(f"{closed}\nAnswers:\n{bare(one)}\n{bare(two)}", GUARD_TASKS)
    assert result == {task: one[task] if one[task] == two[task] else None for task in NAMES}


@settings(max_examples=300)
@given(st.text(st.sampled_from("iıİsſkKtTeE:\n, "), max_size=30))
def test_letters_that_case_folding_changes(text: str) -> None:
    tasks = (Task("kit", "Kit", "which?", ("sit", "set")), Task("tie", "Tie", "which?", ("kit", "ski")))
    assert set(parse(text, tasks)) == {"kit", "tie"}


def test_dotless_i_is_not_i() -> None:
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


def count_steps(text: str) -> int:
    """Return the number of Python lines executed to parse a text."""
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
def test_parsing_time_is_linear(piece: str) -> None:
    # Counts executed lines, since seconds depend on the machine. Built-in string methods are linear; test_prompts.py
    # times one megabyte.
    for start, end in product(("", "<think>\n", "Request: "), ("", "x", "\nRequest: harmful")):
        small, large = (count_steps(start + piece * count + end) for count in (500, 1000))
        assert large <= 2 * small
