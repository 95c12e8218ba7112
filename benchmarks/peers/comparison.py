"""The course of a comparison: equal losses first, then the best settings of each side, then runs in turn."""

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from guardreasoner.errors import InputError
from peers import machine, table
from peers.job import Job
from peers.outcome import outcome, settings
from peers.process import Failed, allocator_settings, run
from peers.ratios import TOLERANCE, Target, difference, in_turn, ratio, require_equal
from peers.real_pairs import fingerprint, length, prepare, rows_of, shape_of, tokens, useful_flops

SLACK = 0.05
"""Share of speed that we give up for memory when our micro-batch is chosen; TRL's is the fastest there is."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Settings of one side.

    Args:
        name: what the tables call them.
        side: "ours" or "trl".
        micro_batch: examples that are computed at once.
        options: of the side.
        order: "drawn"; "steps", the same with the longest of each step first, so that micro-batches hold like with
            like; or "length", where steps hold like with like too.
        same_loss: whether its reduction is ours, so that its losses must be ours.
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
        arguments: the flags (:mod:`peers.flags`).
        folder: of model and examples.
    """

    def __init__(self, stage: str, arguments: Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.allocator = allocator_settings(arguments.allocator)
        paths = prepare(folder, arguments.predictions, arguments)
        self.examples = json.loads(Path(paths["examples"]).read_text())
        shape = shape_of(paths["base"])
        flops = [useful_flops(example, shape, bool(arguments.lora)) for example in self.examples]
        self.tokens_each = sum(map(tokens, self.examples)) / len(self.examples)
        self.flops_each = sum(flops) / len(flops)
        self.job = Job(
            side="",
            stage=stage,
            **paths,
            dtype=arguments.dtype,
            device=arguments.device,
            threads=arguments.threads,
            limit=arguments.limit,
        )
        self.speeds: dict[str, dict[Candidate, float]] = {}
        """By side, the rate of each choice that was tried."""
        self.peak_flops = run(self.job.but(side="peak"), self.allocator)["flops"]

    def steps(self, order: str, count: int | None = None) -> list[list[int]]:
        """Return a step to warm up and then ``count`` steps, or all, as numbers of examples."""
        size, numbers = self.arguments.batch, list(range(len(self.examples)))
        numbers = numbers[: (count or len(numbers)) * size]
        if order == "length":
            numbers.sort(key=self._longest_first)
        cut = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        if order == "steps":
            cut = [sorted(step, key=self._longest_first) for step in cut]
        return [cut[-1], *cut]

    def run(self, choice: Candidate, count: int | None = None, check: bool = False) -> dict[str, Any]:
        """Run some settings and add rates to what was measured; the first step is left out of them."""
        found = run(
            self.job.but(
                side=choice.side,
                micro_batch=choice.micro_batch,
                options=choice.options,
                steps=self.steps(choice.order, count),
                check=check,
            ),
            self.allocator,
        )
        rate = sum(found["examples"][1:]) / sum(found["seconds"][1:])
        return {
            **found,
            "pairs_per_second": rate,
            "tokens_per_second": rate * self.tokens_each,
            "mfu": rate * self.flops_each / self.peak_flops,
            "memory_mb": found["peak_mb"] - found["before_mb"],
        }

    def losses(self, name: str, ours: Candidate, theirs: Candidate) -> dict[str, Any]:
        """Compare the losses of the first optimizer steps, each after the updates before it, and the ids trained on.

        Raises:
            InputError: they differ, so that no speed could be compared.
        """
        count = min(3, len(self.examples) // self.arguments.batch)
        left, right = (self.run(choice, count, check=True) for choice in (ours, theirs))
        served = [self.examples[number] for step in self.steps(ours.order, count) for number in step]
        if not left["rows"] == right["rows"] == fingerprint(rows_of(served)):
            raise InputError(f"{name}: the two sides were not trained on the same ids")
        differs = difference(left["losses"], right["losses"])
        print(table.losses(name, left["losses"], right["losses"], differs), flush=True)
        require_equal(name, differs, self.arguments.dtype)
        return {"what": name, "ours": left["losses"], "trl": right["losses"], "difference": differs}

    def search(
        self, choices: Sequence[Candidate], expected: list[float] | None = None, slack: float = 0.0
    ) -> tuple[Candidate, list[dict[str, Any]]]:
        """Return the fastest settings of all that were tried so far on their side, and a line for each of these.

        Args:
            choices: what to try, in order of memory where ``slack`` is given.
            expected: losses of the steps in the order "steps"; settings that say that they give these and do not, do
                not train what they should, and are left out.
            slack: take the first choice that is slower than the fastest by no more than this share.
        """
        tried = []
        speeds = self.speeds.setdefault(choices[0].side, {})
        for choice in choices:
            try:
                found = self.run(choice, self.arguments.search_steps)
            except Failed as error:
                print(f"  {choice.name:<44} failed: {error}", flush=True)
                tried.append({"name": choice.name, "failed": str(error)})
                continue
            wrong = 0.0
            if choice.same_loss and choice.order == "steps" and expected:
                wrong = difference(expected, found["losses"])
            tried.append({"name": choice.name, **table.figures(found), "loss_difference": wrong})
            print(table.trial(choice.name, found, wrong, TOLERANCE[self.arguments.dtype]), flush=True)
            if wrong <= TOLERANCE[self.arguments.dtype]:
                speeds[choice] = found["pairs_per_second"]
        if not speeds:
            raise InputError("none of these settings ran; see the lines above")
        fastest = max(speeds.values())
        return next(choice for choice, speed in speeds.items() if speed >= fastest * (1 - slack)), tried

    def search_ours(self, choices: Sequence[Candidate]) -> tuple[Candidate, list[dict[str, Any]]]:
        """Return our fastest settings, compiled where ``--compile`` asks for it and it pays, and what was tried."""
        best, tried = self.search(choices, slack=SLACK)
        if not self.arguments.compile:
            return best, tried
        compiled = replace(best, name=f"{best.name}, compiled", options=best.options | {"compile": True})
        found, more = self.search([compiled])
        return found, [*tried, *more]

    def result(
        self, ours: Candidate, rivals: dict[str, Candidate], targets: Sequence[Target], **more: Any
    ) -> dict[str, Any]:
        """Time all, print the table, and return what is written as JSON."""
        if self.arguments.best_alone:
            rivals = {"best": rivals["best"]}
        runs = in_turn([ours, *rivals.values()], self.arguments.repeats, self.run, table.trial)
        ratios = [
            ratio(what, against, *([one[name] for one in runs[side.name]] for side in (ours, choice)), targets)
            for against, choice in rivals.items()
            for what, name in (("speed", "pairs_per_second"), ("memory", "memory_mb"))
        ]
        found = {
            "comparison": self.job.stage,
            "settings": {**settings(self.arguments), "examples": len(self.examples)},
            "examples": {
                "prompt_tokens": median(len(example["prompt"]) for example in self.examples),
                "completion_tokens": median(len(c) for example in self.examples for c in example["completions"]),
            },
            "machine": machine.describe(self.job.device, self.job.threads),
            "allocator": self.allocator or "system",
            "matrix_peak_gflops": self.peak_flops / 1e9,
            "versions": machine.versions(),
            **more,
            "rows": [
                {"role": role, "name": choice.name, **table.summary(runs[choice.name])}
                for role, choice in (("ours", ours), *rivals.items())
            ],
            "ratios": ratios,
        }
        print(table.whole(found))
        return found

    def _longest_first(self, number: int) -> int:
        return -length(self.examples[number])


def compare(stage: str, arguments: Namespace, course: Callable[[Comparison], dict[str, Any]]) -> None:
    """Run a comparison in a folder of its own and write its JSON; what is wrong is one line.

    Args:
        stage: "hsdpo" or "rsft".
        arguments: the flags.
        course: takes the :class:`Comparison` and returns its result.
    """
    arguments.stage = stage
    outcome(arguments, lambda folder: course(Comparison(stage, arguments, folder)))
