"""Runs of inference engines: memory, the search for the fastest settings, and medians over runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from guardreasoner.errors import InputError
from peers.job import Sampling, Scoring
from peers.process import MeasurementFailed


@dataclass(frozen=True)
class EngineCandidate:
    """Settings of one side.

    Args:
        name: Name in the tables.
        job: The run to measure.
    """

    name: str
    job: Sampling | Scoring


def search(
    candidates: Sequence[EngineCandidate],
    measure: Callable[[EngineCandidate], dict[str, Any]],
    speed: str,
    line: Callable[[str, dict[str, Any]], str],
) -> tuple[EngineCandidate, list[dict[str, Any]]]:
    """Return the fastest candidate, and the measurements of each trial; a single candidate is not tried.

    Args:
        candidates: What to try, at least one.
        measure: Takes a candidate and returns its measurements.
        speed: The measurement that is largest for the fastest candidate.
        line: Takes a name and measurements, and returns the line to print.

    Raises:
        InputError: No candidate ran.
    """
    if len(candidates) == 1:
        return candidates[0], []
    trials, speeds = [], {}
    for candidate in candidates:
        try:
            measured = measure(candidate)
        except MeasurementFailed as error:
            print(f"  {candidate.name:<36} failed: {error}", flush=True)
            trials.append({"name": candidate.name, "failed": str(error)})
            continue
        print(line(candidate.name, measured), flush=True)
        trials.append({"name": candidate.name, **measured})
        speeds[candidate] = measured[speed]
    if not speeds:
        raise InputError("none of these settings ran; see the lines above")
    return max(speeds, key=lambda candidate: speeds[candidate]), trials


def memory(measured: dict[str, Any]) -> dict[str, float]:
    """Return the memory in MB: that used beyond what was used before the model was loaded, and the peak."""
    return {"memory_mb": measured["peak_mb"] - measured["before_mb"], "peak_mb": measured["peak_mb"]}


def summary(runs: Sequence[dict[str, float]], speed: str) -> dict[str, float]:
    """Return the median of each measurement over the runs, and the range of the speed."""
    speeds = [run[speed] for run in runs]
    medians = {name: median(run[name] for run in runs) for name in runs[0]}
    return {**medians, "slowest": min(speeds), "fastest": max(speeds), "runs": len(runs)}
