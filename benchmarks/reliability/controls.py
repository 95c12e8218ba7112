"""Fits with a planted fault: the comparison of killed fits must notice it, or its successes would mean nothing."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reliability import children
from reliability.children import Report
from reliability.fits import FITS, Fit, Inputs, Wholes
from reliability.kills import interrupt
from reliability.part import Outcome, Part, Trial

_BY_NAME = {fit.name: fit for fit in FITS}
TRIES = 3
"""Killed fits within which the fault must show. A kill before the first checkpoint does not show it."""


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield a trial for each planted fault."""
    children.preload()
    wholes = Wholes(folder / "wholes", Inputs.make(folder / "inputs"))
    yield [
        Trial(
            "a loader without state", partial(notice, fit=_BY_NAME["rsft"], wholes=wholes, plant=forget_the_position)
        ),
        Trial(
            "a reference taken from live weights",
            partial(notice, fit=_BY_NAME["hsdpo-frozen-copy"], wholes=wholes, plant=copy_the_live_policy),
        ),
    ]


def notice(folder: Path, fit: Fit, wholes: Wholes, plant: Callable[[Report], None]) -> Outcome:
    """Require that the weights of a killed fit with a planted fault differ from those of the uninterrupted fit."""
    if failure := wholes.of(fit).failure:
        return Outcome(failure=failure)
    for seed in range(TRIES):
        (folder / str(seed)).mkdir()
        _, problems = interrupt(folder / str(seed), fit, wholes, seed, plant, kills=1)
        if weights := [line for line in problems if line.startswith("model.safetensors: ") and "differs" in line]:
            return Outcome(note=f"noticed: {len(weights)} tensors differ")
    return Outcome(failure=f"not noticed in {TRIES} killed fits")


def forget_the_position(report: Report) -> None:
    """Make the training loader ignore its saved position."""
    from guardreasoner.training.loaders import StepLoader

    StepLoader.load_state_dict = lambda self, state: None


def copy_the_live_policy(report: Report) -> None:
    """Make the reference a copy of the policy as it is at the first step of this process."""
    from guardreasoner.training.hsdpo import HSDPOModule
    from guardreasoner.training.reference import FrozenCopy

    original = HSDPOModule.on_train_batch_start
    copied: list[bool] = []

    def on_train_batch_start(self: Any, batch: Any, index: int) -> Any:
        if not copied:
            assert isinstance(self.reference, FrozenCopy)
            self.reference._copy = copy.deepcopy(self.backbone).eval().requires_grad_(False)
            copied.append(True)
        return original(self, batch, index)

    HSDPOModule.on_train_batch_start = on_train_batch_start


PART = Part("controls", "planted faults that the comparison of killed fits must notice", 2, "faults", trials)
