"""A fake OpenAI-compatible server for tests: real HTTP on a free port, scripted faults, and a log of all requests.

    python -m tests.support.fake_server --faults 0.3

prints its address and serves until it is killed; ``GET /seen`` returns the log as JSON.
"""

import argparse
import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardreasoner.tasks import GUARD_TASKS, NO_VERDICT

FAULTS = ("429", "500", "timeout", "cut", "fewer", "garbage")
QUICK_FAULTS = tuple(fault for fault in FAULTS if fault != "timeout")
"""Faults that are immediate; a "timeout" takes as long as the client waits."""

Script = Callable[[str, int], str | None]
"""Takes a prompt and how often it was requested before; returns a fault, a status such as "404" (optionally followed by
an error code), or None."""

Say = Callable[[str, int], str]
"""Takes a prompt and how often it was *answered* before; returns a text."""

TokenLogps = Callable[[str | list[int]], list[float | None]]


def trace(prompt: str, times: int = 0) -> str:
    """Return a valid trace for the verdicts that a prompt lists, one per line; the other verdicts are None."""
    lines = []
    for number in range(1, len(GUARD_TASKS) + 1):
        lines += [f"# Task {number}", "## Reasoning Step 1: I look at it.", "## Reasoning Step 2: It is so.", ""]
    lines.append("Answers:")
    for task in GUARD_TASKS:
        labels = re.findall(rf"^{task.key}: ({'|'.join(task.labels)})$", prompt, re.MULTILINE)
        lines.append(f"{task.key}: {labels[0] if labels else NO_VERDICT}")
    return "\n".join(lines)


def random_faults(share: float, faults: Sequence[str] = FAULTS, seed: int = 0) -> Script:
    """Return a reproducible script by which a share of all requests meets one of the faults."""

    def script(prompt: str, times: int) -> str | None:
        rng = random.Random(f"{seed}/{times}/{prompt}")
        return rng.choice(faults) if rng.random() < share else None

    return script


@dataclass
class Seen:
    """The server's log.

    Args:
        asked: number of requests by prompt.
        answered: number of complete replies by prompt.
        faults: number of faults by kind.
        bodies: request bodies, in order.
        times: arrival times of the requests by prompt, in seconds.
        most: maximum number of requests in flight.
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
        script: decides the faults.
        say: decides the answers.
        latency: seconds before a reply.
        fill: the first replies are held back until this many requests are in flight, at most 60 seconds.
        retry_after: Retry-After header of a 429.
        hold: maximum seconds of a "timeout"; it ends earlier if the client disconnects.
        key: the only API key that is accepted; None accepts every key.
        log_bodies: whether request bodies and times are logged; long runs do without.
        echo: whether errors, answers and headers repeat the Authorization header of the request.
        token_logps: takes the prompt as it was sent, text or ids, and returns the ``token_logprobs`` of a reply that
            echoes it; None if the server returns none.
    """

    def __init__(
        self,
        script: Script = lambda prompt, times: None,
        say: Say = trace,
        latency: float = 0.0,
        fill: int = 1,
        retry_after: str = "0.02",
        hold: float = 30.0,
        key: str | None = None,
        log_bodies: bool = True,
        echo: bool = False,
        token_logps: TokenLogps | None = None,
    ) -> None:
        self.script, self.say, self.latency, self.fill = script, say, latency, fill
        self.retry_after, self.hold, self.key, self.log_bodies = retry_after, hold, key, log_bodies
        self.echo = echo
        self.token_logps = token_logps
        self.seen = Seen()
        self._in_flight = 0
        self._filled = asyncio.Event()
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
                request_line, *header_lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in header_lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = request_line.split()
                if method == "POST":
                    await self._completion(path, headers, json.loads(body), reader, writer)
                else:
                    _reply(writer, 200, vars(self.seen) if path.endswith("/seen") else {"object": "list", "data": []})
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has disconnected
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
        prompt = sent = body["messages"][0]["content"] if chat else body["prompt"]
        if isinstance(prompt, list):  # token ids
            prompt = " ".join(map(str, prompt))
        seen, times = self.seen, self.seen.asked[prompt]
        seen.asked[prompt] += 1
        if self.log_bodies:
            seen.bodies.append(body)
            seen.times.setdefault(prompt, []).append(time.monotonic())
        self._in_flight += 1
        seen.most = max(seen.most, self._in_flight)
        if self._in_flight >= self.fill:
            self._filled.set()
        try:
            await asyncio.wait_for(self._filled.wait(), 60)
            fault = self.script(prompt, times)
            if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
                fault = "401"
            if fault is not None:
                seen.faults[fault] += 1
            if fault == "timeout":
                # the client sends nothing more, so this read ends when it disconnects
                await asyncio.wait_for(reader.read(1), self.hold)
                raise ConnectionError
            await asyncio.sleep(self.latency)
        finally:
            self._in_flight -= 1
        if fault is not None and fault[:3].isdigit():
            status, _, code = fault.partition(" ")
            extra = {"retry-after": self.retry_after} if status == "429" else {}
            message = f"scripted {status}"
            if self.echo:
                message += f": you sent {headers}"
                extra["x-echo"] = headers["authorization"]
            _reply(writer, int(status), {"error": {"message": message, "code": code or None}}, extra)
            return
        if fault == "garbage":
            _reply(writer, 200, "<html>proxy</html>")
            return
        count = body.get("n", 1)
        choices = [self._choice(chat, prompt, number) for number in range(count - (fault == "fewer"))]
        if body.get("echo"):
            choices[0]["logprobs"] = self.token_logps and {"token_logprobs": self.token_logps(sent)}
        if self.echo:
            for choice in choices:
                text = choice["message"] if chat else choice
                text["content" if chat else "text"] = f"You sent {headers}.\n\n{self.say(prompt, 0)}"
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
        content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"index": number, "finish_reason": "stop", **content}


def _reply(
    writer: asyncio.StreamWriter, status: int, body: Any, headers: dict[str, str] | None = None, cut: int = 0
) -> None:
    """Write a reply; its last ``cut`` bytes are left out."""
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
    with FakeServer(random_faults(args.faults, seed=args.seed), latency=args.latency, log_bodies=False) as server:
        print(server.base_url, flush=True)
        threading.Event().wait()
