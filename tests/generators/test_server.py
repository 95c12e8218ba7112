"""Requests to an OpenAI-compatible server: slots, faults, giving up, stopping."""

import email.utils
import itertools
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.retries import Failure, seconds_of
from guardreasoner.generators.server import ServerGenerator
from tests.support.fake_server import FAULTS, FakeServer, at_random


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")


def generator(base_url: str, **changes: Any) -> ServerGenerator:
    # Only tests of timeouts wait for one; the others must not meet any on a machine that is busy.
    settings: dict[str, Any] = {"concurrency": 8, "timeout": 20.0, "pause": 0.01, "attempts": 12}
    return ServerGenerator(base_url=base_url, model="fake-teacher", **(settings | changes))


def requests(count: int, outputs: int = 1) -> list[Request]:
    return [Request(f"r{n}", (), f"prompt {n}", (0,) * outputs) for n in range(count)]


def drawn(items: list[Request]) -> Any:
    waiting = iter(items)
    return lambda: next(waiting, None)


def test_faults_lose_nothing_and_double_nothing() -> None:
    with FakeServer(at_random(0.3), latency=0.002) as server:
        found = list(generator(server.base_url, timeout=0.5, attempts=30).generate(requests(150)))
    assert sorted(c.record_id for c in found) == sorted(f"r{n}" for n in range(150))
    assert set(server.seen.answered.values()) == {1}
    assert server.seen.most == 8
    assert set(server.seen.faults) == set(FAULTS)
    assert found[0].finish_reason == "stop"
    assert (found[0].prompt_tokens, found[0].completion_tokens) == (2, 50)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_asked_again(fault: str) -> None:
    with FakeServer(lambda prompt, times: fault if times < 2 else None) as server:
        assert len(list(generator(server.base_url, timeout=0.5, attempts=30).generate(requests(3)))) == 3
    assert set(server.seen.asked.values()) == {3}


def test_the_server_says_when_to_come_back() -> None:
    with FakeServer(lambda prompt, times: "429" if times == 0 else None, retry_after="0.4") as server:
        list(generator(server.base_url).generate(requests(2)))
    for first, second in server.seen.times.values():
        assert 0.4 <= second - first < 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "later"}, None),
        ({}, None),
        ({"retry-after": email.utils.formatdate(time.time() - 100, usegmt=True)}, 0),
    ],
)
def test_a_wait_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_of(headers) == seconds


def test_a_date_to_wait_for_is_read() -> None:
    found = seconds_of({"retry-after": email.utils.formatdate(time.time() + 100, usegmt=True)})
    assert found is not None
    assert 98 < found <= 100


def test_only_outputs_that_are_missing_are_asked_for_again() -> None:
    with FakeServer(lambda prompt, times: "fewer" if times < 2 else None) as server:
        found = list(generator(server.base_url, choices_per_request=4).generate(requests(1, outputs=6)))
    assert [c.index for c in found] == list(range(6))
    assert [body.get("n", 1) for body in server.seen.bodies] == [4, 3, 1]
    assert len({body["seed"] for body in server.seen.bodies}) == 3
    assert sum(c.completion_tokens or 0 for c in found) == 6 * 50


def test_one_output_a_request_gives_each_its_seed() -> None:
    with FakeServer() as server:
        list(generator(server.base_url).generate(requests(2, outputs=3)))
        again = [body["seed"] for body in server.seen.bodies]
        list(generator(server.base_url).generate(requests(2, outputs=3)))
    seeds = [body["seed"] for body in server.seen.bodies]
    assert len(set(again)) == 6
    assert sorted(seeds[6:]) == sorted(again)
    assert all("n" not in body for body in server.seen.bodies)


def test_what_is_sent() -> None:
    with FakeServer() as server:
        list(generator(server.base_url, temperature=0.5, top_p=None, max_tokens=9).generate(requests(1)))
        extra = {"extra_body": {"top_k": 3}, "send_seed": False, "temperature": None, "max_tokens": None}
        list(generator(server.base_url, chat=False, **extra).generate(requests(1)))
    first, second = server.seen.bodies
    assert first.pop("seed") >= 0
    message = {"role": "user", "content": "prompt 0"}
    assert first == {"model": "fake-teacher", "messages": [message], "temperature": 0.5, "max_tokens": 9}
    assert second == {"model": "fake-teacher", "prompt": "prompt 0", "top_p": 1.0, "top_k": 3}


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        ("401", "OPENAI_API_KEY"),
        ("404", "'fake-teacher'"),
        ("402", "credit"),
        ("429 insufficient_quota", "credit"),
    ],
)
def test_what_no_request_can_survive_stops_the_run(fault: str, hint: str) -> None:
    with FakeServer(lambda prompt, times: fault if prompt.endswith("9") else None) as server:
        with pytest.raises(InputError, match=f"{fault[:3]} scripted {fault[:3]}") as caught:
            list(generator(server.base_url).generate(requests(1000)))
        assert hint in (caught.value.hint or "")
        assert sum(server.seen.asked.values()) < 100


