"""What ``moderate`` adds to the time of the guard itself, and how its time and memory grow with the number of rows.

    python benchmarks/moderation.py --model checkpoints/rsft --rows 2000 8000
    python benchmarks/moderation.py --model checkpoints/rsft --rows 25000 100000   # an hour on two cores

For each number of rows, a process moderates a JSONL file of short conversations of the embedded corpus, and afterwards
asks the guard about the same conversations in the same chunks, without files. Times are seconds of the processor, which
other programs do not distort, after the model is loaded; memory is the peak of the process when the moderation ends.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any


def main() -> None:
    """Print a line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="checkpoints/rsft")
    parser.add_argument("--speed", default="direct")
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--chunk", type=int, default=512)
    arguments = parser.parse_args()
    print(f"{'rows':>8}  {'moderate':>12}  {'guard alone':>12}  {'share':>6}  {'peak memory':>11}")
    for rows in arguments.rows:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(measure, (rows, arguments.model, arguments.speed, arguments.chunk))
        moderated, alone = rows / found["moderate"], rows / found["guard"]
        print(
            f"{rows:>8,}  {moderated:>8.1f} r/s  {alone:>8.1f} r/s  {moderated / alone:>6.2f}  "
            f"{found['memory']:>8.0f} MB",
            flush=True,
        )


def measure(rows: int, model: str, speed: Any, chunk: int) -> dict[str, float]:
    """Return seconds of the moderation and of the guard alone, and the peak memory in MB."""
    from guardreasoner.guard import Guard, Query
    from guardreasoner.guard.moderation import Judge, judged_rows
    from guardreasoner.guard.moderation_log import ModerationLog
    from guardreasoner.guard.moderation_summary import summarize_rows
    from guardreasoner.sources.embedded import Embedded
    from guardreasoner.sources.logs import Logs

    guard = Guard.load(model, speed=speed)
    judge = Judge(guard)
    records = [record for split in ("train", "test") for record in Embedded().records(split)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logs.jsonl"
        with path.open("w") as file:
            for number in range(rows):
                record = records[number % len(records)]
                file.write(json.dumps({"prompt": record.prompt, "response": record.response}) + "\n")
        guard.check_many([Query("warm up")])
        started = time.process_time()
        logs = Logs([path])
        logs.check()
        log = ModerationLog(Path(folder) / "out.jsonl", {"logs": logs.identity()})
        for judged in judged_rows(logs.rows(), judge, chunk=chunk):
            log.append(judged)
        summarize_rows(log.path, guard.tasks, 10)
        log.publish()
        moderated = time.process_time() - started
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        conversations = logs.rows()
        alone = 0.0
        while batch := [Query(messages=row.record.messages) for row in islice(conversations, chunk)]:
            started = time.process_time()
            guard.check_many(batch)
            alone += time.process_time() - started
    return {"moderate": moderated, "guard": alone, "memory": memory}


if __name__ == "__main__":
    main()
