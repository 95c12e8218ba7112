"""A teacher's server for tests: real HTTP on a free port, scripted faults, and a memory of all that it was asked.

    python -m tests.support.fake_server --faults 0.3

prints its address and serves until it is killed; ``GET /seen`` returns what it remembers as JSON.
"""

import argparse
import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from guardreasoner.tasks import GUARD_TASKS, NO_VERDICT

FAULTS = ("429", "500", "timeout", "cut", "fewer", "garbage")
MODEL = "fake-teacher"

Script = Callable[[str, int], str | None]
"""Prompt and how often it was asked before -> a fault, a status such as "404" (and an error code after it), or None."""

Say = Callable[[str, int], str]
"""Prompt and how often it was *answered* before -> a text."""


def trace(prompt: str, times: int = 0) -> str:
    """Return a faultless trace for the verdicts that a prompt names, a line each; the others are None."""
    lines = []
    for number in range(1, len(GUARD_TASKS) + 1):
        lines += [f"# Task {number}", "## Reasoning Step 1: I look at it.", "## Reasoning Step 2: It is so.", ""]
    lines.append("Answers:")
    for task in GUARD_TASKS:
        found = re.findall(rf"^{task.key}: ({'|'.join(task.labels)})$", prompt, re.MULTILINE)
        lines.append(f"{task.key}: {found[0] if found else NO_VERDICT}")
    return "\n".join(lines)


def at_random(share: float, seed: int = 0) -> Script:
    """Return a script that is the same in every run: this share of all requests meets one of the faults."""

    def script(prompt: str, times: int) -> str | None:
        rng = random.Random(f"{seed}/{times}/{prompt}")
        return rng.choice(FAULTS) if rng.random() < share else None

    return script


@dataclass
class Seen:
    """What a server remembers.

    Args:
        asked: requests by prompt.
        answered: whole replies by prompt.
        faults: by kind.
        bodies: the requests, in order.
        times: when they came, in seconds, by prompt.
        most: requests in flight at once, at most.
    """

    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=dict)
    most: int = 0


class FakeServer:
    """A server in a thread; use it as a context manager.

    Args:
        script: its faults.
        say: its answers.
        latency: seconds that an answer takes.
        retry_after: header of a 429.
        hold: seconds that a "timeout" takes at most; it ends when the client leaves.
        key: refuse other keys.
        keep: remember bodies and times; a long run does without.
    """

    def __init__(
        self,
        script: Script = lambda prompt, times: None,
        say: Say = trace,
        latency: float = 0.0,
        retry_after: str = "0.02",
        hold: float = 30.0,
        key: str | None = None,
        keep: bool = True,
    ) -> None:
        self.script, self.say, self.latency = script, say, latency
        self.retry_after, self.hold, self.key, self.keep = retry_after, hold, key, keep
        self.seen = Seen()
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "FakeServer":
        self._thread.start()
        serving = asyncio.start_server(self._connection, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *rest = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = line.split()
                if method == "POST":
                    await self._completion(path, headers, json.loads(body), reader, writer)
                else:
                    _reply(writer, 200, vars(self.seen) if path.endswith("/seen") else {"object": "list", "data": []})
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    async def _completion(
        self,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        chat = path.endswith("/chat/completions")
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        seen, times = self.seen, self.seen.asked[prompt]
        seen.asked[prompt] += 1
        if self.keep:
            seen.bodies.append(body)
            seen.times.setdefault(prompt, []).append(time.monotonic())
        self._in_flight += 1
        seen.most = max(seen.most, self._in_flight)
        try:
            fault = self.script(prompt, times)
            if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
                fault = "401"
            if fault is not None:
                seen.faults[fault] += 1
            if fault == "timeout":
                # the client sends nothing more, so the read ends when it leaves
                await asyncio.wait_for(reader.read(1), self.hold)
                raise ConnectionError
            await asyncio.sleep(self.latency)
        finally:
            self._in_flight -= 1
        if fault is not None and fault[:3].isdigit():
            status, _, code = fault.partition(" ")
            extra = {"retry-after": self.retry_after} if status == "429" else {}
            _reply(writer, int(status), {"error": {"message": f"scripted {status}", "code": code or None}}, extra)
            return
        if fault == "garbage":
            _reply(writer, 200, "<html>proxy</html>")
            return
        count = body.get("n", 1)
        choices = [self._choice(chat, prompt, number) for number in range(count - (fault == "fewer"))]
        tokens = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 50 * len(choices)}
        reply = {"id": "1", "object": "x", "created": 0, "model": body["model"], "choices": choices, "usage": tokens}
        if fault == "cut":
            _reply(writer, 200, reply, cut=40)
            await writer.drain()
            raise ConnectionError
        _reply(writer, 200, reply)
        if fault is None:
            seen.answered[prompt] += 1

    def _choice(self, chat: bool, prompt: str, number: int) -> dict[str, Any]:
        text = self.say(prompt, self.seen.answered[prompt])
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"index": number, "finish_reason": "stop", **said}


def _reply(
    writer: asyncio.StreamWriter, status: int, body: Any, headers: dict[str, str] | None = None, cut: int = 0
) -> None:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + (data[:-cut] if cut else data))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with FakeServer(at_random(args.faults, args.seed), latency=args.latency, keep=False) as server:
        print(server.base_url, flush=True)
        threading.Event().wait()