def test_what_a_server_refuses_of_one_record_does_not_stop_the_others() -> None:
    with FakeServer(lambda prompt, times: "400" if prompt.endswith("9") else None) as server:
        answers = list(generator(server.base_url).ask(drawn(requests(40))))
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    assert {failure.record_id for failure in failures} == {"r9", "r19", "r29", "r39"}
    assert failures[0].reason == "400 scripted 400"
    assert len(answers) == 40
    assert set(server.seen.asked.values()) == {1}


def test_attempts_are_used_up_and_then_told() -> None:
    with FakeServer(lambda prompt, times: "500" if prompt == "prompt 3" else None) as server:
        answers = list(generator(server.base_url, attempts=3).ask(drawn(requests(6))))
        assert [a for a in answers if isinstance(a, Failure)] == [Failure("r3", 0, "500 scripted 500")]
        assert server.seen.asked["prompt 3"] == 3
        with pytest.raises(InputError, match="1 requests failed, first r3: 500"):
            list(generator(server.base_url, attempts=1).generate(requests(6)))


def test_nobody_waits_a_night_and_nobody_comes_back_too_early() -> None:
    with FakeServer(lambda prompt, times: "429" if prompt == "prompt 1" else None, retry_after="7200") as server:
        answers = list(generator(server.base_url).ask(drawn(requests(3))))
    assert [a for a in answers if isinstance(a, Failure)] == [Failure("r1", 0, "429 scripted 429")]
    assert server.seen.asked["prompt 1"] == 1


def test_a_server_that_only_fails_is_given_up() -> None:
    with FakeServer(lambda prompt, times: "500") as server:
        with pytest.raises(InputError, match="5 requests in a row failed, the last with 500"):
            list(generator(server.base_url, attempts=2, give_up_after=5).ask(drawn(requests(10_000))))
        assert sum(server.seen.asked.values()) <= 2 * (5 + 8)


def test_nobody_there_shows_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/v1: cannot be reached") as caught:
        list(generator("http://127.0.0.1:9/v1", pause=60).generate(requests(1)))
    assert "start the server" in (caught.value.hint or "")
    assert time.monotonic() - started < 5


def test_a_wrong_key_shows_at_once() -> None:
    with (
        FakeServer(key="other") as server,
        pytest.raises(InputError, match="401") as caught,
    ):
        list(generator(server.base_url).generate(requests(1)))
    assert "OPENAI_API_KEY" in (caught.value.hint or "")
    assert "secret" not in caught.value.lines()


def test_a_key_is_needed_only_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    silent = generator("http://127.0.0.1:9/v1", key_variable="MY_KEY")
    assert list(silent.generate([])) == []
    with pytest.raises(InputError, match="MY_KEY is not set") as caught:
        list(silent.generate(requests(1)))
    assert "export MY_KEY" in (caught.value.hint or "")


def test_requests_are_drawn_as_slots_become_free() -> None:
    numbers = itertools.count()

    def endless() -> Iterator[Request]:
        for number in numbers:
            yield Request(f"r{number}", (), f"prompt {number}", (0,))

    with FakeServer() as server:
        answers = generator(server.base_url, concurrency=3).generate(endless())
        next(answers)
        assert next(numbers) == 3
        for _ in range(10):
            next(answers)
        assert next(numbers) <= 3 + 10 + 1
        answers.close()  # type: ignore[attr-defined]
        assert not [t for t in threading.enumerate() if t.name == "server-requests"]


def test_an_answer_may_lead_to_a_request() -> None:
    waiting = requests(2)
    with FakeServer() as server:
        for answer in generator(server.base_url).ask(lambda: waiting.pop() if waiting else None):
            assert isinstance(answer, Completion)
            if len(server.seen.bodies) < 10:
                waiting.append(Request(f"{answer.record_id}+", (), f"after {answer.record_id}", (0,)))
    assert len(server.seen.bodies) >= 10


def test_a_stop_in_the_middle_leaves_no_thread() -> None:
    with FakeServer(latency=20) as server:
        answers = generator(server.base_url).generate(requests(20))
        main = threading.main_thread().ident or 0

        def stop() -> None:
            while not server.seen.bodies:
                time.sleep(0.05)
            time.sleep(0.2)  # the main thread waits for the first reply by now
            signal.pthread_kill(main, signal.SIGINT)

        # a shell starts what it runs in the background with this signal ignored
        former = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            threading.Thread(target=stop).start()
            with pytest.raises(KeyboardInterrupt):
                next(answers)
        finally:
            signal.signal(signal.SIGINT, former)
    assert not [t for t in threading.enumerate() if t.name == "server-requests"]


def test_the_rate_is_kept() -> None:
    with FakeServer() as server:
        started = time.monotonic()
        list(generator(server.base_url, requests_per_minute=1200).generate(requests(30)))
        assert time.monotonic() - started >= 0.45


@pytest.mark.parametrize("change", [{"concurrency": 0}, {"timeout": 0}, {"requests_per_minute": -1}, {"pause": -1}])
def test_numbers_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        generator("http://127.0.0.1:9/v1", **change)
