"""Teacher synthesis against a faulty server: what is lost, doubled, in flight, and asked again after a kill.

    python benchmarks/teacher_server.py --records 10000 --faults 0.3

A server in a process of its own fails the given share of all requests (429 with Retry-After, 500, timeouts, cut
bodies, no output, no JSON). The first run goes through; the second is killed with SIGKILL in the middle, started again,
and then once more when it is finished. Exits with 1 when a bound does not hold.
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
    """Run both, print what was measured against its bound, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--faults", type=float, default=0.3)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds an answer takes")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds until the client gives a request up")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="teacher-"))
    (folder / "configs").symlink_to(ROOT / "configs")
    os.chdir(folder)
    try:
        bounds = [*through(args), *killed(args)]
    finally:
        os.chdir(ROOT)
        shutil.rmtree(folder)
    for name, found, bound in bounds:
        print(f"{'ok    ' if found <= bound else 'FAILED'} {name}: {found:,} (at most {bound:,})")
    return int(any(found > bound for _, found, bound in bounds))


def through(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Run once without a break."""
    with server(args) as address:
        started = time.perf_counter()
        command(args, address).wait()
        seconds = time.perf_counter() - started
        seen = remembered(address)
    requests, answered = sum(seen["asked"].values()), Counter(row["record_id"] for row in ledger())
    print(
        f"{args.records:,} records, {requests:,} requests, {sum(seen['faults'].values()):,} of them faulty "
        f"({', '.join(f'{name} {count:,}' for name, count in sorted(seen['faults'].items()))})"
    )
    print(f"{seconds:.1f} s with the start, {requests / seconds:.0f} requests/s, {args.slots} slots")
    yield "records lost", args.records - len(answered), 0
    yield "records without a trace", args.records - lines(OUTPUT / "rollouts.jsonl"), 0
    yield "answers doubled", sum(answered.values()) - len(answered), 0
    yield "records answered twice by the server", sum(count > 1 for count in seen["answered"].values()), 0
    yield "requests in flight", seen["most"], args.slots
    shutil.rmtree("logs")


def killed(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Kill a run in the middle, start it again, and again when it is finished."""
    with server(args) as address:
        process = command(args, address)
        while lines(OUTPUT / "answers.jsonl") < args.records // 2 and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        process.wait()
        finished = {row["record_id"] for row in ledger()}
        time.sleep(args.timeout)  # the server may still be busy with what was in flight
        before = by_record(remembered(address)["asked"])
        command(args, address).wait()
        after = by_record(remembered(address)["asked"])
        command(args, address).wait()
        again = by_record(remembered(address)["asked"])
        answered = by_record(remembered(address)["answered"])
    held = Counter(row["record_id"] for row in ledger())
    print(f"killed with {len(finished):,} of {args.records:,} answers in the ledger")
    yield "finished records that were asked again", sum(after[name] > before[name] for name in finished), 0
    yield "records lost after the kill", args.records - len(held), 0
    yield "answers doubled after the kill", sum(held.values()) - len(held), 0
    # an answer that was on its way at the kill reached nobody
    yield "answers paid for twice", sum(answered.values()) - args.records, args.slots
    yield "requests of a finished run", sum(again.values()) - sum(after.values()), 0


@contextmanager
def server(args: argparse.Namespace) -> Iterator[str]:
    """Yield the address of a server in a process of its own."""
    words = ["-m", "tests.support.fake_server", "--faults", str(args.faults), "--latency", str(args.latency)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def command(args: argparse.Namespace, address: str) -> subprocess.Popen[bytes]:
    """Start synthesis."""
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
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    environment = os.environ | {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "any", "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "guardreasoner", "predict", "--config", "configs/synthesize.yaml"]
    return subprocess.Popen([*start, *words], env=environment)


def remembered(address: str) -> dict[str, Any]:
    """Return what the server has seen."""
    with urllib.request.urlopen(f"{address}/seen") as reply:
        return json.load(reply)


def by_record(counts: dict[str, int]) -> Counter[str]:
    """Return counts by record instead of by prompt."""
    return Counter({re.split(r"\n", prompt, maxsplit=1)[0]: count for prompt, count in counts.items()})


def ledger() -> list[dict[str, Any]]:
    """Return the whole rows of the ledger."""
    rows = (OUTPUT / "answers.jsonl").read_bytes().splitlines(keepends=True)
    return [json.loads(row) for row in rows if row.endswith(b"\n")]


def lines(path: Path) -> int:
    """Return how many lines a file has; 0 for none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
