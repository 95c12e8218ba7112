"""A comparison with TRL: equal losses first, then the fastest settings of each side, then timed runs."""

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from guardreasoner.errors import InputError
from peers import machine, table
from peers.flops import shape_of, useful_flops
from peers.job import Job
from peers.process import MeasurementFailed, allocator_settings, run
from peers.ratios import TOLERANCE, Target, difference, in_turn, ratio, require_equal, speed_and_memory
from peers.real_pairs import fingerprint, length, prepare, rows_of, tokens
from peers.result_file import run_and_write, settings

SLACK = 0.05
"""Share of speed that our side gives up for memory when its micro-batch is chosen; TRL's is always the fastest."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Settings of one side.

    Args:
        name: Name in the tables.
        side: "ours" or "trl".
        micro_batch: Examples per micro-batch.
        options: Further settings of the side.
        order: Order of the examples: "drawn"; "steps", sorted by length within each optimizer step; or "length",
            sorted by length over all steps.
        same_loss: Whether its loss reduction equals ours, so that its losses must equal ours.
    """

    name: str
    side: str
    micro_batch: int
    options: dict[str, Any] = field(default_factory=dict)
    order: str = "steps"
    same_loss: bool = True


class Comparison:
    """Runs one comparison on one model and one set of examples.

    Args:
        stage: "hsdpo" or "rsft".
        arguments: The flags (:mod:`peers.flags`).
        folder: Folder for model and examples.
    """

    def __init__(self, stage: str, arguments: Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.allocator = allocator_settings(arguments.allocator)
        paths = prepare(folder, arguments.predictions, arguments)
        self.examples = json.loads(Path(paths["examples"]).read_text())
        shape = shape_of(paths["base"], paths["model"])
        steps = [[self.examples[number] for number in step] for step in self.steps("drawn")[1:]]
        self.tokens_each = sum(map(tokens, self.examples)) / len(self.examples)
        self.flops_each = sum(useful_flops(step, shape) for step in steps) / len(self.examples)
        self.job = Job(
            side="",
            stage=stage,
            **paths,
            dtype=arguments.dtype,
            device=arguments.device,
            threads=arguments.threads,
            limit=arguments.limit,
            clock=arguments.clock,
        )
        self.speeds: dict[str, dict[Candidate, float]] = {}
        """By side, examples per second of each candidate tried so far."""
        self.peak_flops = run(self.job.replaced(side="peak"), self.allocator)["flops"]

    def steps(self, order: str, count: int | None = None) -> list[list[int]]:
        """Return one warm-up step and then ``count`` steps (or all), as lists of example indices."""
        size, numbers = self.arguments.batch, list(range(len(self.examples)))
        numbers = numbers[: (count or len(numbers)) * size]
        if order == "length":
            numbers.sort(key=self._longest_first)
        cut = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        if order == "steps":
            cut = [sorted(step, key=self._longest_first) for step in cut]
        return [cut[-1], *cut]

    def run(self, candidate: Candidate, count: int | None = None, check: bool = False) -> dict[str, Any]:
        """Run a candidate and return the measurements with rates, which leave out the warm-up step.

        Raises:
            InputError: There was no other step.
        """
        measured = run(
            self.job.replaced(
                side=candidate.side,
                micro_batch=candidate.micro_batch,
                options=candidate.options,
                steps=self.steps(candidate.order, count),
                check=check,
            ),
            self.allocator,
        )
        rate = timed_rate(candidate.name, measured)
        return {
            **measured,
            "pairs_per_second": rate,
            "tokens_per_second": rate * self.tokens_each,
            "share": rate * self.flops_each / self.peak_flops,
            "memory_mb": measured["peak_mb"] - measured["before_mb"],
        }

    def losses(self, name: str, ours: Candidate, theirs: Candidate) -> dict[str, Any]:
        """Compare the losses of the first optimizer steps and the token ids of both sides.

        Raises:
            InputError: They differ, so speeds cannot be compared.
        """
        count = min(3, len(self.examples) // self.arguments.batch)
        left, right = (self.run(candidate, count, check=True) for candidate in (ours, theirs))
        served = [self.examples[number] for step in self.steps(ours.order, count) for number in step]
        if not left["rows"] == right["rows"] == fingerprint(rows_of(served)):
            raise InputError(f"{name}: the two sides were trained on different ids")
        differs = difference(left["losses"], right["losses"])
        print(table.losses(name, left["losses"], right["losses"], differs), flush=True)
        require_equal(name, differs, self.arguments.dtype)
        return {"what": name, "ours": left["losses"], "trl": right["losses"], "difference": differs}

    def search(
        self, candidates: Sequence[Candidate], expected: list[float] | None = None, slack: float = 0.0
    ) -> tuple[Candidate, list[dict[str, Any]]]:
        """Return the fastest candidate tried so far on this side, and the measurements of the new trials.

        Args:
            candidates: Candidates of one side, ordered by memory if ``slack`` is given.
            expected: Expected losses in the order "steps"; candidates with ``same_loss`` and other losses are left out.
            slack: Return the first candidate that is slower than the fastest by at most this share.
        """
        trials = []
        speeds = self.speeds.setdefault(candidates[0].side, {})
        for candidate in candidates:
            try:
                measured = self.run(candidate, self.arguments.search_steps)
            except MeasurementFailed as error:
                print(f"  {candidate.name:<44} failed: {error}", flush=True)
                trials.append({"name": candidate.name, "failed": str(error)})
                continue
            deviation = 0.0
            if candidate.same_loss and candidate.order == "steps" and expected:
                deviation = difference(expected, measured["losses"])
            trials.append({"name": candidate.name, **table.kept_measurements(measured), "loss_difference": deviation})
            print(table.trial(candidate.name, measured, deviation, TOLERANCE[self.arguments.dtype]), flush=True)
            if deviation <= TOLERANCE[self.arguments.dtype]:
                speeds[candidate] = measured["pairs_per_second"]
        if not speeds:
            raise InputError("none of these settings ran; see the lines above")
        fastest = max(speeds.values())
        best = next(candidate for candidate, speed in speeds.items() if speed >= fastest * (1 - slack))
        return best, trials

    def search_ours(self, candidates: Sequence[Candidate]) -> tuple[Candidate, list[dict[str, Any]]]:
        """Return our fastest candidate, compiled if ``--compile`` is given and faster, and all trials."""
        best, trials = self.search(candidates, slack=SLACK)
        if not self.arguments.compile:
            return best, trials
        compiled = replace(best, name=f"{best.name}, compiled", options=best.options | {"compile": True})
        best, more_trials = self.search([compiled])
        return best, [*trials, *more_trials]

    def result(
        self, ours: Candidate, rivals: dict[str, Candidate], targets: Sequence[Target], **more: Any
    ) -> dict[str, Any]:
        """Time all sides, print the table, and return the result for JSON."""
        if self.arguments.best_alone:
            rivals = {"best": rivals["best"]}
        runs = in_turn([ours, *rivals.values()], self.arguments.repeats, self.run, table.trial)
        ratios = [
            each
            for against, rival in rivals.items()
            for each in speed_and_memory(against, runs[ours.name], runs[rival.name], "pairs_per_second", targets)
        ]
        shares = [measured["share"] for measured in runs[ours.name]]
        ratios.append(ratio("share", "limit", shares, [1.0] * len(shares), targets))
        result = {
            "comparison": self.job.stage,
            "settings": {**settings(self.arguments), "examples": len(self.examples)},
            "examples": {
                "prompt_tokens": median(len(example["prompt"]) for example in self.examples),
                "completion_tokens": median(len(c) for example in self.examples for c in example["completions"]),
            },
            "machine": machine.describe(self.job.device, self.job.threads),
            "allocator": self.allocator or "system",
            "matrix_peak_gflops": self.peak_flops / 1e9,
            "useful_gflops": self.flops_each / 1e9,
            "versions": machine.versions(),
            **more,
            "rows": [
                {"role": role, "name": side.name, **table.summary(runs[side.name])}
                for role, side in (("ours", ours), *rivals.items())
            ],
            "ratios": ratios,
        }
        print(table.comparison(result))
        return result

    def _longest_first(self, number: int) -> int:
        return -length(self.examples[number])


def timed_rate(name: str, measured: dict[str, Any]) -> float:
    """Return the examples per second of a run after its first step, which is a warm-up.

    Raises:
        InputError: There was one step only, as with packing if all examples fit into it.
    """
    seconds = measured["seconds"][1:]
    if not seconds:
        raise InputError(
            f"{name}: all examples were in the first optimizer step, which is not timed",
            "raise --search-steps or --pairs",
        )
    return float(sum(measured["examples"][1:]) / sum(seconds))


def compare(stage: str, arguments: Namespace, measure: Callable[[Comparison], dict[str, Any]]) -> None:
    """Run a comparison in a temporary folder and write its JSON; an error exits with one line.

    Args:
        stage: "hsdpo" or "rsft".
        arguments: The flags.
        measure: Takes the :class:`Comparison` and returns its result.
    """
    arguments.stage = stage
    run_and_write(arguments, lambda folder: measure(Comparison(stage, arguments, folder)))
