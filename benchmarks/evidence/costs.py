"""What a stage took: seconds over all its starts, and the tokens that it generated or trained on."""

import json
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from evidence.curves import last_values
from guardreasoner.records import replacing_file
from guardreasoner.sources.rollouts import read_costs
from guardreasoner.workflow.config import Command

TOKENS = "train/tokens"
"""Curve of the tokens that a fit has trained on so far."""
GENERATED = "train/generated_tokens"
"""Curve of the tokens that a fit has sampled so far, if it samples."""


@contextmanager
def measured(path: Path) -> Iterator[None]:
    """Add the wall time and the CPU time of the processes that are run inside to a file.

    A stage that was stopped goes on adding. The seconds of a start that was killed together with this process are not
    known; the number of starts shows that they are missing.

    Args:
        path: The file, one per stage.
    """
    former = _read(path)
    total = {"wall": 0.0, "cpu": 0.0, "starts": 0.0} if former.get("finished", 1.0) else former
    total |= {"starts": total["starts"] + 1, "finished": 0.0}
    _write(path, total)
    wall, cpu = time.monotonic(), _cpu_of_children()
    try:
        yield
        total["finished"] = 1.0
    finally:
        total["wall"] += time.monotonic() - wall
        total["cpu"] += _cpu_of_children() - cpu
        _write(path, total)


def stage_cost(stage: Command, path: Path) -> dict[str, float]:
    """Return seconds, starts and tokens of a stage.

    Args:
        stage: The stage, which is built.
        path: File of :func:`measured`.
    """
    seconds = _read(path)
    cost = {name: round(seconds.get(name, 0.0), 1) for name in ("wall", "cpu", "starts")}
    if stage.verb == "fit":
        values = last_values(stage)
        cost["trained"] = values.get(TOKENS, 0.0)
        if GENERATED in values:
            cost["generated"] = values[GENERATED]
    elif stage.output is not None and (found := read_costs([stage.output])):
        cost["generated"] = float(sum(one.tokens for one in found))
    return cost


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read(path: Path) -> dict[str, float]:
    with suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _write(path: Path, cost: Mapping[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as partial:
        partial.write_text(json.dumps(cost), encoding="utf-8")
