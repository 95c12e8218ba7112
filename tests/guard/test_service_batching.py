"""The queue: every conversation gets its own result, whoever else waits, fails or goes away."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.guard import Guard
from guardreasoner.guard.query import Query
from guardreasoner.guard.service.batching import Batcher, EngineError, QueueFull
from tests.support.services import echo_guard


@pytest.fixture(scope="module")
def guard(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return echo_guard(tiny_base, tmp_path_factory.mktemp("echo") / "echo")


def run(batcher: Callable[[], Batcher], body: Callable[[Batcher], Awaitable[Any]]) -> Any:
    """Return what a function returns that is called while a batcher runs."""

    async def main() -> Any:
        made = batcher()
        task = asyncio.create_task(made.run())
        try:
            return await asyncio.wait_for(body(made), 60)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(main())


def test_thousands_of_conversations_get_their_own_results(guard: Guard) -> None:
    sizes: list[int] = []

    async def client(batcher: Batcher, number: int, draw: random.Random) -> int:
        right = 0
        for turn in range(40):
            word = draw.choice(["break", "mend", "mumble"])
            text = f"{word} {number} {turn}"
            (one,) = batcher.submit([Query(text, speed=draw.choice(["direct", "reasoned"]))])
            result = (await one.answer).result
            right += result.completion.startswith(f"{text}\n") and result.flagged == (word != "mend")
        return right

    async def body(batcher: Batcher) -> int:
        return sum(await asyncio.gather(*(client(batcher, number, random.Random(number)) for number in range(64))))

    seen = lambda speed, size, seconds: sizes.append(size)  # noqa: E731
    assert run(lambda: Batcher(guard, size=32, seen=seen), body) == 64 * 40
    assert sum(sizes) == 64 * 40
    assert max(sizes) == 32


def test_a_batch_has_one_speed(guard: Guard) -> None:
    batches: list[tuple[str, int]] = []

    async def body(batcher: Batcher) -> None:
        queries = [Query(f"mend {number}", speed=speed) for number in range(3) for speed in ("direct", "reasoned")]
        await asyncio.gather(*(one.answer for one in batcher.submit(queries)))

    run(lambda: Batcher(guard, seen=lambda speed, size, _: batches.append((speed, size))), body)
    assert batches == [("direct", 3), ("reasoned", 3)]


def test_a_full_queue_takes_all_of_a_request_or_nothing(guard: Guard) -> None:
    async def body(batcher: Batcher) -> tuple[int, QueueFull]:
        (busy,) = batcher.submit([Query("pause")])
        await busy.taken
        waiting = batcher.submit([Query("a"), Query("b")])
        with pytest.raises(QueueFull) as full:
            batcher.submit([Query("c"), Query("d")])
        (third,) = batcher.submit([Query("c")])
        await asyncio.gather(busy.answer, third.answer, *(one.answer for one in waiting))
        return len(batcher), full.value

    left, full = run(lambda: Batcher(guard, limit=3), body)
    assert (left, full.waiting) == (0, 2)
    assert 1 <= full.seconds <= 60


def test_who_goes_away_leaves_the_queue(guard: Guard) -> None:
    sizes: list[int] = []

    async def body(batcher: Batcher) -> list[str]:
        (busy,) = batcher.submit([Query("pause")])
        await busy.taken
        waiting = batcher.submit([Query(f"mend {number}") for number in range(4)])
        waiting[1].answer.cancel()
        waiting[2].answer.cancel()
        await asyncio.sleep(0)
        assert len(batcher) == 2
        busy.answer.cancel()  # its batch runs; the result is thrown away
        judged = await asyncio.gather(waiting[0].answer, waiting[3].answer)
        return [one.result.completion.partition("\n")[0] for one in judged]

    assert run(lambda: Batcher(guard, seen=lambda _, size, __: sizes.append(size)), body) == ["mend 0", "mend 3"]
    assert sizes == [1, 2]


def test_what_fails_takes_nothing_with_it(guard: Guard) -> None:
    texts = ["mend 0", "explode", "", "mend 3", "break 4", "word " * 999, "explode again", "mend 7"]

    async def body(batcher: Batcher) -> list[Any]:
        waiting = batcher.submit([Query(text) for text in texts])
        return await asyncio.gather(*(one.answer for one in waiting), return_exceptions=True)

    found = run(lambda: Batcher(guard), body)
    kinds = [type(one) for one in found]
    assert [kinds[number] for number in (1, 2, 5, 6)] == [EngineError, InputError, InputError, EngineError]
    for number in (0, 3, 4, 7):
        assert found[number].result.completion.startswith(texts[number])
    assert "secret" not in repr(found)


def test_prompt_tokens_are_those_of_the_prompts_that_were_asked(guard: Guard) -> None:
    lengths = guard.prompt_lengths(Query("mend it", speed="auto"))

    async def body(batcher: Batcher) -> list[int]:
        waiting = batcher.submit([Query("mend it", speed=speed) for speed in ("direct", "reasoned")])
        return [(await one.answer).prompt_tokens for one in waiting]

    assert run(lambda: Batcher(guard), body) == [lengths["direct"], lengths["reasoned"]]
