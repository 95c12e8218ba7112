"""Checks teacher synthesis against a faulty server: nothing is lost, duplicated or requested again after a kill.

    python benchmarks/teacher_server.py --records 10000 --faults 0.3

A server in a separate process fails the given share of all requests (429 with Retry-After, 500, timeouts, truncated
bodies, no output, no JSON). The first run is uninterrupted. The second is killed with SIGKILL half-way, resumed, and
started again after it has finished. The exit code is 1 if a limit is exceeded.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("logs/traces/teacher")
PROMPT = "{{ record.id }}\n{% for task in known %}{{ task.key }}: {{ labels[task.name] }}\n{% endfor %}"


def main() -> int:
    """Run both, print each measurement with its limit, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--faults", type=float, default=0.3)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds per answer")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds until a request times out")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="teacher-"))
    (folder / "configs").symlink_to(ROOT / "configs")
    os.chdir(folder)
    try:
        results = [*uninterrupted_run(args), *killed_run(args)]
    finally:
        os.chdir(ROOT)
        shutil.rmtree(folder)
    for name, measured, limit in results:
        print(f"{'ok    ' if measured <= limit else 'FAILED'} {name}: {measured:,} (at most {limit:,})")
    return int(any(measured > limit for _, measured, limit in results))


def uninterrupted_run(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Yield name, measurement and limit of each check of an uninterrupted run."""
    with server(args) as address:
        start_time = time.perf_counter()
        command(args, address).wait()
        seconds = time.perf_counter() - start_time
        seen = server_counts(address)
    requests, answered = sum(seen["asked"].values()), Counter(row["record_id"] for row in answer_log())
    print(
        f"{args.records:,} records, {requests:,} requests, {sum(seen['faults'].values()):,} of them faulty "
        f"({', '.join(f'{name} {count:,}' for name, count in sorted(seen['faults'].items()))})"
    )
    print(f"{seconds:.1f} s including start-up, {requests / seconds:.0f} requests/s, concurrency {args.slots}")
    yield "records lost", args.records - len(answered), 0
    yield "records without reasoning", args.records - count_lines(OUTPUT / "rollouts.jsonl"), 0
    yield "duplicate answers", sum(answered.values()) - len(answered), 0
    yield "records answered twice by the server", sum(count > 1 for count in seen["answered"].values()), 0
    yield "requests in flight", seen["most"], args.slots
    shutil.rmtree("logs")


def killed_run(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Yield name, measurement and limit of each check of a run that is killed, resumed, and started once more."""
    with server(args) as address:
        process = command(args, address)
        while count_lines(OUTPUT / "answers.jsonl") < args.records // 2 and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        process.wait()
        finished = {row["record_id"] for row in answer_log()}
        time.sleep(args.timeout)  # requests in flight may still be answered
        before = by_record(server_counts(address)["asked"])
        command(args, address).wait()
        after = by_record(server_counts(address)["asked"])
        command(args, address).wait()
        again = by_record(server_counts(address)["asked"])
        answered = by_record(server_counts(address)["answered"])
    logged = Counter(row["record_id"] for row in answer_log())
    print(f"killed with {len(finished):,} of {args.records:,} answers in the log")
    yield "finished records requested again", sum(after[name] > before[name] for name in finished), 0
    yield "records lost after the kill", args.records - len(logged), 0
    yield "duplicate answers after the kill", sum(logged.values()) - len(logged), 0
    # Answers that were in flight at the kill are lost and paid for again.
    yield "answers paid for twice", sum(answered.values()) - args.records, args.slots
    yield "requests of a finished run", sum(again.values()) - sum(after.values()), 0


@contextmanager
def server(args: argparse.Namespace) -> Iterator[str]:
    """Yield the address of a server in a separate process."""
    argv = ["-m", "tests.support.fake_server", "--faults", str(args.faults), "--latency", str(args.latency)]
    with subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def command(args: argparse.Namespace, address: str) -> subprocess.Popen[bytes]:
    """Start teacher synthesis as a subprocess."""
    settings = {
        "data.source": "guardreasoner.sources.embedded.Embedded",
        "data.source.train": args.records,
        "data.source.validation": 0,
        "data.source.test": 0,
        "model.template": PROMPT,
        "model.generator.concurrency": args.slots,
        "model.generator.timeout": args.timeout,
        "model.generator.pause": 0.05,
        "model.generator.attempts": 16,
    }
    overrides = [argument for name, value in settings.items() for argument in (f"--{name}", str(value))]
    environment = os.environ | {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "any", "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "guardreasoner", "predict", "--config", "configs/synthesize.yaml"]
    return subprocess.Popen([*start, *overrides], env=environment)


def server_counts(address: str) -> dict[str, Any]:
    """Return the server's request counts."""
    with urllib.request.urlopen(f"{address}/seen") as reply:
        return json.load(reply)


def by_record(counts: dict[str, int]) -> Counter[str]:
    """Return counts by record id instead of by prompt."""
    return Counter({re.split(r"\n", prompt, maxsplit=1)[0]: count for prompt, count in counts.items()})


def answer_log() -> list[dict[str, Any]]:
    """Return the complete rows of the answer log."""
    rows = (OUTPUT / "answers.jsonl").read_bytes().splitlines(keepends=True)
    return [json.loads(row) for row in rows if row.endswith(b"\n")]


def count_lines(path: Path) -> int:
    """Return the number of lines in a file; 0 if it does not exist."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
