"""Requests to an OpenAI-compatible server: concurrency, faults, giving up, stopping."""

import email.utils
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.retries import Failure, retry_after_seconds
from guardreasoner.generators.server import ServerGenerator
from tests.support.fake_server import FAULTS, QUICK_FAULTS, FakeServer, random_faults


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")


def generator(base_url: str, **changes: Any) -> ServerGenerator:
    # the timeout is generous, so that only tests of timeouts meet one on a busy machine
    settings: dict[str, Any] = {"concurrency": 8, "timeout": 60.0, "pause": 0.01, "attempts": 12}
    return ServerGenerator(base_url=base_url, model="fake-teacher", **(settings | changes))


def requests(count: int, outputs: int = 1) -> list[Request]:
    return [Request(f"r{n}", (), f"prompt {n}", (0,) * outputs) for n in range(count)]


def source(requests: list[Request]) -> Callable[[], Request | None]:
    remaining = iter(requests)
    return lambda: next(remaining, None)


@pytest.mark.slow
def test_under_faults_every_output_arrives_exactly_once() -> None:
    quick = random_faults(0.3, QUICK_FAULTS)

    def script(prompt: str, times: int) -> str | None:
        return "timeout" if prompt == "prompt 7" and times == 0 else quick(prompt, times)

    with FakeServer(script, fill=8) as server:
        completions = list(generator(server.base_url, timeout=5.0, attempts=30).generate(requests(150)))
    assert sorted(c.record_id for c in completions) == sorted(f"r{n}" for n in range(150))
    assert set(server.seen.answered.values()) == {1}
    assert server.seen.most == 8
    assert set(server.seen.faults) == set(FAULTS)
    assert completions[0].finish_reason == "stop"
    assert (completions[0].prompt_tokens, completions[0].completion_tokens) == (2, 50)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_requests_are_retried_after_each_kind_of_fault(fault: str) -> None:
    timeout = 2.0 if fault == "timeout" else 60.0
    with FakeServer(lambda prompt, times: fault if times < 2 else None) as server:
        assert len(list(generator(server.base_url, timeout=timeout, attempts=30).generate(requests(3)))) == 3
    assert set(server.seen.asked.values()) == {3}


