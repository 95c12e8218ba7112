"""Runs the parts within the time budget and keeps a row of each, so that a second run measures what is missing."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers.flops import shape_of, useful_flops
from peers.process import MeasurementFailed, run
from peers.real_pairs import tokens

from gpu.parts import Part

SHORTEST = 10.0
"""Seconds below which no part is started any more."""
_LINE = 160

Row = dict[str, Any]


def rows_of(parts: Iterable[Part], folder: Path, seconds: float, slowness: float = 1) -> Iterator[Row]:
    """Yield the row of each part, from an earlier run or measured now.

    A row has ``name``, ``kind``, ``status`` ("done", "failed" or "not run") and, where it is not done, ``reason``.

    Args:
        parts: The parts.
        folder: Folder of the rows.
        seconds: Time budget of all parts together.
        slowness: Factor of the time limits of the parts.
    """
    deadline = time.monotonic() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    peak: float | None = None
    for part in parts:
        path = folder / f"{_key(part)}.json"
        if path.is_file():
            row = json.loads(path.read_text())
        else:
            row = _measured(part, slowness * part.seconds, deadline - time.monotonic(), seconds)
        if row["status"] == "done":
            path.write_text(json.dumps(row))
        if part.kind == "peak":
            peak = row.get("flops")
        if "flops_per_second" in row:
            row["share"] = row["flops_per_second"] / peak if peak else None
        yield row


def _key(part: Part) -> str:
    return hashlib.sha256(json.dumps([part.name, asdict(part.job)], sort_keys=True).encode()).hexdigest()[:16]


def _measured(part: Part, limit: float, left: float, budget: float) -> Row:
    row: Row = {"name": part.name, "kind": part.kind}
    if obstacle := part.obstacle:
        return {**row, "status": "not run", "reason": obstacle}
    if left < SHORTEST:
        return {**row, "status": "not run", "reason": f"the {budget / 60:g} minutes were over"}
    start_time = time.monotonic()
    try:
        measured = run(part.job, {}, min(limit, left))
    except MeasurementFailed as error:
        row |= {"status": "failed", "reason": str(error)[:_LINE]} | error.partial
    else:
        row |= {"status": "done"} | (_rates(part, measured) if part.kind == "training" else measured)
    if part.kind == "decoding" and row["status"] == "done":
        row["tokens_per_second"] = measured["tokens"] / measured["seconds"]
    return row | {"process_seconds": time.monotonic() - start_time}


def _rates(part: Part, measured: dict[str, Any]) -> Row:
    """Return rates without the first step, which is a warm-up, and memory in MB."""
    job = getattr(part.job, "job", part.job)
    examples = json.loads(Path(job.examples).read_text())[: len(job.steps[0])]
    rate = sum(measured["examples"][1:]) / sum(measured["seconds"][1:])
    return {
        "tokens_per_second": rate * sum(map(tokens, examples)) / len(examples),
        "flops_per_second": rate * useful_flops(examples, shape_of(job.base, job.model)) / len(examples),
        "first_step_seconds": measured["seconds"][0],
        "step_seconds": sum(measured["seconds"][1:]) / len(measured["seconds"][1:]),
        "peak_mb": measured["peak_mb"],
        "losses": measured["losses"],
        **{name: measured[name] for name in ("device_mb", "predicted_mb") if name in measured},
    }
