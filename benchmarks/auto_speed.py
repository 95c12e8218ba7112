"""Measures what a guard's speeds cost and buy: F1, the share of answers with reasoning, tokens and records per second.

    python benchmarks/auto_speed.py checkpoints/rsft

The model must have been trained for both speeds (``recipe.direct_share``). Records are those of the embedded corpus, or
of any source; F1 is that of the verdict, over all tasks of a record that has a gold label.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median

from peers.flags import positive_int

from guardreasoner.evaluation.scoring.readings import positive_labels
from guardreasoner.guard import Guard, GuardResult, Query
from guardreasoner.guard.results import GuardSpeed
from guardreasoner.records import Record
from guardreasoner.sources.embedded import Embedded
from guardreasoner.tasks import Task

SPEEDS: Sequence[GuardSpeed] = ("direct", "auto", "reasoned")


def main() -> None:
    """Run the measurements and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="model folder of a guard of both speeds")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="records (default test)")
    parser.add_argument("--rounds", type=positive_int, default=3, help="rounds of alternating measurements (default 3)")
    arguments = parser.parse_args()
    guard = Guard.load(arguments.model)
    records = Embedded().records(arguments.split)
    seconds: dict[GuardSpeed, list[float]] = {speed: [] for speed in SPEEDS}
    results: dict[GuardSpeed, list[GuardResult]] = {}
    for _ in range(arguments.rounds):
        for speed in SPEEDS:
            start = time.perf_counter()
            results[speed] = guard.check_many(Query(messages=record.messages, speed=speed) for record in records)
            seconds[speed].append(time.perf_counter() - start)

    tasks = [task for task in guard.tasks if any(record.labels.get(task.name) for record in records)]
    print(f"{len(records):,} records of the embedded {arguments.split} split; F1 in percent")
    names = "".join(f"{task.name:>12}" for task in tasks)
    print(f"{'speed':<10}{names}{'unparsed':>10}{'reasoned':>10}{'tokens':>8}{'records/s':>11}")
    for speed in SPEEDS:
        found = results[speed]
        scores = "".join(f"{100 * f1(records, found, task):>12.2f}" for task in tasks)
        reasoned = sum(result.speed == "reasoned" for result in found) / len(found)
        unparsed = sum(result.unparsed for result in found) / len(found)
        tokens = sum(result.tokens for result in found) / len(found)
        rate = len(records) / median(seconds[speed])
        print(f"{speed:<10}{scores}{unparsed:>9.1%} {reasoned:>9.1%}{tokens:>8.0f}{rate:>11.1f}")


def f1(records: Sequence[Record], results: Sequence[GuardResult], task: Task) -> float:
    """Return the F1 of the positive side; a record without a verdict counts as wrong."""
    right = false_alarms = missed = 0
    for record, result in zip(records, results, strict=True):
        label = record.labels.get(task.name)
        if label is None:
            continue
        is_positive, verdict = label in positive_labels(task), result.tasks[task.name].verdict
        says_positive = verdict in positive_labels(task) if verdict is not None else not is_positive
        right += is_positive and says_positive
        false_alarms += says_positive and not is_positive
        missed += is_positive and not says_positive
    return 2 * right / max(1, 2 * right + false_alarms + missed)


if __name__ == "__main__":
    main()