def test_a_retry_waits_as_long_as_the_server_asks() -> None:
    with FakeServer(lambda prompt, times: "429" if times == 0 else None, retry_after="0.4") as server:
        list(generator(server.base_url).generate(requests(2)))
    for first, second in server.seen.times.values():
        assert second - first >= 0.4  # without the header it would be 0.01


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
def test_retry_after_headers_are_parsed(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


def test_a_retry_after_date_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardreasoner.generators.retries.time.time", lambda: 1_000_000_000.0)
    assert retry_after_seconds({"retry-after": email.utils.formatdate(1_000_000_100, usegmt=True)}) == 100


def test_only_missing_outputs_are_requested_again() -> None:
    with FakeServer(lambda prompt, times: "fewer" if times < 2 else None) as server:
        completions = list(generator(server.base_url, choices_per_request=4).generate(requests(1, outputs=6)))
    assert [c.index for c in completions] == list(range(6))
    assert [body.get("n", 1) for body in server.seen.bodies] == [4, 3, 1]
    assert len({body["seed"] for body in server.seen.bodies}) == 3
    assert sum(c.completion_tokens or 0 for c in completions) == 6 * 50


def test_with_one_choice_per_request_each_output_has_its_own_seed() -> None:
    with FakeServer() as server:
        list(generator(server.base_url).generate(requests(2, outputs=3)))
        first_run = [body["seed"] for body in server.seen.bodies]
        list(generator(server.base_url).generate(requests(2, outputs=3)))
    second_run = [body["seed"] for body in server.seen.bodies[6:]]
    assert len(set(first_run)) == 6
    assert sorted(second_run) == sorted(first_run)
    assert all("n" not in body for body in server.seen.bodies)


def test_request_bodies_hold_the_configured_fields() -> None:
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
def test_an_error_that_every_request_would_meet_ends_the_run(fault: str, hint: str) -> None:
    with FakeServer(lambda prompt, times: fault if prompt.endswith("9") else None) as server:
        with pytest.raises(InputError, match=f"{fault[:3]} scripted {fault[:3]}") as caught:
            list(generator(server.base_url).generate(requests(1000)))
        assert hint in (caught.value.hint or "")
        assert sum(server.seen.asked.values()) < 1000


def test_a_rejected_request_does_not_stop_the_others() -> None:
    with FakeServer(lambda prompt, times: "400" if prompt.endswith("9") else None) as server:
        replies = list(generator(server.base_url).ask(source(requests(40))))
    failures = [reply for reply in replies if isinstance(reply, Failure)]
    assert {failure.record_id for failure in failures} == {"r9", "r19", "r29", "r39"}
    assert failures[0].reason == "400 scripted 400"
    assert len(replies) == 40
    assert set(server.seen.asked.values()) == {1}


def test_a_request_fails_when_its_attempts_are_used_up() -> None:
    with FakeServer(lambda prompt, times: "500" if prompt == "prompt 3" else None) as server:
        replies = list(generator(server.base_url, attempts=3).ask(source(requests(6))))
        assert [r for r in replies if isinstance(r, Failure)] == [Failure("r3", 0, "500 scripted 500")]
        assert server.seen.asked["prompt 3"] == 3
        with pytest.raises(InputError, match="1 outputs failed; the first, of r3: 500"):
            list(generator(server.base_url, attempts=1).generate(requests(6)))


def test_a_request_is_not_retried_if_the_server_asks_for_hours() -> None:
    with FakeServer(lambda prompt, times: "429" if prompt == "prompt 1" else None, retry_after="7200") as server:
        replies = list(generator(server.base_url).ask(source(requests(3))))
    assert [r for r in replies if isinstance(r, Failure)] == [Failure("r1", 0, "429 scripted 429")]
    assert server.seen.asked["prompt 1"] == 1


def test_the_run_ends_after_too_many_failures_in_a_row() -> None:
    with FakeServer(lambda prompt, times: "500") as server:
        with pytest.raises(InputError, match="5 outputs in a row failed, the last with 500"):
            list(generator(server.base_url, attempts=2, give_up_after=5).ask(source(requests(10_000))))
        assert sum(server.seen.asked.values()) <= 2 * (5 + 8)


def test_an_unreachable_server_is_reported_without_retries() -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/v1: cannot be reached") as caught:
        list(generator("http://127.0.0.1:9/v1", pause=60).generate(requests(1)))
    assert "start the server" in (caught.value.hint or "")
    assert time.monotonic() - started < 29  # a retry would wait 30 seconds or more


def test_a_wrong_key_is_reported_without_revealing_it() -> None:
    with (
        FakeServer(key="other") as server,
        pytest.raises(InputError, match="401") as caught,
    ):
        list(generator(server.base_url).generate(requests(1)))
    assert "OPENAI_API_KEY" in (caught.value.hint or "")
    assert "secret" not in caught.value.lines()


def test_a_key_is_required_only_if_there_are_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    keyless = generator("http://127.0.0.1:9/v1", key_variable="MY_KEY")
    assert list(keyless.generate([])) == []
    with pytest.raises(InputError, match="MY_KEY is not set") as caught:
        list(keyless.generate(requests(1)))
    assert "export MY_KEY" in (caught.value.hint or "")


def test_requests_are_taken_only_when_they_can_be_sent() -> None:
    numbers = itertools.count()

    def endless() -> Iterator[Request]:
        for number in numbers:
            yield Request(f"r{number}", (), f"prompt {number}", (0,))

    with FakeServer() as server:
        completions = generator(server.base_url, concurrency=3).generate(endless())
        next(completions)
        assert next(numbers) == 3
        for _ in range(10):
            next(completions)
        assert next(numbers) <= 3 + 10 + 1
        completions.close()  # type: ignore[attr-defined]
        assert not [t for t in threading.enumerate() if t.name == "server-requests"]


def test_a_reply_may_lead_to_a_new_request() -> None:
    queue = requests(2)
    with FakeServer() as server:
        for reply in generator(server.base_url).ask(lambda: queue.pop() if queue else None):
            assert isinstance(reply, Completion)
            if len(server.seen.bodies) < 10:
                queue.append(Request(f"{reply.record_id}+", (), f"after {reply.record_id}", (0,)))
    assert len(server.seen.bodies) >= 10


def test_an_interrupt_leaves_no_thread() -> None:
    with FakeServer(latency=600) as server:
        completions = generator(server.base_url).generate(requests(20))
        main = threading.main_thread().ident or 0

        def stop() -> None:
            while len(server.seen.bodies) < 8:
                time.sleep(0.05)
            # all requests that may be in flight were sent, so the main thread waits for a reply
            signal.pthread_kill(main, signal.SIGINT)

        # a shell ignores this signal in background processes
        former = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            threading.Thread(target=stop, daemon=True).start()
            with pytest.raises(KeyboardInterrupt):
                next(completions)
        finally:
            signal.signal(signal.SIGINT, former)
    assert not [t for t in threading.enumerate() if t.name == "server-requests"]


def test_requests_per_minute_are_limited() -> None:
    with FakeServer() as server:
        started = time.monotonic()
        list(generator(server.base_url, requests_per_minute=1200).generate(requests(30)))
        assert time.monotonic() - started >= 0.45


@pytest.mark.parametrize("change", [{"concurrency": 0}, {"timeout": 0}, {"requests_per_minute": -1}, {"pause": -1}])
def test_numbers_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        generator("http://127.0.0.1:9/v1", **change)
