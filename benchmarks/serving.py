"""Loads a server with many clients at once: are answers lost or swapped, how fast is it, does its memory grow?

    python benchmarks/serving.py checkpoints/rsft --json serving.json
    python benchmarks/serving.py checkpoints/rsft --requests 2000 --alone 200 --speeds direct

The texts are prompts of the embedded corpus, each with a number of its own. What the guard answers to them without a
server is computed first. Then a server is started for each speed; one client asks one text at a time, and the clients
ask all texts at once. An answer is wrong if its verdicts differ from those of its own text, or a score by more than
0.001. Memory is the resident set of the server, from /proc.
"""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from peers.flags import positive_int

from guardreasoner.errors import InputError
from guardreasoner.records.atomic_file import replacing_file

TOLERANCE = 1e-3
"""Largest difference of a score between batches by rounding."""


@dataclass
class Load:
    """What clients saw.

    Args:
        seconds: time from the first request to the last answer.
        latencies: seconds of each answered request.
        answers: body of the answer by the number of the text.
        failures: number of requests by what they got instead of an answer.
        memory: resident megabytes of the server during the run.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)


def main() -> int:
    """Run the load."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="model folder")
    parser.add_argument(
        "--requests", type=positive_int, default=10_000, help="requests at once, all with distinct texts"
    )
    parser.add_argument("--alone", type=positive_int, default=500, help="requests one at a time")
    parser.add_argument("--clients", type=positive_int, default=64)
    parser.add_argument("--speeds", nargs="+", default=["direct", "reasoned"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        rows = [measure(arguments, speed) for speed in arguments.speeds]
    except InputError as error:
        print(error.lines(), file=sys.stderr)
        return error.exit_code
    print("\n" + "\n".join(table(rows)))
    if arguments.json:
        with replacing_file(arguments.json) as partial:
            partial.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(row["lost"] or row["wrong"] for row in rows))


def measure(arguments: argparse.Namespace, speed: str) -> dict[str, Any]:
    """Return the figures of one speed."""
    texts = distinct_texts(arguments.requests)
    expected = expected_answers(arguments.model, texts, speed)
    start = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "guardreasoner", "serve", arguments.model, "--port", "0", "--timeout", "120"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if "http://" not in line:
            raise InputError(f"{arguments.model}: the server has not started")
        startup = time.perf_counter() - start
        host = line.partition("http://")[2].split()[0]
        ask(host, texts[:64], speed, 8, server.pid)  # a warm-up
        alone = ask(host, texts[: arguments.alone], speed, 1, server.pid)
        together = ask(host, texts, speed, arguments.clients, server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    return figures(speed, startup, alone, together, expected)


def distinct_texts(count: int) -> list[str]:
    """Return distinct prompts, those of the embedded corpus with a number each."""
    from guardreasoner.sources.embedded import Embedded

    prompts = [record.prompt for record in Embedded().records("test")]
    return [f"{prompts[number % len(prompts)]} ({number})" for number in range(count)]


def expected_answers(model: str, texts: Sequence[str], speed: str) -> list[dict[str, Any]]:
    """Return what the guard answers without a server."""
    from guardreasoner.guard import Guard
    from guardreasoner.guard.query import Query

    guard = Guard.load(model, speed=speed)  # type: ignore[arg-type]  # checked there
    return [result.as_json() for result in guard.check_many([Query(text) for text in texts])]


def ask(host: str, texts: Sequence[str], speed: str, clients: int, pid: int) -> Load:
    """Ask all texts with a number of clients, each over one connection and one request at a time."""
    load, waiting = Load(), queue.SimpleQueue[int]()
    for number in range(len(texts)):
        waiting.put(number)
    over = threading.Event()
    watch = threading.Thread(target=_watch_memory, args=(pid, load.memory, over))
    threads = [threading.Thread(target=_client, args=(host, texts, speed, waiting, load)) for _ in range(clients)]
    start = time.perf_counter()
    for thread in (watch, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - start
    over.set()
    watch.join()
    return load


def figures(
    speed: str, startup: float, alone: Load, together: Load, expected: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the figures of a run for JSON.

    Raises:
        InputError: no request was answered, so there is nothing to time.
    """
    for load in (alone, together):
        if not load.answers:
            failures = ", ".join(f"{count} {what}" for what, count in load.failures.items())
            raise InputError(f"{speed}: no request was answered: {failures}")
    wrong = [number for number, answer in together.answers.items() if not same(answer, expected[number])]
    latencies = sorted(together.latencies)
    settled = together.memory[len(together.memory) // 10 :]
    rate, rate_alone = len(together.answers) / together.seconds, len(alone.answers) / alone.seconds
    return {
        "speed": speed,
        "requests": len(expected),
        "lost": len(expected) - len(together.answers),
        "failures": together.failures,
        "wrong": len(wrong),
        "per_second": rate,
        "per_second_alone": rate_alone,
        "gain": rate / rate_alone,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
        "p50_alone_ms": 1000 * sorted(alone.latencies)[len(alone.latencies) // 2],
        "memory_mb": [settled[0], max(settled), settled[-1]],
        "startup_s": startup,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def same(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Return whether an answer is that of its own text: equal verdicts, and scores equal up to rounding."""
    for task, wanted in expected["tasks"].items():
        found = answer["tasks"][task]
        if found["verdict"] != wanted["verdict"]:
            return False
        if wanted["score"] is not None and abs(found["score"] - wanted["score"]) > TOLERANCE:
            return False
    return True


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of the table."""
    head = f"{'speed':<9} {'requests':>8} {'lost':>5} {'wrong':>5} {'alone/s':>8} {'at once/s':>9} {'gain':>6}"
    lines = [f"{head} {'p50 ms':>8} {'p99 ms':>8}  memory MB (start, most, end)  ready after s"]
    for row in rows:
        memory = ", ".join(f"{value:.0f}" for value in row["memory_mb"])
        counts = f"{row['speed']:<9} {row['requests']:>8,} {row['lost']:>5} {row['wrong']:>5}"
        rates = f"{row['per_second_alone']:>8.1f} {row['per_second']:>9.1f} {row['gain']:>5.1f}×"
        times = f"{row['p50_ms']:>8.0f} {row['p99_ms']:>8.0f}"
        lines.append(f"{counts} {rates} {times}  {memory:<29}  {row['startup_s']:.1f}")
    return lines


def _client(host: str, texts: Sequence[str], speed: str, waiting: "queue.SimpleQueue[int]", load: Load) -> None:
    connection = HTTPConnection(host, timeout=180)
    while True:
        try:
            number = waiting.get_nowait()
        except queue.Empty:
            connection.close()
            return
        body = json.dumps({"prompt": texts[number], "speed": speed})
        start = time.perf_counter()
        try:
            connection.request("POST", "/v1/guard", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            outcome = None if answer.status == 200 else f"status {answer.status}"
        except (OSError, HTTPException) as error:
            connection.close()
            outcome = type(error).__name__
        if outcome is None:
            load.latencies.append(time.perf_counter() - start)
            load.answers[number] = json.loads(content)
        else:
            load.failures[outcome] = load.failures.get(outcome, 0) + 1


def _watch_memory(pid: int, memory: list[float], over: threading.Event) -> None:
    page = os.sysconf("SC_PAGE_SIZE") / 1e6
    while True:
        memory.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page)
        if over.wait(0.1):
            return


if __name__ == "__main__":
    sys.exit(main())
