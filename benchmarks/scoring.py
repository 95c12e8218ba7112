"""Compares scoring the labels of real answers with full logits of padded rows, one row per record and label.

All sides have the same weights, token ids, threads and allocator.

    python benchmarks/scoring.py --json scoring.json
    python benchmarks/scoring.py --quick

Records and answers are real. Each label of each task is scored after the answer's own reasoning. Sides: our packed
rows; our plain rows (one row per label, output layer on labels alone); and the plain way, whose fastest number of rows
per batch is searched. The scores must be equal. Then the sides are timed in alternation, each run in a separate process
after a short warm-up. Loading is not counted.
"""

import json
from argparse import Namespace
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from peers import flags, machine
from peers.engine_runs import EngineCandidate, memory, search, summary
from peers.job import Scoring
from peers.process import allocator_settings, run
from peers.ratios import difference, in_turn, require_equal, speed_and_memory
from peers.real_pairs import hash_order, make_base, read_predictions
from peers.real_prompts import scale_weights
from peers.result_file import run_and_write, settings
from peers.table import ratio_text

from guardreasoner.errors import InputError

SPEED = "records_per_second"
"""Measurement by which settings are compared."""

QUICK = flags.QUICK | {"records": 4, "batches": [8]}


def main() -> None:
    """Run the comparison."""
    parser = flags.shared(__doc__)
    flags.add_device(parser)
    parser.add_argument("--records", type=int, default=64, help="number of records")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16, 32], help="rows at once to search over")
    arguments = flags.checked(parser, QUICK, ("records", "batches"))
    run_and_write(arguments, lambda folder: compare(arguments, folder))


def compare(arguments: Namespace, folder: Path) -> dict[str, Any]:
    """Compare the scores of all sides, search the fastest plain way, time the sides, and return the result for JSON."""
    allocator = allocator_settings(arguments.allocator)
    model, requests = prepare(folder, arguments)
    job = Scoring(
        side="packed",
        model=str(model),
        requests=str(requests),
        dtype=arguments.dtype,
        device=arguments.device,
        threads=arguments.threads,
    )
    packed = EngineCandidate("ours: packed rows", job)
    rows = EngineCandidate("ours: plain rows", replace(job, side="rows"))
    ways = [
        EngineCandidate(f"full logits: {size} rows at once", replace(job, side="logits", at_once=size))
        for size in arguments.batches
    ]
    expected = run(ways[0].job, allocator)["scores"]
    differences = {}
    for ours in (packed, rows):
        differences[ours.name] = difference(expected, run(ours.job, allocator)["scores"])
        require_equal(ours.name, differences[ours.name], arguments.dtype)
        print(f"{ours.name}: {len(expected):,} equal scores (largest difference {differences[ours.name]:.0e})")

    def measure(candidate: EngineCandidate) -> dict[str, Any]:
        return rates(run(candidate.job, allocator), arguments.records)

    plain, trials = search(ways, measure, SPEED, line)
    runs = in_turn([packed, rows, plain], arguments.repeats, measure, line)
    result = {
        "comparison": "scoring",
        "settings": settings(arguments),
        "machine": machine.describe(arguments.device, arguments.threads),
        "allocator": allocator or "system",
        "versions": machine.versions(),
        "scores": len(expected),
        "differences": differences,
        "search": trials,
        "rows": [{"name": name, **summary(measured, SPEED)} for name, measured in runs.items()],
        "ratios": [
            ratio
            for against, other in (("full logits", plain), ("plain rows", rows))
            for ratio in speed_and_memory(against, runs[packed.name], runs[other.name], SPEED)
        ],
    }
    print(table(result))
    return result


def prepare(folder: Path, arguments: Namespace) -> tuple[Path, Path]:
    """Write a model and the requests for the scores of real answers; return their paths.

    Raises:
        InputError: The predictions are missing, or too few records are short enough.
    """
    from guardreasoner.evaluation.label_scores import alternatives, score_request
    from guardreasoner.model.backbone import Backbone
    from guardreasoner.tasks import GUARD_TASKS

    records, rollouts = read_predictions(arguments.predictions)
    model = folder / "base"
    make_base(model, records, rollouts, arguments)
    scale_weights(model)
    prompt_tokenizer = Backbone(str(model)).prompt_tokenizer
    texts = {rollout.record_id: rollout.completion for rollout in rollouts}

    def eligible() -> Any:
        for record in sorted(records, key=lambda record: hash_order(record.id)):
            prompt, found = prompt_tokenizer.prompt(record), alternatives(texts[record.id], GUARD_TASKS)
            if not found:
                continue
            request = score_request(record.id, prompt, "", found, prompt_tokenizer)
            if len(request.prompt) + max(map(len, request.continuations)) <= arguments.limit:
                yield {"id": record.id, "prompt": request.prompt, "continuations": request.continuations}

    chosen = list(islice(eligible(), arguments.records))
    if len(chosen) < arguments.records:
        raise InputError(f"--records: only {len(chosen)} records have at most {arguments.limit} tokens")
    path = folder / "requests.json"
    path.write_text(json.dumps(chosen))
    tokens = median(len(row["prompt"]) for row in chosen)
    print(f"{len(chosen)} records, median {tokens:,.0f} tokens before the labels", flush=True)
    return model, path


def rates(measured: dict[str, Any], records: int) -> dict[str, float]:
    """Return records per second, and the memory."""
    return {"records_per_second": records / measured["seconds"], **memory(measured)}


def line(name: str, measured: dict[str, Any]) -> str:
    """Return the line that is printed for one run."""
    return f"  {name:<36} {measured['records_per_second']:8.2f} records/s, {measured['memory_mb']:7,.0f} MB"


def table(result: dict[str, Any]) -> str:
    """Return the table of the comparison."""
    lines = ["", *(line(row["name"], row) for row in result["rows"])]
    lines += [ratio_text(ratio, ratio["against"]) for ratio in result["ratios"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
