"""The reasoning arrives while it is written: the same text, in whole characters, without the answer block."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.formats import GuardFormat
from guardreasoner.formats.dyna_guard import DynaGuard
from guardreasoner.guard import Guard
from guardreasoner.guard.query import Query
from guardreasoner.guard.reasoning_stream import ReasoningStream
from guardreasoner.prompts import PromptFormat
from tests.support.guards import known_records
from tests.support.served import JSON, ask, served

OWN = "Request:\n- Step 1. 犬 asks.\nAnswers vary\n\nAnswers:\nRequest: harmful\nCompletion: None\nResponse: None"
THINK = "<think>\nFirst.\nSecond.\n</think>\n\n<answer>\nFAIL\n</answer>"


def taken(format: GuardFormat, text: str) -> list[str]:
    """Return what a stream gives for each character of a text, and at the end."""
    stream = ReasoningStream(format)
    found = []
    for character in text:
        stream.add(character)
        found.append(stream.take())
    assert not stream.finish(format.reasoning(text))
    return [*found, stream.take()]


@pytest.mark.parametrize("format", [PromptFormat(), DynaGuard()])
@pytest.mark.parametrize("text", [OWN, THINK, "", "no block at all", "Answers:\nRequest: harmful"])
def test_what_is_taken_is_the_reasoning(format: GuardFormat, text: str) -> None:
    assert "".join(taken(format, text)) == format.reasoning(text)


def test_most_of_it_comes_at_once_and_no_line_of_the_answer() -> None:
    found = taken(PromptFormat(), OWN)
    assert sum(map(bool, found)) > 10
    assert found[-1] == ""
    assert not any("harmful" in "".join(found[:end]) for end in range(len(found)))


def test_after_a_restart_and_at_another_end_the_text_is_void() -> None:
    stream = ReasoningStream(PromptFormat())
    assert not stream.restart()
    stream.add("It is so")
    assert stream.take() == "It is so"
    assert stream.restart()
    stream.add("That")
    assert stream.take() == "That"
    assert stream.finish("Not so")
    assert stream.take() == "Not so"


def test_a_batch_is_the_same_with_and_without_watches(both_speeds: Path) -> None:
    guard = Guard.load(both_speeds)
    queries = [Query(record.prompt, record.response, speed="reasoned") for record in known_records()]
    queries += [queries[0], Query(queries[1].prompt, queries[1].response, speed="direct")]
    plain = guard.check_many(queries)
    heard: dict[int, list[str]] = {0: [], 1: [], 9: []}
    gone = [0]

    def leave(piece: str) -> bool:
        gone[0] += 1
        return False

    watches = {number: (lambda piece, number=number: heard[number].append(piece) or True) for number in heard}
    watched = guard.check_many(queries, {**watches, 2: leave})
    assert [one for number, one in enumerate(watched) if number != 2] == [*plain[:2], *plain[3:]]
    assert watched[2].flagged
    assert watched[2].unparsed
    assert gone == [1]
    assert plain[0].completion.startswith("".join(heard[0]))
    assert len("".join(heard[0])) > 10
    assert heard[9] == []  # direct answers are not written bit by bit
    # an equal conversation that somebody waits for keeps its row
    twice = [queries[2], queries[2]]
    assert guard.check_many(twice, {0: leave}) == guard.check_many(twice)


@pytest.fixture(scope="module")
def port(both_speeds: Path) -> Iterator[int]:
    with served("guardreasoner", "serve", str(both_speeds), "--port", "0") as (_, port):
        yield port


def events(port: int, **body: Any) -> list[tuple[str, Any, float]]:
    """Return names, contents and times of the events of a stream."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/guard", json.dumps({**body, "stream": True}), JSON)
    answer, found, name = connection.getresponse(), [], ""
    for line in answer:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            found.append((name, json.loads(value), time.monotonic()))
    connection.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("speed", ["reasoned", "direct", "auto"])
def test_a_plain_client_reads_the_reasoning_as_it_comes(port: int, both_speeds: Path, speed: Any) -> None:
    record = known_records()[0]
    found = events(port, prompt=record.prompt, response=record.response, speed=speed)
    names = [name for name, _, _ in found]
    pieces = [content["text"] for name, content, _ in found if name == "reasoning"]
    assert names == ["accepted", "started", *["reasoning"] * len(pieces), "result"]
    result = found[-1][1]
    assert "".join(pieces) == (result["reasoning"] or "")
    assert (len(pieces) > 3) == (result["speed"] == "reasoned")
    status, plain = ask(port, record.prompt, response=record.response, speed=speed)
    assert status == 200
    assert {**plain, "id": result["id"]} == result
    check = Guard.load(both_speeds).check(record.prompt, record.response, speed=speed)
    assert (result["completion"], result["flagged"]) == (check.completion, check.flagged)


@pytest.mark.slow
def test_clients_that_hang_up_in_the_middle_harm_nobody(port: int) -> None:
    record = known_records()[1]
    for number in range(10):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = {"prompt": f"{record.prompt} {number}", "speed": "reasoned", "stream": True}
        connection.request("POST", "/v1/guard", json.dumps(body), JSON)
        connection.getresponse().fp.readline()
        connection.close()
    assert events(port, prompt=record.prompt, speed="reasoned")[-1][0] == "result"
