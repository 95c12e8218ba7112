"""Kill ``moderate`` at random moments and continue it, and compare the output with that of an uninterrupted run.

    python -m tests.support.moderate_kills BASE FOLDER NUMBER

The commands are forks of this process, which saves the time of their imports.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.support.guards import known_records
from tests.support.kill_once import Started, kill_once

ROWS = 60


def main(base: str, folder: str, number: int) -> None:
    """Kill ``number`` runs."""
    import torch

    import guardreasoner.generators.local
    import guardreasoner.guard.moderation  # noqa: F401

    torch.set_num_threads(1)
    work = Path(folder)
    rows = [{"prompt": one.prompt, "response": one.response} for one in known_records()]
    (work / "logs.jsonl").write_text("".join(json.dumps(rows[index % len(rows)]) + "\n" for index in range(ROWS)))

    def argv(out: str) -> list[str]:
        return ["moderate", "logs.jsonl", "--out", out, "--model", base, "--speed", "direct", "--chunk", "3"]

    def commits() -> int:
        path = work / ".out.jsonl.partial/commits"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    ended = kill_once(argv("whole.jsonl"), work, fork=True)
    assert ended.code == 0, ended
    whole = (work / "whole.jsonl").read_bytes()
    rng, killed = random.Random(0), 0
    while killed < number:
        run = Started(argv("out.jsonl"), work, fork=True)
        before = commits()
        run.wait_until(lambda before=before: commits() > before + rng.randint(0, 1))  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.02))  # also between the rows and their commit
        if not run.has_ended():
            os.kill(run.pid, signal.SIGKILL)
        ended = run.end()
        assert ended.code in (0, -signal.SIGKILL), ended
        killed += ended.code != 0
        if (work / "out.jsonl").exists():
            assert (work / "out.jsonl").read_bytes() == whole
            if ended.code == 0:
                (work / "out.jsonl").unlink()
    ended = kill_once(argv("out.jsonl"), work, fork=True)
    assert ended.code == 0, ended
    assert (work / "out.jsonl").read_bytes() == whole
    left = [path.name for path in work.glob(".*")]
    assert not left, left
    print(f"{killed} killed, the last run {'resumed' if 'resuming' in ended.out else 'started anew'}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
