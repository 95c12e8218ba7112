"""Measures how much faster direct answers are than reasoned ones, decoded by the local engine.

    python benchmarks/two_speeds.py checkpoints/rsft

The model must have been trained for both speeds (``recipe.direct_share``). The runs of the speeds alternate. "prompts"
is the time of the first token alone, so nearly that of computing the prompts, which both speeds need.
"""

import argparse
import time
from statistics import median
from typing import get_args

from peers.flags import positive_int

from guardreasoner.generators import Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.records import Speed
from guardreasoner.sources.embedded import Embedded


def main() -> None:
    """Run the measurements and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="model folder of a guard of both speeds")
    parser.add_argument("--rounds", type=positive_int, default=3, help="rounds of alternating measurements (default 3)")
    arguments = parser.parse_args()
    backbone = Backbone(arguments.model)
    backbone.load()
    backbone.eval()
    tokenizer, records = backbone.prompt_tokenizer, Embedded().records("test")
    if set(tokenizer.format.speeds) != set(get_args(Speed)):
        parser.error(f"{arguments.model} was trained for {' and '.join(tokenizer.format.speeds) or 'no known speed'}")
    requests = {
        speed: [Request(r.id, tuple(tokenizer.prompt(r, speed)), tokenizer.text(r, speed), (0,)) for r in records]
        for speed in get_args(Speed)
    }
    engines = {name: LocalGenerator(backbone, limit, 0.0) for name, limit in (("prompts", 1), ("answers", 176))}
    seconds: dict[tuple[Speed, str], list[float]] = {(s, name): [] for s in requests for name in engines}
    tokens = dict.fromkeys(requests, 0.0)
    for number in range(arguments.rounds + 1):  # the first warms up
        for speed, asked in requests.items():
            for name, engine in engines.items():
                start = time.perf_counter()
                answers = list(engine.generate(asked))
                if number:
                    seconds[speed, name].append(time.perf_counter() - start)
            tokens[speed] = sum(answer.completion_tokens or 0 for answer in answers) / len(answers)

    print(f"{len(records):,} records of the embedded test split, medians of {arguments.rounds} alternating runs")
    print(f"{'speed':<10}{'tokens':>8}{'prompts':>10}{'answers':>10}{'records/s':>11}")
    for speed in requests:
        first, whole = median(seconds[speed, "prompts"]), median(seconds[speed, "answers"])
        print(f"{speed:<10}{tokens[speed]:>8.1f}{first:>8.2f} s{whole:>8.2f} s{len(records) / whole:>11.1f}")
    ratio = median(seconds["reasoned", "answers"]) / median(seconds["direct", "answers"])
    print(f"direct against reasoned, records a second: {ratio:.2f} ×")


if __name__ == "__main__":
    main()
