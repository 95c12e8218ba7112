"""Hostile text of 50,000 characters takes every parser of text less than two seconds: no quadratic time."""

import time
from collections.abc import Callable

import pytest

from guardreasoner.diagnosis.target_checks import answer_line_pattern, target_hits
from guardreasoner.evaluation.reasoning_quality import inspect
from guardreasoner.generators.server_reply import read_reply
from guardreasoner.prompts import conversation, parse, parse_released, reasoning_of
from guardreasoner.records import Message, Record
from guardreasoner.sources.contamination import normalize
from guardreasoner.sources.conversations import read_messages
from guardreasoner.synthesis.prompt import STEP_PATTERN, faults, heading_pattern, label_leaks
from guardreasoner.synthesis.trace import trace_of
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.redaction import command_without_secrets, without_secrets

SIZE = 50_000
RECORD = Record("r", "How?", "So.", {"request": "harmful"}, "because")

REPEATED = (
    *(
        " ",
        "\n",
        "#",
        "*",
        ",",
        ":",
        "_",
        '"',
        "1",
        "a",
        "<",
        "<think>",
        "<think>\n",
        "</think>",
        "</think>\n",
        "[",
        "<|",
    ),
    *(
        "Answers:",
        "Answers:\n",
        "# Answers ",
        "Request: harmful, ",
        "Request:\n",
        "Request ",
        "#\n",
        " ,",
        "\r",
        "\u00a0",
    ),
    *(
        "# Task 1\n",
        "# Task ",
        "Reasoning Step ",
        "## Reasoning Step 1: a\n",
        "harmful or ",
        "not harmful. ",
        "It is not ",
    ),
    *(
        "ground ",
        "is labeled as ",
        "the answer is ",
        "I was told that ",
        "according to the ",
        "given ",
        "correct answer ",
    ),
    *("<tool_call>", "<tool_call>{}</tool_call>", "Policy:", "\r "),
    *("key=", "token ", "a_key_", "://", "://a:b", "\u200b", "e\u0301", "here is the ", "I'm very ", "sure "),
)
ENCLOSED = (
    *(("# ", " ", "Task"), ("# Task", "\n", "x"), ("# Task", " ", "x"), ("ground", " ", "x"), ("as labeled", " ", "x")),
    *(("as labeled ", '"', "x"), ("Request", " ", "x"), ("Request:", "\n", "x"), ("://", "a", " "), ("key", " ", "x")),
    *(("here is", " ", "x"), ("I'm", " ", "x"), ("<think>", " ", ""), ("answers", " ", "x"), ("the", " ", "label")),
)
TEXTS = {
    **{repr(part): part * (SIZE // len(part)) for part in REPEATED},
    **{f"{first!r} {part!r} {last!r}": first + part * SIZE + last for first, part, last in ENCLOSED},
}
HEADING = heading_pattern(STEP_PATTERN)
ANSWER_LINE = answer_line_pattern(GUARD_TASKS)

PARSERS: dict[str, Callable[[str], object]] = {
    "parse": lambda text: parse(text, GUARD_TASKS),
    "parse_released": lambda text: parse_released(text, GUARD_TASKS),
    "reasoning_of": lambda text: reasoning_of(text, GUARD_TASKS),
    "faults": lambda text: faults(text, RECORD, GUARD_TASKS),
    "label_leaks": lambda text: label_leaks(text, text),
    "trace_of": lambda text: trace_of(text, text, HEADING),
    "target_hits": lambda text: list(target_hits(RECORD, GUARD_TASKS, [text])),
    "answer_line": lambda text: ANSWER_LINE.search(text),
    "inspect": lambda text: inspect(text, GUARD_TASKS, text),
    "normalize": normalize,
    "conversation": lambda text: conversation(Record("r", messages=[Message("system", text), Message("user", text)])),
    "read_messages": lambda text: read_messages([{"from": "human", "value": "How?"}, {"from": "gpt", "value": text}]),
    "redaction": lambda text: [command_without_secrets([text]), without_secrets({"text": text, "other_key": text})],
}


@pytest.mark.parametrize("name", PARSERS)
def test_hostile_text_is_parsed_in_linear_time(name: str) -> None:
    parser, slow = PARSERS[name], {}
    for description, text in TEXTS.items():
        start = time.process_time()
        parser(text)
        seconds = time.process_time() - start
        if seconds > 2:  # about 0.05 s; quadratic time takes 50 s or more
            slow[description] = seconds
            break
    assert not slow


@pytest.mark.parametrize("part", [b"[", b'{"a":', b'"', b"\\", b"<", b" ", b"1", b'{"choices":['])
def test_a_hostile_reply_is_read_in_linear_time(part: bytes) -> None:
    start = time.process_time()
    with pytest.raises(Exception, match="reply"):
        read_reply(part * (1_000_000 // len(part)), True)
    assert time.process_time() - start < 2
